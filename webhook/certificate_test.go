package webhook

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"log/slog"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// A leaf is a self-signed certificate with its key, PEM.
type leaf struct{ cert, key string }

// newLeaf makes a certificate for 127.0.0.1 with the serial number.
func newLeaf(t testing.TB, serial int64, notBefore, notAfter time.Time) leaf {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(serial),
		NotBefore:    notBefore,
		NotAfter:     notAfter,
		IPAddresses:  []net.IP{net.IPv4(127, 0, 0, 1)},
	}
	cert, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	pkcs8, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	return leaf{
		cert: string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: cert})),
		key:  string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: pkcs8})),
	}
}

// validLeaf makes a certificate that is good for the next hour.
func validLeaf(t testing.TB, serial int64) leaf {
	return newLeaf(t, serial, time.Now().Add(-time.Hour), time.Now().Add(time.Hour))
}

// A volume is a folder that is written like a mounted Secret: files are links
// to ..data, which is a link to a folder that is replaced as a whole.
type volume struct {
	t   testing.TB
	dir string
}

func newVolume(t testing.TB) volume {
	v := volume{t, t.TempDir()}
	for _, name := range []string{"tls.crt", "tls.key"} {
		v.check(os.Symlink(filepath.Join("..data", name), filepath.Join(v.dir, name)))
	}
	return v
}

func (v volume) check(err error) {
	v.t.Helper()
	if err != nil {
		v.t.Fatal(err)
	}
}

func (v volume) config() Config {
	cfg := DefaultConfig()
	cfg.TLSCertFile, cfg.TLSPrivateKeyFile = filepath.Join(v.dir, "tls.crt"), filepath.Join(v.dir, "tls.key")
	cfg.CertificateInterval = 5 * time.Millisecond
	cfg.ShutdownDelay = 0
	return cfg
}

// swap replaces both files at once, as the kubelet does.
func (v volume) swap(l leaf) {
	v.t.Helper()
	data, err := os.MkdirTemp(v.dir, "..2026_")
	v.check(err)
	v.check(os.WriteFile(filepath.Join(data, "tls.crt"), []byte(l.cert), 0o600))
	v.check(os.WriteFile(filepath.Join(data, "tls.key"), []byte(l.key), 0o600))
	old, _ := os.Readlink(filepath.Join(v.dir, "..data"))
	v.check(os.Symlink(filepath.Base(data), filepath.Join(v.dir, "..data_tmp")))
	v.check(os.Rename(filepath.Join(v.dir, "..data_tmp"), filepath.Join(v.dir, "..data")))
	if old != "" {
		v.check(os.RemoveAll(filepath.Join(v.dir, old)))
	}
}

// write replaces the contents of one file where it is.
func (v volume) write(name, contents string) {
	v.t.Helper()
	v.check(os.WriteFile(filepath.Join(v.dir, name), []byte(contents), 0o600))
}

// metric returns the value of a counter or gauge. Those with a label are asked
// for by its value.
func metric(t testing.TB, g prometheus.Gatherer, name string, label ...string) float64 {
	t.Helper()
	families, err := g.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range families {
		for _, m := range f.GetMetric() {
			if f.GetName() == name && (len(label) == 0 || m.GetLabel()[0].GetValue() == label[0]) {
				return m.GetCounter().GetValue() + m.GetGauge().GetValue()
			}
		}
	}
	t.Fatalf("no metric %s %s", name, label)
	return 0
}

// Each story is told in polls: what is done to the files, then which serial
// number is served (0 for none), whether that is ready, and what the log says.
func TestCertificateStories(t *testing.T) {
	now := time.Now()
	a, b := validLeaf(t, 1), validLeaf(t, 2)
	expired := newLeaf(t, 3, now.Add(-2*time.Hour), now.Add(-time.Hour))
	future := newLeaf(t, 4, now.Add(time.Hour), now.Add(2*time.Hour))
	type step struct {
		do     func(volume)
		serial int64
		ready  string // "" when it is
		logged string // "" for nothing
		broken bool   // the files hold no usable pair
	}
	start := step{do: func(v volume) { v.swap(a) }, serial: 1, logged: "certificate loaded"}
	for name, steps := range map[string][]step{
		"the kubelet swaps the folder": {start,
			{func(v volume) { v.swap(b) }, 2, "", "certificate loaded", false},
			{func(volume) {}, 2, "", "", false},
		},
		"the files are replaced one after the other": {start,
			{func(v volume) { v.write("tls.crt", b.cert) }, 1, "", "private key does not match", true},
			{func(volume) {}, 1, "", "", true},
			{func(v volume) { v.write("tls.key", b.key) }, 2, "", "certificate files usable", false},
		},
		"a file is cut off while it is written": {start,
			{func(v volume) { v.write("tls.crt", b.cert[:len(b.cert)/2]) }, 1, "", "failed to find any PEM data", true},
			{func(v volume) { v.write("tls.crt", "") }, 1, "", "", true},
			{func(v volume) { v.write("tls.crt", a.cert) }, 1, "", "certificate files usable", false},
		},
		"the file is no PEM": {start,
			{func(v volume) { v.write("tls.key", "hunter2") }, 1, "", "failed to find any PEM data", true},
		},
		"the Secret is deleted and comes back": {start,
			{func(v volume) { v.check(os.Remove(filepath.Join(v.dir, "..data"))) }, 1, "", "no such file", true},
			{func(volume) {}, 1, "", "", true},
			{func(v volume) { v.swap(b) }, 2, "", "certificate files usable", false},
		},
		"the pair comes late": {
			{func(volume) {}, 0, "no certificate yet", "", true},
			{func(v volume) { v.swap(a) }, 1, "", "certificate files usable", false},
		},
		"an expired certificate at the start is replaced": {
			{func(v volume) { v.swap(expired) }, 3, "expired at", "expired at", true},
			{func(volume) {}, 3, "expired at", "", true},
			{func(v volume) { v.swap(a) }, 1, "", "certificate files usable", false},
		},
		"an expired certificate never replaces a valid one": {start,
			{func(v volume) { v.swap(expired) }, 1, "", "expired at", true},
			{func(v volume) { v.swap(b) }, 2, "", "certificate files usable", false},
		},
		"nor does one of the future": {start,
			{func(v volume) { v.swap(future) }, 1, "", "not valid before", true},
		},
		"a certificate of the future is not ready": {
			{func(v volume) { v.swap(future) }, 4, "not valid before", "not valid before", true},
		},
	} {
		t.Run(name, func(t *testing.T) {
			v := newVolume(t)
			var log logBuffer
			reg := prometheus.NewRegistry()
			c, err := newCertificate(v.config(), newMetrics(reg), slog.New(slog.NewTextHandler(&log, nil)))
			if err != nil {
				t.Fatal(err)
			}
			log.take()
			for i, s := range steps {
				s.do(v)
				c.poll()
				var serial int64
				var begins, expires float64
				if pair, err := c.GetCertificate(nil); err == nil {
					serial, begins, expires = pair.Leaf.SerialNumber.Int64(), float64(pair.Leaf.NotBefore.Unix()), float64(pair.Leaf.NotAfter.Unix())
				}
				if begin := metric(t, reg, "pullpass_certificate_not_before_timestamp_seconds"); begin != begins {
					t.Errorf("step %d: beginning metric %f, want %f", i, begin, begins)
				}
				if expiry := metric(t, reg, "pullpass_certificate_expiry_timestamp_seconds"); expiry != expires {
					t.Errorf("step %d: expiry metric %f, want %f", i, expiry, expires)
				}
				if serial != s.serial {
					t.Errorf("step %d: serving %d, want %d", i, serial, s.serial)
				}
				if err := c.Ready(); (err == nil) != (s.ready == "") || err != nil && !strings.Contains(err.Error(), s.ready) {
					t.Errorf("step %d: ready %v, want %q", i, err, s.ready)
				}
				if got := log.take(); !strings.Contains(got, s.logged) || s.logged == "" && got != "" {
					t.Errorf("step %d: logged %q, want %q", i, got, s.logged)
				} else if strings.Contains(got, "hunter2") {
					t.Errorf("step %d: the log holds the key", i)
				}
				if got := metric(t, reg, "pullpass_certificate_problem"); (got == 1) != s.broken {
					t.Errorf("step %d: problem metric %f", i, got)
				}
			}
		})
	}
}

func TestCertificateExpiresWhileItIsServed(t *testing.T) {
	v := newVolume(t)
	v.swap(validLeaf(t, 1))
	var log logBuffer
	c, err := newCertificate(v.config(), newMetrics(prometheus.NewRegistry()), slog.New(slog.NewTextHandler(&log, nil)))
	if err != nil || c.Ready() != nil {
		t.Fatal(err, c.Ready())
	}
	log.take()
	c.now = func() time.Time { return time.Now().Add(2 * time.Hour) }
	for range 3 {
		c.poll()
	}
	if err := c.Ready(); err == nil || !strings.Contains(err.Error(), "expired") {
		t.Errorf("ready: %v", err)
	}
	if got := log.take(); strings.Count(got, "level=ERROR") != 1 {
		t.Errorf("logged %s", got)
	}
}

func TestUnreadableCertificatesEndTheStart(t *testing.T) {
	for name, c := range map[string]struct {
		spoil func(volume) Config
		want  string
	}{
		"a folder in place of the certificate": {func(v volume) Config {
			cfg := v.config()
			cfg.TLSCertFile = v.dir
			return cfg
		}, "--tls-cert-file="},
		"a folder in place of the key": {func(v volume) Config {
			cfg := v.config()
			cfg.TLSPrivateKeyFile = v.dir
			return cfg
		}, "--tls-private-key-file="},
		"a file in place of the folder": {func(v volume) Config {
			cfg := v.config()
			cfg.TLSCertFile += "/tls.crt"
			return cfg
		}, "not a directory"},
	} {
		t.Run(name, func(t *testing.T) {
			v := newVolume(t)
			v.swap(validLeaf(t, 1))
			_, err := newCertificate(c.spoil(v), newMetrics(prometheus.NewRegistry()), slog.New(slog.DiscardHandler))
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("error %v, want %q", err, c.want)
			}
		})
	}
}
