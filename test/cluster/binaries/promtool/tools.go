//go:build tools

package main

// promtool is named, so that `go mod tidy` keeps what it needs.
import _ "github.com/prometheus/prometheus/cmd/promtool"
