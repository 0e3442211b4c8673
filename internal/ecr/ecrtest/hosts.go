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
		{Name: "123456789012.dkr.ecr-fips.eusc-de-east-1.amazonaws.eu", Account: "123456789012", Region: "eusc-de-east-1", Partition: "aws-eusc", FIPS: true},
		{Name: "123456789012.dkr-ecr.eusc-de-east-1.on.amazonwebservices.eu", Account: "123456789012", Region: "eusc-de-east-1", Partition: "aws-eusc", DualStack: true},
		{Name: "123456789012.dkr.ecr.cn-north-1.on.amazonwebservices.com.cn", Account: "123456789012", Region: "cn-north-1", Partition: "aws-cn", DualStack: true},
		{Name: "123456789012.dkr.ecr.us-iso-east-1.c2s.ic.gov", Account: "123456789012", Region: "us-iso-east-1", Partition: "aws-iso"},
		{Name: "123456789012.dkr.ecr.us-isob-east-1.sc2s.sgov.gov", Account: "123456789012", Region: "us-isob-east-1", Partition: "aws-iso-b"},
		{Name: "123456789012.dkr.ecr.eu-isoe-west-1.cloud.adc-e.uk", Account: "123456789012", Region: "eu-isoe-west-1", Partition: "aws-iso-e"},
		{Name: "123456789012.dkr.ecr.us-isof-south-1.csp.hci.ic.gov", Account: "123456789012", Region: "us-isof-south-1", Partition: "aws-iso-f"},
		{Name: "123456789012.dkr.ecr.eu-isof-south-1.csp.hci.ic.gov", Account: "123456789012", Region: "eu-isof-south-1", Partition: "aws-iso-f"},
		{Name: "public.ecr.aws", Region: "us-east-1", Partition: "aws", Public: true},
		{Name: "ecr-public.aws.com", Region: "us-east-1", Partition: "aws", Public: true, DualStack: true},
		{Name: "vpce-0123456789abcdef0-1a2b3c4d.dkr.ecr.eu-west-1.vpce.amazonaws.com", Region: "eu-west-1", Partition: "aws"},
		{Name: "vpce-0123456789abcdef0-1a2b3c4d-eu-west-1a.dkr.ecr.eu-west-1.vpce.amazonaws.com", Region: "eu-west-1", Partition: "aws"},
		{Name: "123456789012.dkr.ecr.eu-west-1.amazonaws.com.cn", Account: "123456789012", Region: "eu-west-1", Partition: "aws-cn", Hypothetical: true},
		{Name: "vpce-0123456789abcdef0-1a2b3c4d-eu-west-1a.dkr.ecr.cn-north-1.vpce.amazonaws.com", Region: "cn-north-1", Partition: "aws-cn", Hypothetical: true},
		// Long names of an endpoint, and of a region.
		{Name: "vpce-" + strings.Repeat("0", 50) + "-abcdefg.dkr.ecr.us-east-1.vpce.amazonaws.com", Region: "us-east-1", Partition: "aws", Hypothetical: true},
		{Name: "111111111111.dkr-ecr." + strings.Repeat("a", 28) + "-b-1.on.aws", Account: "111111111111", Region: strings.Repeat("a", 28) + "-b-1", Partition: "aws", DualStack: true, Hypothetical: true},
		{Name: "111111111111.dkr.ecr.us-e-1.amazonaws.com", Account: "111111111111", Region: "us-e-1", Partition: "aws", Hypothetical: true},
		{Name: "111111111111.dkr-ecr." + strings.Repeat("a", 40) + "-b-1.on.aws", Account: "111111111111", Region: strings.Repeat("a", 40) + "-b-1", Partition: "aws", DualStack: true, Hypothetical: true},
		// What AWS's own parsers take too, whether it exists or not.
		{Name: "123456789012.dkr.ecr.us-east.amazonaws.com", Account: "123456789012", Region: "us-east", Partition: "aws", Hypothetical: true},
		{Name: "123456789012.dkr.ecr.us-east-1.on.aws", Account: "123456789012", Region: "us-east-1", Partition: "aws", DualStack: true, Hypothetical: true},
		{Name: "123456789012.dkr-ecr.us-east-1.amazonaws.com", Account: "123456789012", Region: "us-east-1", Partition: "aws", Hypothetical: true},
		{Name: "123456789012.dkr.ecr-fips.cn-north-1.amazonaws.com.cn", Account: "123456789012", Region: "cn-north-1", Partition: "aws-cn", FIPS: true, Hypothetical: true},
		{Name: "123456789012.dkr.ecr-fips.us-iso-east-1.c2s.ic.gov", Account: "123456789012", Region: "us-iso-east-1", Partition: "aws-iso", FIPS: true, Hypothetical: true},
		{Name: "123456789012.dkr.ecr.cn-north-1.amazonaws.com", Account: "123456789012", Region: "cn-north-1", Partition: "aws-cn", Hypothetical: true},
		{Name: "123456789012.dkr.ecr.us-isob-east-1.c2s.ic.gov", Account: "123456789012", Region: "us-isob-east-1", Partition: "aws-iso-b", Hypothetical: true},
		{Name: "123456789012.dkr.ecr.eusc-de-east-1.amazonaws.com", Account: "123456789012", Region: "eusc-de-east-1", Partition: "aws-eusc", Hypothetical: true},
		{Name: "123456789012.dkr.ecr.us-iso-east-1.amazonaws.com", Account: "123456789012", Region: "us-iso-east-1", Partition: "aws-iso", Hypothetical: true},
		{Name: "123456789012.dkr.ecr.eu-isoe-west-1.amazonaws.com", Account: "123456789012", Region: "eu-isoe-west-1", Partition: "aws-iso-e", Hypothetical: true},
		{Name: "123456789012.dkr.ecr.us-isof-south-1.amazonaws.com", Account: "123456789012", Region: "us-isof-south-1", Partition: "aws-iso-f", Hypothetical: true},
		{Name: "123456789012.dkr.ecr.eu-isof-south-1.amazonaws.com", Account: "123456789012", Region: "eu-isof-south-1", Partition: "aws-iso-f", Hypothetical: true},
		{Name: "123456789012.dkr.ecr.us-gov-west-1.c2s.ic.gov", Account: "123456789012", Region: "us-gov-west-1", Partition: "aws-us-gov", Hypothetical: true},
		{Name: "vpce-0123-abcd.dkr.ecr-fips.us-east-1.vpce.amazonaws.com", Region: "us-east-1", Partition: "aws", FIPS: true, Hypothetical: true},
		{Name: "vpce-0123-abcd.dkr.ecr.cn-north-1.vpce.amazonaws.com.cn", Region: "cn-north-1", Partition: "aws-cn", Hypothetical: true},
		{Name: "vpce-" + strings.Repeat("0", 70) + "-abcdefgh.dkr.ecr.us-east-1.vpce.amazonaws.com", Region: "us-east-1", Partition: "aws", Hypothetical: true},
	}
}

// A Mistake is a host that looks like a registry's and is none.
type Mistake struct {
	Name   string
	Reason string // words of the explanation
}

// Mistakes returns hosts with something wrong about every part.
func Mistakes() []Mistake {
	const noOwner = `is neither an account of 12 digits nor the name of a VPC endpoint`
	const noRegion = `is not a region followed by an ECR domain`
	return []Mistake{
		{"12345678901.dkr.ecr.us-east-1.amazonaws.com", `"12345678901" ` + noOwner},
		{"1234567890123.dkr.ecr.us-east-1.amazonaws.com", noOwner},
		{"x.dkr.ecr.us-east-1.amazonaws.com", noOwner},
		{".dkr.ecr.us-east-1.amazonaws.com", noOwner},
		{"evil.123456789012.dkr.ecr.us-east-1.amazonaws.com", noOwner},
		{"vpce-0123_4-abcd.dkr.ecr.us-east-1.vpce.amazonaws.com", noOwner},
		{"vpce-0123.dkr.ecr.us-east-1.vpce.amazonaws.com", noOwner},
		{"123456789012.dkr.ecr.amazonaws.com", `"amazonaws.com" ` + noRegion},
		{"123456789012.dkr.ecr.us-east-1.amazonaws.com.evil.example", `"us-east-1.amazonaws.com.evil.example" ` + noRegion},
		{"123456789012.dkr.ecr.us-east-1.amazonaws.com.", noRegion},
		{"123456789012.dkr.ecr.us-east-1.amazonaws.com:443", noRegion},
		{"123456789012.dkr.ecr.us-east-1.amazonawsxcom", noRegion},
		{"123456789012.dkr.ecr.us-east-1", noRegion},
		{"123456789012.dkr.ecr..amazonaws.com", noRegion},
		{"123456789012.dkr.ecr.-us-east-1.amazonaws.com", noRegion},
		{"123456789012.dkr.ecr.us-ea/st-1.amazonaws.com", noRegion},
		{"123456789012.dkr.ecr.us_east_1.amazonaws.com", noRegion}, // taken by AWS, but no image can have it
		{"123456789012.dkr.ecr.eu.us-east-1.amazonaws.com", noRegion},
		{"123456789012.dkr.ecr.us-east-1.vpce.amazonaws.com", noRegion},
		{"vpce-0123-abcd.dkr.ecr.us-east-1.amazonaws.com", `"amazonaws.com" is not the domain of a VPC endpoint`},
		{"123456789012.dkr.ecs.us-east-1.amazonaws.com", `does not contain .dkr.ecr.`},
		{"123456789012.ecr.us-east-1.amazonaws.com", `is not exactly`},
		{"my.public.ecr.aws", `is not exactly`},
		{"public.ecr.aws.com", `is not exactly`},
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
