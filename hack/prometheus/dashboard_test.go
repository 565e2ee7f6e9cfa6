// SPDX-License-Identifier: Apache-2.0

package prometheus

import (
	"encoding/json"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"go.yaml.in/yaml/v3"
)

// dashboard is what matters here of Grafana's JSON.
type dashboard struct {
	UID, Title string
	Tags       []string
	Links      []struct{ IncludeVars, KeepTime bool }
	Panels     []*panel
	Templating struct{ List []*variable }
}

type panel struct {
	ID                       int
	Type, Title, Description string
	Datasource               source
	Targets                  []*query
	FieldConfig              struct {
		Defaults struct {
			Unit  string
			Links []link
		}
		Overrides []struct {
			Properties []struct {
				ID    string
				Value json.RawMessage
			}
		}
	}
	GridPos struct{ X, Y, W, H int }
}

type query struct {
	RefID, Expr, LegendFormat, Format string
	Datasource                        source
}

type source struct{ Type, UID string }

type link struct{ Title, URL string }

type variable struct {
	Name, Type, AllValue string
	Definition           string
	Multi, IncludeAll    bool
	Datasource           *source
}

const dashboardFolder = "../../deploy/grafana/"

// dashboards reads all that are shipped, by the names of their files.
func dashboards(t *testing.T) map[string]*dashboard {
	t.Helper()
	files, err := filepath.Glob(dashboardFolder + "*.json")
	if err != nil || len(files) == 0 {
		t.Fatalf("got %v, %v, want dashboards", files, err)
	}
	all := make(map[string]*dashboard)
	for _, file := range files {
		content, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		d := &dashboard{}
		if err := json.Unmarshal(content, d); err != nil {
			t.Fatalf("%s: %v", file, err)
		}
		all[filepath.Base(file)] = d
	}
	return all
}

// links are where cells and lines of a panel lead.
func (p *panel) links(fault func(string, ...any)) []link {
	all := p.FieldConfig.Defaults.Links
	for _, override := range p.FieldConfig.Overrides {
		for _, property := range override.Properties {
			if property.ID != "links" {
				continue
			}
			var more []link
			if err := json.Unmarshal(property.Value, &more); err != nil {
				fault("links: %v", err)
			}
			all = append(all, more...)
		}
	}
	return all
}

// knownMetrics are the names that a query may ask for: podmeter's, of docs/METRICS.md, and
// those that rules record.
func knownMetrics(t *testing.T) map[string]bool {
	t.Helper()
	known := make(map[string]bool)
	reference, err := os.ReadFile("../../docs/METRICS.md")
	if err != nil {
		t.Fatal(err)
	}
	// The first column of its tables.
	for row := range strings.Lines(string(reference)) {
		cell, isRow := strings.CutPrefix(row, "| ")
		cell, _, _ = strings.Cut(cell, " | ")
		if !isRow {
			continue
		}
		for _, name := range regexp.MustCompile("`([a-z_]+)`").FindAllStringSubmatch(cell, -1) {
			known[name[1]] = true
		}
	}
	files, err := filepath.Glob("../../deploy/prometheus/rules/*.rules.yml")
	if err != nil || len(files) == 0 {
		t.Fatalf("got %v, %v, want files of rules", files, err)
	}
	for _, file := range files {
		content, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		var rules struct {
			Groups []struct{ Rules []struct{ Record string } }
		}
		if err := yaml.Unmarshal(content, &rules); err != nil {
			t.Fatalf("%s: %v", file, err)
		}
		for _, group := range rules.Groups {
			for _, rule := range group.Rules {
				known[rule.Record] = true
			}
		}
	}
	return known
}
