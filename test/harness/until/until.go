// Package until waits for conditions, with a bound.
package until

import (
	"context"
	"fmt"
	"time"

	"k8s.io/apimachinery/pkg/util/wait"
)

// pauses begin at 20 ms and grow to 200 ms, so that a long wait leaves the processors to
// what is waited for.
var pauses = wait.Backoff{Duration: 20 * time.Millisecond, Factor: 1.2, Steps: 100, Cap: 200 * time.Millisecond}

// OK calls f until it returns nil, several times a second and for as long as patience
// lasts. Its error says what was waited for and what f said last.
func OK(ctx context.Context, patience time.Duration, what string, f func() error) error {
	var last error
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	err := pauses.DelayFunc().Until(ctx, true, false, func(context.Context) (bool, error) {
		last = f()
		return last == nil, nil
	})
	if err != nil {
		return fmt.Errorf("waiting for %s: %w: %w", what, err, last)
	}
	return nil
}
