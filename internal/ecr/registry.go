// Package ecr knows the host names of Amazon's container registries.
//
// A [Registry] is parsed once, from a label key with [ParseLabelKey], from an
// image reference with [ParseImage] or from a bare host with [ParseRegistry];
// code after that takes the value. The package enumerates the forms that a
// host can have and the partitions that a suffix belongs to, but no regions,
// so that a region which opens tomorrow works today. It never rebuilds a host
// from its parts: FIPS, dual-stack and partition would be lost.
package ecr

import (
	"errors"
	"fmt"
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

// A suffix is what follows the region in a host, and tells the forms that
// registries under it can have.
type suffix struct {
	domain    string
	partition string
	dualStack bool // hosts read <account>.dkr-ecr.<region>.<domain>
	fips      bool // has the FIPS forms
}

// The domains as AWS publishes them for each partition. Under amazonaws.com
// and on.aws the region tells aws-us-gov from aws.
var suffixes = [...]suffix{
	{domain: "amazonaws.com", partition: "aws", fips: true},
	{domain: "on.aws", partition: "aws", fips: true, dualStack: true},
	{domain: "amazonaws.com.cn", partition: "aws-cn"},
	{domain: "on.amazonwebservices.com.cn", partition: "aws-cn", dualStack: true},
	{domain: "amazonaws.eu", partition: "aws-eusc"},
	{domain: "c2s.ic.gov", partition: "aws-iso"},
	{domain: "sc2s.sgov.gov", partition: "aws-iso-b"},
	{domain: "cloud.adc-e.uk", partition: "aws-iso-e"},
	{domain: "csp.hci.ic.gov", partition: "aws-iso-f"},
}

// The first part of a region's name where a partition has one of its own, so
// that a host with the suffix of another partition is recognised as a mistake.
var regionPrefixes = [...]struct{ prefix, partition string }{
	{"us-gov-", "aws-us-gov"},
	{"cn-", "aws-cn"},
	{"eusc-", "aws-eusc"},
	{"us-iso-", "aws-iso"},
	{"us-isob-", "aws-iso-b"},
	{"eu-isoe-", "aws-iso-e"},
	{"us-isof-", "aws-iso-f"},
}

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
	switch lower {
	case publicHost:
		return Registry{host: lower, region: publicRegion, partition: "aws"}, nil
	case publicDualStackHost:
		return Registry{host: lower, region: publicRegion, partition: "aws", dualStack: true}, nil
	}
	r, reason := parsePrivate(lower)
	if reason != "" {
		return Registry{}, &MalformedError{Host: host, Reason: reason}
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
	for _, mark := range [...]string{".dkr.ecr", ".dkr-ecr", publicHost, publicDualStackHost} {
		if strings.Contains(lower, mark) {
			return true
		}
	}
	owner, rest, _ := strings.Cut(lower, ".")
	return isAccount(owner) && strings.Contains(rest, "aws")
}

// parsePrivate parses <account>.<service>.<region>.<suffix> and the form of a
// VPC endpoint. It returns what is wrong with any other host.
func parsePrivate(host string) (Registry, string) {
	owner, rest, ok := strings.Cut(host, ".dkr")
	if !ok {
		return Registry{}, "is not exactly " + publicHost + " or " + publicDualStackHost
	}
	r := Registry{host: host}
	var service string
	switch {
	case strings.HasPrefix(rest, ".ecr."), strings.HasPrefix(rest, ".ecr-fips."):
		service, rest, _ = strings.Cut(rest[1:], ".")
	case strings.HasPrefix(rest, "-ecr."), strings.HasPrefix(rest, "-ecr-fips."):
		service, rest, _ = strings.Cut(rest[1:], ".")
		r.dualStack = true
	default:
		return Registry{}, "has no .dkr.ecr., .dkr.ecr-fips., .dkr-ecr. or .dkr-ecr-fips. in it"
	}
	r.fips = service == "ecr-fips"

	var domain string
	r.region, domain, _ = strings.Cut(rest, ".")
	if !isRegion(r.region) {
		return Registry{}, fmt.Sprintf("%q is not the name of a region", r.region)
	}
	if isVPCEndpoint(owner) && domain == "vpce.amazonaws.com" && service == "ecr" && !r.dualStack {
		r.partition = partitionOf(r.region, "aws")
		return r, ""
	}
	if !isAccount(owner) {
		return Registry{}, fmt.Sprintf("%q is not an account of 12 digits", owner)
	}
	r.account = owner
	for _, s := range suffixes {
		if s.domain != domain || s.dualStack != r.dualStack || r.fips && !s.fips {
			continue
		}
		r.partition = partitionOf(r.region, s.partition)
		if r.partition != s.partition && (s.partition != "aws" || r.partition != "aws-us-gov") {
			return Registry{}, fmt.Sprintf("region %s is not under %s", r.region, domain)
		}
		return r, ""
	}
	return Registry{}, fmt.Sprintf("%q does not follow .%s. and a region", domain, strings.TrimSuffix(host[len(owner)+1:], "."+rest))
}

// partitionOf returns the partition that a region's name belongs to, or the
// given one when the name does not tell.
func partitionOf(region, otherwise string) string {
	for _, p := range regionPrefixes {
		if strings.HasPrefix(region, p.prefix) {
			return p.partition
		}
	}
	return otherwise
}

// isAccount reports whether s is an AWS account id.
func isAccount(s string) bool {
	return len(s) == 12 && strings.Trim(s, "0123456789") == ""
}

// isRegion reports whether s is shaped like a region: words between hyphens,
// two at least, then a number, as in us-gov-west-1.
func isRegion(s string) bool {
	words := strings.Split(s, "-")
	if len(s) > 32 || len(words) < 3 {
		return false
	}
	last := words[len(words)-1]
	if last == "" || strings.Trim(last, "0123456789") != "" {
		return false
	}
	for i, w := range words[:len(words)-1] {
		if w == "" || !isLetter(w[0]) || strings.TrimFunc(w[1:], isAlphanumeric) != "" || i == 0 && len(w) < 2 {
			return false
		}
	}
	return true
}

// isVPCEndpoint reports whether s names an interface endpoint:
// vpce-<id>-<hash>, and after a third hyphen perhaps an availability zone.
func isVPCEndpoint(s string) bool {
	words := strings.Split(s, "-")
	if len(s) > 63 || len(words) < 3 || words[0] != "vpce" {
		return false
	}
	for _, w := range words[1:] {
		if w == "" || strings.TrimFunc(w, isAlphanumeric) != "" {
			return false
		}
	}
	return true
}

func isLetter(c byte) bool { return 'a' <= c && c <= 'z' }

func isAlphanumeric(c rune) bool { return 'a' <= c && c <= 'z' || '0' <= c && c <= '9' }

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
