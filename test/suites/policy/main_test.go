// Package policy tests what the chart has the API server itself do: give pods the
// secret in the webhook's stead, and confine the renewer.
package policy

import (
	"os"
	"testing"

	"github.com/pullpass/pullpass/test/harness/fixture"
)

var suite = fixture.Suite{Programs: []string{"webhook", "renewer"}}

func TestMain(m *testing.M) { os.Exit(suite.Run(m)) }
