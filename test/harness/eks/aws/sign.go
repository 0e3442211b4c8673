package main

import (
	"context"
	"encoding/base64"
	"net/http"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	v4 "github.com/aws/aws-sdk-go-v2/aws/signer/v4"
)

// sign makes a token of EKS.
func sign(who identity, secret string, now time.Time) string {
	host := or(who.host, "sts."+who.region+".amazonaws.com")
	request, err := http.NewRequest(http.MethodGet, "https://"+host+"/?Action=GetCallerIdentity&Version=2011-06-15&X-Amz-Expires=60", nil)
	check(err)
	request.Header.Set("x-k8s-aws-id", who.cluster)
	const empty = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
	url, _, err := v4.NewSigner().PresignHTTP(context.Background(), aws.Credentials{AccessKeyID: who.key, SecretAccessKey: secret},
		request, empty, "sts", who.region, now.UTC())
	check(err)
	return "k8s-aws-v1." + base64.RawURLEncoding.EncodeToString([]byte(url))
}
