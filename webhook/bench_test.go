package webhook

import (
	"bufio"
	"bytes"
	"crypto/tls"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"testing"
	"time"

	"github.com/pullpass/pullpass/internal/injection"
)

// BenchmarkDecode compares the scanner with what encoding/json takes to find
// the same, and to check the syntax alone.
func BenchmarkDecode(b *testing.B) {
	body := realReview(b)
	r := new(reviewReader)
	var shape struct {
		APIVersion, Kind string
		Request          struct {
			UID, SubResource, Namespace, Operation string

			Kind, Resource struct{ Group, Version, Kind, Resource string }
			Object         struct {
				Metadata struct {
					Name, GenerateName string
					Labels             struct {
						Inject string `json:"pullpass.dev/inject"`
					}
					Annotations struct {
						Mirror *string `json:"kubernetes.io/config.mirror"`
					}
				}
				Spec *struct {
					ImagePullSecrets           []struct{ Name string }
					InitContainers, Containers []struct{ Image string }
					Volumes                    []struct{ Image struct{ Reference string } }
				}
			}
		}
	}
	for _, c := range []struct {
		name   string
		decode func() error
	}{
		{"scanner", func() error {
			_, err := r.decodeReview(bytes.NewReader(body))
			return err
		}},
		{"encoding/json", func() error { return json.Unmarshal(body, &shape) }},
		{"encoding/json.Valid", func() error { json.Valid(body); return nil }},
	} {
		b.Run(c.name, func(b *testing.B) {
			b.SetBytes(int64(len(body)))
			b.ReportAllocs()
			for b.Loop() {
				if err := c.decode(); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// BenchmarkOverTLS sends a review over one connection to the webhook and to a
// server that reads the body and echoes the uid. In "side by side" they take
// turns, and the ratio of their times is reported. Both times include the
// client's, which is as small as can be.
func BenchmarkOverTLS(b *testing.B) {
	v := newVolume(b)
	v.swap(validLeaf(b, 1))
	r := start(b, v, nil, nil)
	review, noop := newSender(b, r.address), newSender(b, startNoop(b, v))
	for name, send := range map[string]func(*testing.B){"review": review, "no-op": noop} {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				send(b)
			}
		})
	}
	b.Run("side by side", func(b *testing.B) {
		var reviews, noops time.Duration
		for b.Loop() {
			start := time.Now()
			review(b)
			middle := time.Now()
			noop(b)
			reviews, noops = reviews+middle.Sub(start), noops+time.Since(middle)
		}
		b.ReportMetric(float64(reviews)/float64(noops), "ratio")
	})
}

// BenchmarkMutate is the decision alone.
func BenchmarkMutate(b *testing.B) {
	m := newMutator("pullpass", injection.Matching, &fakeNamespaces{cached: map[string]labels{"shop": {"123456789012.dkr.ecr.eu-west-1.amazonaws.com": "true"}}}, time.Second)
	req, err := decode(realReview(b))
	if err != nil {
		b.Fatal(err)
	}
	b.ReportAllocs()
	for b.Loop() {
		if _, result, err := m.Mutate(b.Context(), time.Second, req); result != injected {
			b.Fatal(result, err)
		}
	}
}

// startNoop serves the least that a webhook can do.
func startNoop(b *testing.B, v volume) string {
	cfg := v.config()
	cert, err := tls.LoadX509KeyPair(cfg.TLSCertFile, cfg.TLSPrivateKeyFile)
	if err != nil {
		b.Fatal(err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		b.Fatal(err)
	}
	srv := &http.Server{
		TLSConfig: &tls.Config{Certificates: []tls.Certificate{cert}, NextProtos: []string{"http/1.1"}},
		Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			body, _ := io.ReadAll(r.Body)
			_, after, _ := bytes.Cut(body, []byte(`"uid":"`))
			uid, _, _ := bytes.Cut(after, []byte(`"`))
			w.Header().Set("Content-Type", "application/json")
			fmt.Fprintf(w, `{"kind":"AdmissionReview","apiVersion":"admission.k8s.io/v1","response":{"uid":"%s","allowed":true}}`, uid)
		}),
	}
	done := make(chan struct{})
	go func() { defer close(done); _ = srv.ServeTLS(l, "", "") }()
	b.Cleanup(func() { srv.Close(); <-done })
	return l.Addr().String()
}

// newSender returns a function that sends the review and waits for the answer.
func newSender(b *testing.B, address string) func(*testing.B) {
	c, err := tls.Dial("tcp", address, &tls.Config{InsecureSkipVerify: true})
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { c.Close() })
	body := realReview(b)
	request := fmt.Appendf(nil, "POST /mutate?timeout=2s HTTP/1.1\r\nHost: pullpass\r\nUser-Agent: kube-apiserver-admission\r\nContent-Length: %d\r\nAccept: application/json, */*\r\nContent-Type: application/json\r\nAccept-Encoding: gzip\r\n\r\n%s", len(body), body)
	answers := bufio.NewReader(c)
	return func(b *testing.B) {
		if _, err := c.Write(request); err != nil {
			b.Fatal(err)
		}
		res, err := http.ReadResponse(answers, nil)
		if err != nil {
			b.Fatal(err)
		}
		if _, err := io.Copy(io.Discard, res.Body); err != nil || res.StatusCode != http.StatusOK {
			b.Fatal(res.Status, err)
		}
	}
}
