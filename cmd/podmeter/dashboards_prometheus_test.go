// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"github.com/podmeter/podmeter/internal/ktest"
	"github.com/prometheus/client_golang/api"
	promv1 "github.com/prometheus/client_golang/api/prometheus/v1"
)

// prometheusAddress is that of a Prometheus in a namespace of its own.
const prometheusAddress = "127.0.0.1:9090"

// findPrometheus skips the test where there is none, and fails it under REQUIRE_PROMETHEUS=1.
func findPrometheus(t *testing.T) (path string) {
	t.Helper()
	path, err := exec.LookPath("prometheus")
	if err != nil && os.Getenv("REQUIRE_PROMETHEUS") == "1" {
		t.Fatal("REQUIRE_PROMETHEUS=1, and:", err)
	}
	if err != nil {
		t.Skip("prometheus is not installed, which this test asks:", err)
	}
	return path
}

// startPrometheus runs one in a namespace that scrapes agent and exporter each second and
// evaluates the shipped rules.
func startPrometheus(t *testing.T, in *ktest.Namespace) promv1.API {
	t.Helper()
	path, folder := findPrometheus(t), t.TempDir()
	rules, err := filepath.Abs("../../deploy/prometheus/rules/*.rules.yml")
	if err != nil {
		t.Fatal(err)
	}
	config := filepath.Join(folder, "prometheus.yml")
	content := fmt.Sprintf(`{global: {scrape_interval: 1s, evaluation_interval: 1s}, rule_files: [%q], scrape_configs: [
{job_name: podmeter, honor_labels: true, static_configs: [{targets: ["127.0.0.1:9739"], labels: {instance: here, node: here, cluster: test}}]},
{job_name: geoip, honor_labels: true, static_configs: [{targets: ["127.0.0.1:8080"], labels: {instance: geoip, cluster: test}}]}]}`, rules)
	if err := os.WriteFile(config, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
	log, err := os.Create(filepath.Join(folder, "log"))
	if err != nil {
		t.Fatal(err)
	}
	defer log.Close()
	command := exec.Command(path, "--config.file="+config, "--storage.tsdb.path="+filepath.Join(folder, "data"), "--web.listen-address="+prometheusAddress)
	command.Stdout, command.Stderr = log, log
	if err := in.Do(command.Start); err != nil { // the child is in the namespace of the thread that starts it
		t.Fatalf("start Prometheus: %v", err)
	}
	t.Cleanup(func() {
		command.Process.Kill() // it keeps nothing
		command.Wait()         // killed, as it says
	})
	transport := &http.Transport{DialContext: func(_ context.Context, network, address string) (conn net.Conn, err error) {
		err = in.Do(func() error {
			conn, err = net.DialTimeout(network, address, 5*time.Second)
			return err
		})
		return conn, err
	}}
	t.Cleanup(transport.CloseIdleConnections)
	awaitReady(t, &http.Client{Transport: transport, Timeout: 5 * time.Second}, log.Name())
	client, err := api.NewClient(api.Config{Address: "http://" + prometheusAddress, RoundTripper: transport})
	if err != nil {
		t.Fatal(err)
	}
	return promv1.NewAPI(client)
}

func awaitReady(t *testing.T, client *http.Client, log string) {
	t.Helper()
	for deadline := time.Now().Add(30 * time.Second); time.Now().Before(deadline); time.Sleep(50 * time.Millisecond) {
		response, err := client.Get("http://" + prometheusAddress + "/-/ready")
		if err != nil {
			continue
		}
		response.Body.Close()
		if response.StatusCode == http.StatusOK {
			return
		}
	}
	said, _ := os.ReadFile(log) // more than nothing
	t.Fatalf("Prometheus is never ready; it said:\n%s", said)
}
