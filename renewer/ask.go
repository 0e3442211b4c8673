package renewer

import (
	"context"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/pullpass/pullpass/internal/credential"
	"github.com/pullpass/pullpass/internal/ecr"
)

// Ask requests a token for a registry from AWS, as the renewer does, and returns when it
// expires. The token itself is discarded. The error contains no secrets and can be
// shown to users.
func Ask(ctx context.Context, c credential.Credential, r ecr.Registry) (expires time.Time, err error) {
	source := awsTokens{metrics: newMetrics(prometheus.NewRegistry()), now: time.Now}
	token, err := source.Token(ctx, requestOf(c, r), Token{})
	return token.Expires, err
}
