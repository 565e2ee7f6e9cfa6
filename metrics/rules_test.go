// SPDX-License-Identifier: Apache-2.0

package metrics

import (
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/podmeter/podmeter/internal/effort"
	"github.com/podmeter/podmeter/internal/promtest"
	"go.yaml.in/yaml/v3"
)

// deployFolder has the rules that are shipped.
const deployFolder = "../deploy"

// ruleTests are the patterns of files for 'promtool test rules'.
func ruleTests(t *testing.T) []string {
	t.Helper()
	var files []string
	for _, pattern := range []string{deployFolder + "/prometheus/*/tests/*.yml", "../hack/prometheus/testdata/alerts.yml"} {
		found, err := filepath.Glob(pattern)
		if err != nil || len(found) == 0 {
			t.Fatalf("%s: got %v, %v, want files", pattern, found, err)
		}
		files = append(files, found...)
	}
	return files
}

// ruleFiles returns all files of rules below deploy.
func ruleFiles(t *testing.T) []string {
	t.Helper()
	var files []string
	err := filepath.WalkDir(deployFolder, func(path string, _ fs.DirEntry, err error) error {
		if strings.HasSuffix(path, ".rules.yml") {
			files = append(files, path)
		}
		return err
	})
	if err != nil || len(files) == 0 {
		t.Fatalf("got %v, %v, want files of rules", files, err)
	}
	return files
}

// promtool runs it, and fails the test with what it says.
func promtool(t *testing.T, args ...string) {
	t.Helper()
	if out, err := exec.Command(promtest.Promtool(t), args...).CombinedOutput(); err != nil {
		t.Errorf("promtool %q: got %v, want it to be content; it said:\n%s", args, err, out)
	}
}

func TestRules(t *testing.T) {
	for _, file := range ruleFiles(t) {
		t.Run(filepath.Base(file), func(t *testing.T) { promtool(t, "check", "rules", file) })
	}
	for _, file := range ruleTests(t) {
		t.Run("test of "+filepath.Base(file), func(t *testing.T) {
			effort.Long(t, "promtool evaluates hours of series")
			promtool(t, "test", "rules", file)
		})
	}
}

// rule is one of a file of rules.
type rule struct{ Record, Alert, Expr string }

// rulesOf returns the rules of a file.
func rulesOf(t *testing.T, file string) (rules []rule) {
	t.Helper()
	var content struct{ Groups []struct{ Rules []rule } }
	readYAML(t, file, &content)
	for _, group := range content.Groups {
		rules = append(rules, group.Rules...)
	}
	return rules
}

func readYAML(t *testing.T, file string, into any) {
	t.Helper()
	content, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if err := yaml.Unmarshal(content, into); err != nil {
		t.Fatalf("%s: %v", file, err)
	}
}

// Each rule is asked for in a test with what it gives, not only evaluated.
func TestEachRuleIsTested(t *testing.T) {
	asked := make(map[string]bool) // alerts that are expected to fire, names in expressions that give something
	name := regexp.MustCompile(`[a-zA-Z_:][a-zA-Z0-9_:]*`)
	for _, file := range ruleTests(t) {
		var content struct {
			Tests []struct {
				Alerts []struct {
					Name string `yaml:"alertname"`
					Want []any  `yaml:"exp_alerts"`
				} `yaml:"alert_rule_test"`
				Expressions []struct {
					Expr string
					Want []any `yaml:"exp_samples"`
				} `yaml:"promql_expr_test"`
			}
		}
		readYAML(t, file, &content)
		for _, test := range content.Tests {
			for _, alert := range test.Alerts {
				asked[alert.Name] = asked[alert.Name] || len(alert.Want) > 0
			}
			for _, expression := range test.Expressions {
				for _, name := range name.FindAllString(expression.Expr, -1) {
					asked[name] = asked[name] || len(expression.Want) > 0
				}
			}
		}
	}
	for _, file := range ruleFiles(t) {
		rules := rulesOf(t, file)
		for _, r := range rules {
			// What others are made of is tested through them.
			through := r.Record != "" && slices.ContainsFunc(rules, func(of rule) bool {
				return asked[of.Record+of.Alert] && strings.Contains(of.Expr, r.Record)
			})
			if !asked[r.Record+r.Alert] && !through {
				t.Errorf("%s: got no test that expects something of %s", file, r.Record+r.Alert)
			}
		}
	}
}

// Each metric of podmeter in a rule exists: it is in the reference.
func TestRulesNameMetricsThatExist(t *testing.T) {
	reference, err := os.ReadFile("../docs/METRICS.md")
	if err != nil {
		t.Fatal(err)
	}
	name := regexp.MustCompile(`[a-zA-Z_:][a-zA-Z0-9_:]*`)
	suffix := regexp.MustCompile(`_(bucket|sum|count)$`)
	for _, file := range ruleFiles(t) {
		for _, rule := range rulesOf(t, file) {
			for _, metric := range name.FindAllString(rule.Expr, -1) {
				if !strings.HasPrefix(metric, namespace+"_") || metric == namespace+"_" { // another's, recorded, or a pattern's beginning
					continue
				}
				documented := strings.Contains(string(reference), "`"+suffix.ReplaceAllString(metric, "")+"`")
				if !documented {
					t.Errorf("%s: got %s, which docs/METRICS.md does not have", file, metric)
				}
			}
		}
	}
}
