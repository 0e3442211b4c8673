// Authorities prints Mozilla's certificate authorities, PEM, as a Go module pins
// them: those of the machine would make another image on each. It is a module of its
// own, so that a new list does not make the tests build Kubernetes again.
package main

import (
	"encoding/pem"
	"fmt"
	"os"

	"golang.org/x/crypto/x509roots/fallback/bundle"
)

func main() {
	for root := range bundle.Roots() {
		if root.Constraint != nil {
			continue // PEM cannot say what an authority is trusted for
		}
		if err := pem.Encode(os.Stdout, &pem.Block{Type: "CERTIFICATE", Bytes: root.Certificate}); err != nil {
			fmt.Fprintln(os.Stderr, "authorities:", err)
			os.Exit(1)
		}
	}
}
