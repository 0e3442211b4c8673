// Package renewer tests the renewer on a real API server, with the chart's own
// roles, against the fake AWS.
package renewer

import (
	"flag"
	"os"
	"testing"

	"github.com/pullpass/pullpass/test/harness/fixture"
)

var suite = fixture.Suite{Programs: []string{"renewer"}}

func TestMain(m *testing.M) {
	// Tests that run beside others wait most of the time, so there may be more of them
	// than processors. -parallel takes precedence.
	if err := flag.Set("test.parallel", "6"); err != nil {
		panic(err)
	}
	os.Exit(suite.Run(m))
}

// world installs a release for a test.
func world(t *testing.T, values map[string]any) *World {
	t.Helper()
	return &World{suite.NewWorld(t, values)}
}

const (
	hostA = "111111111111.dkr.ecr.us-east-1.amazonaws.com"
	hostB = "222222222222.dkr.ecr.eu-west-1.amazonaws.com"
)
