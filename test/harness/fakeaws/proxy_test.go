package fakeaws

import (
	"crypto/tls"
	"crypto/x509"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/aws/aws-sdk-go-v2/aws"
	awsconfig "github.com/aws/aws-sdk-go-v2/config"
	"github.com/aws/aws-sdk-go-v2/service/ecr"
	"github.com/aws/aws-sdk-go-v2/service/sts"
)

// proxied is a client as net/http makes one of ProxyEnvironment.
func proxied(t *testing.T, s *Server) *http.Client {
	t.Helper()
	u, err := url.Parse(s.URL())
	ok(t, err)
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM(s.CertificateAuthority()) {
		t.Fatal("authority is not PEM")
	}
	return &http.Client{Transport: &http.Transport{
		Proxy:             http.ProxyURL(u),
		TLSClientConfig:   &tls.Config{RootCAs: roots},
		DisableKeepAlives: true,
	}}
}

func TestProxyServesTheRealEndpoints(t *testing.T) {
	for name, test := range map[string]struct {
		region string
		fips   aws.FIPSEndpointState
		dual   aws.DualStackEndpointState
		ecr    string // host
		sts    string
	}{
		"standard":        {"eu-west-1", 0, 0, "api.ecr.eu-west-1.amazonaws.com", "sts.eu-west-1.amazonaws.com"},
		"FIPS":            {"us-east-1", aws.FIPSEndpointStateEnabled, 0, "api.ecr-fips.us-east-1.amazonaws.com", "sts-fips.us-east-1.amazonaws.com"},
		"dual-stack":      {"eu-west-1", 0, aws.DualStackEndpointStateEnabled, "ecr.eu-west-1.api.aws", "sts.eu-west-1.api.aws"},
		"dual-stack FIPS": {"us-west-2", aws.FIPSEndpointStateEnabled, aws.DualStackEndpointStateEnabled, "ecr-fips.us-west-2.api.aws", "sts-fips.us-west-2.api.aws"},
		"China":           {"cn-north-1", 0, 0, "api.ecr.cn-north-1.amazonaws.com.cn", "sts.cn-north-1.amazonaws.com.cn"},
		"GovCloud":        {"us-gov-west-1", 0, 0, "api.ecr.us-gov-west-1.amazonaws.com", "sts.us-gov-west-1.amazonaws.com"},
		"Europe":          {"eusc-de-east-1", 0, 0, "api.ecr.eusc-de-east-1.amazonaws.eu", "sts.eusc-de-east-1.amazonaws.eu"},
	} {
		t.Run(name, func(t *testing.T) {
			s := start(t, Options{})
			ok(t, s.AddUser(User{Name: "arn:" + partitionOf(test.region).name + ":iam::123456789012:user/x", AccessKeyID: "AK", SecretAccessKey: "x"}))
			config := sdk(s, static("AK", "x", ""), test.region)
			config.BaseEndpoint = nil
			config.HTTPClient = proxied(t, s)
			_, err := ecr.NewFromConfig(config, func(o *ecr.Options) {
				o.EndpointOptions.UseFIPSEndpoint, o.EndpointOptions.UseDualStackEndpoint = test.fips, test.dual
			}).GetAuthorizationToken(t.Context(), nil)
			ok(t, err)
			_, err = sts.NewFromConfig(config, func(o *sts.Options) {
				o.EndpointOptions.UseFIPSEndpoint, o.EndpointOptions.UseDualStackEndpoint = test.fips, test.dual
			}).GetCallerIdentity(t.Context(), nil)
			ok(t, err)
			calls := s.Calls()
			if calls[0].Host != test.ecr || calls[1].Host != test.sts || calls[0].Region != test.region {
				t.Errorf("called %s and %s, want %s and %s", calls[0].Host, calls[1].Host, test.ecr, test.sts)
			}
		})
	}
}

func TestProxyEnvironment(t *testing.T) {
	s := start(t, Options{})
	file := filepath.Join(t.TempDir(), "ca.pem")
	ok(t, os.WriteFile(file, s.CertificateAuthority(), 0o600))
	want := []string{"HTTPS_PROXY=" + s.URL(), "AWS_CA_BUNDLE=" + file, "AWS_EC2_METADATA_DISABLED=true"}
	if got := s.ProxyEnvironment(file); !slices.Equal(got, want) {
		t.Errorf("%q, want %q", got, want)
	}
	// net/http reads HTTPS_PROXY once per process, so only the bundle is tried here.
	t.Setenv("AWS_CA_BUNDLE", file)
	t.Setenv("AWS_EC2_METADATA_DISABLED", "true")
	config, err := awsconfig.LoadDefaultConfig(t.Context(), awsconfig.WithRegion(region), awsconfig.WithCredentialsProvider(userKey()))
	ok(t, err)
	client, isClient := config.HTTPClient.(interface{ GetTransport() *http.Transport })
	if !isClient || client.GetTransport().TLSClientConfig.RootCAs == nil {
		t.Errorf("SDK does not use the bundle")
	}
}

func TestProxyServesTheRegistries(t *testing.T) {
	s := start(t, Options{})
	want, err := s.AddImage(ownHost, "shop/api", "v1", nil)
	ok(t, err)
	password := mustToken(t, sdk(s, userKey(), region))
	digest, err := pullThrough(t.Context(), proxied(t, s).Transport, ownHost, "shop/api", "v1", "AWS", password)
	ok(t, err)
	if digest != want {
		t.Errorf("pulled %s, want %s", digest, want)
	}
}

func TestProxyRefuses(t *testing.T) {
	s := start(t, Options{})
	client := proxied(t, s)
	for _, u := range []string{"https://example.com/", "https://169.254.169.254/", "https://api.ecr.eu-west-1.amazonaws.com.evil.example/"} {
		response, err := client.Get(u)
		if err == nil {
			_ = response.Body.Close()
			t.Errorf("%s was answered", u)
		}
	}
}

func TestProxyHoldsTheSignatureToTheHost(t *testing.T) {
	s := start(t, Options{})
	config := sdk(s, userKey(), region)
	config.BaseEndpoint = aws.String("https://api.ecr.us-east-1.amazonaws.com")
	config.HTTPClient = proxied(t, s)
	_, _, err := getToken(t.Context(), config)
	if got := code(err); got != "InvalidSignatureException" {
		t.Errorf("error code %q", got)
	}
}
