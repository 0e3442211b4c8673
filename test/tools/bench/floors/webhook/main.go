// Webhook is the least that an admission webhook can do: it reads the body of a
// request and allows it by its uid, over TLS. With -secret it also returns one
// patch, always the same, of the size of pullpass's own.
package main

import (
	"bytes"
	"encoding/base64"
	"flag"
	"fmt"
	"io"
	"net/http"
	"os"
	"time"
)

func main() {
	address := flag.String("listen-address", "", "`HOST:PORT`")
	cert := flag.String("tls-cert-file", "", "`FILE`")
	key := flag.String("tls-private-key-file", "", "`FILE`")
	secret := flag.String("secret", "", "`NAME` of the pull secret that every pod is given")
	flag.Parse()
	rest := `"allowed":true}}`
	if *secret != "" {
		patch := fmt.Sprintf(`[{"op":"add","path":"/spec/imagePullSecrets","value":[{"name":%q}]}]`, *secret)
		rest = `"allowed":true,"patchType":"JSONPatch","patch":"` + base64.StdEncoding.EncodeToString([]byte(patch)) + `"}}`
	}
	server := &http.Server{
		Addr:              *address,
		ReadHeaderTimeout: 10 * time.Second,
		Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			body, err := io.ReadAll(r.Body)
			if err != nil {
				http.Error(w, err.Error(), http.StatusBadRequest)
				return
			}
			_, after, _ := bytes.Cut(body, []byte(`"uid":"`))
			uid, _, _ := bytes.Cut(after, []byte(`"`))
			w.Header().Set("Content-Type", "application/json")
			fmt.Fprintf(w, `{"kind":"AdmissionReview","apiVersion":"admission.k8s.io/v1","response":{"uid":"%s",%s`, uid, rest)
		}),
	}
	fmt.Fprintln(os.Stderr, "webhook:", server.ListenAndServeTLS(*cert, *key))
	os.Exit(1)
}
