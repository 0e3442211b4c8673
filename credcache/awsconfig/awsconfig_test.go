package awsconfig

import (
	"reflect"
	"slices"
	"testing"

	"github.com/pullpass/pullpass/credcache/environ"
)

func TestParse(t *testing.T) {
	for name, c := range map[string]struct {
		config, credentials string
		profile             string
		want                Profile
		reason              string // of the error
	}{
		"as people write it":             {config: "[default]\nregion = a\n[profile dev]\nregion=b\n", profile: "dev", want: Profile{"region": "b"}},
		"any case, = and :":              {config: "[profile dev]\nCredential_Process : x = y\nREGION=b: c\n", profile: "dev", want: Profile{"credential_process": "x = y", "region": "b: c"}},
		"a quoted name":                  {config: "[profile \"a b\"]\nregion = b\n", profile: "a b", want: Profile{"region": "b"}},
		"a quoted name, with backslash":  {config: "[profile 'a'\\ b]\nregion = b\n", profile: "a b", want: Profile{"region": "b"}},
		"names like it":                  {config: "[profiles dev]\nregion = b\n", profile: "dev", want: Profile{"region": "b"}},
		"three words":                    {config: "[profile dev x]\nregion = b\n", profile: "dev"},
		"space in the brackets":          {config: "[ profile dev ]\nregion = b\n", profile: "dev"},
		"a comment is a line":            {config: "[profile dev]\n# a = b\n ; c\nregion = b # no comment\n", profile: "dev", want: Profile{"region": "b # no comment"}},
		"a comment before it":            {config: "# credential_process = x\n[profile dev]\nregion = b\n", profile: "dev", want: Profile{"region": "b"}},
		"an indented block":              {config: "[profile dev]\ns3 =\n  credential_process = x\nregion = b\n", profile: "dev", want: Profile{"s3": "\ncredential_process = x", "region": "b"}},
		"a value that goes on":           {config: "[profile dev]\nregion = b\n  c\n\n  d\n\n", profile: "dev", want: Profile{"region": "b\nc\n\nd"}},
		"an indented option is one":      {config: "[profile dev]\n  region = b\n  output = c\n", profile: "dev", want: Profile{"region": "b", "output": "c"}},
		"DEFAULT holds everywhere":       {config: "[DEFAULT]\nregion = z\noutput = c\n[profile dev]\nregion = b\n", profile: "dev", want: Profile{"region": "b", "output": "c"}},
		"line ends of all kinds":         {config: "[profile dev]\rregion = b\r\noutput = c\n", profile: "dev", want: Profile{"region": "b", "output": "c"}},
		"what follows a bracket":         {config: "[profile dev] x = y\nregion = b\n", profile: "dev", want: Profile{"region": "b"}},
		"an empty value":                 {config: "[profile dev]\nregion =\noutput:\n", profile: "dev", want: Profile{"region": "", "output": ""}},
		"stored wins":                    {config: "[profile dev]\nregion = b\noutput = c\n", credentials: "[dev]\nregion = d\n", profile: "dev", want: Profile{"region": "d", "output": "c"}},
		"stored under its own name only": {credentials: "[profile dev]\nregion = d\n", profile: "dev"},
		"nothing":                        {profile: "dev"},

		"an option twice":        {config: "[a]\nb = c\nB : d\n", reason: "parsing the AWS configuration: line 3 repeats an option"},
		"a section twice":        {config: "[a]\n[a]\n", reason: "parsing the AWS configuration: line 2 repeats a section"},
		"a profile twice":        {config: "[profile a]\n[profile 'a']\n", reason: `parsing the AWS configuration: there are two sections for "a"`},
		"no section":             {config: "a = b\n", reason: "parsing the AWS configuration: line 1 is before the first section"},
		"a byte order mark":      {config: "\ufeff[a]\n", reason: "parsing the AWS configuration: line 1 is before the first section"},
		"a line of one word":     {config: "[a]\nb\n", reason: "parsing the AWS configuration: line 2 has neither = nor : in it"},
		"a line without a name":  {config: "[a]\n= b\n", reason: "parsing the AWS configuration: line 2 has no option name"},
		"a bracket in a name":    {config: "[a]b]\n", reason: "parsing the AWS configuration: line 1 has ] in a section name"},
		"no UTF-8":               {config: "[a]\nb = \xff\n", reason: "parsing the AWS configuration: it is not UTF-8"},
		"a block that is none":   {config: "[a]\nb =\n  c\n", reason: "parsing the AWS configuration: the indented block of b has a line without ="},
		"the credentials' error": {credentials: "a", reason: "parsing the AWS credentials file: line 1 is before the first section"},
	} {
		got, err := Parse([]byte(c.config), []byte(c.credentials))
		if err != nil {
			if err.Error() != c.reason {
				t.Errorf("%s: %v, want %q", name, err, c.reason)
			}
			continue
		}
		if c.reason != "" {
			t.Errorf("%s: no error, want %q", name, c.reason)
		}
		if profile := got.Profiles[c.profile]; !reflect.DeepEqual(profile, c.want) {
			t.Errorf("%s: %q, want %q", name, profile, c.want)
		}
	}
}

func TestSectionsThatAreNoProfiles(t *testing.T) {
	c, err := Parse([]byte("[sso-session a]\nsso_region = r\n[plugins]\nx = y\n[preview]\nz = 1\n"), nil)
	if err != nil {
		t.Fatal(err)
	}
	if len(c.Profiles) != 0 || c.Plugins["x"] != "y" {
		t.Errorf("%+v", c)
	}
}

func TestAliases(t *testing.T) {
	for content, want := range map[string]bool{
		"":                                 false,
		"[toplevel]\nwhoami = sts x\n":     false,
		"[toplevel]\nEKS = !sh -c x\n":     true,
		"[command ec2]\neks = x\n":         false,
		"[command eks]\nget-token = !x\n":  true,
		"[command eks wait]\nx = y\n":      true,
		"[toplevel]\nx =\n  !f() { eks; }": false,
	} {
		if got, err := Alias([]byte(content), "eks"); err != nil || got != want {
			t.Errorf("%q: %v, %v", content, got, err)
		}
	}
	if _, err := Alias([]byte("x"), "eks"); err == nil {
		t.Error("no error for what is no alias file")
	}
}

// TestLinesOfNestedValues has an option and a word, and what may be a line end for Python
// between them.
func TestLinesOfNestedValues(t *testing.T) {
	for r, ends := range map[rune]bool{
		'\t': false, '\n': true, '\v': true, '\f': true, '\r': true, 0x0e: false, 0x1b: false, 0x1c: true, 0x1d: true, 0x1e: true, 0x1f: false,
		0x84: false, 0x85: true, 0x86: false, 0x2027: false, 0x2028: true, 0x2029: true, 0x202a: false,
	} {
		if got := nestedIsGood("\na=b" + string(r) + "c"); got == ends {
			t.Errorf("%U ends a line: %t, want %t", r, !got, ends)
		}
	}
	for r, space := range map[rune]bool{' ': true, '\t': true, 0x1b: false, 0x1c: true, 0x1f: true, 0xa0: true, 'a': false} {
		if got := nestedIsGood("\na=b\n" + string(r)); got != space {
			t.Errorf("%U is space: %t, want %t", r, got, space)
		}
	}
}

// TestSplitName compares with what shlex.split of Python makes of names.
func TestSplitName(t *testing.T) {
	for name, want := range map[string][]string{
		"":            {},
		" a\tb\r\nc ": {"a", "b", "c"},
		`a"b c"d`:     {"ab cd"},
		`""`:          {""},
		`'' a`:        {"", "a"},
		`\'a\ b`:      {"'a b"},
		`"\a\"\\"`:    {`\a"\`},
		`'\a'`:        {`\a`},
		`"a'b"`:       {"a'b"},
		`\a`:          {"a"},
		`a\`:          nil,
		`"a`:          nil,
		`'a`:          nil,
	} {
		got, ok := splitName(name)
		if ok != (want != nil) || !slices.Equal(got, want) {
			t.Errorf("%q: %q, %t, want %q", name, got, ok, want)
		}
	}
}

func TestChain(t *testing.T) {
	const role = "role_arn = x\n"
	for name, c := range map[string]struct {
		config, credentials string
		named               bool
		env                 environ.List
		want                Chain
	}{
		"nothing":                            {want: Chain{Source: None}},
		"stored keys":                        {credentials: "[a]\naws_access_key_id = k\n", want: Chain{Source: Stored}},
		"keys":                               {config: "[profile a]\naws_access_key_id = k\n", want: Chain{Source: Keys}},
		"an account of AWS SSO":              {config: "[profile a]\nsso_account_id = 1\n", want: Chain{Source: SSO}},
		"a role of AWS SSO, and stored keys": {config: "[profile a]\nsso_role_name = r\n", credentials: "[a]\naws_access_key_id = k\n", want: Chain{Source: SSO}},
		"a login":                            {config: "[profile a]\nlogin_session = s\n", want: Chain{Source: Login}},
		"a program":                          {config: "[profile a]\ncredential_process = p\n", want: Chain{Source: Process}},
		"a web identity":                     {config: "[profile a]\n" + role + "web_identity_token_file = f\n", want: Chain{Source: WebIdentity, TokenFile: "f"}},
		"a web identity of the environment":  {env: environ.List{"AWS_WEB_IDENTITY_TOKEN_FILE=g"}, want: Chain{Source: WebIdentity, TokenFile: "g"}},
		"a named profile has no such web identity": {named: true, env: environ.List{"AWS_WEB_IDENTITY_TOKEN_FILE=g"}, want: Chain{Source: None}},
		"a role and another's keys":                {config: "[profile a]\n" + role + "source_profile = b\n[profile b]\naws_access_key_id = k\n", want: Chain{Profile: "b", Roles: []string{"a"}, Source: Keys}},
		"a role, and a profile without any":        {config: "[profile a]\n" + role + "source_profile = b\n[profile b]\nregion = r\n", want: Chain{Profile: "b", Roles: []string{"a"}, Source: Broken}},
		"a role, and a profile that is not there":  {config: "[profile a]\n" + role + "source_profile = b\n", want: Chain{Roles: []string{"a"}, Source: Broken}},
		"a role of a role": {config: "[profile a]\n" + role + "source_profile = b\n[profile b]\n" + role + "source_profile = c\n[profile c]\ncredential_process = p\n",
			want: Chain{Profile: "c", Roles: []string{"a", "b"}, Source: Process}},
		"a role of a role with a key":          {config: "[profile a]\n" + role + "source_profile = b\n[profile b]\n" + role + "source_profile = c\naws_access_key_id = k\n", want: Chain{Profile: "b", Roles: []string{"a"}, Source: Keys}},
		"a role of a role with half a key":     {config: "[profile a]\n" + role + "source_profile = b\n[profile b]\n" + role + "source_profile = c\naws_secret_access_key = s\n", want: Chain{Profile: "b", Roles: []string{"a"}, Source: Broken}},
		"a role that is its own source":        {config: "[profile a]\n" + role + "source_profile = a\n", want: Chain{Roles: []string{"a"}, Source: Broken}},
		"a role of the machine":                {config: "[profile a]\n" + role + "credential_source = Ec2InstanceMetadata\n", want: Chain{Roles: []string{"a"}, Source: Machine}},
		"a role of the environment":            {config: "[profile a]\n" + role + "credential_source = ENVIRONMENT\n", want: Chain{Roles: []string{"a"}, Source: Environment}},
		"a role of two sources":                {config: "[profile a]\n" + role + "credential_source = Environment\nsource_profile = b\n", want: Chain{Roles: []string{"a"}, Source: Broken}},
		"a source without the web identity":    {config: "[profile a]\n" + role + "source_profile = b\n[profile b]\nregion = r\n", env: environ.List{"AWS_WEB_IDENTITY_TOKEN_FILE=g"}, want: Chain{Profile: "b", Roles: []string{"a"}, Source: Broken}},
		"a source of an account without a key": {config: "[profile a]\n" + role + "source_profile = b\n[profile b]\nsso_account_id = 1\n", want: Chain{Profile: "b", Roles: []string{"a"}, Source: SSO}},
	} {
		config, err := Parse([]byte(c.config), []byte(c.credentials))
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if c.want.Profile == "" {
			c.want.Profile = "a"
		}
		if got := config.Chain("a", c.named, c.env); !reflect.DeepEqual(got, c.want) {
			t.Errorf("%s: %+v, want %+v", name, got, c.want)
		}
	}
}
