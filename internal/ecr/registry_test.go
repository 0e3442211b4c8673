package ecr

import (
	"errors"
	"strings"
	"testing"
)

// hosts holds every form that a registry host can have.
var hosts = []struct {
	host, account, region, partition string
	fips, dualStack, public          bool
}{
	{host: "123456789012.dkr.ecr.us-east-1.amazonaws.com", account: "123456789012", region: "us-east-1", partition: "aws"},
	{host: "000000000000.dkr.ecr.ap-southeast-7.amazonaws.com", account: "000000000000", region: "ap-southeast-7", partition: "aws"},
	{host: "123456789012.dkr.ecr.xx-somewhere2-new-12.amazonaws.com", account: "123456789012", region: "xx-somewhere2-new-12", partition: "aws"},
	{host: "123456789012.dkr.ecr-fips.us-east-2.amazonaws.com", account: "123456789012", region: "us-east-2", partition: "aws", fips: true},
	{host: "123456789012.dkr-ecr.eu-central-1.on.aws", account: "123456789012", region: "eu-central-1", partition: "aws", dualStack: true},
	{host: "123456789012.dkr-ecr-fips.us-west-1.on.aws", account: "123456789012", region: "us-west-1", partition: "aws", fips: true, dualStack: true},
	{host: "123456789012.dkr.ecr.us-gov-west-1.amazonaws.com", account: "123456789012", region: "us-gov-west-1", partition: "aws-us-gov"},
	{host: "123456789012.dkr.ecr-fips.us-gov-east-1.amazonaws.com", account: "123456789012", region: "us-gov-east-1", partition: "aws-us-gov", fips: true},
	{host: "123456789012.dkr-ecr.us-gov-west-1.on.aws", account: "123456789012", region: "us-gov-west-1", partition: "aws-us-gov", dualStack: true},
	{host: "123456789012.dkr-ecr-fips.us-gov-west-1.on.aws", account: "123456789012", region: "us-gov-west-1", partition: "aws-us-gov", fips: true, dualStack: true},
	{host: "123456789012.dkr.ecr.cn-north-1.amazonaws.com.cn", account: "123456789012", region: "cn-north-1", partition: "aws-cn"},
	{host: "123456789012.dkr-ecr.cn-northwest-1.on.amazonwebservices.com.cn", account: "123456789012", region: "cn-northwest-1", partition: "aws-cn", dualStack: true},
	{host: "123456789012.dkr.ecr.eusc-de-east-1.amazonaws.eu", account: "123456789012", region: "eusc-de-east-1", partition: "aws-eusc"},
	{host: "123456789012.dkr.ecr.us-iso-east-1.c2s.ic.gov", account: "123456789012", region: "us-iso-east-1", partition: "aws-iso"},
	{host: "123456789012.dkr.ecr.us-isob-east-1.sc2s.sgov.gov", account: "123456789012", region: "us-isob-east-1", partition: "aws-iso-b"},
	{host: "123456789012.dkr.ecr.eu-isoe-west-1.cloud.adc-e.uk", account: "123456789012", region: "eu-isoe-west-1", partition: "aws-iso-e"},
	{host: "123456789012.dkr.ecr.us-isof-south-1.csp.hci.ic.gov", account: "123456789012", region: "us-isof-south-1", partition: "aws-iso-f"},
	{host: "public.ecr.aws", region: "us-east-1", partition: "aws", public: true},
	{host: "ecr-public.aws.com", region: "us-east-1", partition: "aws", public: true, dualStack: true},
	{host: "vpce-0123456789abcdef0-1a2b3c4d.dkr.ecr.eu-west-1.vpce.amazonaws.com", region: "eu-west-1", partition: "aws"},
	{host: "vpce-0123456789abcdef0-1a2b3c4d-eu-west-1a.dkr.ecr.eu-west-1.vpce.amazonaws.com", region: "eu-west-1", partition: "aws"},
}

func TestEveryHostForm(t *testing.T) {
	for _, h := range hosts {
		t.Run(h.host, func(t *testing.T) {
			r, err := ParseRegistry(h.host)
			if err != nil {
				t.Fatal(err)
			}
			want := Registry{host: h.host, account: h.account, region: h.region, partition: h.partition, fips: h.fips, dualStack: h.dualStack}
			if r != want {
				t.Errorf("ParseRegistry = %+v, want %+v", r, want)
			}
			if r.Public() != h.public {
				t.Errorf("Public() = %t, want %t", r.Public(), h.public)
			}
			if upper, err := ParseRegistry(strings.ToUpper(h.host)); err != nil || upper != r {
				t.Errorf("in upper case: %+v, %v", upper, err)
			}
			if labelled, err := ParseLabelKey(r.LabelKey()); err != nil || labelled != r {
				t.Errorf("ParseLabelKey(%q) = %+v, %v", r.LabelKey(), labelled, err)
			}
			const digest = "@sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
			for _, rest := range []string{"/app", "/team/app:1.2", "/app" + digest, "/app:1.2" + digest} {
				if imaged, ok := ParseImage(h.host + rest); !ok || imaged != r {
					t.Errorf("ParseImage(%q) = %+v, %t", h.host+rest, imaged, ok)
				}
			}
		})
	}
}

func TestMalformedHostsSayWhatIsWrong(t *testing.T) {
	for host, reason := range map[string]string{
		"12345678901.dkr.ecr.us-east-1.amazonaws.com":                     `"12345678901" is not an account of 12 digits`,
		"1234567890123.dkr.ecr.us-east-1.amazonaws.com":                   `not an account`,
		"x.dkr.ecr.us-east-1.amazonaws.com":                               `not an account`,
		".dkr.ecr.us-east-1.amazonaws.com":                                `not an account`,
		"123456789012.dkr.ecr.amazonaws.com":                              `"amazonaws" is not the name of a region`,
		"123456789012.dkr.ecr.us-east.amazonaws.com":                      `"us-east" is not the name of a region`,
		"123456789012.dkr.ecr.us--1.amazonaws.com":                        `not the name of a region`,
		"123456789012.dkr.ecr.us-east-1.amazonaws.com.evil.example":       `"amazonaws.com.evil.example" does not follow .dkr.ecr. and a region`,
		"evil.123456789012.dkr.ecr.us-east-1.amazonaws.com":               `not an account`,
		"123456789012.dkr.ecr.us-east-1.amazonaws.com.":                   `does not follow`,
		"123456789012.dkr.ecr.us-east-1":                                  `does not follow`,
		"123456789012.dkr.ecr.us-east-1.on.aws":                           `"on.aws" does not follow .dkr.ecr.`,
		"123456789012.dkr-ecr.us-east-1.amazonaws.com":                    `does not follow .dkr-ecr.`,
		"123456789012.dkr.ecr-fips.cn-north-1.amazonaws.com.cn":           `does not follow .dkr.ecr-fips.`,
		"123456789012.dkr.ecr.cn-north-1.amazonaws.com":                   `region cn-north-1 is not under amazonaws.com`,
		"123456789012.dkr.ecr.us-gov-west-1.amazonaws.com.cn":             `region us-gov-west-1 is not under amazonaws.com.cn`,
		"123456789012.dkr.ecr.us-east-1.amazonaws.com:443":                `does not follow`,
		"123456789012.dkr.ecs.us-east-1.amazonaws.com":                    `has no .dkr.ecr.`,
		"123456789012.ecr.us-east-1.amazonaws.com":                        `is not exactly`,
		"my.public.ecr.aws":                                               `is not exactly`,
		"public.ecr.aws.com":                                              `is not exactly`,
		"vpce-0123-abcd.dkr.ecr.us-east-1.amazonaws.com":                  `not an account`,
		"vpce-0123_4-abcd.dkr.ecr.us-east-1.vpce.amazonaws.com":           `not an account`,
		"vpce-0123-abcd.dkr.ecr-fips.us-east-1.vpce.amazonaws.com":        `not an account`,
		"123456789012.dkr.ecr.us-east-1.vpce.amazonaws.com":               `does not follow`,
		"123456789012.dkr.ecr.1-2-3.amazonaws.com":                        `not the name of a region`,
		"123456789012.dkr.ecr.us-east-1a.amazonaws.com":                   `not the name of a region`,
		"123456789012.dkr.ecr.us-ea/st-1.amazonaws.com":                   `not the name of a region`,
		"123456789012.dkr.ecr." + strings.Repeat("a", 40) + "-b-1.on.aws": `not the name of a region`,
	} {
		_, err := ParseRegistry(host)
		var malformed *MalformedError
		if !errors.As(err, &malformed) {
			t.Errorf("ParseRegistry(%q): %v, want a MalformedError", host, err)
			continue
		}
		if malformed.Host != host || !strings.Contains(malformed.Reason, reason) {
			t.Errorf("ParseRegistry(%q): %q, want the reason %q", host, malformed, reason)
		}
	}
}

func TestOtherHostsAreNotECR(t *testing.T) {
	for _, host := range []string{
		"", ".", "docker.io", "ghcr.io", "localhost", "kubernetes.io", "pod-security.kubernetes.io",
		"eks.amazonaws.com", "123456789012", "s3.amazonaws.com",
		"123456789012.dkr.ecr.us-east-1.amazonaws.com\n",
		"123456789012.dkr.ecr.us-east-1.amazonaws.com\x00",
		"123456789012.dkr.ecr.us-east-1.amazonaws.cöm",
		strings.Repeat("a", 250) + ".dkr.ecr.us-east-1.amazonaws.com",
	} {
		if r, err := ParseRegistry(host); !errors.Is(err, ErrNotECR) {
			t.Errorf("ParseRegistry(%q) = %v, %v, want ErrNotECR", host, r, err)
		}
	}
}

func TestLabelKeysWithAPrefix(t *testing.T) {
	const host = "123456789012.dkr.ecr.us-east-1.amazonaws.com"
	if r, err := ParseLabelKey(host + "/pullpass"); err != nil || r.String() != host {
		t.Errorf("a host before a slash: %v, %v", r, err)
	}
	for _, key := range []string{"pullpass.dev/" + host, host + "/other", host + "/", "/" + host, host + "/pullpass/x", "eks.amazonaws.com/x"} {
		if r, err := ParseLabelKey(key); !errors.Is(err, ErrNotECR) {
			t.Errorf("ParseLabelKey(%q) = %v, %v, want ErrNotECR", key, r, err)
		}
	}
}

func TestOtherImagesHaveNoRegistry(t *testing.T) {
	const host = "123456789012.dkr.ecr.us-east-1.amazonaws.com"
	for _, ref := range []string{
		"", "/", "//", "nginx", "nginx:1.27", "library/nginx", "docker.io/library/nginx", "ghcr.io/a/b:1",
		host, host + "/", host + ":443/app", host + ".evil.example/app", "evil.example/" + host + "/app",
		"evil" + host + "/app", "https://" + host + "/app", " " + host + "/app", host + "@sha256:00/app",
		"\x00", "\xff\xfe/app", strings.Repeat("a/", 2048),
	} {
		if r, ok := ParseImage(ref); ok {
			t.Errorf("ParseImage(%q) = %v, want none", ref, r)
		}
	}
}

// FuzzParse holds the package to three invariants: what it parses prints back
// as itself, it parses the same from a label key and from an image, and a
// registry ceases to be one as soon as anything stands before or after it.
func FuzzParse(f *testing.F) {
	for _, h := range hosts {
		f.Add(h.host, "evil.example")
		f.Add(strings.ToUpper(h.host), ":443")
	}
	f.Add("123456789012.dkr.ecr.us-east-1.amazonaws.com.evil.example", ".")
	f.Add("123456789012.dkr.ecr.us-gov-east-1.amazonaws.com", "-")
	f.Fuzz(func(t *testing.T, host, other string) {
		r, err := ParseRegistry(host)
		var malformed *MalformedError
		if err != nil {
			if r != (Registry{}) {
				t.Errorf("%q: both %+v and %v", host, r, err)
			}
			if !errors.Is(err, ErrNotECR) && (!errors.As(err, &malformed) || malformed.Reason == "") {
				t.Errorf("%q: an error of neither kind: %v", host, err)
			}
			return
		}
		if r.String() != strings.ToLower(host) {
			t.Errorf("%q prints as %q", host, r)
		}
		if again, err := ParseRegistry(r.String()); err != nil || again != r {
			t.Errorf("%q parses as %+v, then as %+v, %v", host, r, again, err)
		}
		if labelled, err := ParseLabelKey(r.LabelKey()); err != nil || labelled != r {
			t.Errorf("%q as label key %q: %+v, %v", host, r.LabelKey(), labelled, err)
		}
		if imaged, ok := ParseImage(host + "/app"); !ok || imaged != r {
			t.Errorf("%q in an image: %+v, %t", host, imaged, ok)
		}
		if r.Region() == "" || r.Partition() == "" || r.Public() && r.Account() != "" {
			t.Errorf("%q lacks a part: %+v", host, r)
		}
		if !strings.Contains(r.String(), r.Account()) || !r.Public() && !strings.Contains(r.String(), "."+r.Region()+".") {
			t.Errorf("%q has parts from elsewhere: %+v", host, r)
		}
		if other == "" {
			return
		}
		for _, longer := range []string{other + host, host + other} {
			// An endpoint's name is the one part without a fixed length.
			if got, err := ParseRegistry(longer); err == nil && !strings.HasPrefix(got.String(), "vpce-") {
				t.Errorf("%q is a registry, and so is %q", host, longer)
			}
		}
	})
}
