// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"github.com/spf13/pflag"
	"go.yaml.in/yaml/v3"
)

// FuzzConfigFile reads arbitrary bytes as a configuration file: what is refused is
// the user's fault, told with the file's name; what is taken can be validated, and
// is the same when it is written down anew.
func FuzzConfigFile(f *testing.F) {
	for _, seed := range []string{
		"", "# nothing\n", "listen: 127.0.0.1:9739\nlog-level: debug\n", "interfaces: ['cali*', '!cali0']\nmap-memory: 8Mi\n",
		"geoip: a.mmdb\nflow-labels: [peer_ip, peer_port]\npprof: true\n", "drain-interval: 1s\ndrain-interval: 2s\n",
		"a: &a [b]\ninterfaces: *a\n", "interfaces: &a [*a]\n", "interfaces: !cali*\n", "scope: {a: b}\n", "? [a]\n: b\n",
		"<<: {scope: node}\n", "a: 1\n---\nb: 2\n", "- a\n", "\xff", "%YAML 9", "config: x\n", "flow-series-limit: 0x10\nflow-idle: ~\n",
		"interfaces: 'a,\"b\nc\"'\n", "node-name: |\n  a\n  b\n",
	} {
		f.Add([]byte(seed))
	}
	file := filepath.Join(f.TempDir(), "podmeter.yaml")
	f.Fuzz(func(t *testing.T, data []byte) {
		flags, config, err := readConfig(t, file, data)
		if err != nil {
			if !IsUsage(err) || !strings.Contains(err.Error(), file) {
				t.Errorf("got %v, want a usage error that names %s", err, file)
			}
			return
		}
		if err := config.Validate(); err != nil && !IsUsage(err) {
			t.Errorf("validate: got %v, want a usage error", err)
		}
		_, again, err := readConfig(t, file, writeConfig(t, flags))
		if diff := cmp.Diff(config, again, cmpopts.EquateEmpty()); err != nil || diff != "" {
			t.Errorf("written down anew: got %v, (-want +got):\n%s", err, diff)
		}
	})
}

// readConfig reads a file with this content, as an agent that is given it does.
func readConfig(t *testing.T, file string, content []byte) (*pflag.FlagSet, Config, error) {
	t.Helper()
	if err := os.WriteFile(file, content, 0o600); err != nil {
		t.Fatal(err)
	}
	flags, config := pflag.NewFlagSet("agent", pflag.ContinueOnError), Defaults()
	AddFlags(flags, &config)
	if err := flags.Parse([]string{"--config", file}); err != nil {
		t.Fatal(err)
	}
	_, err := Load(flags, nil)
	return flags, config, err
}

// writeConfig is a configuration file with all flags as they are.
func writeConfig(t *testing.T, flags *pflag.FlagSet) []byte {
	t.Helper()
	settings := make(map[string]any)
	flags.VisitAll(func(flag *pflag.Flag) {
		list, several := flag.Value.(pflag.SliceValue)
		switch {
		case flag.Name == "config" || flag.Name == "help":
		case several:
			settings[flag.Name] = list.GetSlice()
		default:
			settings[flag.Name] = flag.Value.String()
		}
	})
	content, err := yaml.Marshal(settings)
	if err != nil {
		t.Fatal(err)
	}
	return content
}
