package fakeaws

import "testing"

func TestParseRegistry(t *testing.T) {
	for host, want := range map[string]registry{
		"123456789012.dkr.ecr.eu-west-1.amazonaws.com":                    {account: "123456789012", region: "eu-west-1"},
		"123456789012.dkr.ecr.eu-west-1.amazonaws.com:443":                {account: "123456789012", region: "eu-west-1"},
		"123456789012.dkr.ecr-fips.us-gov-west-1.amazonaws.com":           {account: "123456789012", region: "us-gov-west-1"},
		"123456789012.dkr-ecr-fips.us-east-1.on.aws":                      {account: "123456789012", region: "us-east-1"},
		"123456789012.dkr.ecr.cn-north-1.amazonaws.com.cn":                {account: "123456789012", region: "cn-north-1"},
		"123456789012.dkr-ecr.cn-northwest-1.on.amazonwebservices.com.cn": {account: "123456789012", region: "cn-northwest-1"},
		"123456789012.dkr.ecr.eusc-de-east-1.amazonaws.eu":                {account: "123456789012", region: "eusc-de-east-1"},
		"123456789012.dkr.ecr.us-isob-east-1.sc2s.sgov.gov":               {account: "123456789012", region: "us-isob-east-1"},
		"public.ecr.aws":     {},
		"ecr-public.aws.com": {},
	} {
		want.host = bareHost(host)
		if got, found := parseRegistry(host); !found || got != want {
			t.Errorf("%s parsed as %+v, %t", host, got, found)
		}
	}
	for _, host := range []string{
		"", "127.0.0.1:5000", "docker.io", "12345678901.dkr.ecr.eu-west-1.amazonaws.com",
		"123456789012.dkr.ecr.eu-west-1.amazonaws.com.evil.example", "x.123456789012.dkr.ecr.eu-west-1.amazonaws.com",
		"123456789012.dkr.ecr.eu-west-1.on.aws", "123456789012.dkr-ecr.eu-west-1.amazonaws.com", "123456789012.dkr.ecr..amazonaws.com",
	} {
		if got, found := parseRegistry(host); found {
			t.Errorf("%q parsed as %+v", host, got)
		}
	}
}
