package webhook

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"log/slog"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
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
	stranger := newAuthority(t).leaf(t, 5, "other.example")
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
			{func(v volume) { v.write("tls.key", b.key) }, 2, "", "certificate files are usable", false},
		},
		"a file is cut off while it is written": {start,
			{func(v volume) { v.write("tls.crt", b.cert[:len(b.cert)/2]) }, 1, "", "failed to find any PEM data", true},
			{func(v volume) { v.write("tls.crt", "") }, 1, "", "", true},
			{func(v volume) { v.write("tls.crt", a.cert) }, 1, "", "certificate files are usable", false},
		},
		"the file is no PEM": {start,
			{func(v volume) { v.write("tls.key", "hunter2") }, 1, "", "failed to find any PEM data", true},
		},
		"the Secret is deleted and comes back": {start,
			{func(v volume) { v.check(os.Remove(filepath.Join(v.dir, "..data"))) }, 1, "", "no such file", true},
			{func(volume) {}, 1, "", "", true},
			{func(v volume) { v.swap(b) }, 2, "", "certificate files are usable", false},
		},
		"the pair comes late": {
			{func(volume) {}, 0, "no certificate yet", "", true},
			{func(v volume) { v.swap(a) }, 1, "", "certificate files are usable", false},
		},
		"an expired certificate at the start is replaced": {
			{func(v volume) { v.swap(expired) }, 3, "expired at", "expired at", true},
			{func(volume) {}, 3, "expired at", "", true},
			{func(v volume) { v.swap(a) }, 1, "", "certificate files are usable", false},
		},
		"an expired certificate never replaces a valid one": {start,
			{func(v volume) { v.swap(expired) }, 1, "", "expired at", true},
			{func(v volume) { v.swap(b) }, 2, "", "certificate files are usable", false},
		},
		"nor does one of the future": {start,
			{func(v volume) { v.swap(future) }, 1, "", "not valid before", true},
		},
		"nor does one for another name": {start,
			{func(v volume) { v.swap(stranger) }, 1, "", `not for --server-name=\"127.0.0.1\"`, true},
			{func(volume) {}, 1, "", "", true},
			{func(v volume) { v.swap(b) }, 2, "", "certificate files are usable", false},
		},
		"a certificate for another name at the start is replaced": {
			{func(v volume) { v.swap(stranger) }, 5, "not for --server-name=", "not for --server-name=", true},
			{func(v volume) { v.swap(a) }, 1, "", "certificate files are usable", false},
		},
		"a certificate of the future is not ready": {
			{func(v volume) { v.swap(future) }, 4, "not valid before", "not valid before", true},
		},
	} {
		t.Run(name, func(t *testing.T) {
			v := newVolume(t)
			cfg := v.config()
			cfg.ServerName = "127.0.0.1"
			var log logBuffer
			reg := prometheus.NewRegistry()
			c, err := newCertificate(cfg, newMetrics(reg), slog.New(slog.NewTextHandler(&log, nil)))
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

// The certificate is what API servers want of it, or the webhook is not ready.
func TestCertificateForAPIServers(t *testing.T) {
	const name = "pullpass-webhook.pullpass.svc"
	ours, other := newAuthority(t), newAuthority(t)
	expired, oursBefore := other.expired(t), ours.expired(t)
	for what, c := range map[string]struct {
		name    string
		signed  leaf
		bundles []string // of the configuration; nil when it was not read
		ready   string   // why not
	}{
		"the name, and nothing is known of the configuration": {name, ours.leaf(t, 1, name), nil, ""},
		"the name, and no configuration":                      {name, ours.leaf(t, 1, name), []string{}, ""},
		"an address":                                          {"127.0.0.1", validLeaf(t, 1), nil, ""},
		"any name":                                            {"", ours.leaf(t, 1, "other.example"), nil, ""},
		"another name":                                        {name, ours.leaf(t, 1, "other.example"), nil, `not for --server-name="` + name + `"`},
		"another address":                                     {"192.0.2.1", validLeaf(t, 1), nil, `not for --server-name="192.0.2.1"`},
		"the right bundle":                                    {name, ours.leaf(t, 1, name), []string{ours.pem}, ""},
		"both authorities during a rotation":                  {name, ours.leaf(t, 1, name), []string{other.pem + ours.pem}, ""},
		"an expired authority beside ours":                    {name, ours.leaf(t, 1, name), []string{expired.pem + ours.pem}, ""},
		"ours beside an expired one":                          {name, ours.leaf(t, 1, name), []string{ours.pem + expired.pem}, ""},
		"ours, and expired with the same key":                 {name, ours.leaf(t, 1, name), []string{oursBefore.pem + ours.pem}, ""},
		"ours, which has expired":                             {name, ours.leaf(t, 1, name), []string{oursBefore.pem}, "API servers do not trust the certificate"},
		"an expired authority that is not ours":               {name, ours.leaf(t, 1, name), []string{expired.pem}, "API servers do not trust the certificate"},
		"the wrong bundle":                                    {name, ours.leaf(t, 1, name), []string{other.pem}, "API servers do not trust the certificate"},
		"one of two webhooks with the wrong bundle":           {name, ours.leaf(t, 1, name), []string{ours.pem, other.pem}, "API servers do not trust the certificate"},
		"a bundle of nothing":                                 {name, ours.leaf(t, 1, name), []string{"hello"}, "contains no certificate"},
		"no bundle, which is the system's":                    {name, ours.leaf(t, 1, name), []string{""}, "API servers do not trust the certificate"},
	} {
		t.Run(what, func(t *testing.T) {
			v := newVolume(t)
			v.swap(c.signed)
			cfg := v.config()
			cfg.ServerName = c.name
			reg := prometheus.NewRegistry()
			certificate, err := newCertificate(cfg, newMetrics(reg), slog.New(slog.DiscardHandler))
			if err != nil {
				t.Fatal(err)
			}
			if c.bundles != nil {
				certificate.setBundles(pems(c.bundles))
			}
			certificate.poll()
			err = certificate.Ready()
			if (err == nil) != (c.ready == "") || err != nil && !strings.Contains(err.Error(), c.ready) {
				t.Errorf("ready: %v, want %q", err, c.ready)
			}
			if n := metric(t, reg, "pullpass_certificate_problem"); (n == 1) != (err != nil) {
				t.Errorf("problem metric %f", n)
			}
		})
	}
}

// A pair that API servers do not trust yet waits until they do.
func TestCertificateOfANewAuthorityWaitsForItsBundle(t *testing.T) {
	before, after := newAuthority(t), newAuthority(t)
	v := newVolume(t)
	v.swap(before.leaf(t, 1))
	c, err := newCertificate(v.config(), newMetrics(prometheus.NewRegistry()), slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	for i, step := range []struct {
		bundle string
		serial int64
	}{{before.pem, 1}, {before.pem + after.pem, 2}, {after.pem, 2}} {
		c.setBundles(pems([]string{step.bundle}))
		v.swap(after.leaf(t, 2))
		c.poll()
		if serial := c.pair.Load().Leaf.SerialNumber.Int64(); serial != step.serial || c.Ready() != nil {
			t.Errorf("step %d: serving %d, ready %v, want %d", i, serial, c.Ready(), step.serial)
		}
	}
}

// What API servers trust is read again and again. What cannot be read changes
// nothing, and is said once.
func TestWatchCABundles(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ours, other := newAuthority(t), newAuthority(t)
		expired := ours.expired(t)
		s, _, log := unstarted(t, &fakeNamespaces{})
		l := ours.leaf(t, 1)
		pair, err := tls.X509KeyPair([]byte(l.cert), []byte(l.key))
		if err != nil {
			t.Fatal(err)
		}
		s.certificate.pair.Store(&pair)
		answers := []struct {
			bundle string
			err    error
			ready  bool
		}{{ours.pem, nil, true}, {"", errors.New("forbidden"), true}, {"", errors.New("forbidden"), true}, {other.pem, nil, false}, {"", errors.New("gone"), false}, {expired.pem + ours.pem, nil, true}, {expired.pem, nil, false}, {ours.pem, nil, true}}
		var asked atomic.Int32
		ctx, stop := context.WithCancel(t.Context())
		done := make(chan struct{})
		go func() {
			defer close(done)
			s.WatchCABundles(ctx, func(context.Context) ([][]byte, error) {
				a := answers[min(int(asked.Add(1)), len(answers))-1]
				return [][]byte{[]byte(a.bundle)}, a.err
			})
		}()
		for i, a := range answers {
			synctest.Wait()
			if err := s.certificate.Ready(); int(asked.Load()) != i+1 || (err == nil) != a.ready {
				t.Errorf("after answer %d of %d: ready %v", i, asked.Load(), err)
			}
			time.Sleep(s.cfg.BundleInterval)
		}
		stop()
		<-done
		if log := log.take(); strings.Count(log, "forbidden") != 1 || strings.Count(log, "gone") != 1 {
			t.Errorf("logged %s", log)
		}
	})
}

func pems(bundles []string) (pems [][]byte) {
	for _, b := range bundles {
		pems = append(pems, []byte(b))
	}
	return pems
}

// An authority signs certificates.
type authority struct {
	certificate *x509.Certificate
	key         *ecdsa.PrivateKey
	pem         string
}

func newAuthority(t testing.TB) authority {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return authorityUntil(t, key, time.Now().Add(time.Hour))
}

// expired returns the authority as it was before its certificate was renewed.
func (a authority) expired(t testing.TB) authority {
	t.Helper()
	return authorityUntil(t, a.key, time.Now().Add(-time.Minute))
}

func authorityUntil(t testing.TB, key *ecdsa.PrivateKey, notAfter time.Time) authority {
	t.Helper()
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "authority"}, NotBefore: time.Now().Add(-time.Hour), NotAfter: notAfter,
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	certificate, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return authority{certificate, key, string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}))}
}

// leaf signs a certificate for the names.
func (a authority) leaf(t testing.TB, serial int64, names ...string) leaf {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(serial), DNSNames: names, NotBefore: a.certificate.NotBefore, NotAfter: a.certificate.NotAfter, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}}
	der, err := x509.CreateCertificate(rand.Reader, template, a.certificate, key.Public(), a.key)
	if err != nil {
		t.Fatal(err)
	}
	pkcs8, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	return leaf{
		cert: string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})),
		key:  string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: pkcs8})),
	}
}
