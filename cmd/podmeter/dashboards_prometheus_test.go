// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"path/filepath"
	"testing"
	"time"

	"github.com/podmeter/podmeter/internal/effort"
	"github.com/podmeter/podmeter/internal/ktest"
	"github.com/podmeter/podmeter/internal/promtest"
	"github.com/prometheus/client_golang/api"
	promv1 "github.com/prometheus/client_golang/api/prometheus/v1"
)

// startPrometheus runs one in a namespace, at the URL within it, that scrapes agent and
// exporter each second and evaluates the shipped rules.
func startPrometheus(t *testing.T, binary string, in *ktest.Namespace, args ...string) (prometheus promv1.API, url string) {
	t.Helper()
	effort.Long(t, "starts a Prometheus") // by the test's own goroutine
	rules, err := filepath.Abs("../../deploy/prometheus/rules/*.rules.yml")
	if err != nil {
		t.Fatal(err)
	}
	config := fmt.Sprintf(`{global: {scrape_interval: 1s, evaluation_interval: 1s}, rule_files: [%q], scrape_configs: [
{job_name: podmeter, honor_labels: true, static_configs: [{targets: ["127.0.0.1:9739"], labels: {instance: here, node: here, cluster: test}}]},
{job_name: geoip, honor_labels: true, static_configs: [{targets: ["127.0.0.1:8080"], labels: {instance: geoip, cluster: test}}]}]}`, rules)
	if err := in.Do(func() error { // the child is in the namespace of the thread that starts it
		url = promtest.New(t, binary, config, args...).URL
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	transport := &http.Transport{DialContext: func(_ context.Context, network, address string) (conn net.Conn, err error) {
		err = in.Do(func() error {
			conn, err = net.DialTimeout(network, address, 5*time.Second)
			return err
		})
		return conn, err
	}}
	t.Cleanup(transport.CloseIdleConnections)
	client, err := api.NewClient(api.Config{Address: url, RoundTripper: transport})
	if err != nil {
		t.Fatal(err)
	}
	return promv1.NewAPI(client), url
}
