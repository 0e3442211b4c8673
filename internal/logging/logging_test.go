package logging

import (
	"bytes"
	"encoding/json"
	"log/slog"
	"strings"
	"testing"

	"k8s.io/klog/v2"
)

// restoreKlog puts client-go's logger back when the test ends.
func restoreKlog(t *testing.T) { t.Cleanup(klog.CaptureState().Restore) }

func TestLevels(t *testing.T) {
	restoreKlog(t)
	levels := []string{"debug", "info", "warn", "error"}
	for i, level := range append(levels, "DEBUG", "Warn") {
		var b bytes.Buffer
		log, err := New(&b, level, "text")
		if err != nil {
			t.Fatal(err)
		}
		log.Debug("said debug")
		log.Info("said info")
		log.Warn("said warn")
		log.Error("said error")
		least := []int{0, 1, 2, 3, 0, 2}[i]
		for j, other := range levels {
			if said := strings.Contains(b.String(), "said "+other); said != (j >= least) {
				t.Errorf("at level %s, %s is logged: %t", level, other, said)
			}
		}
	}
}

func TestFormats(t *testing.T) {
	restoreKlog(t)
	var b bytes.Buffer
	log, err := New(&b, "info", "json")
	if err != nil {
		t.Fatal(err)
	}
	log.Info("hello", "namespace", "shop")
	var record struct{ Time, Level, Msg, Namespace string }
	if err := json.Unmarshal(b.Bytes(), &record); err != nil || record.Level != "INFO" || record.Msg != "hello" || record.Namespace != "shop" || record.Time == "" {
		t.Errorf("json: %v, %s", err, b.String())
	}

	b.Reset()
	if log, err = New(&b, "info", "text"); err != nil {
		t.Fatal(err)
	}
	log.Info("hello", "namespace", "shop")
	if !strings.HasSuffix(b.String(), " level=INFO msg=hello namespace=shop\n") {
		t.Errorf("text: %s", b.String())
	}
}

func TestRefusals(t *testing.T) {
	for name, c := range map[string]struct{ level, format, want string }{
		"a level that is not there":  {"loud", "json", `--log-level="loud": want debug, info, warn or error`},
		"no level":                   {"", "json", `--log-level="": want debug, info, warn or error`},
		"a level of two lines":       {"a\nb", "json", `--log-level="a\nb": want debug, info, warn or error`},
		"a format that is not there": {"info", "xml", `--log-format="xml": want json or text`},
		"a format in upper case":     {"info", "JSON", `--log-format="JSON": want json or text`},
		"no format":                  {"info", "", `--log-format="": want json or text`},
	} {
		t.Run(name, func(t *testing.T) {
			restoreKlog(t)
			var b bytes.Buffer
			if log, err := New(&b, c.level, c.format); err == nil || err.Error() != c.want || log != nil {
				t.Errorf("%v, %v, want %s", log, err, c.want)
			}
			if b.Len() > 0 {
				t.Errorf("logged %s", b.String())
			}
		})
	}
}

func TestClientGoLogsTheSameWay(t *testing.T) {
	restoreKlog(t)
	var b bytes.Buffer
	if _, err := New(&b, "info", "json"); err != nil {
		t.Fatal(err)
	}
	klog.InfoS("watching", "resource", "secrets")
	klog.V(4).InfoS("in detail")
	klog.Flush()
	var record struct{ Level, Msg, Logger, Resource string }
	if err := json.Unmarshal(b.Bytes(), &record); err != nil {
		t.Fatalf("%v: %s", err, b.String())
	}
	if record.Msg != "watching" || record.Level != slog.LevelInfo.String() || record.Logger != "client-go" || record.Resource != "secrets" {
		t.Errorf("%s", b.String())
	}
}
