//go:build tools

// Package tools names a package of the Prometheus operator, so that `go mod tidy`
// keeps the module. Only the files under its example/prometheus-operator-crd are
// used.
package tools

import _ "github.com/prometheus-operator/prometheus-operator/pkg/versionutil"
