// Package ecrtest lists registry hosts for tests: one of every form that there
// is, hosts that are nearly one, and hosts that have nothing to do with ECR. It
// says by itself what each is, so that it can tell whether a parser is right.
package ecrtest

import "strings"

// A Host is a registry's.
type Host struct {
	Name                       string
	Account, Region, Partition string // Account is empty where the host names none
	FIPS, DualStack, Public    bool

	// Hypothetical says that the host is of a region that AWS does not have in
	// that partition, but might some day.
	Hypothetical bool
}

// Hosts returns one of every form, and of every partition.
func Hosts() []Host {
	return []Host{
		{Name: "123456789012.dkr.ecr.us-east-1.amazonaws.com", Account: "123456789012", Region: "us-east-1", Partition: "aws"},
		{Name: "000000000000.dkr.ecr.ap-southeast-7.amazonaws.com", Account: "000000000000", Region: "ap-southeast-7", Partition: "aws"},
		{Name: "123456789012.dkr.ecr.xx-somewhere2-new-12.amazonaws.com", Account: "123456789012", Region: "xx-somewhere2-new-12", Partition: "aws", Hypothetical: true},
		{Name: "123456789012.dkr.ecr-fips.us-east-2.amazonaws.com", Account: "123456789012", Region: "us-east-2", Partition: "aws", FIPS: true},
		{Name: "123456789012.dkr-ecr.eu-central-1.on.aws", Account: "123456789012", Region: "eu-central-1", Partition: "aws", DualStack: true},
		{Name: "123456789012.dkr-ecr-fips.us-west-1.on.aws", Account: "123456789012", Region: "us-west-1", Partition: "aws", FIPS: true, DualStack: true},
		{Name: "123456789012.dkr.ecr.us-gov-west-1.amazonaws.com", Account: "123456789012", Region: "us-gov-west-1", Partition: "aws-us-gov"},
		{Name: "123456789012.dkr.ecr-fips.us-gov-east-1.amazonaws.com", Account: "123456789012", Region: "us-gov-east-1", Partition: "aws-us-gov", FIPS: true},
		{Name: "123456789012.dkr-ecr.us-gov-west-1.on.aws", Account: "123456789012", Region: "us-gov-west-1", Partition: "aws-us-gov", DualStack: true},
		{Name: "123456789012.dkr-ecr-fips.us-gov-west-1.on.aws", Account: "123456789012", Region: "us-gov-west-1", Partition: "aws-us-gov", FIPS: true, DualStack: true},
		{Name: "123456789012.dkr.ecr.cn-north-1.amazonaws.com.cn", Account: "123456789012", Region: "cn-north-1", Partition: "aws-cn"},
		{Name: "123456789012.dkr-ecr.cn-northwest-1.on.amazonwebservices.com.cn", Account: "123456789012", Region: "cn-northwest-1", Partition: "aws-cn", DualStack: true},
		{Name: "123456789012.dkr.ecr.eusc-de-east-1.amazonaws.eu", Account: "123456789012", Region: "eusc-de-east-1", Partition: "aws-eusc"},
		{Name: "123456789012.dkr.ecr.us-iso-east-1.c2s.ic.gov", Account: "123456789012", Region: "us-iso-east-1", Partition: "aws-iso"},
		{Name: "123456789012.dkr.ecr.us-isob-east-1.sc2s.sgov.gov", Account: "123456789012", Region: "us-isob-east-1", Partition: "aws-iso-b"},
		{Name: "123456789012.dkr.ecr.eu-isoe-west-1.cloud.adc-e.uk", Account: "123456789012", Region: "eu-isoe-west-1", Partition: "aws-iso-e"},
		{Name: "123456789012.dkr.ecr.us-isof-south-1.csp.hci.ic.gov", Account: "123456789012", Region: "us-isof-south-1", Partition: "aws-iso-f"},
		{Name: "public.ecr.aws", Region: "us-east-1", Partition: "aws", Public: true},
		{Name: "ecr-public.aws.com", Region: "us-east-1", Partition: "aws", Public: true, DualStack: true},
		{Name: "vpce-0123456789abcdef0-1a2b3c4d.dkr.ecr.eu-west-1.vpce.amazonaws.com", Region: "eu-west-1", Partition: "aws"},
		{Name: "vpce-0123456789abcdef0-1a2b3c4d-eu-west-1a.dkr.ecr.eu-west-1.vpce.amazonaws.com", Region: "eu-west-1", Partition: "aws"},
		{Name: "123456789012.dkr.ecr.eu-west-1.amazonaws.com.cn", Account: "123456789012", Region: "eu-west-1", Partition: "aws-cn", Hypothetical: true},
		{Name: "vpce-0123456789abcdef0-1a2b3c4d-eu-west-1a.dkr.ecr.cn-north-1.vpce.amazonaws.com", Region: "cn-north-1", Partition: "aws-cn", Hypothetical: true},
		// The longest name of an endpoint, and of a region.
		{Name: "vpce-" + strings.Repeat("0", 50) + "-abcdefg.dkr.ecr.us-east-1.vpce.amazonaws.com", Region: "us-east-1", Partition: "aws", Hypothetical: true},
		{Name: "111111111111.dkr-ecr." + strings.Repeat("a", 28) + "-b-1.on.aws", Account: "111111111111", Region: strings.Repeat("a", 28) + "-b-1", Partition: "aws", DualStack: true, Hypothetical: true},
		{Name: "111111111111.dkr.ecr.us-e-1.amazonaws.com", Account: "111111111111", Region: "us-e-1", Partition: "aws", Hypothetical: true},
	}
}

// A Mistake is a host that looks like a registry's and is none.
type Mistake struct {
	Name   string
	Reason string // words of the explanation
}

// Mistakes returns hosts with something wrong about every part.
func Mistakes() []Mistake {
	return []Mistake{
		{"12345678901.dkr.ecr.us-east-1.amazonaws.com", `"12345678901" is not an account of 12 digits`},
		{"1234567890123.dkr.ecr.us-east-1.amazonaws.com", `not an account`},
		{"x.dkr.ecr.us-east-1.amazonaws.com", `not an account`},
		{".dkr.ecr.us-east-1.amazonaws.com", `not an account`},
		{"123456789012.dkr.ecr.amazonaws.com", `"amazonaws" is not the name of a region`},
		{"123456789012.dkr.ecr.us-east.amazonaws.com", `"us-east" is not the name of a region`},
		{"123456789012.dkr.ecr.us--1.amazonaws.com", `not the name of a region`},
		{"123456789012.dkr.ecr.us-east-1.amazonaws.com.evil.example", `"amazonaws.com.evil.example" does not follow .dkr.ecr. and a region`},
		{"evil.123456789012.dkr.ecr.us-east-1.amazonaws.com", `not an account`},
		{"123456789012.dkr.ecr.us-east-1.amazonaws.com.", `does not follow`},
		{"123456789012.dkr.ecr.us-east-1", `does not follow`},
		{"123456789012.dkr.ecr.us-east-1.on.aws", `"on.aws" does not follow .dkr.ecr.`},
		{"123456789012.dkr-ecr.us-east-1.amazonaws.com", `does not follow .dkr-ecr.`},
		{"123456789012.dkr.ecr-fips.cn-north-1.amazonaws.com.cn", `does not follow .dkr.ecr-fips.`},
		{"123456789012.dkr.ecr.cn-north-1.amazonaws.com", `region cn-north-1 is not under amazonaws.com`},
		{"123456789012.dkr.ecr.us-gov-west-1.amazonaws.com.cn", `region us-gov-west-1 is not under amazonaws.com.cn`},
		{"123456789012.dkr.ecr.us-east-1.amazonaws.com:443", `does not follow`},
		{"123456789012.dkr.ecs.us-east-1.amazonaws.com", `has no .dkr.ecr.`},
		{"123456789012.ecr.us-east-1.amazonaws.com", `is not exactly`},
		{"my.public.ecr.aws", `is not exactly`},
		{"public.ecr.aws.com", `is not exactly`},
		{"vpce-0123-abcd.dkr.ecr.us-east-1.amazonaws.com", `not an account`},
		{"vpce-0123_4-abcd.dkr.ecr.us-east-1.vpce.amazonaws.com", `not an account`},
		{"vpce-0123-abcd.dkr.ecr-fips.us-east-1.vpce.amazonaws.com", `not an account`},
		{"123456789012.dkr.ecr.us-east-1.vpce.amazonaws.com", `does not follow`},
		{"123456789012.dkr.ecr.1-2-3.amazonaws.com", `not the name of a region`},
		{"123456789012.dkr.ecr.us-east-1a.amazonaws.com", `not the name of a region`},
		{"123456789012.dkr.ecr.us-ea/st-1.amazonaws.com", `not the name of a region`},
		{"123456789012.dkr.ecr." + strings.Repeat("a", 40) + "-b-1.on.aws", `not the name of a region`},
		{"111111111111.dkr.ecr.u-east-1.amazonaws.com", `not the name of a region`},
		{"111111111111.dkr.ecr.us-2ast-1.amazonaws.com", `not the name of a region`},
		{"vpce-0123.dkr.ecr.us-east-1.vpce.amazonaws.com", `not an account`},
		{"vpce-" + strings.Repeat("0", 50) + "-abcdefgh.dkr.ecr.us-east-1.vpce.amazonaws.com", `not an account`},
		{"111111111111.dkr.ecr." + strings.Repeat("a", 28) + "-b-1.on.aws", `does not follow`},
		{"111111111111.dkr-ecr." + strings.Repeat("a", 29) + "-b-1.on.aws", `not the name of a region`},
		// A partition's region under another's domain.
		{"123456789012.dkr.ecr.us-gov-west-1.c2s.ic.gov", `region us-gov-west-1 is not under c2s.ic.gov`},
		{"123456789012.dkr-ecr.cn-north-1.on.aws", `region cn-north-1 is not under on.aws`},
		{"123456789012.dkr.ecr.eusc-de-east-1.amazonaws.com", `region eusc-de-east-1 is not under amazonaws.com`},
		{"123456789012.dkr.ecr.us-iso-east-1.amazonaws.com", `region us-iso-east-1 is not under amazonaws.com`},
		{"123456789012.dkr.ecr.us-isob-east-1.amazonaws.com", `region us-isob-east-1 is not under amazonaws.com`},
		{"123456789012.dkr.ecr.us-isob-east-1.c2s.ic.gov", `region us-isob-east-1 is not under c2s.ic.gov`},
		{"123456789012.dkr.ecr.eu-isoe-west-1.amazonaws.com", `region eu-isoe-west-1 is not under amazonaws.com`},
		{"123456789012.dkr.ecr.us-isof-south-1.amazonaws.com", `region us-isof-south-1 is not under amazonaws.com`},
	}
}

// Others returns names that have nothing to do with ECR, and some that are no
// host's.
func Others() []string {
	return []string{
		"", ".", "docker.io", "ghcr.io", "localhost", "kubernetes.io", "pod-security.kubernetes.io",
		"eks.amazonaws.com", "123456789012", "s3.amazonaws.com",
		"123456789012.dkr.ecr.us-east-1.amazonaws.com\n",
		"123456789012.dkr.ecr.us-east-1.amazonaws.com\x00",
		"123456789012.dkr.ecr.us-east-1.amazonaws.cöm",
		strings.Repeat("a", 250) + ".dkr.ecr.us-east-1.amazonaws.com",
		"publicxecr.aws", "aws.com",
	}
}
