package renewer

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// validConfig is what the flags' defaults make.
func validConfig() Config {
	return Config{
		AdminAddress: "127.0.0.1:0", Namespace: "pullpass", SecretName: "pullpass",
		CredentialsSecretPrefix: "pullpass-aws-credentials", LeaderElect: true, LeaseName: "pullpass-renewer", Workers: 16,
	}
}

func TestValidate(t *testing.T) {
	for name, c := range map[string]struct {
		edit func(*Config)
		want string // what the error begins with; none when it is empty
	}{
		"the defaults":                   {func(*Config) {}, ""},
		"eatr's prefix":                  {func(c *Config) { c.CredentialsSecretPrefix = "eatr-aws-credentials" }, ""},
		"a secret's name with a dot":     {func(c *Config) { c.SecretName = "pull.pass" }, ""},
		"the least interval":             {func(c *Config) { c.RenewalInterval = time.Minute }, ""},
		"the greatest interval":          {func(c *Config) { c.RenewalInterval = 6 * time.Hour }, ""},
		"one worker":                     {func(c *Config) { c.Workers = 1 }, ""},
		"as many workers as can be":      {func(c *Config) { c.Workers = 256 }, ""},
		"no namespace":                   {func(c *Config) { c.Namespace = "" }, `--namespace="": give the renewer's own namespace, or set POD_NAMESPACE`},
		"a namespace in upper case":      {func(c *Config) { c.Namespace = "Shop" }, `--namespace="Shop": `},
		"a namespace with a dot":         {func(c *Config) { c.Namespace = "a.b" }, `--namespace="a.b": `},
		"a credentials namespace":        {func(c *Config) { c.CredentialsNamespace = "ci-cd" }, ""},
		"no name for one":                {func(c *Config) { c.CredentialsNamespace = "ci/cd" }, `--credentials-namespace="ci/cd": `},
		"a namespace of two lines":       {func(c *Config) { c.Namespace = "a\nb" }, `--namespace="a\nb": `},
		"a namespace that is too long":   {func(c *Config) { c.Namespace = strings.Repeat("x", 64) }, `--namespace="xxx`},
		"no secret's name":               {func(c *Config) { c.SecretName = "" }, `--secret-name="": `},
		"a secret's name with a slash":   {func(c *Config) { c.SecretName = "a/b" }, `--secret-name="a/b": `},
		"no prefix":                      {func(c *Config) { c.CredentialsSecretPrefix = "" }, `--credentials-secret-prefix="": `},
		"a prefix that ends in a hyphen": {func(c *Config) { c.CredentialsSecretPrefix = "x-" }, `--credentials-secret-prefix="x-": `},
		"no lease's name":                {func(c *Config) { c.LeaseName = "" }, `--lease-name="": `},
		"a lease's name in upper case":   {func(c *Config) { c.LeaseName = "A" }, `--lease-name="A": `},
		"an interval that is too short":  {func(c *Config) { c.RenewalInterval = 59 * time.Second }, "--renewal-interval=59s: want 0, or from 1m0s to 6h0m0s"},
		"an interval that is too long":   {func(c *Config) { c.RenewalInterval = 6*time.Hour + 1 }, "--renewal-interval=6h0m0.000000001s: want"},
		"an interval into the past":      {func(c *Config) { c.RenewalInterval = -time.Hour }, "--renewal-interval=-1h0m0s: want"},
		"no workers":                     {func(c *Config) { c.Workers = 0 }, "--workers=0: want from 1 to 256"},
		"a negative number of workers":   {func(c *Config) { c.Workers = -1 }, "--workers=-1: want"},
		"more workers than can be":       {func(c *Config) { c.Workers = 257 }, "--workers=257: want"},
	} {
		t.Run(name, func(t *testing.T) {
			config := validConfig()
			c.edit(&config)
			switch err := config.Validate(); {
			case c.want == "" && err != nil:
				t.Error(err)
			case c.want != "" && (err == nil || !strings.HasPrefix(err.Error(), c.want) || strings.Contains(err.Error(), "\n")):
				t.Errorf("error %v, want one line that begins with %s", err, c.want)
			}
		})
	}
}

func TestPrepareRefuses(t *testing.T) {
	kubeconfig := filepath.Join(t.TempDir(), "kubeconfig")
	if err := os.WriteFile(kubeconfig, []byte("{clusters: [{name: c, cluster: {server: 'http://127.0.0.1:1'}}], contexts: [{name: c, context: {cluster: c}}], current-context: c}"), 0o600); err != nil {
		t.Fatal(err)
	}
	t.Setenv("KUBERNETES_SERVICE_HOST", "")
	t.Setenv("KUBECONFIG", "/not/there") // nor in the home of whoever runs this
	for name, c := range map[string]struct {
		edit func(*Config)
		want string
	}{
		"what Validate refuses":          {func(c *Config) { c.Workers = 0 }, "--workers=0: "},
		"no kubeconfig outside a pod":    {func(c *Config) { c.Kubeconfig = "" }, `--kubeconfig="": `},
		"a kubeconfig that is not there": {func(c *Config) { c.Kubeconfig = "/not/there" }, `--kubeconfig="/not/there": `},
		"an address that is none":        {func(c *Config) { c.AdminAddress = "nonsense" }, `--admin-address="nonsense": `},
		"a port that is too high":        {func(c *Config) { c.AdminAddress = ":70000" }, `--admin-address=":70000": `},
	} {
		t.Run(name, func(t *testing.T) {
			config := validConfig()
			config.Kubeconfig = kubeconfig
			c.edit(&config)
			if run, err := Prepare(config, nil); err == nil || run != nil || !strings.HasPrefix(err.Error(), c.want) {
				t.Errorf("error %v, want %s", err, c.want)
			}
		})
	}
}

func TestTrimCredential(t *testing.T) {
	trim := trimCredential("creds")
	for name, kept := range map[string]bool{"creds-" + hostA: true, "creds-x": true, "creds": false, "credsx-" + hostA: false, "other": false} {
		s := &corev1.Secret{
			ObjectMeta: metav1.ObjectMeta{
				Namespace: "own", Name: name, UID: "uid", ResourceVersion: "7",
				Annotations:   map[string]string{"kubectl.kubernetes.io/last-applied-configuration": "s3cret"},
				ManagedFields: []metav1.ManagedFieldsEntry{{Manager: "x"}},
			},
			Data: map[string][]byte{"key": []byte("s3cret")},
		}
		object, err := trim(s)
		if err != nil {
			t.Fatal(err)
		}
		got := object.(*corev1.Secret)
		if (got.Data != nil) != kept || got.Annotations != nil || got.ManagedFields != nil || got.Name != name || got.ResourceVersion != "7" {
			t.Errorf("%s: %+v, want its content kept: %t", name, got, kept)
		}
	}
	if object, err := trim("a tombstone"); object != "a tombstone" || err != nil {
		t.Errorf("something else: %v, %v", object, err)
	}
}
