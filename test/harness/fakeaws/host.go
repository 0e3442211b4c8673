package fakeaws

import (
	"net"
	"regexp"
	"strings"
)

// partition is a separate AWS: credentials of one mean nothing in another.
type partition struct {
	name   string // as in ARNs
	suffix string // of its registries' hosts
}

// partitionOf goes by the region's prefix, so that future regions work.
func partitionOf(region string) partition {
	for prefix, p := range map[string]partition{
		"cn-":      {"aws-cn", "amazonaws.com.cn"},
		"us-gov-":  {"aws-us-gov", "amazonaws.com"},
		"us-iso-":  {"aws-iso", "c2s.ic.gov"},
		"us-isob-": {"aws-iso-b", "sc2s.sgov.gov"},
		"eu-isoe-": {"aws-iso-e", "cloud.adc-e.uk"},
		"us-isof-": {"aws-iso-f", "csp.hci.ic.gov"},
		"eu-isof-": {"aws-iso-f", "csp.hci.ic.gov"},
		"eusc-":    {"aws-eusc", "amazonaws.eu"},
	} {
		if strings.HasPrefix(region, prefix) {
			return p
		}
	}
	return partition{"aws", "amazonaws.com"}
}

const (
	regionPattern = `[a-z]{2,}(?:-[a-z]+)+-[0-9]+`
	suffixPattern = `amazonaws\.com|amazonaws\.com\.cn|amazonaws\.eu|c2s\.ic\.gov|sc2s\.sgov\.gov|cloud\.adc-e\.uk|csp\.hci\.ic\.gov`
)

var (
	wholeRegion = regexp.MustCompile(`^` + regionPattern + `$`)
	// As in amazon-ecr-credential-helper, ecr-login/api/client.go.
	registryHost = regexp.MustCompile(`^(\d{12})\.dkr[.-]ecr(?:-fips)?\.([a-z0-9][a-z0-9-]*)\.` +
		`(?:` + suffixPattern + `|on\.(?:aws|amazonwebservices\.(?:com\.cn|eu)))$`)
	apiHost = regexp.MustCompile(`^(?:api\.)?(?:ecr|ecr-public|sts)(?:-fips)?\.(` + regionPattern +
		`)\.(?:` + suffixPattern + `|api\.aws|api\.amazonwebservices\.(?:com\.cn|eu))$`)
)

// registry is one registry, whichever of its host names was used: the FIPS and
// dual-stack names of an account and region are other doors to the same
// images.
type registry struct {
	host    string // as used, lower-cased, without a port
	account string // 12 digits; empty for the public registry
	region  string // empty for the public registry
}

// public tells whether it is public.ecr.aws.
func (r registry) public() bool { return r.account == "" }

// store names the images behind a registry.
type store struct{ account, region string }

func (r registry) store() store { return store{r.account, r.region} }

// parseRegistry parses an ECR host name, with or without a port. It is written
// apart from the product's own parser, which it helps to test.
// https://docs.aws.amazon.com/general/latest/gr/ecr.html
func parseRegistry(host string) (registry, bool) {
	host = bareHost(host)
	if host == "public.ecr.aws" || host == "ecr-public.aws.com" {
		return registry{host: host}, true
	}
	m := registryHost.FindStringSubmatch(host)
	if m == nil {
		return registry{}, false
	}
	return registry{host: host, account: m[1], region: m[2]}, true
}

// parseAPIHost parses a service's host name and returns its region. The global
// STS host is us-east-1's.
func parseAPIHost(host string) (region string, ok bool) {
	host = bareHost(host)
	if host == "sts.amazonaws.com" {
		return "us-east-1", true
	}
	m := apiHost.FindStringSubmatch(host)
	if m == nil {
		return "", false
	}
	return m[1], true
}

func validRegion(region string) bool {
	return wholeRegion.MatchString(region)
}

// bareHost drops the port and lower-cases.
func bareHost(hostport string) string {
	if host, _, err := net.SplitHostPort(hostport); err == nil {
		hostport = host
	}
	return strings.ToLower(hostport)
}
