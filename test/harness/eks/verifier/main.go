// Verifier is an authentication webhook for the API server: aws-iam-authenticator's
// own verifier, behind which STS is answered here, after its request's signature
// was checked.
//
//	verifier -cluster NAME -keys FILE -address FILE
//
// It listens on a free port of the loopback and writes the address to a file.
//
// Each line of the file with the keys reads ACCESS-KEY-ID SECRET-ACCESS-KEY USER, where the
// user is an IAM user's name. The file is read for every token. Users are
// members of system:masters. Lines on stdout say what came of each token.
package main

import (
	"bytes"
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/url"
	"os"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	v4 "github.com/aws/aws-sdk-go-v2/aws/signer/v4"
	"sigs.k8s.io/aws-iam-authenticator/pkg/token"

	"github.com/pullpass/pullpass/credcache/files"
)

func main() {
	cluster := flag.String("cluster", "", "the cluster's name")
	keys := flag.String("keys", "", "file with the keys of users")
	address := flag.String("address", "", "file to write the address to")
	flag.Parse()
	http.DefaultTransport = sts{keys: *keys}
	verifier := token.NewVerifier(*cluster, "aws", "eu-west-1")
	log.SetFlags(0)
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		log.Fatal(err)
	}
	if err := files.Write(*address, []byte(listener.Addr().String()), 0o600); err != nil {
		log.Fatal(err)
	}
	log.Fatal(http.Serve(listener, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { review(verifier, w, r) })))
}

// review answers a TokenReview.
func review(verifier token.Verifier, w http.ResponseWriter, r *http.Request) {
	var tokenReview struct {
		APIVersion string                 `json:"apiVersion"`
		Kind       string                 `json:"kind"`
		Spec       struct{ Token string } `json:"spec"`
		Status     map[string]any         `json:"status"`
	}
	if err := json.NewDecoder(r.Body).Decode(&tokenReview); err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	identity, err := verifier.Verify(tokenReview.Spec.Token)
	tokenReview.Spec.Token = ""
	if err != nil {
		fmt.Printf("refused: %v\n", err)
		tokenReview.Status = map[string]any{"authenticated": false, "error": err.Error()}
	} else {
		fmt.Printf("accepted: %s\n", identity.ARN)
		tokenReview.Status = map[string]any{"authenticated": true, "user": map[string]any{
			"username": identity.ARN, "groups": []string{"system:masters"},
		}}
	}
	w.Header().Set("Content-Type", "application/json")
	if err := json.NewEncoder(w).Encode(tokenReview); err != nil {
		fmt.Printf("answering: %v\n", err)
	}
}

// sts answers GetCallerIdentity in AWS's place.
type sts struct{ keys string }

func (s sts) RoundTrip(r *http.Request) (*http.Response, error) {
	user, err := s.check(r)
	if err != nil {
		fmt.Printf("sts: %v\n", err)
		return answer(r, http.StatusForbidden, `{"Error":{"Code":"SignatureDoesNotMatch"}}`), nil
	}
	return answer(r, http.StatusOK, fmt.Sprintf(
		`{"GetCallerIdentityResponse":{"GetCallerIdentityResult":{"Account":"123456789012","Arn":"arn:aws:iam::123456789012:user/%s","UserId":"AIDAEXAMPLE"},"ResponseMetadata":{"RequestId":"1"}}}`, user)), nil
}

func answer(r *http.Request, status int, body string) *http.Response {
	return &http.Response{StatusCode: status, Request: r, Header: http.Header{"Content-Type": {"application/json"}}, Body: io.NopCloser(strings.NewReader(body))}
}

// check signs the request anew, with the AWS SDK, and compares.
func (s sts) check(r *http.Request) (user string, err error) {
	query := r.URL.Query()
	scope := strings.Split(query.Get("X-Amz-Credential"), "/")
	content, err := os.ReadFile(s.keys)
	if err != nil || len(scope) != 5 {
		return "", fmt.Errorf("scope %q: %w", scope, err)
	}
	var secret string
	for line := range bytes.Lines(content) {
		if f := strings.Fields(string(line)); len(f) == 3 && f[0] == scope[0] {
			secret, user = f[1], f[2]
		}
	}
	if secret == "" {
		return "", fmt.Errorf("no key %q", scope[0])
	}
	date, err := time.Parse("20060102T150405Z", query.Get("X-Amz-Date"))
	if err != nil {
		return "", err
	}
	if age := time.Since(date); age > 15*time.Minute || age < -15*time.Minute {
		return "", fmt.Errorf("signed %s ago", age)
	}
	unsigned := url.Values{}
	for _, name := range []string{"Action", "Version", "X-Amz-Expires"} {
		unsigned.Set(name, query.Get(name))
	}
	again, err := http.NewRequest(http.MethodGet, "https://"+r.URL.Host+"/?"+unsigned.Encode(), nil)
	if err != nil {
		return "", err
	}
	again.Header.Set("x-k8s-aws-id", r.Header.Get("x-k8s-aws-id"))
	const empty = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
	signed, _, err := v4.NewSigner().PresignHTTP(context.Background(),
		aws.Credentials{AccessKeyID: scope[0], SecretAccessKey: secret, SessionToken: query.Get("X-Amz-Security-Token")},
		again, empty, scope[3], scope[2], date)
	if err != nil {
		return "", err
	}
	want, err := url.Parse(signed)
	if err != nil {
		return "", err
	}
	if want.Query().Get("X-Amz-Signature") != query.Get("X-Amz-Signature") {
		return "", fmt.Errorf("the signature of %s is wrong", scope[0])
	}
	return user, nil
}
