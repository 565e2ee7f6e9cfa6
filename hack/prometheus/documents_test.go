// SPDX-License-Identifier: Apache-2.0

package prometheus

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/model/textparse"
	engine "github.com/prometheus/prometheus/promql"
	"github.com/prometheus/prometheus/promql/parser"
	"github.com/prometheus/prometheus/promql/promqltest"
	"github.com/prometheus/prometheus/rules"
	"github.com/prometheus/prometheus/storage"
	"github.com/prometheus/prometheus/util/teststorage"
	"go.yaml.in/yaml/v3"
)

const (
	root = "../../"
	// exposition is what an agent serves with all labels and uplinks, as a test of package
	// metrics holds it to the exporter.
	exposition = root + "metrics/testdata/all-labels.txt"
	// documentsAsked is how long the agent has been scraped when the documents' queries are
	// asked: for longer than any of them looks back.
	documentsAsked = 130 * time.Minute
	// of 'podmeter geoip', which is another process.
	geoipExposition = `geo_ip{ip="198.51.100.7", country="DE", city="", zip="", latitude="51.1", longitude="10.4"} 1000
podmeter_geoip_answer_age_seconds 301
`
)

// documents are those for users.
func documents(t *testing.T) []string {
	t.Helper()
	files, err := filepath.Glob(root + "docs/*.md")
	if err != nil || len(files) == 0 {
		t.Fatalf("got %v, %v, want documents", files, err)
	}
	return append(files, root+"README.md", root+"SECURITY.md", root+"KNOWN_ISSUES.md")
}

var (
	fence = regexp.MustCompile("(?ms)^ *```([a-z]*)\n(.*?)^ *```")
	span  = regexp.MustCompile("`([^`\n]+)`")
	// asksSomething is a span that is a query, not the name of a metric or of several.
	asksSomething = regexp.MustCompile(`\b(podmeter_[a-z_]+|bytes_[rt]x(:sum)?|geo_ip)(\[|\{\}|\{[a-z_]+[=!]|\)| [<>=!]=? ?[0-9]| (and|or|unless|[-+*/]) )`)
	// argument is a query in a command or in YAML.
	argument = regexp.MustCompile(`(?m)(?:QUERY=|--query[= ]|-q )'([^']+)'|value: ((?:sum|topk) .*)$`)
)

// queriesOf returns the queries of a document: its blocks, of which comments part several,
// spans, and arguments of commands.
func queriesOf(text string) (queries []string) {
	for _, block := range fence.FindAllStringSubmatch(text, -1) {
		if block[1] != "promql" {
			for _, found := range argument.FindAllStringSubmatch(block[2], -1) {
				queries = append(queries, found[1]+found[2])
			}
			continue
		}
		for part := range strings.SplitSeq(regexp.MustCompile(`(?m)^ *#.*$`).ReplaceAllString(block[2], "#"), "#") {
			if part = strings.TrimSpace(part); part != "" {
				queries = append(queries, part)
			}
		}
	}
	for _, found := range span.FindAllStringSubmatch(fence.ReplaceAllString(text, ""), -1) {
		if asksSomething.MatchString(found[1]) {
			queries = append(queries, found[1])
		}
	}
	return queries
}

// scraped is what a Prometheus has of the exposition: each counter grows by what is in there
// each minute, and rules give what they record.
func scraped(t *testing.T) storage.Storage {
	t.Helper()
	content, err := os.ReadFile(exposition)
	if err != nil {
		t.Fatal(err)
	}
	data, minutes := teststorage.New(t), int(documentsAsked/time.Minute)
	to := data.Appender(t.Context())
	for p := textparse.NewPromParser(append(content, geoipExposition...), labels.NewSymbolTable(), false); ; {
		entry, err := p.Next()
		if errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			t.Fatalf("%s: %v", exposition, err)
		}
		if entry != textparse.EntrySeries {
			continue
		}
		var of labels.Labels
		p.Labels(&of)
		_, _, value := p.Series()
		keep(t, to, of, value, minutes)
	}
	if err := to.Commit(); err != nil {
		t.Fatal(err)
	}
	for _, file := range []string{"rules/traffic.rules.yml", "compatibility/compatibility.rules.yml"} {
		for minute := minutes - 10; minute <= minutes; minute++ {
			record(t, data, root+"deploy/prometheus/"+file, time.Unix(int64(60*minute), 0))
		}
	}
	return data
}

// keep adds the samples of a series, with the labels of its target and without empty ones.
func keep(t *testing.T, to storage.Appender, of labels.Labels, value float64, minutes int) {
	t.Helper()
	given := labels.NewBuilder(of.WithoutEmpty())
	for _, label := range []string{"job", "instance", "node"} {
		given.Set(label, "of-target")
	}
	for minute := range minutes + 1 {
		now := value
		if isCounter(of.Get("__name__")) {
			now *= float64(minute)
		}
		if _, err := to.Append(0, given.Labels(), int64(minute)*time.Minute.Milliseconds(), now); err != nil {
			t.Fatalf("%s: %v", of, err)
		}
	}
}

// record evaluates the recording rules of a file at a time.
func record(t *testing.T, data storage.Storage, file string, at time.Time) {
	t.Helper()
	content, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	var groups struct {
		Groups []struct {
			Rules []struct {
				Record, Expr string
				Labels       map[string]string
			}
		}
	}
	if err := yaml.Unmarshal(content, &groups); err != nil {
		t.Fatalf("%s: %v", file, err)
	}
	asked := rules.EngineQueryFunc(testEngine(t), data)
	for _, group := range groups.Groups {
		for _, r := range group.Rules {
			expr, err := parser.NewParser(parser.Options{}).ParseExpr(r.Expr)
			if err != nil {
				t.Fatalf("%s: %s: %v", file, r.Record, err)
			}
			rows, err := rules.NewRecordingRule(r.Record, expr, labels.FromMap(r.Labels)).Eval(t.Context(), 0, at, asked, nil, 0)
			if err != nil {
				t.Fatalf("%s: %s: %v", file, r.Record, err)
			}
			to := data.Appender(t.Context())
			for _, row := range rows {
				if _, err := to.Append(0, row.Metric, at.UnixMilli(), row.F); err != nil {
					t.Fatalf("%s: %s: %v", file, r.Record, err)
				}
			}
			if err := to.Commit(); err != nil {
				t.Fatal(err)
			}
		}
	}
}

func testEngine(t *testing.T) *engine.Engine {
	t.Helper()
	return promqltest.NewTestEngine(t, false, 5*time.Minute, 1e6)
}

// unanswerable says why a query can give nothing of what an agent exports, or gives less than
// it looks like; empty if it does not.
func unanswerable(t *testing.T, data storage.Storage, query string) string {
	t.Helper()
	parsed, err := parser.NewParser(parser.Options{}).ParseExpr(query)
	if err != nil {
		return err.Error()
	}
	var why []string
	parser.Inspect(parsed, func(node parser.Node, _ []parser.Node) error {
		switch n := node.(type) {
		case *parser.VectorSelector:
			if len(series(t, data, n)) == 0 {
				why = append(why, fmt.Sprintf("no series is %s", n))
			}
		case *parser.AggregateExpr:
			if !n.Without {
				why = append(why, missing(t, data, n.Expr, n.Grouping)...)
			}
		case *parser.BinaryExpr:
			if n.VectorMatching != nil && n.VectorMatching.On {
				why = append(why, missing(t, data, n, n.VectorMatching.MatchingLabels)...)
			}
		}
		return nil
	})
	// What compares with a number gives something when all is not well.
	if b, is := parsed.(*parser.BinaryExpr); is && b.Op.IsComparisonOperator() {
		if _, number := b.RHS.(*parser.NumberLiteral); number {
			query = b.LHS.String()
		}
	}
	asked, err := testEngine(t).NewInstantQuery(t.Context(), data, nil, query, time.Unix(int64(documentsAsked/time.Second), 0))
	if err != nil {
		return err.Error()
	}
	defer asked.Close()
	answer := asked.Exec(t.Context())
	if rows, err := answer.Vector(); err != nil || len(rows) == 0 {
		why = append(why, fmt.Sprintf("got %v, %v, want rows", rows, err))
	}
	return strings.Join(why, "; ")
}

// missing are those of the labels that no series below an expression has.
func missing(t *testing.T, data storage.Storage, within parser.Expr, wanted []string) (why []string) {
	t.Helper()
	have := make(map[string]bool)
	parser.Inspect(within, func(node parser.Node, _ []parser.Node) error {
		if selector, is := node.(*parser.VectorSelector); is {
			for _, s := range series(t, data, selector) {
				s.Range(func(l labels.Label) { have[l.Name] = true })
			}
		}
		return nil
	})
	for _, label := range wanted {
		// Which may be missing: it tells clusters apart.
		if !have[label] && label != "cluster" {
			why = append(why, fmt.Sprintf("nothing has the label %s", label))
		}
	}
	return why
}

// series are those of a selector.
func series(t *testing.T, data storage.Storage, selector *parser.VectorSelector) (found []labels.Labels) {
	t.Helper()
	querier, err := data.Querier(0, documentsAsked.Milliseconds())
	if err != nil {
		t.Fatal(err)
	}
	defer querier.Close() // of a read
	set := querier.Select(context.Background(), false, nil, selector.LabelMatchers...)
	for set.Next() {
		found = append(found, set.At().Labels())
	}
	if err := set.Err(); err != nil {
		t.Fatal(err)
	}
	return found
}

// Each query that stands in a document has an answer of what an agent exports.
func TestQueriesOfDocuments(t *testing.T) {
	data, asked := scraped(t), 0
	for _, file := range documents(t) {
		content, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		for _, query := range queriesOf(string(content)) {
			asked++
			if why := unanswerable(t, data, query); why != "" {
				t.Errorf("%s: %s in: %s", filepath.Base(file), why, query)
			}
		}
	}
	if asked < 20 {
		t.Errorf("got %d queries, want those of all documents", asked)
	}
	t.Logf("%d queries", asked)
}

// A query that gives nothing is told of, wherever in a document it stands.
func TestQueriesThatGiveNothing(t *testing.T) {
	data := scraped(t)
	for query, want := range map[string]string{
		"sum(rate(podmeter_pod_transmit_bytes[5m]))":                                              "no series is podmeter_pod_transmit_bytes",
		`rate(podmeter_flow_transmit_bytes_total{peer_kind="pods"}[5m])`:                          "no series is",
		`podmeter_lost_bytes_total{reason="nowhere"}`:                                             "no series is",
		"sum by (namespace, workloads) (rate(podmeter_flow_transmit_bytes_total[5m]))":            "nothing has the label workloads",
		"sum by (container) (rate(podmeter_pod_transmit_bytes_total[5m]))":                        "nothing has the label container",
		"podmeter_pod_transmit_bytes_total / on (instanze) podmeter_build_info":                   "nothing has the label instanze",
		"podmeter_pod_transmit_bytes_total and on (pod) podmeter_pods":                            "want rows",
		"sum(rate(podmeter_pod_transmit_bytes_total[5m])":                                         "unclosed left parenthesis",
		`sum by (k8s_namespace, ip) (bytes_tx{})`:                                                 "nothing has the label ip",
		"sum by (namespace) (rate(podmeter_pod_transmit_bytes_total[5m])) != 0":                   "",
		`topk(10, sum by (country) (rate(podmeter_external_transmit_bytes_total[5m])))`:           "",
		`podmeter_conservation_error_bytes_total > 0`:                                             "",
		`sum by (cluster, pod) (rate(podmeter_pod_transmit_bytes_total{namespace!="x"}[5m])) > 0`: "",
	} {
		for place, text := range map[string]string{
			"block": "# A\n```promql\n# b\n" + query + "\n```\n", "span": "a `" + query + "` b", "argument": "```sh\nQUERY='" + query + "' podmeter geoip\n```\n",
		} {
			found := queriesOf(text)
			if !slices.Equal(found, []string{query}) {
				t.Errorf("%s: got %q, want %s", place, found, query)
				continue
			}
			if got := unanswerable(t, data, found[0]); (got == "") != (want == "") || !strings.Contains(got, want) {
				t.Errorf("%s: got %q, want %q", query, got, want)
			}
		}
	}
}
