// SPDX-License-Identifier: Apache-2.0

package main

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/podmeter/podmeter/cmd/podmeter/geoip"
	"github.com/podmeter/podmeter/cmd/podmeter/geoip/fetch"
)

// The flags of the service that this command was are still its flags.
func TestGeoIPGetsItsConfig(t *testing.T) {
	want := geoip.Defaults()
	want.PrometheusURL, want.Query, want.IPLabel = "http://198.51.100.1:9090", "bytes_tx", "destination_ip"
	want.GeoIP, want.Labels, want.Debug = []string{"a.mmdb", "b.mmdb"}, []string{"k8s_pod", "k8s_namespace"}, true
	for name, test := range map[string]struct {
		environ []string
		args    []string
	}{
		"short": {nil, []string{"-p", "http://198.51.100.1:9090", "-q", "bytes_tx", "-i", "destination_ip",
			"-d", "a.mmdb", "-d", "b.mmdb", "-l", "k8s_pod", "-l", "k8s_namespace", "-D"}},
		"long": {nil, []string{"--prometheus-url=http://198.51.100.1:9090", "--query=bytes_tx", "--ip-label=destination_ip",
			"--geoip=a.mmdb,b.mmdb", "--label=k8s_pod,k8s_namespace", "--debug"}},
		"environment": {[]string{"PODMETER_PROMETHEUS_URL=http://198.51.100.1:9090", "PODMETER_QUERY=bytes_tx", "QUERY=up",
			"PODMETER_IP_LABEL=destination_ip", "PODMETER_GEOIP=a.mmdb,b.mmdb", "PODMETER_LABEL=k8s_pod,k8s_namespace", "PODMETER_DEBUG=true"}, nil},
		"query of old": {[]string{"QUERY=bytes_tx"}, []string{"-p", "http://198.51.100.1:9090", "-i", "destination_ip",
			"-d", "a.mmdb", "-d", "b.mmdb", "-l", "k8s_pod", "-l", "k8s_namespace", "-D"}},
		"flag before variable": {[]string{"QUERY=up", "PODMETER_QUERY=up"}, []string{"-p", "http://198.51.100.1:9090", "-q", "bytes_tx",
			"-i", "destination_ip", "-d", "a.mmdb,b.mmdb", "-l", "k8s_pod,k8s_namespace", "-D"}},
	} {
		t.Run(name, func(t *testing.T) {
			var r recorder
			got := r.run(t, test.environ, append([]string{"geoip"}, test.args...)...)
			if diff := cmp.Diff(want, r.geoip); got.code != 0 || diff != "" {
				t.Errorf("got %+v, configuration (-want +got):\n%s", got, diff)
			}
		})
	}
	if want.Listen != ":8080" || want.Interval != 15*time.Second {
		t.Errorf("got defaults %q and %v, want those of the service that it was", want.Listen, want.Interval)
	}
}

func TestGeoIPByItsOldName(t *testing.T) {
	for _, test := range []struct{ line, want []string }{
		{[]string{"podmeter", "agent"}, []string{"agent"}},
		{[]string{"/usr/bin/prometheus-geoip", "-q", "up"}, []string{"geoip", "-q", "up"}},
		{[]string{"prometheus-geoip"}, []string{"geoip"}},
		{[]string{"prometheus-geoip/podmeter", "status"}, []string{"status"}},
		{nil, nil},
	} {
		if diff := cmp.Diff(test.want, arguments(test.line)); diff != "" {
			t.Errorf("%q (-want +got):\n%s", test.line, diff)
		}
	}
}

func TestFetchGetsItsConfig(t *testing.T) {
	want := fetch.Defaults()
	want.Dir, want.Databases, want.MaxAge, want.Mirror = "/geoip", []string{"country", "asn"}, time.Hour, "http://198.51.100.1/dbip"
	for name, test := range map[string]struct {
		environ []string
		args    []string
	}{
		"flags": {nil, []string{"--dir=/geoip", "--database=country,asn", "--max-age=1h", "--mirror=http://198.51.100.1/dbip"}},
		"environment": {[]string{"PODMETER_DIR=/geoip", "PODMETER_DATABASE=country,asn", "PODMETER_MAX_AGE=1h",
			"PODMETER_MIRROR=http://198.51.100.1/dbip"}, nil},
	} {
		t.Run(name, func(t *testing.T) {
			var r recorder
			got := r.run(t, test.environ, append([]string{"geoip", "fetch"}, test.args...)...)
			if diff := cmp.Diff(want, r.fetch); got.code != 0 || diff != "" {
				t.Errorf("got %+v, configuration (-want +got):\n%s", got, diff)
			}
		})
	}
}
