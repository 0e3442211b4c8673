// Package webhook tests the webhook behind a real API server, with the chart's
// own MutatingWebhookConfiguration and roles. The pods as the API server stored
// them and its audit log say what happened.
package webhook

import (
	"os"
	"testing"

	"github.com/pullpass/pullpass/test/harness/attack"
	"github.com/pullpass/pullpass/test/harness/corpus"
	"github.com/pullpass/pullpass/test/harness/fixture"
)

var suite = fixture.Suite{Programs: []string{"webhook"}}

func TestMain(m *testing.M) {
	attack.Main()
	os.Exit(suite.Run(m))
}

const (
	host  = corpus.Host
	image = corpus.Image
)
