package webhook

import (
	"strings"
	"testing"
	"time"

	"github.com/pullpass/pullpass/internal/injection"
)

func TestConfigValidate(t *testing.T) {
	for name, c := range map[string]struct {
		change func(*Config)
		want   string // "" when it is valid
	}{
		"the defaults with a certificate":  {func(*Config) {}, ""},
		"an address without a host":        {func(c *Config) { c.ListenAddress = ":0" }, ""},
		"an address of IPv6":               {func(c *Config) { c.ListenAddress = "[::1]:9443" }, ""},
		"an address without a port":        {func(c *Config) { c.ListenAddress = "localhost" }, `--listen-address="localhost": want host:port`},
		"a port out of range":              {func(c *Config) { c.ListenAddress = ":65536" }, `--listen-address=":65536": want a port`},
		"a port by name":                   {func(c *Config) { c.AdminAddress = ":http" }, `--admin-address=":http": want a port`},
		"no admin address":                 {func(c *Config) { c.AdminAddress = "" }, `--admin-address=""`},
		"no certificate":                   {func(c *Config) { c.TLSCertFile = "" }, `--tls-cert-file=""`},
		"no key":                           {func(c *Config) { c.TLSPrivateKeyFile = "" }, `--tls-private-key-file=""`},
		"a secret's name in upper case":    {func(c *Config) { c.SecretName = "Pullpass" }, `--secret-name="Pullpass": `},
		"no secret's name":                 {func(c *Config) { c.SecretName = "" }, `--secret-name=""`},
		"a secret's name that breaks JSON": {func(c *Config) { c.SecretName = `a"b` }, `--secret-name="a\"b"`},
		"the longest name":                 {func(c *Config) { c.SecretName = strings.Repeat("a", 253) }, ""},
		"too long a name":                  {func(c *Config) { c.SecretName = strings.Repeat("a", 254) }, `must be no more than 253`},
		"a server's name":                  {func(c *Config) { c.ServerName = "pullpass-webhook.pullpass.svc" }, ""},
		"a server's address":               {func(c *Config) { c.ServerName = "::1" }, ""},
		"a server's name with a port":      {func(c *Config) { c.ServerName = "webhook.svc:443" }, `--server-name="webhook.svc:443": want a DNS name or an IP address`},
		"a configuration":                  {func(c *Config) { c.Configuration = "pullpass.shop" }, ""},
		"a configuration elsewhere":        {func(c *Config) { c.Configuration = "a/b" }, `--webhook-configuration="a/b": name`},
		"all pods":                         {func(c *Config) { c.Inject = injection.All }, ""},
		"another way to inject":            {func(c *Config) { c.Inject = "labelled" }, `--inject="labelled": want matching or all`},
		"no delay":                         {func(c *Config) { c.ShutdownDelay = 0 }, ""},
		"a negative delay":                 {func(c *Config) { c.ShutdownDelay = -time.Second }, `--shutdown-delay="-1s": want 0s to 5m0s`},
		"the longest delay":                {func(c *Config) { c.ShutdownDelay = 5 * time.Minute }, ""},
		"too long a delay":                 {func(c *Config) { c.ShutdownDelay = time.Hour }, `--shutdown-delay="1h0m0s"`},
	} {
		t.Run(name, func(t *testing.T) {
			cfg := DefaultConfig()
			cfg.TLSCertFile, cfg.TLSPrivateKeyFile = "tls.crt", "tls.key"
			c.change(&cfg)
			err := cfg.Validate()
			if (err == nil) != (c.want == "") || err != nil && !strings.Contains(err.Error(), c.want) {
				t.Errorf("error %v, want %q", err, c.want)
			}
			if err != nil && strings.Contains(err.Error(), "\n") {
				t.Errorf("more than one line: %q", err)
			}
		})
	}
}
