// SPDX-License-Identifier: Apache-2.0

package geoip

import (
	"errors"
	"fmt"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/podmeter/podmeter/cmd/podmeter/agent"
	"github.com/podmeter/podmeter/internal/secret"
	"github.com/prometheus/common/model"
	"github.com/spf13/pflag"
)

// minInterval is the least time between two queries: Prometheus scrapes no more
// often by far.
const minInterval = time.Second

// queryVariable holds the query where neither flag nor PODMETER_QUERY does: the
// name that it has had since this command was a service of its own.
const queryVariable = "QUERY"

// Config is what a command line says.
type Config struct {
	// PrometheusURL is where to ask; a path before /api and user:password@ may
	// be in it.
	PrometheusURL string
	// HTTPConfigFile says how to ask: TLS, bearer token; none if empty.
	HTTPConfigFile string
	// Query is an instant query whose answer is a vector.
	Query string
	// IPLabel is the label of a row that holds the address.
	IPLabel string
	// Labels are carried over from the rows as they are.
	Labels []string
	// GeoIP are the database files; an earlier one wins.
	GeoIP []string
	// Interval is the time between two queries, Timeout the most that one takes.
	Interval, Timeout time.Duration
	// Listen is the host:port of /metrics.
	Listen string
	// PageHosts are names by which a browser may ask, besides addresses and localhost.
	PageHosts []string
	// WebConfigFile is exporter-toolkit's; none if empty.
	WebConfigFile string
	// Debug is whether each query is logged.
	Debug bool
	// LogFormat is text or json.
	LogFormat string
}

// Defaults returns the configuration without any flag. It lacks the query and
// the databases.
func Defaults() Config {
	return Config{
		PrometheusURL: "http://127.0.0.1:9090", IPLabel: "ip",
		Interval: 15 * time.Second, Timeout: 10 * time.Second,
		Listen: ":8080", LogFormat: "text",
	}
}

// AddFlags adds the flags to fs. The values in c are their defaults, and c is
// where they go.
func AddFlags(fs *pflag.FlagSet, c *Config) {
	fs.StringVarP(&c.PrometheusURL, "prometheus-url", "p", c.PrometheusURL,
		"`URL` of Prometheus, or of what speaks its API; a path, and user:password@, may be in it")
	fs.StringVarP(&c.Query, "query", "q", c.Query,
		"instant `query` that gives a row for each address; also as "+queryVariable+" in the environment (required)")
	fs.StringVarP(&c.IPLabel, "ip-label", "i", c.IPLabel, "`label` of the query's rows that holds the address")
	fs.StringSliceVarP(&c.GeoIP, "geoip", "d", c.GeoIP,
		"MaxMind database `files` (.mmdb: country, city); repeatable: an earlier one wins, later ones fill what it leaves empty; "+
			"read again when they change (required)")
	fs.StringSliceVarP(&c.Labels, "label", "l", c.Labels, "`labels` to carry over from the query's rows; repeatable")
	fs.StringVar(&c.Listen, "listen", c.Listen, "`host:port` to serve /metrics, /healthz and /readyz on")
	fs.DurationVar(&c.Interval, "interval", c.Interval, "time between two queries")
	fs.DurationVar(&c.Timeout, "timeout", c.Timeout, "how long an answer is waited for")
	fs.StringVar(&c.HTTPConfigFile, "http-config-file", c.HTTPConfigFile,
		"YAML `file` with a bearer token, basic auth or TLS for Prometheus, in the format of promtool's --http.config.file")
	fs.StringVar(&c.WebConfigFile, "web-config-file", c.WebConfigFile,
		"`file` that turns on TLS and basic auth for /metrics, in the exporter-toolkit format")
	agent.AddPageHostsFlag(fs, &c.PageHosts)
	fs.BoolVarP(&c.Debug, "debug", "D", c.Debug, "log each query and what came of it")
	fs.StringVar(&c.LogFormat, "log-format", c.LogFormat, "`format` of the log on stderr: "+strings.Join(agent.Choices("log-format"), " or "))
}

// Complete takes the query from its variable if there is none. environ is as
// [os.Environ] returns it.
func (c *Config) Complete(environ []string) {
	for _, variable := range environ {
		if name, value, _ := strings.Cut(variable, "="); name == queryVariable && c.Query == "" {
			c.Query = value
		}
	}
}

// Validate checks a configuration after [Config.Complete]. Every fault found is
// in the error, an [agent.UsageError].
func (c Config) Validate() error {
	return agent.Usage(errors.Join(
		c.checkURL(), c.checkQuery(), c.checkLabels(), c.checkTimes(),
		agent.CheckListen(c.Listen, ":8080"), agent.CheckPageHosts(c.PageHosts), agent.CheckChoice("log-format", c.LogFormat),
	))
}

// checkURL keeps what it refuses to itself where a password may be in it.
func (c Config) checkURL() error {
	const want = "a URL is expected, such as http://prometheus:9090"
	u, err := url.Parse(c.PrometheusURL)
	switch {
	case err != nil:
		return agent.NewFault("prometheus-url", "cannot be parsed", "%s", want)
	case u.Scheme != "http" && u.Scheme != "https" || u.Host == "":
		return agent.NewFault("prometheus-url", strconv.Quote(secret.URL(u)), "%s", want)
	case u.RawQuery != "" || u.Fragment != "":
		return agent.NewFault("prometheus-url", strconv.Quote(secret.URL(u)), "the query is for --query")
	}
	return nil
}

func (c Config) checkQuery() error {
	var faults []error
	if strings.TrimSpace(c.Query) == "" {
		faults = append(faults, fmt.Errorf("--query is expected, or %s in the environment: such as 'sum by (ip) (podmeter_external_transmit_bytes_total)'", queryVariable))
	}
	if c.IPLabel == "" {
		faults = append(faults, agent.NewFault("ip-label", "is empty", "the label that holds the address is expected"))
	}
	if len(c.GeoIP) == 0 {
		faults = append(faults, errors.New("--geoip is expected: a MaxMind database such as GeoLite2-City.mmdb, or a free one as 'podmeter geoip fetch' brings it"))
	}
	return errors.Join(faults...)
}

func (c Config) checkLabels() error {
	var faults []error
	for i, label := range c.Labels {
		switch {
		case !model.LegacyValidation.IsValidLabelName(label) || strings.HasPrefix(label, model.ReservedLabelPrefix):
			faults = append(faults, agent.NewFault("label", strconv.Quote(label), "no name of a label"))
		case slices.Contains(placeLabels(), label):
			faults = append(faults, agent.NewFault("label", strconv.Quote(label), "geo_ip has a label of this name for the place; rename it in the query, with label_replace"))
		case slices.Contains(c.Labels[:i], label):
			faults = append(faults, agent.NewFault("label", strconv.Quote(label), "given twice"))
		}
	}
	return errors.Join(faults...)
}

func (c Config) checkTimes() error {
	var faults []error
	if c.Interval < minInterval {
		faults = append(faults, agent.NewFault("interval", c.Interval, "at least %v is expected", minInterval))
	}
	if c.Timeout <= 0 {
		faults = append(faults, agent.NewFault("timeout", c.Timeout, "more than 0 is expected"))
	}
	return errors.Join(faults...)
}
