// SPDX-License-Identifier: Apache-2.0

package prometheus

import (
	"bytes"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/config"
	_ "github.com/prometheus/prometheus/discovery/kubernetes" // its part of the configuration
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/model/relabel"
	"go.yaml.in/yaml/v3"
)

const overlays = "../../deploy/kubernetes/overlays/"

// shipped returns the shipped configuration.
func shipped(t *testing.T) *config.Config {
	t.Helper()
	c, err := config.LoadFile(overlays+"prometheus/prometheus.yml", false, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// An outage of an hour costs no sample of an agent that writes remotely, which gets there
// some time later.
func TestTakesWhatComesLate(t *testing.T) {
	if window := time.Duration(shipped(t).StorageConfig.TSDBConfig.OutOfOrderTimeWindow) * time.Millisecond; window <= time.Hour {
		t.Errorf("got an out-of-order window of %v, want more than an hour", window)
	}
}

// job returns the shipped scrape configuration of podmeter.
func job(t *testing.T) *config.ScrapeConfig {
	t.Helper()
	for _, s := range shipped(t).ScrapeConfigs {
		if s.JobName == "podmeter" {
			return s
		}
	}
	t.Fatal("there is no job podmeter")
	return nil
}

// target is what discovery says of an agent, with labels as a PodMonitor or a user's
// labelmap adds them.
func target() labels.Labels {
	return labels.FromMap(map[string]string{
		"__address__": "198.51.100.1:9739", "__meta_kubernetes_pod_node_name": "node-a",
		"__meta_kubernetes_pod_name": "podmeter-x7k2p", "__meta_kubernetes_namespace": "podmeter",
		"__meta_kubernetes_pod_container_name": "agent", "__meta_kubernetes_pod_container_port_name": "metrics",
		"job": "podmeter", "pod": "podmeter-x7k2p", "container": "agent", "namespace": "podmeter", "service": "podmeter", "endpoint": "metrics",
	})
}

// relabelled returns the labels that every series gets from a target.
func relabelled(t *testing.T, rules []*relabel.Config) map[string]string {
	t.Helper()
	for _, rule := range rules {
		if err := rule.Validate(model.LegacyValidation); err != nil {
			t.Fatal(err)
		}
	}
	all := labels.NewBuilder(target())
	if !relabel.ProcessBuilder(all, rules...) {
		t.Fatal("the target is dropped")
	}
	given := all.Labels().Map()
	for name := range given {
		if strings.HasPrefix(name, "__") {
			delete(given, name)
		}
	}
	return given
}

// A series gets node, instance and job from its target, and nothing that is the
// metered pod's.
func TestLabelsOfTarget(t *testing.T) {
	scrape := job(t)
	if !scrape.HonorLabels {
		t.Error("honor_labels: got false, want true")
	}
	want := map[string]string{"instance": "node-a", "job": "podmeter", "node": "node-a"}
	if diff := cmp.Diff(want, relabelled(t, scrape.RelabelConfigs)); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

// podMonitor is what matters here of the operator's type.
type podMonitor struct {
	Spec struct {
		PodMetricsEndpoints []struct {
			HonorLabels bool `yaml:"honorLabels"`
			Relabelings []struct {
				Action, Regex, Replacement string
				SourceLabels               []string `yaml:"sourceLabels"`
				TargetLabel                string   `yaml:"targetLabel"`
			}
		} `yaml:"podMetricsEndpoints"`
	}
}

// The operator's Prometheus gives series the same labels.
func TestLabelsOfPodMonitor(t *testing.T) {
	content, err := os.ReadFile(overlays + "podmonitor/podmonitor.yaml")
	if err != nil {
		t.Fatal(err)
	}
	var monitor podMonitor
	if err := yaml.Unmarshal(content, &monitor); err != nil || len(monitor.Spec.PodMetricsEndpoints) != 1 {
		t.Fatalf("got %+v, %v, want one endpoint", monitor, err)
	}
	endpoint := monitor.Spec.PodMetricsEndpoints[0]
	if !endpoint.HonorLabels {
		t.Error("honorLabels: got false, want true")
	}
	var rules []map[string]any
	for _, r := range endpoint.Relabelings {
		rule := map[string]any{"action": r.Action}
		for key, value := range map[string]string{"regex": r.Regex, "replacement": r.Replacement, "target_label": r.TargetLabel} {
			if value != "" {
				rule[key] = value
			}
		}
		if len(r.SourceLabels) > 0 {
			rule["source_labels"] = r.SourceLabels
		}
		rules = append(rules, rule)
	}
	converted, err := yaml.Marshal(rules)
	if err != nil {
		t.Fatal(err)
	}
	var configs []*relabel.Config
	if err := yaml.Unmarshal(converted, &configs); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(relabelled(t, job(t).RelabelConfigs), relabelled(t, configs)); diff != "" {
		t.Errorf("(-prometheus.yml +PodMonitor):\n%s", diff)
	}
}

// promtool runs Debian's, which is the oldest Prometheus that is tested.
func promtool(t *testing.T, args ...string) {
	t.Helper()
	path, err := exec.LookPath("promtool")
	if err != nil {
		t.Skip("needs Prometheus: promtool is not installed (package prometheus)")
	}
	if out, err := exec.Command(path, args...).CombinedOutput(); err != nil {
		t.Errorf("promtool %q: got %v, want it to be content; it said:\n%s", args, err, out)
	}
}

func TestAlerts(t *testing.T) {
	promtool(t, "check", "rules", overlays+"prometheus/podmeter.rules.yml")
	promtool(t, "test", "rules", "testdata/alerts.yml")
}

// An agent's histograms are scraped as native ones, of which RTTs have no others, and those
// that have classic ones keep them.
func TestScrapesNativeHistograms(t *testing.T) {
	for _, file := range []string{overlays + "prometheus/prometheus.yml", "../../deploy/compose/prometheus.yml"} {
		c, err := config.LoadFile(file, false, slog.New(slog.DiscardHandler))
		if err != nil {
			t.Fatal(err)
		}
		for _, s := range c.ScrapeConfigs {
			if s.JobName == "podmeter" && (!s.ScrapeNativeHistogramsEnabled() || !s.AlwaysScrapeClassicHistogramsEnabled()) {
				t.Errorf("%s: got a job that does not scrape both, want it to", file)
			}
		}
	}
}

// Prometheus 2.42 takes the configuration too, but for two lines that say of themselves that they
// are for later ones. Debian's is built without the discovery of Kubernetes, which is the same
// in both, so that it is left out here.
func TestConfigurationOfOldestPrometheus(t *testing.T) {
	content, err := os.ReadFile(overlays + "prometheus/prometheus.yml")
	if err != nil {
		t.Fatal(err)
	}
	discovery := regexp.MustCompile(`(?s)    kubernetes_sd_configs:.*?    relabel_configs:`)
	without := discovery.ReplaceAll(content, []byte("    relabel_configs:"))
	if bytes.Equal(content, without) {
		t.Fatal("there is no kubernetes_sd_configs")
	}
	const later = "    scrape_native_histograms: true\n    always_scrape_classic_histograms: true\n"
	if !bytes.Contains(without, []byte(" for Prometheus 3.8 or later, and without them there is the mean of RTTs alone.\n"+later)) {
		t.Fatal("it does not say what is for later ones")
	}
	without = bytes.Replace(without, []byte(later), nil, 1)
	folder := t.TempDir()
	rules, err := os.ReadFile(overlays + "prometheus/podmeter.rules.yml")
	if err != nil {
		t.Fatal(err)
	}
	for name, content := range map[string][]byte{"prometheus.yml": without, "podmeter.rules.yml": rules} {
		if err := os.WriteFile(filepath.Join(folder, name), content, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	promtool(t, "check", "config", filepath.Join(folder, "prometheus.yml"))
}

// The image's tag is the version of the module: v3.16.0 is v0.316.0.
func TestImageIsTheModule(t *testing.T) {
	content, err := os.ReadFile(overlays + "prometheus/prometheus.yaml")
	if err != nil {
		t.Fatal(err)
	}
	tag := regexp.MustCompile(`image: quay\.io/prometheus/prometheus:v([0-9]+)\.([0-9]+)\.([0-9]+)\n`).FindSubmatch(content)
	if tag == nil {
		t.Fatal("there is no image with a version")
	}
	module, err := os.ReadFile("go.mod")
	if err != nil {
		t.Fatal(err)
	}
	minor, err := strconv.Atoi(string(tag[2]))
	if err != nil {
		t.Fatal(err)
	}
	want := fmt.Sprintf("\tgithub.com/prometheus/prometheus v0.%s%02d.%s\n", tag[1], minor, tag[3])
	if !bytes.Contains(module, []byte(want)) {
		t.Errorf("go.mod: got another version, want the image's: %s", strings.TrimSpace(want))
	}
}
