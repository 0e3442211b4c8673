//go:build tools

// Package pins keeps modules in go.mod of which only files are used: the
// CustomResourceDefinitions of the Prometheus operator.
package pins

import _ "github.com/prometheus-operator/prometheus-operator/pkg/versionutil"
