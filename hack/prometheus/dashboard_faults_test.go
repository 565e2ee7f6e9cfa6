// SPDX-License-Identifier: Apache-2.0

package prometheus

import (
	"fmt"
	"regexp"
	"slices"
	"strings"

	"github.com/prometheus/prometheus/promql/parser"
)

// lint finds what is wrong with dashboards.
type lint struct {
	known map[string]bool // metrics
	all   map[string]*dashboard
	found []string
}

func (l *lint) fault(format string, args ...any) {
	l.found = append(l.found, fmt.Sprintf(format, args...))
}

// faults are those of dashboards, by the names of their files.
func faults(all map[string]*dashboard, known map[string]bool) []string {
	l := &lint{known: known, all: make(map[string]*dashboard)}
	for file, d := range all {
		if d.UID+".json" != file {
			l.fault("%s: its uid is %q", file, d.UID)
		}
		if l.all[d.UID] != nil {
			l.fault("%s: the uid is used twice", d.UID)
		}
		l.all[d.UID] = d
	}
	for _, d := range l.all {
		l.dashboard(d)
	}
	slices.Sort(l.found)
	return l.found
}

func (l *lint) dashboard(d *dashboard) {
	if !strings.HasPrefix(d.Title, "podmeter / ") || !slices.Contains(d.Tags, "podmeter") {
		l.fault("%s: neither title nor tag say that it is podmeter's", d.UID)
	}
	if len(d.Links) == 0 || !d.Links[0].IncludeVars || !d.Links[0].KeepTime {
		l.fault("%s: it has no link to the others that keeps variables and time", d.UID)
	}
	for _, name := range []string{"datasource", "cluster"} {
		if d.variable(name) == nil {
			l.fault("%s: it has no variable %s", d.UID, name)
		}
	}
	for _, v := range d.Templating.List {
		l.variable(d, v)
	}
	ids := make(map[int]bool)
	for n, p := range d.Panels {
		if ids[p.ID] || p.ID == 0 {
			l.fault("%s: %s: the id %d is used twice, or none", d.UID, p.Title, p.ID)
		}
		ids[p.ID] = true
		l.place(d, p, d.Panels[:n])
		if p.Type != "row" {
			l.panel(d, p)
		}
	}
}

func (d *dashboard) variable(name string) *variable {
	for _, v := range d.Templating.List {
		if v.Name == name {
			return v
		}
	}
	return nil
}

// variable: where a label does not exist All has to match nothing, too.
func (l *lint) variable(d *dashboard, v *variable) {
	if v.Type != "query" {
		return
	}
	if v.Datasource == nil || v.Datasource.UID != "${datasource}" {
		l.fault("%s: variable %s: it does not take the variable datasource", d.UID, v.Name)
	}
	if !v.Multi || !v.IncludeAll {
		l.fault("%s: variable %s: several or all cannot be chosen", d.UID, v.Name)
	}
	if v.AllValue != ".*" && v.Name != "job" {
		l.fault("%s: variable %s: All does not match what has no such label", d.UID, v.Name)
	}
	expr, isValues := strings.CutPrefix(v.Definition, "label_values(")
	comma := strings.LastIndex(expr, ",")
	if !isValues || comma < 0 {
		l.fault("%s: variable %s: no label_values", d.UID, v.Name)
		return
	}
	if _, err := promql(d, expr[:comma]); err != nil {
		l.fault("%s: variable %s: %v", d.UID, v.Name, err)
	}
}

// place checks that a panel is on the grid and covers none before it.
func (l *lint) place(d *dashboard, p *panel, before []*panel) {
	g := p.GridPos
	if g.W <= 0 || g.H <= 0 || g.X < 0 || g.X+g.W > 24 {
		l.fault("%s: %s: it is not on the grid", d.UID, p.Title)
	}
	for _, other := range before {
		o := other.GridPos
		if g.X < o.X+o.W && o.X < g.X+g.W && g.Y < o.Y+o.H && o.Y < g.Y+g.H {
			l.fault("%s: %s: it overlaps %s", d.UID, p.Title, other.Title)
		}
	}
}

func (l *lint) panel(d *dashboard, p *panel) {
	fault := func(format string, args ...any) {
		l.fault("%s: %s: "+format, append([]any{d.UID, p.Title}, args...)...)
	}
	for what, missing := range map[string]bool{
		"title": p.Title == "", "description": p.Description == "", "unit": p.FieldConfig.Defaults.Unit == "", "query": len(p.Targets) == 0,
	} {
		if missing {
			fault("it has no %s", what)
		}
	}
	datasources := []source{p.Datasource}
	refs := make(map[string]bool)
	for _, t := range p.Targets {
		datasources = append(datasources, t.Datasource)
		if refs[t.RefID] {
			fault("the reference %s is used twice", t.RefID)
		}
		refs[t.RefID] = true
		if t.Format != "table" && (t.LegendFormat == "" || t.LegendFormat == "__auto") {
			fault("query %s has no legend", t.RefID)
		}
		l.query(d, t.Expr, fault)
	}
	if slices.ContainsFunc(datasources, func(s source) bool { return s != source{"prometheus", "${datasource}"} }) {
		fault("it does not take the variable datasource")
	}
	for _, link := range p.links(fault) {
		l.link(d, link, fault)
	}
}

var (
	// grafanaRange is what a range may be: the length of what is shown follows from it.
	grafanaRange = regexp.MustCompile(`\[([^\]]*)\]`)
	// variableUse is a variable in a query or in a URL.
	variableUse = regexp.MustCompile(`\$\{?([a-z_]+)(?::[a-z]+)?\}?`)
)

// promql parses a query with values for its variables, which the dashboard has to have.
func promql(d *dashboard, expr string) (parser.Expr, error) {
	var unknown string
	expr = variableUse.ReplaceAllStringFunc(expr, func(use string) string {
		name := variableUse.FindStringSubmatch(use)[1]
		switch {
		case name == "__rate_interval" || name == "__range" || name == "window":
			return "5m"
		case d.variable(name) == nil:
			unknown = name
		}
		return "1" // a number, also within a string
	})
	if unknown != "" {
		return nil, fmt.Errorf("there is no variable %s", unknown)
	}
	return parser.NewParser(parser.Options{}).ParseExpr(expr)
}

// query checks what one asks for.
func (l *lint) query(d *dashboard, expr string, fault func(string, ...any)) {
	for _, found := range grafanaRange.FindAllStringSubmatch(expr, -1) {
		if !slices.Contains([]string{"$__rate_interval", "$__range", "$window"}, found[1]) {
			fault("the range [%s] does not follow what is shown", found[1])
		}
	}
	parsed, err := promql(d, expr)
	if err != nil {
		fault("%v in: %s", err, expr)
		return
	}
	parser.Inspect(parsed, func(node parser.Node, path []parser.Node) error {
		selector, is := node.(*parser.VectorSelector)
		if !is {
			return nil
		}
		if !l.knows(selector.Name) {
			fault("there is no metric %q", selector.Name)
		}
		if isCounter(selector.Name) && !slices.ContainsFunc(path, takesCounter) && !isNew(path) {
			fault("%s is a counter, and neither rate nor increase is asked for", selector.Name)
		}
		return nil
	})
}

// ofPart are the suffixes of the series that make up a classic histogram.
var ofPart = regexp.MustCompile(`_(bucket|count|sum)$`)

func isCounter(name string) bool {
	return strings.HasSuffix(name, "_total") || ofPart.MatchString(name)
}

// takesCounter reports whether an expression that a counter is in makes sense of it: a rate, or
// only whether there is one.
func takesCounter(node parser.Node) bool {
	switch n := node.(type) {
	case *parser.Call:
		return n.Func.Name == "rate" || n.Func.Name == "increase"
	case *parser.AggregateExpr:
		return n.Op == parser.COUNT || n.Op == parser.GROUP
	}
	return false
}

// isNew reports whether a counter is asked for where it was not before, so that its value is
// what it grew by: last_over_time on the left of unless.
func isNew(path []parser.Node) bool {
	newly := func(node parser.Node) bool {
		b, is := node.(*parser.BinaryExpr)
		return is && b.Op == parser.LUNLESS
	}
	latest := func(node parser.Node) bool {
		c, is := node.(*parser.Call)
		return is && c.Func.Name == "last_over_time"
	}
	return slices.ContainsFunc(path, newly) && slices.ContainsFunc(path, latest)
}

// prometheusOwn are the families that every target has, or Prometheus makes for it.
var prometheusOwn = regexp.MustCompile(`^(up|process_[a-z_]+|go_[a-z_]+|scrape_[a-z_]+)$`)

func (l *lint) knows(name string) bool {
	return l.known[name] || l.known[ofPart.ReplaceAllString(name, "")] || prometheusOwn.MatchString(name)
}

var linkTo = regexp.MustCompile(`^/d/([a-z-]+)\?(.*)$`)

// link checks that one leads to a dashboard, and hands over variables that both have.
func (l *lint) link(d *dashboard, link link, fault func(string, ...any)) {
	found := linkTo.FindStringSubmatch(link.URL)
	if found == nil || l.all[found[1]] == nil {
		fault("the link %q leads to no dashboard: %s", link.Title, link.URL)
		return
	}
	for part := range strings.SplitSeq(found[2], "&") {
		name, _, isSet := strings.Cut(part, "=")
		name = strings.TrimPrefix(name, "var-")
		if !isSet {
			use := variableUse.FindStringSubmatch(part)
			if use == nil || use[1] == "__url_time_range" {
				continue
			}
			name = use[1]
			if d.variable(name) == nil {
				fault("the link %q hands over %s, which is not there", link.Title, name)
			}
		}
		if l.all[found[1]].variable(name) == nil {
			fault("the link %q hands over %s, which %s does not have", link.Title, name, found[1])
		}
	}
}
