package renewer

import (
	"context"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/pullpass/pullpass/internal/credential"
	"github.com/pullpass/pullpass/internal/ecr"
)

// Ask asks AWS for a token that opens a registry, as the renewer does, and returns
// until when that is good. The token itself is thrown away. The error can be shown
// to users: it holds nothing secret.
func Ask(ctx context.Context, c credential.Credential, r ecr.Registry) (expires time.Time, err error) {
	source := awsTokens{metrics: newMetrics(prometheus.NewRegistry()), now: time.Now}
	token, err := source.Token(ctx, requestOf(c, r), Token{})
	return token.Expires, err
}
