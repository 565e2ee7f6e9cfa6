// SPDX-License-Identifier: Apache-2.0

package main

import (
	"github.com/podmeter/podmeter/cmd/podmeter/agent"
	"github.com/podmeter/podmeter/cmd/podmeter/geoip/fetch"
	"github.com/podmeter/podmeter/internal/ratelog"
	"github.com/spf13/cobra"
)

const fetchLong = `Fetch databases for --geoip of 'podmeter agent' and 'podmeter geoip': DB-IP Lite,
which is made anew each month and needs no account. They are under CC BY 4.0: pages
that show places have to name DB-IP with a link, as dbip-lite.txt beside them says.

  country  dbip-country-lite.mmdb  enough for a map: the middle of the country
  city     dbip-city-lite.mmdb     cities and their coordinates
  asn      dbip-asn-lite.mmdb      autonomous systems

A file that is recent stays, and so does any that is there when nothing newer can be
had: this may run before each start. Who runs already reads a new file by itself.
Where DB-IP cannot be reached, that of countries comes from the npm registry, which has
one of some months ago; a --mirror is asked alone. With --give-up what cannot be had is
no error: 'podmeter agent --geoip-optional' begins without places.

MaxMind's GeoLite2, which needs an account, is fetched with their geoipupdate.`

const fetchExample = `  podmeter geoip fetch --dir /var/lib/podmeter/geoip --database country,asn
  podmeter agent --geoip /var/lib/podmeter/geoip/dbip-country-lite.mmdb`

func (c *commands) geoipFetch() *cobra.Command {
	config := fetch.Defaults()
	command := &cobra.Command{
		Use:     "fetch",
		Short:   "Fetch free databases of places",
		Long:    fetchLong,
		Example: fetchExample,
		Args:    noArguments,
		RunE: func(command *cobra.Command, _ []string) error {
			return c.fetch(command, &config)
		},
	}
	command.Flags().SortFlags = false
	fetch.AddFlags(command.Flags(), &config)
	completeChoices(command)
	complete(command, "database", fetch.Names()...)
	return command
}

func (c *commands) fetch(command *cobra.Command, config *fetch.Config) error {
	warnings, err := agent.Load(command.Flags(), c.environ)
	if err != nil {
		return err
	}
	if err := config.Validate(); err != nil {
		return err
	}
	log, err := newLogger(command.ErrOrStderr(), "info", config.LogFormat, warnings)
	if err != nil {
		return err
	}
	defer ratelog.Flush(log)
	return c.runFetch(command.Context(), *config, log)
}
