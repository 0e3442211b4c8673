//go:build tools

// Package tools names a package of cert-manager, so that `go mod tidy` keeps the
// module. Only the files under its deploy/crds are used.
package tools

import _ "github.com/cert-manager/cert-manager/pkg/apis/certmanager"
