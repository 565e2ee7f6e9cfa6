// SPDX-License-Identifier: Apache-2.0

package fetch

import (
	"errors"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/podmeter/podmeter/cmd/podmeter/agent"
	"github.com/spf13/pflag"
)

// Config is what a command line says.
type Config struct {
	// Dir is the folder that the databases go to, made where it is not.
	Dir string
	// Databases are some of [Names].
	Databases []string
	// MaxAge is how old a file may be that is kept as it is; 0 for none.
	MaxAge time.Duration
	// Mirror is a URL below which the files of DB-IP are, and the only place that is
	// asked; empty for DB-IP.
	Mirror string
	// Timeout is the most that one source may take for a file.
	Timeout time.Duration
	// GiveUp is the most time that all may take, after which, or when it is clear that
	// nothing can be had, Run ends without an error; 0 for none: what cannot be had is one.
	GiveUp time.Duration
	// LogFormat is text or json.
	LogFormat string
}

// Defaults returns the configuration without any flag.
func Defaults() Config {
	return Config{Dir: ".", Databases: []string{"country"}, MaxAge: 7 * 24 * time.Hour, Timeout: 10 * time.Minute, LogFormat: "text"}
}

// AddFlags adds the flags to fs. The values in c are their defaults, and c is
// where they go.
func AddFlags(fs *pflag.FlagSet, c *Config) {
	fs.StringVar(&c.Dir, "dir", c.Dir, "`folder` that they are written to")
	fs.StringSliceVar(&c.Databases, "database", c.Databases,
		"`databases` to fetch: "+strings.Join(Names(), ", ")+"; repeatable; country is some 8 MB, city over 100 MB")
	fs.DurationVar(&c.MaxAge, "max-age", c.MaxAge, "files that were fetched less than this `time` ago are kept; 0 fetches always")
	fs.StringVar(&c.Mirror, "mirror", c.Mirror,
		"`URL` of a folder with DB-IP's files by their own names, dbip-country-lite-2026-11.mmdb.gz; nothing else is asked then")
	fs.DurationVar(&c.Timeout, "timeout", c.Timeout, "the most `time` that one source may take for a file")
	fs.DurationVar(&c.GiveUp, "give-up", c.GiveUp,
		"the most `time` for all; a database that cannot be had by then is no error, so that what is started next begins without it; "+
			"0 waits, and it is one")
	fs.StringVar(&c.LogFormat, "log-format", c.LogFormat, "`format` of the log on stderr: "+strings.Join(agent.Choices("log-format"), " or "))
}

// Validate checks a configuration. Every fault found is in the error, an
// [agent.UsageError].
func (c Config) Validate() error {
	var faults []error
	if c.Dir == "" {
		faults = append(faults, agent.NewFault("dir", "is empty", "a folder is expected"))
	}
	if len(c.Databases) == 0 {
		faults = append(faults, agent.NewFault("database", "is empty", "%s are known", strings.Join(Names(), ", ")))
	}
	for _, name := range c.Databases {
		if !slices.Contains(Names(), name) {
			faults = append(faults, agent.NewFault("database", strconv.Quote(name), "%s are known", strings.Join(Names(), ", ")))
		}
	}
	if c.MaxAge < 0 {
		faults = append(faults, agent.NewFault("max-age", c.MaxAge, "0 or more is expected"))
	}
	if c.GiveUp < 0 {
		faults = append(faults, agent.NewFault("give-up", c.GiveUp, "0 or more is expected"))
	}
	if c.Timeout <= 0 {
		faults = append(faults, agent.NewFault("timeout", c.Timeout, "more than 0 is expected"))
	}
	if u, err := url.Parse(c.Mirror); c.Mirror != "" && (err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "") {
		faults = append(faults, agent.NewFault("mirror", "", "a URL is expected, such as https://mirror.example.com/dbip"))
	}
	faults = append(faults, agent.CheckChoice("log-format", c.LogFormat))
	return agent.Usage(errors.Join(faults...))
}
