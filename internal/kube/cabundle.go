package kube

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"

	"k8s.io/client-go/rest"
)

// maxConfiguration is the maximum size of an object in etcd.
const maxConfiguration = 2 << 20

// CABundles returns a function that reads the CA bundles (PEM) of a
// MutatingWebhookConfiguration, one for each of its webhooks. An empty bundle stands for
// the API server's system CAs. If the configuration does not exist, there are none.
func CABundles(cfg *rest.Config, name string) (func(context.Context) ([][]byte, error), error) {
	client, err := rest.HTTPClientFor(cfg)
	if err != nil {
		return nil, fmt.Errorf("making a client: %w", err)
	}
	server, _, err := rest.DefaultServerUrlFor(cfg)
	if err != nil {
		return nil, fmt.Errorf("making a client: %w", err)
	}
	url := server.JoinPath("apis/admissionregistration.k8s.io/v1/mutatingwebhookconfigurations", name).String()
	return func(ctx context.Context) ([][]byte, error) {
		bundles, err := caBundles(ctx, client, url)
		if err != nil {
			return nil, fmt.Errorf("reading the MutatingWebhookConfiguration %s: %w", name, err)
		}
		return bundles, nil
	}, nil
}

// caBundles reads the object with plain HTTP. A client with the types of
// admissionregistration would add a megabyte to the program.
func caBundles(ctx context.Context, client *http.Client, url string) (bundles [][]byte, err error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return nil, err
	}
	req.Header.Set("Accept", "application/json")
	resp, err := client.Do(req)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(io.LimitReader(resp.Body, maxConfiguration))
	switch {
	case err != nil:
		return nil, err
	case resp.StatusCode == http.StatusNotFound:
		return nil, nil
	case resp.StatusCode != http.StatusOK:
		return nil, fmt.Errorf("%s: %.200s", resp.Status, body)
	}
	var configuration struct {
		Webhooks []struct {
			ClientConfig struct{ CABundle []byte }
		}
	}
	if err := json.Unmarshal(body, &configuration); err != nil {
		return nil, err
	}
	for _, w := range configuration.Webhooks {
		bundles = append(bundles, w.ClientConfig.CABundle)
	}
	return bundles, nil
}
