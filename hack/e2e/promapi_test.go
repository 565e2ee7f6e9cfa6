// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"testing"

	"github.com/podmeter/podmeter/internal/ktest"
	dto "github.com/prometheus/client_model/go"
	"github.com/prometheus/common/model"
)

const (
	readme              = "../../README.md"
	monitoringNamespace = "podmeter-monitoring"
)

// prometheus is that of the manifests.
type prometheus struct{ url string }

// monitoring applies a folder of objects with a Prometheus among them.
func (c *cluster) monitoring(t *testing.T, folder string) *prometheus {
	t.Helper()
	c.kustomize(t, folder)
	c.rolledOut(t, monitoringNamespace, "deployment/prometheus")
	return c.prometheus(t)
}

// prometheus returns the one that is applied.
func (c *cluster) prometheus(t *testing.T) *prometheus {
	t.Helper()
	address := c.kubectl(t, "", "get", "service", "prometheus", "--namespace", monitoringNamespace, "--output", "jsonpath={.spec.clusterIP}")
	return &prometheus{url: "http://" + string(address) + ":9090/api/v1/"}
}

// kustomize applies a folder of objects for as long as the test.
func (c *cluster) kustomize(t *testing.T, folder string) {
	t.Helper()
	c.applyMonitoring(t, c.rendered(t, folder))
}

// rendered returns the objects of a folder. Files of other folders are what kubectl
// apply --kustomize does not read.
func (c *cluster) rendered(t *testing.T, folder string) string {
	t.Helper()
	return string(c.kubectl(t, "", "kustomize", "--load-restrictor", "LoadRestrictionsNone", folder))
}

// applyMonitoring applies objects for as long as the test. A Prometheus among them
// scrapes three times as often as the shipped one, which TestQuickStart waits for.
func (c *cluster) applyMonitoring(t *testing.T, objects string) {
	t.Helper()
	t.Cleanup(func() { c.asShipped(t) })
	c.kubectl(t, strings.ReplaceAll(objects, "_interval: 15s", "_interval: 5s"), "apply", "--filename", "-")
	c.rolledOut(t, agentNamespace, "daemonset/podmeter")
}

// ask asks the HTTP API and reads the data of its answer.
func (p *prometheus) ask(path string, query url.Values, into any) error {
	response, err := http.Get(p.url + path + "?" + query.Encode())
	if err != nil {
		return err
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	if err != nil {
		return err
	}
	var answer struct {
		Data  json.RawMessage
		Error string
	}
	if err := json.Unmarshal(body, &answer); err != nil {
		return fmt.Errorf("%s: read answer: %w", response.Status, err)
	}
	if answer.Error != "" {
		return fmt.Errorf("%v: %s", query, answer.Error)
	}
	return json.Unmarshal(answer.Data, into)
}

// query evaluates an expression now.
func (p *prometheus) query(expression string) (model.Vector, error) {
	var data struct{ Result model.Vector }
	err := p.ask("query", url.Values{"query": {expression}}, &data)
	return data.Result, err
}

// await evaluates an expression until its value is as wanted.
func (p *prometheus) await(t *testing.T, what, expression string, holds func(model.Vector) (why string)) {
	t.Helper()
	ktest.AwaitWithin(t, patience, what, func() string {
		found, err := p.query(expression)
		if err != nil {
			return err.Error()
		}
		if why := holds(found); why != "" {
			return expression + ": " + why
		}
		return ""
	})
}

// names returns the names of all series.
func (p *prometheus) names(t *testing.T) (names []string) {
	t.Helper()
	if err := p.ask("label/__name__/values", nil, &names); err != nil {
		t.Fatal(err)
	}
	return names
}

// started returns when the agent was, as an expression.
func (p *prometheus) started(t *testing.T) string {
	t.Helper()
	found, err := p.query(`process_start_time_seconds{job="podmeter"}`)
	if err != nil || len(found) != 1 {
		t.Fatalf("start of the agent: got %v, %v, want one", found, err)
	}
	return found[0].Value.String()
}

// settled waits until there is traffic of all kinds, and nothing new for three
// scrapes.
func (p *prometheus) settled(t *testing.T) {
	t.Helper()
	ktest.AwaitWithin(t, patience, "scrapes without new series", func() string {
		found, err := p.query(`count_over_time(scrape_series_added{job="podmeter"}[17s]) >= 3 and max_over_time(scrape_series_added{job="podmeter"}[17s]) == 0`)
		if err != nil || len(found) == 0 {
			return fmt.Sprintf("got %v, %v", found, err)
		}
		return ""
	})
}

// seriesOf returns the series that podmeter has now, but for those of neighbours
// and routers, which are asked for at any time, of other tests' pods, which end a while
// after their pods, and of the agents, which have other names after a roll-out.
func (p *prometheus) seriesOf(t *testing.T) map[string]bool {
	t.Helper()
	found, err := p.query(`{job="podmeter", protocol!="icmpv6", peer_kind!~"link|link_local|multicast"}`)
	if err != nil {
		t.Fatal(err)
	}
	all := make(map[string]bool, len(found))
	for _, s := range found {
		of := string(s.Metric["namespace"])
		if of == agentNamespace || strings.HasPrefix(of, "e2e-") && of != talkers {
			continue
		}
		all[identity(s.Metric)] = true
	}
	return all
}

// identity tells a series from all others. Labels that are empty tell nothing, and
// buckets and quantiles are their family's.
func identity(metric model.Metric) string {
	var labels []string
	for name, value := range metric {
		if value != "" && name != "__name__" && name != "le" && name != "quantile" {
			labels = append(labels, fmt.Sprintf("%s=%q", name, value))
		}
	}
	slices.Sort(labels)
	return string(metric["__name__"]) + "{" + strings.Join(labels, ",") + "}"
}

// identities returns those of all series of an exposition.
func (s series) identities() map[string]bool {
	all := make(map[string]bool)
	for name, family := range s {
		suffixes := []string{""}
		if kind := family.GetType(); kind == dto.MetricType_HISTOGRAM || kind == dto.MetricType_SUMMARY {
			suffixes = []string{"", "_bucket", "_sum", "_count"}
		}
		for _, m := range family.GetMetric() {
			for _, suffix := range suffixes {
				metric := model.Metric{"__name__": model.LabelValue(name + suffix)}
				for _, pair := range m.GetLabel() {
					metric[model.LabelName(pair.GetName())] = model.LabelValue(pair.GetValue())
				}
				all[identity(metric)] = true
			}
		}
	}
	return all
}
