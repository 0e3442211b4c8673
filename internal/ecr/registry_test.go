package ecr

import (
	"errors"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/pullpass/pullpass/internal/ecr/ecrtest"
)

func TestEveryHostForm(t *testing.T) {
	for _, h := range ecrtest.Hosts() {
		t.Run(h.Name, func(t *testing.T) {
			r, err := ParseRegistry(h.Name)
			if err != nil {
				t.Fatal(err)
			}
			want := Registry{host: h.Name, account: h.Account, region: h.Region, partition: h.Partition, fips: h.FIPS, dualStack: h.DualStack}
			if r != want {
				t.Errorf("ParseRegistry = %+v, want %+v", r, want)
			}
			if r.Public() != h.Public {
				t.Errorf("Public() = %t, want %t", r.Public(), h.Public)
			}
			if upper, err := ParseRegistry(strings.ToUpper(h.Name)); err != nil || upper != r {
				t.Errorf("in upper case: %+v, %v", upper, err)
			}
			if labelled, err := ParseLabelKey(r.LabelKey()); err != nil || labelled != r {
				t.Errorf("ParseLabelKey(%q) = %+v, %v", r.LabelKey(), labelled, err)
			}
			const digest = "@sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
			for _, rest := range []string{"/app", "/team/app:1.2", "/app" + digest, "/app:1.2" + digest} {
				if imaged, ok := ParseImage(h.Name + rest); !ok || imaged != r {
					t.Errorf("ParseImage(%q) = %+v, %t", h.Name+rest, imaged, ok)
				}
			}
		})
	}
}

func TestMalformedHostsSayWhatIsWrong(t *testing.T) {
	for _, m := range ecrtest.Mistakes() {
		host, reason := m.Name, m.Reason
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

// TestAsAWSParses compares with AWS's own parsers: whatever one of them takes is a
// registry here too, and nothing else of an account is. They allow an underscore
// in a region, which no image reference can have.
func TestAsAWSParses(t *testing.T) {
	parsers := []*regexp.Regexp{
		// kubernetes/cloud-provider-aws, cmd/ecr-credential-provider/main.go
		regexp.MustCompile(`^(\d{12})\.dkr[\.\-]ecr(\-fips)?\.([a-zA-Z0-9][a-zA-Z0-9-_]*)\.(amazonaws\.com(?:\.cn)?|on\.(?:aws|amazonwebservices\.com\.cn)|sc2s\.sgov\.gov|c2s\.ic\.gov|cloud\.adc-e\.uk|csp\.hci\.ic\.gov)$`),
		// awslabs/amazon-ecr-credential-helper, ecr-login/api/client.go
		regexp.MustCompile(`^(\d{12})\.dkr[\.\-]ecr(\-fips)?\.([a-zA-Z0-9][a-zA-Z0-9-_]*)\.(amazonaws\.(?:com(?:\.cn)?|eu)|on\.(?:aws|amazonwebservices\.(?:com\.cn|eu))|sc2s\.sgov\.gov|c2s\.ic\.gov|cloud\.adc-e\.uk|csp\.hci\.ic\.gov)$`),
	}
	owners := []string{"", "1", "12345678901", "123456789012", "1234567890123", "12345678901a", "123456789012.dkr", "A123456789012"}
	services := []string{".dkr.ecr.", ".dkr-ecr.", ".dkr.ecr-fips.", ".dkr-ecr-fips.", ".DKR.ecr.", ".dkr_ecr.", ".dkr.ecr-fips-fips.", ".dkr.ecr", ".ecr."}
	regions := []string{"", "us-east-1", "US-EAST-1", "us-gov-west-1", "x", "1", "-x", "x-", "eu.west-1", "us east-1", "mars-north-42", "ü"}
	suffixes := []string{"", ".", ".com", ".evil.example", ".amazonaws.com.evil.example", ".amazonaws.com.", "x.amazonaws.com", ".amazonaws.co", ".on.aws.com", ".on.amazonaws.com", ".vpce.amazonaws.com"}
	for _, d := range domains {
		suffixes = append(suffixes, "."+d.name)
	}
	accepted := 0
	for _, owner := range owners {
		for _, service := range services {
			for _, region := range regions {
				for _, suffix := range suffixes {
					name := owner + service + region + suffix
					want := slices.ContainsFunc(parsers, func(p *regexp.Regexp) bool { return p.MatchString(strings.ToLower(name)) })
					_, err := ParseRegistry(name)
					if (err == nil) != want {
						t.Errorf("ParseRegistry(%q): %v, taken by AWS: %t", name, err, want)
					}
					if want {
						accepted++
					}
				}
			}
		}
	}
	if accepted < 100 {
		t.Errorf("%d hosts were accepted: what was tried?", accepted)
	}
}

// TestPatterns compares what others use in place of the parser.
func TestPatterns(t *testing.T) {
	whole, marked := regexp.MustCompile(`^(`+HostPattern()+`)$`), regexp.MustCompile(MarkPattern())
	for _, h := range ecrtest.Hosts() {
		if !whole.MatchString(h.Name) || !marked.MatchString(h.Name) {
			t.Errorf("%s: whole %t, marked %t", h.Name, whole.MatchString(h.Name), marked.MatchString(h.Name))
		}
	}
	for _, m := range ecrtest.Mistakes() {
		if whole.MatchString(m.Name) {
			t.Errorf("%s matches", m.Name)
		}
	}
	for _, host := range ecrtest.Others() {
		if whole.MatchString(host) || marked.MatchString(host) && !strings.Contains(host, ".dkr.ecr.") {
			t.Errorf("%q matches", host)
		}
	}
}

func TestOtherHostsAreNotECR(t *testing.T) {
	for _, host := range ecrtest.Others() {
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
	for _, h := range ecrtest.Hosts() {
		f.Add(h.Name, "evil.example")
		f.Add(strings.ToUpper(h.Name), ":443")
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
