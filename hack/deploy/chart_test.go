// SPDX-License-Identifier: Apache-2.0

package main

import (
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/podmeter/podmeter/cmd/podmeter/agent"
	"github.com/spf13/pflag"
	"go.yaml.in/yaml/v3"
)

// Who installs with helm and who applies the manifests have the same.
func TestManifestsAreTheChart(t *testing.T) {
	created := map[string]any{"create": true}
	for folder, values := range map[string]map[string]any{
		"base":                {"namespace": created},
		"overlays/podmonitor": manifestValues(),
		geoipFolder:           {"namespace": created, "geoip": map[string]any{"fetch": map[string]any{"enabled": true}}},
	} {
		t.Run(folder, func(t *testing.T) {
			want := helm(t, values)
			for _, o := range want {
				withoutLabels(o)
			}
			if diff := cmp.Diff(want, kustomize(t, folder)); diff != "" {
				t.Errorf("kustomize gives other objects than helm (-helm +kustomize); make generate-deploy, or add a file to kustomization.yaml:\n%s", diff)
			}
		})
	}
}

// flags are those of the agent.
func flags() *pflag.FlagSet {
	fs, c := pflag.NewFlagSet("agent", pflag.ContinueOnError), agent.Defaults()
	agent.AddFlags(fs, &c)
	return fs
}

// valueOf is the value of the chart that a flag has: mapMemory for map-memory.
func valueOf(flag string) string {
	words := strings.Split(flag, "-")
	for n := range words[1:] {
		words[n+1] = strings.ToUpper(words[n+1][:1]) + words[n+1][1:]
	}
	return strings.Join(words, "")
}

func TestEveryFlagHasAValue(t *testing.T) {
	content, err := os.ReadFile(filepath.Join(chartFolder, "values.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	var values struct{ Agent map[string]any }
	if err := yaml.Unmarshal(content, &values); err != nil {
		t.Fatal(err)
	}
	flags().VisitAll(func(flag *pflag.Flag) {
		if _, ok := values.Agent[valueOf(flag.Name)]; !ok {
			t.Errorf("values.yaml: --%s has no value: add agent.%s, to values.schema.json as well", flag.Name, valueOf(flag.Name))
		}
	})
}

// examples are values of the flags that the agent takes, other than its defaults.
func examples() map[string]any {
	return map[string]any{
		"config": "/etc/podmeter/podmeter.yaml", "listen": "$(HOST_IP):9740", "webConfigFile": "/etc/podmeter/web.yml", "page": true, "pprof": true,
		"pageHosts": []any{"podmeter.example.com", "*"},
		"socket":    "/run/podmeter/other.sock", "interfaces": []any{"veth*", "!veth0"}, "uplinks": []any{"eth0"}, "xdpMode": "native",
		"attach": "netlink", "drainInterval": "1m30s", "mapMemory": "128Mi", "pinPath": "/bpf/other", "stateDir": "/run/podmeter/other",
		"identity": "kubernetes", "scope": "node", "kubeconfig": "/etc/podmeter/kubeconfig", "nodeName": "node-a", "daemonset": "meters/podmeter",
		"sockets": "on", "hostPods": "on", "cgroupRoot": "/host/cgroup",
		"cidrFile": "/etc/podmeter/cidrs.yaml", "nat64Prefix": []any{"64:ff9b:1::/96"}, "geoip": []any{"/geoip/city.mmdb", "/geoip/asn.mmdb"}, "geoipOptional": true,
		"flowLabels": []any{"peer_ip"}, "externalLabels": []any{"city"}, "linkLocalPeers": true,
		"rttClassicBuckets": true, "rttBuckets": "coarse", "flowSeriesLimit": 3000, "externalSeriesLimit": 0, "uplinkSeriesLimit": 10_000_000, "flowIdle": "2h", "seriesGrace": "10m",
		"remoteWriteUrl": []any{"https://a/w", "https://b/w"}, "remoteWriteHttpConfigFile": "/etc/podmeter/client.yaml", "remoteWriteLabels": []any{"cluster=prod"},
		"remoteWriteInterval": "30s", "remoteWriteSpool": "/spool", "remoteWriteSpoolLimit": "64Mi", "remoteWriteNativeHistograms": true,
		"logLevel": "debug", "logFormat": "json",
	}
}

// What the chart makes of a value is the flag with that value.
func TestValuesBecomeFlags(t *testing.T) {
	given := examples()
	args := daemonSet(t, helm(t, map[string]any{"agent": given})).Spec.Template.Spec.Containers[0].Args
	fs, want := flags(), flags()
	if err := fs.Parse(args[1:]); err != nil {
		t.Fatal(err)
	}
	list := func(value any) string {
		var words []string
		for _, word := range value.([]any) {
			words = append(words, word.(string))
		}
		return strings.Join(words, ",")
	}
	want.VisitAll(func(flag *pflag.Flag) {
		value, ok := given[valueOf(flag.Name)]
		if _, several := value.([]any); several {
			value = list(value)
		}
		if !ok {
			return
		}
		if err := flag.Value.Set(strings.TrimSpace(toString(value))); err != nil {
			t.Fatal(err)
		}
		if got := fs.Lookup(flag.Name); got.Value.String() != flag.Value.String() || !got.Changed {
			t.Errorf("--%s: got %s, want %s", flag.Name, got.Value, flag.Value)
		}
	})
}

func toString(value any) string {
	content, err := yaml.Marshal(value)
	if err != nil {
		return err.Error()
	}
	return strings.Trim(strings.TrimSpace(string(content)), `"'`)
}

func TestSchema(t *testing.T) {
	within := func(key, inner string, value any) map[string]any {
		return map[string]any{key: map[string]any{inner: value}}
	}
	for name, values := range map[string]map[string]any{
		"unknown value":         {"imag": "x"},
		"unknown flag":          within("agent", "mapmemory", "64Mi"),
		"unknown choice":        within("agent", "attach", "xdp"),
		"YAML's false for off":  within("agent", "xdpMode", false),
		"globs that are none":   within("agent", "interfaces", "veth*"),
		"wrong unit":            within("agent", "mapMemory", "64MB"),
		"negative limit":        within("agent", "flowSeriesLimit", -1),
		"duration without unit": within("agent", "drainInterval", "5"),
		"unknown label":         within("agent", "flowLabels", []any{"node"}),
		"pins below sys":        within("agent", "pinPath", "/sys/fs/bpf/podmeter"),
		"pins with a dot":       within("agent", "pinPath", "/bpf/pod.meter"),
		"relative host path":    within("bpffs", "hostPath", "podmeter"),
		"two agents at a time":  within("updateStrategy", "rollingUpdate", map[string]any{"maxSurge": 1}),
		"DaemonSet by name":     within("agent", "daemonset", "podmeter"),
		"digest":                within("image", "digest", "sha256:0"),
	} {
		t.Run(name, func(t *testing.T) {
			if _, err := render(chartFolder, values); err == nil {
				t.Errorf("%v: got no error, want the schema to refuse it", values)
			}
		})
	}
	if _, err := render(chartFolder, map[string]any{"agent": examples()}); err != nil {
		t.Errorf("good values: got %v, want none", err)
	}
}

// Who sets what other charts call so is told what it is here.
func TestHints(t *testing.T) {
	within := func(key, inner string, value any) map[string]any {
		return map[string]any{key: map[string]any{inner: value}}
	}
	memory := map[string]any{"memory": "1Gi"}
	for _, test := range []struct {
		values map[string]any
		want   string
	}{
		{within("resources", "limits", memory), "set resources.memoryBesidesMaps.limit, to which agent.mapMemory and, in the limit, what sockets take is added, or, in place of all that is computed, resourcesOverride.limits.memory"},
		{within("resources", "requests", memory), "set resources.memoryBesidesMaps.request, "},
		{map[string]any{"extraArgs": []any{"--page"}}, "extraArgs is no value of this chart: agent.* has a value for every flag"},
		{within("serviceMonitor", "enabled", true), "set podMonitor.enabled"},
		{map[string]any{"env": []any{}}, "set extraEnv"},
		{map[string]any{"volumes": []any{}}, "set extraVolumes"},
		{within("agent", "sockets", false), `agent.sockets: YAML reads on and off without quotes as true and false: write sockets: "off"`},
		{within("agent", "hostPods", true), `write hostPods: "on"`},
		{within("agent", "rttBuckets", false), `write rttBuckets: "off"`},
		{within("agent", "xdpMode", false), `write xdpMode: "off"`},
	} {
		if _, err := render(chartFolder, test.values); err == nil || !strings.Contains(err.Error(), test.want) {
			t.Errorf("%v: got %v, want %q", test.values, err, test.want)
		}
	}
	override := map[string]any{"resourcesOverride": map[string]any{"limits": memory}}
	if got := daemonSet(t, helm(t, override)).Spec.Template.Spec.Containers[0].Resources.Limits.Memory().String(); got != "1Gi" {
		t.Errorf("what the hint says: got a limit of %s, want 1Gi", got)
	}
}

// The limit holds what the maps take, twice that with uplinks, and what is looked at.
func TestMemoryLimit(t *testing.T) {
	for _, test := range []struct {
		name          string
		agent         map[string]any
		request, most string
	}{
		{"default", map[string]any{}, "128Mi", "384Mi"},
		{"the agent's default", map[string]any{"mapMemory": nil}, "128Mi", "384Mi"},
		{"more", map[string]any{"mapMemory": "1Gi"}, "1088Mi", "1344Mi"},
		{"rounded up", map[string]any{"mapMemory": "100M"}, "160Mi", "416Mi"},
		{"bytes", map[string]any{"mapMemory": 8388608}, "72Mi", "328Mi"},
		{"uplinks", map[string]any{"uplinks": []any{"eth0"}}, "192Mi", "448Mi"},
		{"without sockets", map[string]any{"sockets": "off"}, "128Mi", "160Mi"},
		{"without an API server", map[string]any{"identity": "none"}, "128Mi", "160Mi"},
	} {
		t.Run(test.name, func(t *testing.T) {
			resources := daemonSet(t, helm(t, map[string]any{"agent": test.agent})).Spec.Template.Spec.Containers[0].Resources
			if got := resources.Requests.Memory().String(); got != test.request {
				t.Errorf("request: got %s, want %s", got, test.request)
			}
			if got := resources.Limits.Memory().String(); got != test.most {
				t.Errorf("limit: got %s, want %s", got, test.most)
			}
		})
	}
}

// A web config, databases and what else a user adds are where the flags say.
func TestVolumes(t *testing.T) {
	d := daemonSet(t, helm(t, map[string]any{
		"webConfig":         map[string]any{"secret": "web"},
		"geoip":             map[string]any{"volume": map[string]any{"persistentVolumeClaim": map[string]any{"claimName": "geoip"}}},
		"cniResults":        map[string]any{"hostPath": ""},
		"cgroups":           map[string]any{"hostPath": ""},
		"extraVolumes":      []any{map[string]any{"name": "config", "configMap": map[string]any{"name": "podmeter"}}},
		"extraVolumeMounts": []any{map[string]any{"name": "config", "mountPath": "/etc/podmeter/config"}},
	}))
	pod := d.Spec.Template.Spec
	var mounted, volumes []string
	for _, m := range pod.Containers[0].VolumeMounts {
		mounted = append(mounted, m.Name+" "+m.MountPath)
	}
	for _, v := range pod.Volumes {
		volumes = append(volumes, v.Name)
	}
	want := []string{"bpffs /bpf/podmeter", "run /run/podmeter", "web-config /etc/podmeter/web", "geoip /geoip", "config /etc/podmeter/config"}
	if diff := cmp.Diff(want, mounted); diff != "" {
		t.Errorf("mounts (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff([]string{"bpffs", "run", "web-config", "geoip", "config"}, volumes); diff != "" {
		t.Errorf("volumes (-want +got):\n%s", diff)
	}
	if want := "--web-config-file=/etc/podmeter/web/web-config.yml"; !slices.Contains(pod.Containers[0].Args, want) {
		t.Errorf("args: got %q, want %s in it", pod.Containers[0].Args, want)
	}
}

// Databases are fetched to the volume that the agent reads, which names them unless told.
func TestFetchedDatabases(t *testing.T) {
	for _, test := range []struct {
		name          string
		geoip, agent  map[string]any
		fetch, args   []string
		hasOwnStorage bool
	}{
		{"default", map[string]any{"fetch": map[string]any{"enabled": true}}, map[string]any{},
			[]string{"geoip", "fetch", "--dir=/geoip", "--database=country", "--give-up=2m"}, []string{"--geoip=/geoip/dbip-country-lite.mmdb"}, true},
		{"two, of a mirror, to a volume", map[string]any{
			"fetch":  map[string]any{"enabled": true, "databases": []any{"city", "asn"}, "mirror": "http://mirror.example.com/dbip"},
			"volume": map[string]any{"hostPath": map[string]any{"path": "/var/lib/GeoIP"}},
		}, map[string]any{}, []string{"geoip", "fetch", "--dir=/geoip", "--database=city,asn", "--mirror=http://mirror.example.com/dbip", "--give-up=2m"},
			[]string{"--geoip=/geoip/dbip-city-lite.mmdb,/geoip/dbip-asn-lite.mmdb"}, false},
		{"named", map[string]any{"fetch": map[string]any{"enabled": true}}, map[string]any{"geoip": []any{"/geoip/own.mmdb"}},
			[]string{"geoip", "fetch", "--dir=/geoip", "--database=country", "--give-up=2m"}, []string{"--geoip=/geoip/own.mmdb"}, true},
	} {
		t.Run(test.name, func(t *testing.T) {
			pod := daemonSet(t, helm(t, map[string]any{"geoip": test.geoip, "agent": test.agent})).Spec.Template.Spec
			if len(pod.InitContainers) != 1 {
				t.Fatalf("got %d containers that initialize, want one", len(pod.InitContainers))
			}
			if diff := cmp.Diff(test.fetch, pod.InitContainers[0].Args); diff != "" {
				t.Errorf("arguments (-want +got):\n%s", diff)
			}
			if !slices.Contains(pod.Containers[0].Args, "--geoip-optional=true") {
				t.Errorf("agent's: got %q, want it to start without databases", pod.Containers[0].Args)
			}
			var args []string
			for _, arg := range pod.Containers[0].Args {
				if strings.HasPrefix(arg, "--geoip=") {
					args = append(args, arg)
				}
			}
			if diff := cmp.Diff(test.args, args); diff != "" {
				t.Errorf("agent's (-want +got):\n%s", diff)
			}
			volume := pod.Volumes[len(pod.Volumes)-1]
			if volume.Name != "geoip" || (volume.EmptyDir != nil) != test.hasOwnStorage {
				t.Errorf("volume: got %+v, want its own %v", volume, test.hasOwnStorage)
			}
		})
	}
}

// Nothing is left in the made files that the chart does not give.
func TestManifestsAreFresh(t *testing.T) {
	rendered, err := render(chartFolder, manifestValues())
	if err != nil {
		t.Fatal(err)
	}
	for _, template := range slices.Sorted(maps.Keys(targets())) {
		target := filepath.Join(kubernetesFolder, targets()[template])
		got, err := os.ReadFile(target)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(note+withoutHelm(rendered[template]), string(got)); diff != "" {
			t.Errorf("%s: make generate-deploy (-chart +file):\n%s", target, diff)
		}
	}
}
