package fakeaws

import (
	"net"
	"regexp"
	"strings"
)

// partition is a separate AWS: credentials of one mean nothing in another.
type partition struct {
	name      string // as in ARNs
	suffix    string // of its private registries' hosts
	dualStack string // of their dual-stack hosts, if it has any
	fips      bool   // has FIPS hosts
}

// partitionOf goes by the region's prefix, so that future regions work.
func partitionOf(region string) partition {
	for prefix, p := range map[string]partition{
		"cn-":      {"aws-cn", "amazonaws.com.cn", "on.amazonwebservices.com.cn", false},
		"us-gov-":  {"aws-us-gov", "amazonaws.com", "on.aws", true},
		"us-iso-":  {name: "aws-iso", suffix: "c2s.ic.gov"},
		"us-isob-": {name: "aws-iso-b", suffix: "sc2s.sgov.gov"},
		"eu-isoe-": {name: "aws-iso-e", suffix: "cloud.adc-e.uk"},
		"us-isof-": {name: "aws-iso-f", suffix: "csp.hci.ic.gov"},
		"eu-isof-": {name: "aws-iso-f", suffix: "csp.hci.ic.gov"},
		"eusc-":    {name: "aws-eusc", suffix: "amazonaws.eu"},
	} {
		if strings.HasPrefix(region, prefix) {
			return p
		}
	}
	return partition{"aws", "amazonaws.com", "on.aws", true}
}

const (
	regionPattern = `[a-z]{2,}(?:-[a-z]+)+-[0-9]+`
	suffixPattern = `amazonaws\.com|amazonaws\.com\.cn|amazonaws\.eu|c2s\.ic\.gov|sc2s\.sgov\.gov|cloud\.adc-e\.uk|csp\.hci\.ic\.gov`
)

var (
	wholeRegion  = regexp.MustCompile(`^` + regionPattern + `$`)
	registryHost = regexp.MustCompile(`^([0-9]{12})\.dkr([.-])ecr(-fips)?\.(` + regionPattern + `)\.(.+)$`)
	apiHost      = regexp.MustCompile(`^(?:api\.)?(?:ecr|ecr-public|sts)(?:-fips)?\.(` + regionPattern +
		`)\.(?:` + suffixPattern + `|api\.aws|api\.amazonwebservices\.com\.cn)$`)
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
	if m == nil || len(m[4]) > maxRegion {
		return registry{}, false
	}
	p := partitionOf(m[4])
	suffix := p.suffix
	if m[2] == "-" {
		suffix = p.dualStack
	}
	if m[5] != suffix || m[3] != "" && !p.fips {
		return registry{}, false
	}
	return registry{host: host, account: m[1], region: m[4]}, true
}

// maxRegion is far above the length of any region's name.
const maxRegion = 32

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
