package cli

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"strings"
	"time"
)

// check requests a URL until the response is 200, or the context ends. `helm test` uses
// it to check from a pod that the servers are ready, in an image without a shell.
func check(ctx context.Context, url string, every time.Duration, stdout io.Writer) error {
	for {
		answer, err := get(ctx, url)
		if err == nil {
			fmt.Fprintf(stdout, "%s: %s", url, answer)
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("checking: %w", err)
		case <-time.After(every):
		}
	}
}

// get returns the response to a GET request, or an error if the status is not 200.
func get(ctx context.Context, url string) (string, error) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 5*time.Second) // the last attempt may complete
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return "", err
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return "", err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(io.LimitReader(resp.Body, 10_000))
	if err == nil && resp.StatusCode != http.StatusOK {
		err = fmt.Errorf("%s: %s: %s", url, resp.Status, strings.TrimSpace(string(body)))
	}
	return string(body), err
}
