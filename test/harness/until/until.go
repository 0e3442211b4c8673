// Package until waits for conditions, with a bound.
package until

import (
	"context"
	"fmt"
	"time"

	"k8s.io/apimachinery/pkg/util/wait"
)

// OK calls f until it returns nil, many times a second and for as long as patience
// lasts. Its error says what was waited for and what f said last.
func OK(ctx context.Context, patience time.Duration, what string, f func() error) error {
	var last error
	err := wait.PollUntilContextTimeout(ctx, 50*time.Millisecond, patience, true, func(context.Context) (bool, error) {
		last = f()
		return last == nil, nil
	})
	if err != nil {
		return fmt.Errorf("waiting for %s: %w: %w", what, err, last)
	}
	return nil
}
