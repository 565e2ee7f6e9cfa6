// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"log/slog"
	"path/filepath"
	"strings"
	"testing"
)

// What an agent meets at its start names the flag that led there.
func TestFaultsOfTheStartNameTheFlag(t *testing.T) {
	const nowhere = "/proc/nowhere/file"
	for _, test := range []struct {
		flag   string
		change func(*Config)
		usage  bool
	}{
		{"geoip", func(c *Config) { c.GeoIP = []string{nowhere} }, true},
		{"static-file", func(c *Config) { c.Identity, c.StaticFile = IdentityStatic, nowhere }, true},
		{"cidr-file", func(c *Config) { c.CIDRFile = nowhere }, true},
		{"kubeconfig", func(c *Config) { c.Identity, c.Kubeconfig = IdentityKubernetes, nowhere }, true},
		{"kubeconfig is missing", func(c *Config) { c.Identity = IdentityKubernetes }, true},
		{"web-config-file", func(c *Config) { c.WebConfigFile = nowhere }, true},
		{"remote-write-http-config-file", func(c *Config) {
			c.RemoteWriteURLs, c.RemoteWriteHTTPConfigFile = []string{"http://198.51.100.1/"}, nowhere
		}, true},
		{"remote-write-spool", func(c *Config) {
			c.RemoteWriteURLs, c.RemoteWriteSpool = []string{"http://198.51.100.1/"}, nowhere
		}, true},
		{"socket", func(c *Config) { c.Socket = nowhere }, false},
		{"listen", func(c *Config) { c.Listen = "192.0.2.1:9739" }, false},
	} {
		t.Run(test.flag, func(t *testing.T) {
			t.Setenv(apiVariable, "")
			config := complete(t)
			config.Socket, config.Listen = filepath.Join(t.TempDir(), "s"), "127.0.0.1:0"
			test.change(&config)
			a, err := New(t.Context(), config, Options{Logger: slog.New(slog.DiscardHandler)})
			if err == nil {
				t.Fatal(a.close(), "got an agent, want an error")
			}
			if !strings.HasPrefix(err.Error(), "--"+test.flag+": ") || IsUsage(err) != test.usage {
				t.Errorf("got %v, want --%s named, wrong usage: %v", err, test.flag, test.usage)
			}
		})
	}
}
