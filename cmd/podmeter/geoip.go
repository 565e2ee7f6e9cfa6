// SPDX-License-Identifier: Apache-2.0

package main

import (
	"path/filepath"

	"github.com/podmeter/podmeter/cmd/podmeter/agent"
	"github.com/podmeter/podmeter/cmd/podmeter/geoip"
	"github.com/podmeter/podmeter/internal/ratelog"
	"github.com/spf13/cobra"
)

// geoipName is the binary's name by which it is 'podmeter geoip', as that was a
// program of its own before.
const geoipName = "prometheus-geoip"

const geoipLong = `Ask Prometheus an instant query every --interval, look up where the address in
one label of each row is, and serve the rows as a gauge to draw on a world map:

  geo_ip{ip, country, city, zip, latitude, longitude, …} with the query's value

The labels of --label are carried over. Rows that are equal in all of this are
added; rows that the last answer does not have are gone; rows without a public
address are left out and counted. While Prometheus is away the last good answer
stays, and podmeter_geoip_answer_age_seconds says how old it is.

A country database is enough for a map: where a database has no coordinates,
latitude and longitude are the middle of the country. The labels of podmeter's own
series that hold addresses are opt-in: 'podmeter agent --external-labels ip'.

'podmeter geoip fetch' brings a free database. The query is also taken from QUERY
in the environment. A binary, or a link to it, that is called prometheus-geoip is
this command.
What the metrics mean: https://github.com/podmeter/podmeter/blob/main/docs/METRICS.md`

const geoipExample = `  podmeter geoip -p http://prometheus:9090 -d GeoLite2-City.mmdb -l namespace -l pod \
    -q 'sum by (ip, namespace, pod) (rate(podmeter_external_transmit_bytes_total[5m]))'
  podmeter geoip -d GeoLite2-Country.mmdb -i destination_ip -l k8s_namespace -l k8s_pod \
    -q 'sum by (k8s_namespace, k8s_pod, destination_ip) (bytes_tx{})'
  QUERY='topk(100, podmeter_external_receive_bytes_total)' prometheus-geoip -d GeoLite2-City.mmdb`

func (c *commands) geoip() *cobra.Command {
	config := geoip.Defaults()
	command := &cobra.Command{
		Use:     "geoip",
		Short:   "Place the addresses of a Prometheus query on the map",
		Long:    geoipLong,
		Example: geoipExample,
		Args:    noArguments,
		RunE: func(command *cobra.Command, _ []string) error {
			return c.locate(command, &config)
		},
	}
	command.Flags().SortFlags = false
	geoip.AddFlags(command.Flags(), &config)
	completeChoices(command)
	command.AddCommand(c.geoipFetch())
	return command
}

func (c *commands) locate(command *cobra.Command, config *geoip.Config) error {
	warnings, err := agent.Load(command.Flags(), c.environ)
	if err != nil {
		return err
	}
	config.Complete(c.environ)
	if err := config.Validate(); err != nil {
		return err
	}
	level := "info"
	if config.Debug {
		level = "debug"
	}
	log, err := newLogger(command.ErrOrStderr(), level, config.LogFormat, warnings)
	if err != nil {
		return err
	}
	defer ratelog.Flush(log)
	return c.runGeoIP(command.Context(), *config, log)
}

// arguments returns those of a whole command line, the binary's name included.
func arguments(line []string) []string {
	if len(line) == 0 {
		return nil
	}
	if filepath.Base(line[0]) == geoipName {
		return append([]string{"geoip"}, line[1:]...)
	}
	return line[1:]
}
