// SPDX-License-Identifier: Apache-2.0

package prometheus

import (
	"os"
	"slices"
	"strings"
	"testing"
)

// What kubectl apply notes of an object has to be less than this, and a dashboard is most of a
// ConfigMap.
const maxAnnotation = 256 << 10

func TestDashboards(t *testing.T) {
	all := dashboards(t)
	for _, fault := range faults(all, knownMetrics(t)) {
		t.Error(fault)
	}
	for file := range all {
		info, err := os.Stat(dashboardFolder + file)
		if err != nil {
			t.Fatal(err)
		}
		// As a string of JSON it is longer, by quotes and ends of lines that are escaped.
		if info.Size() > maxAnnotation*3/4 {
			t.Errorf("%s: got %d bytes, want less than what an annotation takes", file, info.Size())
		}
	}
}

// A dashboard that is changed for the worse is told of.
func TestDashboardFaults(t *testing.T) {
	known := knownMetrics(t)
	if found := faults(dashboards(t), known); len(found) > 0 {
		t.Fatalf("the dashboards as they are have faults: %q", found)
	}
	// Of the overview: a graph, and what the tests change of it.
	for name, test := range map[string]struct {
		spoil func(d *dashboard, p *panel)
		want  string
	}{
		"title":         {func(_ *dashboard, p *panel) { p.Title = "" }, "it has no title"},
		"description":   {func(_ *dashboard, p *panel) { p.Description = "" }, "it has no description"},
		"unit":          {func(_ *dashboard, p *panel) { p.FieldConfig.Defaults.Unit = "" }, "it has no unit"},
		"query":         {func(_ *dashboard, p *panel) { p.Targets = nil }, "it has no query"},
		"legend":        {func(_ *dashboard, p *panel) { p.Targets[0].LegendFormat = "" }, "has no legend"},
		"auto legend":   {func(_ *dashboard, p *panel) { p.Targets[0].LegendFormat = "__auto" }, "has no legend"},
		"datasource":    {func(_ *dashboard, p *panel) { p.Datasource.UID = "prometheus" }, "does not take the variable datasource"},
		"of a target":   {func(_ *dashboard, p *panel) { p.Targets[0].Datasource.UID = "" }, "does not take the variable datasource"},
		"reference":     {func(_ *dashboard, p *panel) { p.Targets = append(p.Targets, p.Targets[0]) }, "the reference A is used twice"},
		"id":            {func(d *dashboard, p *panel) { p.ID = d.Panels[0].ID }, "is used twice"},
		"overlap":       {func(d *dashboard, p *panel) { p.GridPos = d.Panels[0].GridPos }, "it overlaps"},
		"grid":          {func(_ *dashboard, p *panel) { p.GridPos.X = 20 }, "it is not on the grid"},
		"link":          {func(_ *dashboard, p *panel) { p.FieldConfig.Defaults.Links[0].URL = "/d/nowhere?x" }, "leads to no dashboard"},
		"handed over":   {func(_ *dashboard, p *panel) { p.FieldConfig.Defaults.Links[0].URL += "&var-nonsense=1" }, "which podmeter-pods does not have"},
		"kept":          {func(_ *dashboard, p *panel) { p.FieldConfig.Defaults.Links[0].URL += "&${pod:queryparam}" }, "hands over pod, which is not there"},
		"uid":           {func(d *dashboard, _ *panel) { d.UID = "podmeter-pods" }, "the uid is used twice"},
		"tag":           {func(d *dashboard, _ *panel) { d.Tags = nil }, "neither title nor tag"},
		"links":         {func(d *dashboard, _ *panel) { d.Links[0].KeepTime = false }, "no link to the others"},
		"no datasource": {func(d *dashboard, _ *panel) { d.variable("datasource").Name = "x" }, "it has no variable datasource"},
		"all":           {func(d *dashboard, _ *panel) { d.variable("cluster").AllValue = "" }, "All does not match"},
		"several":       {func(d *dashboard, _ *panel) { d.variable("cluster").Multi = false }, "several or all cannot be chosen"},
		"values":        {func(d *dashboard, _ *panel) { d.variable("cluster").Definition = "up" }, "no label_values"},
		"of a variable": {func(d *dashboard, _ *panel) { d.variable("cluster").Datasource = nil }, "does not take the variable datasource"},
	} {
		t.Run(name, func(t *testing.T) { spoiled(t, known, test.spoil, test.want) })
	}
	const counter = "podmeter_pod_transmit_bytes_total"
	for query, want := range map[string]string{
		counter:                                                  "neither rate nor increase",
		"sum(" + counter + ") > 0":                               "neither rate nor increase",
		"podmeter_tcp_rtt_seconds_bucket":                        "neither rate nor increase",
		"rate(up[$__range]) + " + counter:                        "neither rate nor increase",
		"last_over_time(" + counter + "[$__range])":              "neither rate nor increase",
		"sum by (a) (" + counter + ") unless on (a) up":          "neither rate nor increase",
		"rate(podmeter_pod_bytes_total[$__range])":               `no metric "podmeter_pod_bytes_total"`,
		"podmeter_podz":                                          `no metric "podmeter_podz"`,
		"edge:podmeter_nonsense:ratio15m":                        `no metric "edge:podmeter_nonsense:ratio15m"`,
		"rate(" + counter + "[5m])":                              "the range [5m]",
		"sum(rate(" + counter + "[$__range])":                    "unclosed left parenthesis",
		"rate(" + counter + `{pod=~"$pod"}[$__range])`:           "there is no variable pod",
		`podmeter_pods{cluster="$cluster" namespace="shop"}`:     "unexpected",
		"sum(rate(up[$__range])) by (namespace) + on (x) nosuch": `no metric "nosuch"`,
	} {
		t.Run(query, func(t *testing.T) {
			spoiled(t, known, func(_ *dashboard, p *panel) { p.Targets[0].Expr = query }, want)
		})
	}
	// And what is asked for in a way that makes sense is not.
	for _, query := range []string{
		"rate(" + counter + "[$__rate_interval])", "count(" + counter + ")", "podmeter_pods", "edge:podmeter_lost_packets:ratio15m",
		"sum by (a) (last_over_time(" + counter + "[$__range])) unless on (a) group by (a) (" + counter + ")",
	} {
		t.Run(query, func(t *testing.T) {
			spoiled(t, known, func(_ *dashboard, p *panel) { p.Targets[0].Expr = query }, "")
		})
	}
}

// spoiled changes the graph of namespaces and wants one fault, none if it is empty.
func spoiled(t *testing.T, known map[string]bool, spoil func(*dashboard, *panel), want string) {
	t.Helper()
	all := dashboards(t)
	overview := all["podmeter-overview.json"]
	n := slices.IndexFunc(overview.Panels, func(p *panel) bool { return strings.HasPrefix(p.Title, "Top namespaces") })
	if n < 0 {
		t.Fatal("the overview has no graph of namespaces")
	}
	spoil(overview, overview.Panels[n])
	found := faults(all, known)
	tells := slices.ContainsFunc(found, func(fault string) bool { return want != "" && strings.Contains(fault, want) })
	if tells != (want != "") || want == "" && len(found) > 0 {
		t.Errorf("got %q, want %q", found, want)
	}
}
