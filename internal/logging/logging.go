// Package logging creates the logger of a program. client-go logs through it too, so that
// a program logs in one format only.
package logging

import (
	"fmt"
	"io"
	"log/slog"
	"strings"

	"k8s.io/klog/v2"
)

// New returns a logger that writes records of this level (debug, info, warn or error) and
// above to w, as json or text.
func New(w io.Writer, level, format string) (*slog.Logger, error) {
	var options slog.HandlerOptions
	var l slog.Level
	if err := l.UnmarshalText([]byte(level)); err != nil || strings.ContainsAny(level, "+-") {
		return nil, fmt.Errorf("--log-level=%q: want debug, info, warn or error", level)
	}
	options.Level = l
	var handler slog.Handler
	switch format {
	case "json":
		handler = slog.NewJSONHandler(w, &options)
	case "text":
		handler = slog.NewTextHandler(w, &options)
	default:
		return nil, fmt.Errorf("--log-format=%q: want json or text", format)
	}
	log := slog.New(handler)
	klog.SetSlogLogger(log.With("logger", "client-go"))
	return log, nil
}
