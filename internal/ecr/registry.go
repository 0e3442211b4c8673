// Package ecr knows the host names of Amazon's container registries.
//
// A [Registry] is parsed once, from a label key with [ParseLabelKey], from an
// image reference with [ParseImage] or from a bare host with [ParseRegistry];
// code after that takes the value. The package enumerates the domains of
// registries, but no regions, so that a region which opens tomorrow works today.
// It takes what AWS's own parsers take: all domains are AWS's, so that being
// stricter would only refuse users. It never rebuilds a host from its parts:
// FIPS, dual-stack and partition would be lost.
package ecr

import (
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"
)

// Registry is the host of one ECR registry. Registries are comparable, and two
// are equal when they are the same host. The zero value is no registry.
type Registry struct {
	host      string
	account   string
	region    string
	partition string
	fips      bool
	dualStack bool
}

// String returns the host, in lower case and without a port. It is what an
// auths entry of a pull secret is keyed by.
func (r Registry) String() string { return r.host }

// Account returns the 12 digits of the account that owns the registry. It is
// empty for public registries and for VPC endpoints, which serve any account.
// It says nothing about whose credentials open the registry.
func (r Registry) Account() string { return r.account }

// Region returns the region whose API issues tokens for the registry. For
// public registries that is us-east-1, the only region with their API.
func (r Registry) Region() string { return r.region }

// Partition returns the AWS partition, such as aws, aws-cn or aws-us-gov.
// Partitions share no credentials.
func (r Registry) Partition() string { return r.partition }

// FIPS reports whether the host is a FIPS 140 endpoint.
func (r Registry) FIPS() bool { return r.fips }

// DualStack reports whether the host is reachable over IPv6 too.
func (r Registry) DualStack() bool { return r.dualStack }

// Public reports whether the host is one of ECR Public, whose tokens come from
// an API of its own.
func (r Registry) Public() bool { return r.host == publicHost || r.host == publicDualStackHost }

// ErrNotECR says that a host has nothing to do with ECR.
var ErrNotECR = errors.New("not an ECR registry host")

// MalformedError says that a host looks like a registry of ECR but is none, so
// that whoever wrote it most likely meant one.
type MalformedError struct {
	Host   string // as it was given
	Reason string // what is wrong with it, in a few words
}

func (e *MalformedError) Error() string {
	return fmt.Sprintf("%q looks like an ECR registry host but %s", e.Host, e.Reason)
}

const (
	publicHost          = "public.ecr.aws"
	publicDualStackHost = "ecr-public.aws.com"
	publicRegion        = "us-east-1"

	// labelName stands after the slash in the label key of a host that is too
	// long to be a key by itself.
	labelName = "pullpass"
)

// The domains of private registries, and the partition of each. They are those
// of AWS's own parsers, in ecr-credential-provider and in
// amazon-ecr-credential-helper, which accept every form of host under each.
var domains = [...]struct{ name, partition string }{
	{"amazonaws.com", "aws"},
	{"on.aws", "aws"},
	{"amazonaws.com.cn", "aws-cn"},
	{"on.amazonwebservices.com.cn", "aws-cn"},
	{"amazonaws.eu", "aws-eusc"},
	{"on.amazonwebservices.eu", "aws-eusc"},
	{"c2s.ic.gov", "aws-iso"},
	{"sc2s.sgov.gov", "aws-iso-b"},
	{"cloud.adc-e.uk", "aws-iso-e"},
	{"csp.hci.ic.gov", "aws-iso-f"},
}

// The first part of a region's name where a partition has one of its own. It
// counts for more than the domain, as it does where the SDK looks for an
// endpoint, and aws-us-gov has no domain of its own.
var regionPrefixes = [...]struct{ prefix, partition string }{
	{"us-gov-", "aws-us-gov"},
	{"cn-", "aws-cn"},
	{"eusc-", "aws-eusc"},
	{"us-iso-", "aws-iso"},
	{"us-isob-", "aws-iso-b"},
	{"eu-isoe-", "aws-iso-e"},
	{"us-isof-", "aws-iso-f"},
	{"eu-isof-", "aws-iso-f"},
}

// The parts of <account>.dkr.ecr.<region>.<domain>, and of a VPC endpoint's host,
// vpce-<id>-<hash>.dkr.ecr.<region>.vpce.<domain>.
const (
	accountPattern  = `[0-9]{12}`
	endpointPattern = `vpce(-[a-z0-9]+){2,}` // a third one is an availability zone
	servicePattern  = `[.-]ecr(-fips)?\.`
	regionPattern   = `[a-z0-9][a-z0-9-]*`
)

// HostPattern returns the regular expression (RE2) of all hosts, in lower case.
// Whoever uses it adds the anchors, and brackets around it.
func HostPattern() string {
	var names []string
	for _, d := range domains {
		names = append(names, regexp.QuoteMeta(d.name))
	}
	const rest = `\.dkr` + servicePattern + regionPattern + `\.`
	return `(` + accountPattern + rest + `|` + endpointPattern + rest + `vpce\.)(` + strings.Join(names, `|`) + `)|` +
		regexp.QuoteMeta(publicHost) + `|` + regexp.QuoteMeta(publicDualStackHost)
}

// marks are in every host, and in most of what was meant to be one.
var marks = [...]string{".dkr.ecr", ".dkr-ecr", publicHost, publicDualStackHost}

// MarkPattern returns a regular expression (RE2) that matches somewhere in every
// host in lower case, and in little else.
func MarkPattern() string {
	var quoted []string
	for _, mark := range marks {
		quoted = append(quoted, regexp.QuoteMeta(mark))
	}
	return strings.Join(quoted, `|`)
}

var (
	wholeHost    = regexp.MustCompile(`^(` + HostPattern() + `)$`)
	wholeOwner   = regexp.MustCompile(`^(` + accountPattern + `|` + endpointPattern + `)$`)
	firstService = regexp.MustCompile(`^` + servicePattern)
)

// maxHost is the longest DNS name (RFC 1035).
const maxHost = 253

// ParseRegistry parses a whole host. Upper case is accepted; a port is not,
// because a label key cannot hold one and the kubelet compares it. The error
// is a [*MalformedError] for what was probably meant as a registry, and
// [ErrNotECR] for anything else.
func ParseRegistry(host string) (Registry, error) {
	if !mayBeECR(host) {
		return Registry{}, ErrNotECR
	}
	lower := strings.ToLower(host)
	switch {
	case lower == publicHost, lower == publicDualStackHost:
		return Registry{host: lower, region: publicRegion, partition: "aws", dualStack: lower == publicDualStackHost}, nil
	case !wholeHost.MatchString(lower):
		return Registry{}, &MalformedError{Host: host, Reason: mistake(lower)}
	}
	owner, rest, _ := strings.Cut(lower, ".dkr")
	service, rest, _ := strings.Cut(rest[1:], ".")
	region, domain, _ := strings.Cut(rest, ".")
	r := Registry{
		host:      lower,
		region:    region,
		partition: partitionOf(region, strings.TrimPrefix(domain, "vpce.")),
		fips:      service == "ecr-fips",
		dualStack: strings.HasPrefix(domain, "on."),
	}
	if isAccount(owner) {
		r.account = owner
	}
	return r, nil
}

// mayBeECR reports whether a host is close enough to a registry's for its
// mistakes to be worth telling. Over-long and non-ASCII hosts are not: what
// comes after can rely on a short string of single bytes.
func mayBeECR(host string) bool {
	if len(host) > maxHost {
		return false
	}
	for i := range len(host) {
		if host[i] <= ' ' || host[i] >= 0x7f {
			return false
		}
	}
	lower := strings.ToLower(host)
	for _, mark := range marks {
		if strings.Contains(lower, mark) {
			return true
		}
	}
	owner, rest, _ := strings.Cut(lower, ".")
	return isAccount(owner) && strings.Contains(rest, "aws")
}

// mistake says what is wrong with a host, in lower case, that has no registry's
// form.
func mistake(host string) string {
	owner, rest, ok := strings.Cut(host, ".dkr")
	service := firstService.FindString(rest)
	region, domain, _ := strings.Cut(rest[len(service):], ".")
	switch {
	case !ok:
		return "is not exactly " + publicHost + " or " + publicDualStackHost
	case service == "":
		return "does not contain .dkr.ecr., .dkr.ecr-fips., .dkr-ecr. or .dkr-ecr-fips."
	case !wholeOwner.MatchString(owner):
		return fmt.Sprintf("%q is neither an account of 12 digits nor the name of a VPC endpoint", owner)
	case !isAccount(owner) && !strings.HasPrefix(domain, "vpce."):
		return fmt.Sprintf("%q is not the domain of a VPC endpoint", domain)
	default:
		return fmt.Sprintf("%q is not a region followed by an ECR domain", region+"."+domain)
	}
}

// isAccount reports whether s is an AWS account id.
func isAccount(s string) bool { return len(s) == 12 && strings.Trim(s, "0123456789") == "" }

// partitionOf returns the partition of a region under one of the domains.
func partitionOf(region, domain string) string {
	for _, p := range regionPrefixes {
		if strings.HasPrefix(region, p.prefix) {
			return p.partition
		}
	}
	i := slices.IndexFunc(domains[:], func(d struct{ name, partition string }) bool { return d.name == domain })
	return domains[i].partition
}

// ParseLabelKey parses the key of a namespace label. The key is the host
// itself; a host longer than the 63 characters of a label's name stands before
// a slash, as in vpce-….vpce.amazonaws.com/pullpass. Errors are those of
// [ParseRegistry].
func ParseLabelKey(key string) (Registry, error) {
	host, name, prefixed := strings.Cut(key, "/")
	if prefixed && name != labelName {
		return Registry{}, ErrNotECR
	}
	return ParseRegistry(host)
}

// LabelKey returns the namespace label key that [ParseLabelKey] reads as the
// registry.
func (r Registry) LabelKey() string {
	if len(r.host) > 63 {
		return r.host + "/" + labelName
	}
	return r.host
}

// ParseImage returns the registry that an image reference names, whether it
// has a tag, a digest, both or neither. It reports false for every other
// registry, for short names of Docker Hub, for a host with a port, whose pulls
// an entry without one does not serve, and for what is no reference at all.
func ParseImage(ref string) (Registry, bool) {
	host, repository, ok := strings.Cut(ref, "/")
	if !ok || repository == "" {
		return Registry{}, false
	}
	r, err := ParseRegistry(host)
	return r, err == nil
}
