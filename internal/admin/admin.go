// Package admin serves what operators and the kubelet ask of a program:
// /metrics, /livez and /readyz. It holds no secrets and takes no input.
package admin

import (
	"fmt"
	"net/http"

	"github.com/go-chi/chi/v5"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/pullpass/pullpass/internal/version"
)

// A Check is one condition of a probe. Its error says what is wrong, in words
// that may be shown to anyone who can reach the port. Func is called for every
// probe and every scrape, and so must not wait for anything.
type Check struct {
	Name string
	Func func() error
}

// Handler serves the metrics of reg, and each probe as a list of its checks with
// status 200 when all pass and 503 when one fails. It adds the metric
// pullpass_ready to reg, because alerts cannot ask probes.
func Handler(reg *prometheus.Registry, live, ready []Check) http.Handler {
	reg.MustRegister(readiness(ready))
	// A compressor takes a megabyte, and anybody may scrape.
	scrapes := promhttp.HandlerOpts{DisableCompression: true, MaxRequestsInFlight: 4}
	r := chi.NewRouter()
	r.Method(http.MethodGet, "/metrics", promhttp.HandlerFor(reg, scrapes))
	r.Get("/livez", probe(live))
	r.Get("/readyz", probe(ready))
	return r
}

func probe(checks []Check) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		status, body := http.StatusOK, ""
		for _, c := range checks {
			if err := c.Func(); err != nil {
				status = http.StatusServiceUnavailable
				body += fmt.Sprintf("[-]%s: %v\n", c.Name, err)
			} else {
				body += fmt.Sprintf("[+]%s ok\n", c.Name)
			}
		}
		w.Header().Set("Content-Type", "text/plain; charset=utf-8")
		w.WriteHeader(status)
		fmt.Fprint(w, body)
	}
}

// readiness collects the checks of the readiness probe, as they are at the scrape.
type readiness []Check

var readyDesc = prometheus.NewDesc("pullpass_ready", "1 while the readiness check passes, otherwise 0. /readyz shows the reason.", []string{"check"}, nil)

func (r readiness) Describe(descs chan<- *prometheus.Desc) { descs <- readyDesc }

func (r readiness) Collect(metrics chan<- prometheus.Metric) {
	for _, c := range r {
		value := 1.0
		if c.Func() != nil {
			value = 0
		}
		metrics <- prometheus.MustNewConstMetric(readyDesc, prometheus.GaugeValue, value, c.Name)
	}
}

// NewRegistry returns a metrics registry with what every program exposes: the
// Go runtime's and the process's metrics and pullpass_build_info.
func NewRegistry() *prometheus.Registry {
	reg := prometheus.NewRegistry()
	info := prometheus.NewGauge(prometheus.GaugeOpts{
		Name:        "pullpass_build_info",
		Help:        "Always 1. The labels show which build is running.",
		ConstLabels: prometheus.Labels{"version": version.String(), "goversion": version.GoVersion()},
	})
	info.Set(1)
	reg.MustRegister(
		collectors.NewGoCollector(),
		collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}),
		info,
	)
	return reg
}
