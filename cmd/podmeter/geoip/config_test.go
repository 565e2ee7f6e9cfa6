// SPDX-License-Identifier: Apache-2.0

package geoip

import (
	"strings"
	"testing"

	"github.com/podmeter/podmeter/cmd/podmeter/agent"
)

func TestValidate(t *testing.T) {
	good := Defaults()
	good.Query, good.GeoIP, good.Labels = "up", []string{"a.mmdb"}, []string{"namespace", "destination_ip"}
	if err := good.Validate(); err != nil {
		t.Fatalf("got %v, want a good configuration", err)
	}
	for _, test := range []struct {
		name   string
		change func(*Config)
		want   string
	}{
		{"no scheme", func(c *Config) { c.PrometheusURL = "prometheus:9090" }, `--prometheus-url "prometheus:9090": a URL is expected`},
		{"no host", func(c *Config) { c.PrometheusURL = "http:///a" }, "a URL is expected"},
		{"unparsable, with a password", func(c *Config) { c.PrometheusURL = "http://a:secret@ /" }, "--prometheus-url cannot be parsed"},
		{"other scheme, with a password", func(c *Config) { c.PrometheusURL = "ftp://a:secret@b" }, "xxxxx"},
		{"query in the URL", func(c *Config) { c.PrometheusURL = "http://a/graph?g0.expr=up" }, "--query"},
		{"blank query", func(c *Config) { c.Query = " " }, "--query is expected"},
		{"no label of the address", func(c *Config) { c.IPLabel = "" }, "--ip-label is empty"},
		{"no database", func(c *Config) { c.GeoIP = nil }, "--geoip is expected"},
		{"odd label", func(c *Config) { c.Labels = []string{"a-b"} }, `--label "a-b": no name`},
		{"reserved label", func(c *Config) { c.Labels = []string{"__name__"} }, `--label "__name__": no name`},
		{"label of the place", func(c *Config) { c.Labels = []string{"zip"} }, `--label "zip": geo_ip has a label`},
		{"label twice", func(c *Config) { c.Labels = []string{"a", "a"} }, `--label "a": given twice`},
		{"too often", func(c *Config) { c.Interval = 0 }, "--interval 0s: at least 1s"},
		{"no time", func(c *Config) { c.Timeout = 0 }, "--timeout 0s: more than 0"},
		{"no port", func(c *Config) { c.Listen = "8080" }, `--listen "8080": host:port`},
		{"odd port", func(c *Config) { c.Listen = ":99999" }, `--listen ":99999"`},
		{"log format", func(c *Config) { c.LogFormat = "xml" }, `--log-format "xml": text or json`},
	} {
		t.Run(test.name, func(t *testing.T) {
			config := good
			test.change(&config)
			err := config.Validate()
			if !agent.IsUsage(err) || !strings.Contains(err.Error(), test.want) || strings.Contains(err.Error(), "secret") {
				t.Errorf("got %v, want wrong usage with %q", err, test.want)
			}
		})
	}
}

func TestCompleteTakesTheQueryOfOld(t *testing.T) {
	c := Defaults()
	c.Complete([]string{"A", "QUERY=sum(a=b)", "B=c"})
	if want := "sum(a=b)"; c.Query != want {
		t.Errorf("got %q, want %q", c.Query, want)
	}
	c.Complete([]string{"QUERY=up"})
	if want := "sum(a=b)"; c.Query != want {
		t.Errorf("got %q, want what was given, %q", c.Query, want)
	}
}
