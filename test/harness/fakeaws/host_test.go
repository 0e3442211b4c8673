package fakeaws

import (
	"strings"
	"testing"

	"github.com/pullpass/pullpass/internal/ecr/ecrtest"
)

// TestParseRegistry holds this parser to the same table as the product's own.
// Endpoints are doors to registries that they do not name, so they are none here.
func TestParseRegistry(t *testing.T) {
	for _, h := range ecrtest.Hosts() {
		want, known := registry{host: h.Name, account: h.Account, region: h.Region}, true
		switch {
		case h.Public:
			want.region = ""
		case h.Account == "":
			want, known = registry{}, false
		}
		for _, spelling := range []string{h.Name, h.Name + ":443", strings.ToUpper(h.Name)} {
			if got, found := parseRegistry(spelling); got != want || found != known {
				t.Errorf("%s parsed as %+v, %t", spelling, got, found)
			}
		}
		if got := partitionOf(h.Region).name; got != h.Partition && !h.Hypothetical {
			t.Errorf("region %s is of partition %s, want %s", h.Region, got, h.Partition)
		}
	}
	others := append(ecrtest.Others(), "127.0.0.1:5000")
	for _, m := range ecrtest.Mistakes() {
		if !strings.Contains(m.Name, ":") { // a server takes its host with a port
			others = append(others, m.Name)
		}
	}
	for _, host := range others {
		if got, found := parseRegistry(host); found {
			t.Errorf("%q parsed as %+v", host, got)
		}
	}
}
