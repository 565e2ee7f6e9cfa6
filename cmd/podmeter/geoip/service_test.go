// SPDX-License-Identifier: Apache-2.0

package geoip

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/podmeter/podmeter/cmd/podmeter/agent"
	"github.com/prometheus/client_golang/prometheus/testutil"
)

const (
	zurich = `geo_ip{city="Zürich",country="CH",ip="198.51.100.7",latitude="47.3769",longitude="8.5417",zip="8001"} `
	tokyo  = `geo_ip{city="Tokyo",country="JP",ip="198.51.100.200",latitude="35.6895",longitude="139.6917",zip="100-0001"} `
)

func TestRowsComeAndGo(t *testing.T) {
	f := newFake(t)
	s, log := newService(t, configOf(t, f.URL+"/prometheus/"))
	for _, step := range []struct {
		name string
		rows [][2]string
		want []string
	}{
		{"two", [][2]string{at("198.51.100.200", "2.5"), at("198.51.100.7", "1")}, []string{tokyo + "2.5", zurich + "1"}},
		{"one is gone", [][2]string{at("198.51.100.200", "3")}, []string{tokyo + "3"}},
		{"none", nil, nil},
		{"back", [][2]string{at("198.51.100.7", "NaN")}, []string{zurich + "NaN"}},
	} {
		f.set(vector(step.rows...))
		s.refresh(t.Context())
		if diff := cmp.Diff(step.want, exposed(t, s, "geo_ip")); diff != "" {
			t.Errorf("%s (-want +got):\n%s", step.name, diff)
		}
	}
	if want := "/prometheus/api/v1/query traffic 5s"; f.asked[0] != want {
		t.Errorf("asked %q, want %q", f.asked[0], want)
	}
	if got := log.count("the query's answer has no rows"); got != 1 {
		t.Errorf("got told of the empty answer %d times, want 1", got)
	}
	has(t, s, `podmeter_geoip_queries_total{result="answered"} 4`)
	has(t, s, `podmeter_geoip_rows_total{result="placed"} 4`)
}

func TestCarriedLabels(t *testing.T) {
	f := newFake(t)
	config := configOf(t, f.URL)
	config.IPLabel, config.Labels = "destination_ip", []string{"k8s_pod", "k8s_namespace"}
	s, _ := newService(t, config)
	f.set(vector(
		[2]string{`"destination_ip": "198.51.100.7", "k8s_pod": "web", "k8s_namespace": "shop", "job": "a"`, "1"},
		[2]string{`"destination_ip": "198.51.100.7", "k8s_pod": "web", "k8s_namespace": "shop", "job": "b"`, "2"},
		[2]string{`"destination_ip": "198.51.100.7", "k8s_namespace": "shop"`, "4"},
	))
	s.refresh(t.Context())
	const place = `geo_ip{city="Zürich",country="CH",ip="198.51.100.7",k8s_namespace="shop",k8s_pod="%s",latitude="47.3769",longitude="8.5417",zip="8001"} `
	want := []string{fmt.Sprintf(place, "") + "4", fmt.Sprintf(place, "web") + "3"}
	if diff := cmp.Diff(want, exposed(t, s, "geo_ip")); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

func TestRowsThatAreLeftOut(t *testing.T) {
	f := newFake(t)
	s, log := newService(t, configOf(t, f.URL))
	histogram := `{"metric": {"ip": "198.51.100.7"}, "histogram": [1, {"count": "1", "sum": "1", "buckets": []}]}`
	odd := vector(
		at("198.51.100.7", "1"), at("10.0.0.1", "1"), at("::ffff:192.168.0.1", "1"), at("fe80::1%eth0", "1"), at("224.0.0.1", "1"),
		at("web.example", "1"), at("198.51.100.7:443", "1"), at("198.51.100.0/24", "1"), at("", "1"), [2]string{`"pod": "web"`, "1"},
		at("192.0.2.200", "7"),
	)
	f.set(func(w http.ResponseWriter, r *http.Request) {
		recorded := httptest.NewRecorder()
		odd(recorded, r)
		io.WriteString(w, strings.Replace(recorded.Body.String(), `"result": [`, `"result": [`+histogram+",", 1))
	})
	for range 2 {
		s.refresh(t.Context())
	}
	// What no database knows is traffic all the same.
	want := []string{`geo_ip{city="",country="",ip="192.0.2.200",latitude="",longitude="",zip=""} 7`, zurich + "1"}
	if diff := cmp.Diff(want, exposed(t, s, "geo_ip")); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	for result, want := range map[string]int{"placed": 1, "unknown": 1, "not_public": 4, "no_address": 3, "no_label": 2, "histogram": 1} {
		has(t, s, fmt.Sprintf("podmeter_geoip_rows_total{result=%q} %d", result, 2*want))
	}
	f.set(vector(at("198.51.100.7", "1")))
	for range 2 {
		s.refresh(t.Context())
	}
	for _, n := range []note{noteLabel, noteAddress, notePublic, noteNumber} {
		if wrong, over := log.count(n.wrong), log.count(n.over); wrong != 1 || over != 1 {
			t.Errorf("%q: got it logged %d times and its end %d, want 1 and 1", n.wrong, wrong, over)
		}
	}
	if log.count("first=web.example") != 1 {
		t.Error("got no example of what is no address")
	}
}

// unreachable breaks off each connection.
func unreachable(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) }

func TestFailuresKeepTheLastAnswer(t *testing.T) {
	for name, test := range map[string]struct {
		answer http.HandlerFunc
		result string
	}{
		"bad query":           {body(http.StatusBadRequest, `{"status": "error", "errorType": "bad_data", "error": "parse error"}`), queryRefused},
		"too many samples":    {body(http.StatusUnprocessableEntity, `{"status": "error", "errorType": "execution", "error": "too many samples"}`), queryRefused},
		"Prometheus' timeout": {body(http.StatusServiceUnavailable, `{"status": "error", "errorType": "timeout", "error": "query timed out"}`), queryTimeout},
		"no right":            {body(http.StatusUnauthorized, "who are you"), queryBadAnswer},
		"no API":              {body(http.StatusNotFound, "<html>"), queryBadAnswer},
		"broken server":       {body(http.StatusInternalServerError, ""), queryBadAnswer},
		"no JSON":             {body(http.StatusOK, "<html>"), queryBadAnswer},
		"no value":            {body(http.StatusOK, `{"status": "success", "data": {"resultType": "vector", "result": [{"metric": {}, "value": [1, "x"]}]}}`), queryBadAnswer},
		"scalar":              {body(http.StatusOK, `{"status": "success", "data": {"resultType": "scalar", "result": [1, "1"]}}`), queryNoVector},
		"string":              {body(http.StatusOK, `{"status": "success", "data": {"resultType": "string", "result": [1, "a"]}}`), queryBadAnswer},
		"range":               {body(http.StatusOK, `{"status": "success", "data": {"resultType": "matrix", "result": []}}`), queryNoVector},
		"broken connection":   {unreachable, queryUnreachable},
		"no data":             {body(http.StatusOK, `{"status": "success"}`), queryBadAnswer},
		"null":                {body(http.StatusOK, `null`), queryBadAnswer},
		"a row that is null":  {body(http.StatusOK, `{"status": "success", "data": {"resultType": "vector", "result": [null]}}`), queryBadAnswer},
		"another host":        {redirectTo(http.StatusTemporaryRedirect, "http://localhost:9/"), queryBadAnswer},
		"another method":      {redirectTo(http.StatusFound, "/login"), queryBadAnswer},
		"in a circle":         {redirectTo(http.StatusPermanentRedirect, "/api/v1/query"), queryBadAnswer},
	} {
		t.Run(name, func(t *testing.T) {
			f := newFake(t)
			s, log := newService(t, configOf(t, f.URL))
			f.set(test.answer)
			for range 2 {
				s.refresh(t.Context())
			}
			if got := append(exposed(t, s, "geo_ip"), exposed(t, s, "podmeter_geoip_answer_age")...); len(got) != 0 {
				t.Errorf("got %q before any answer, want nothing", got)
			}
			f.set(vector(at("198.51.100.7", "1")))
			s.refresh(t.Context())
			f.set(test.answer)
			for range 2 {
				s.refresh(t.Context())
			}
			has(t, s, zurich+"1")
			has(t, s, fmt.Sprintf("podmeter_geoip_queries_total{result=%q} 4", test.result))
			if got := log.count("gives no answer"); got != 2 {
				t.Errorf("got the two failures logged %d times", got)
			}
			if log.count("answers again") != 1 || log.count("result="+test.result) != 2 {
				t.Errorf("got no word of the end, or another result than %s:\n%s", test.result, &log.b)
			}
		})
	}
}

// What is not Prometheus says so in its own words, cut short.
func TestErrorsSayWhatTheServerSaid(t *testing.T) {
	f := newFake(t)
	s, log := newService(t, configOf(t, f.URL))
	f.set(body(http.StatusBadGateway, "upstream is away\n"+strings.Repeat("x", 1000)))
	s.refresh(t.Context())
	if log.count("upstream is away") != 1 || log.count(strings.Repeat("x", 200)) != 0 {
		t.Errorf("got %s, want the beginning of the body", &log.b)
	}
}

// endless sends zeros until nobody reads them.
func endless(w http.ResponseWriter, _ *http.Request) {
	zeros := make([]byte, 1<<20)
	for range 2 * maxAnswer / len(zeros) {
		if _, err := w.Write(zeros); err != nil {
			return
		}
	}
}

func TestAnswersAreBounded(t *testing.T) {
	f := newFake(t)
	config := configOf(t, f.URL)
	config.Timeout = time.Minute // its length ends it, also on a slow machine
	s, _ := newService(t, config)
	f.set(endless)
	s.refresh(t.Context())
	has(t, s, `podmeter_geoip_queries_total{result="bad_answer"} 1`)
}

func TestTimeout(t *testing.T) {
	f := newFake(t)
	config := configOf(t, f.URL)
	config.Timeout = 20 * time.Millisecond
	s, _ := newService(t, config)
	f.set(func(_ http.ResponseWriter, r *http.Request) {
		// The body is read, so that the server sees the client go.
		<-r.Context().Done()
	})
	s.refresh(t.Context())
	has(t, s, `podmeter_geoip_queries_total{result="timeout"} 1`)
}

func TestPrometheusIsAway(t *testing.T) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	url := "http://ask:secret@" + listener.Addr().String()
	if err := listener.Close(); err != nil {
		t.Fatal(err)
	}
	s, log := newService(t, configOf(t, url))
	s.refresh(t.Context())
	has(t, s, `podmeter_geoip_queries_total{result="unreachable"} 1`)
	if log.count("connection refused") != 1 || log.count("secret") != 0 {
		t.Errorf("got %q, want the reason and no password", log.b.String())
	}
}

func TestWarningsAreLoggedOnce(t *testing.T) {
	f := newFake(t)
	s, log := newService(t, configOf(t, f.URL))
	f.set(body(http.StatusOK, `{"status": "success", "warnings": ["not all stores answered"], "data": {"resultType": "vector", "result": []}}`))
	for range 2 {
		s.refresh(t.Context())
	}
	if got := log.count("not all stores answered"); got != 1 {
		t.Errorf("got %d, want 1", got)
	}
}

func TestAge(t *testing.T) {
	var a answer
	at := time.Date(2030, 1, 2, 3, 4, 5, 0, time.UTC)
	a.set([]row{}, at)
	c := newCollector(&a, nil, func() time.Time { return at.Add(90 * time.Second) })
	want := `# HELP podmeter_geoip_answer_age_seconds How long ago the answer came that geo_ip shows; absent as long as there was none.
# TYPE podmeter_geoip_answer_age_seconds gauge
podmeter_geoip_answer_age_seconds 90
`
	if err := testutil.CollectAndCompare(c, strings.NewReader(want)); err != nil {
		t.Error(err)
	}
}

func TestLint(t *testing.T) {
	f := newFake(t)
	s, _ := newService(t, configOf(t, f.URL))
	f.set(vector(at("198.51.100.7", "1")))
	s.refresh(t.Context())
	registry, err := s.registry()
	if err != nil {
		t.Fatal(err)
	}
	problems, err := testutil.GatherAndLint(registry)
	if err != nil || len(problems) != 0 {
		t.Errorf("got %v, %v, want no problem", problems, err)
	}
}

// TestMetricsAreDocumented finds each family in the reference.
func TestMetricsAreDocumented(t *testing.T) {
	reference, err := os.ReadFile("../../../docs/METRICS.md")
	if err != nil {
		t.Fatal(err)
	}
	f := newFake(t)
	s, _ := newService(t, configOf(t, f.URL))
	f.set(vector(at("198.51.100.7", "1")))
	s.refresh(t.Context())
	families := 0
	for _, line := range append(exposed(t, s, "# TYPE podmeter_"), exposed(t, s, "# TYPE geo_ip")...) {
		families++
		if name := strings.Fields(line)[2]; !strings.Contains(string(reference), "`"+name+"`") {
			t.Errorf("docs/METRICS.md: got no %s, want it", name)
		}
	}
	if families != 6 {
		t.Errorf("got %d families, want 6", families)
	}
}

func TestHTTPConfigFile(t *testing.T) {
	f := newFake(t)
	config := configOf(t, f.URL)
	config.HTTPConfigFile = filepath.Join(t.TempDir(), "http.yml")
	if err := os.WriteFile(config.HTTPConfigFile, []byte("authorization:\n  credentials: token\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	s, _ := newService(t, config)
	given := ""
	f.set(func(w http.ResponseWriter, r *http.Request) {
		given = r.Header.Get("Authorization")
		vector()(w, r)
	})
	s.refresh(t.Context())
	if given != "Bearer token" {
		t.Errorf("got %q, want the token of the file", given)
	}
	if err := os.WriteFile(config.HTTPConfigFile, []byte("bearer: token\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	_, err := New(config, Options{Logger: slog.New(slog.DiscardHandler)})
	if !agent.IsUsage(err) || !strings.Contains(err.Error(), config.HTTPConfigFile) {
		t.Errorf("got %v, want wrong usage that names the file", err)
	}
}

func redirectTo(code int, where string) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, where, code) }
}

// A token goes to the Prometheus that was named, and on its host alone.
func TestRedirectsStayOnTheHost(t *testing.T) {
	f, other := newFake(t), newFake(t)
	other.set(vector())
	config := configOf(t, f.URL)
	config.HTTPConfigFile = filepath.Join(t.TempDir(), "http.yml")
	if err := os.WriteFile(config.HTTPConfigFile, []byte("http_headers:\n  X-Token: {secrets: [token]}\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	s, _ := newService(t, config)
	f.set(redirectTo(http.StatusTemporaryRedirect, other.URL))
	s.refresh(t.Context())
	if len(other.asked) != 0 {
		t.Errorf("got %q asked of another server, want nothing", other.asked)
	}
	f.set(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/behind" {
			vector(at("198.51.100.7", "1"))(w, r)
			return
		}
		http.Redirect(w, r, "/behind", http.StatusTemporaryRedirect)
	})
	s.refresh(t.Context())
	has(t, s, zurich+"1")
}

func TestNewErrors(t *testing.T) {
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	for name, test := range map[string]struct {
		change func(*Config)
		want   string
	}{
		"port is taken":            {func(c *Config) { c.Listen = taken.Addr().String() }, "--listen chooses another"},
		"no database":              {func(c *Config) { c.GeoIP = []string{"/nowhere/a.mmdb"} }, "/nowhere/a.mmdb"},
		"web config that is none":  {func(c *Config) { c.WebConfigFile = "/dev/zero" }, "/dev/zero: a regular file"},
		"http config that is none": {func(c *Config) { c.HTTPConfigFile = "/dev/zero" }, "/dev/zero: a regular file"},
		"database that is none":    {func(c *Config) { c.GeoIP = []string{"/dev/zero"} }, "/dev/zero: not a usable MaxMind DB: a regular file"},
		"no web config":            {func(c *Config) { c.WebConfigFile = "/nowhere/web.yml" }, "/nowhere/web.yml"},
	} {
		config := configOf(t, "http://127.0.0.1:9")
		test.change(&config)
		if _, err := New(config, Options{Logger: slog.New(slog.DiscardHandler)}); err == nil || !strings.Contains(err.Error(), test.want) {
			t.Errorf("%s: got %v, want %q in it", name, err, test.want)
		}
	}
}

// get returns what a path of a running service answers.
func get(t *testing.T, s *Service, path string) (int, string) {
	t.Helper()
	response, err := http.Get("http://" + s.Addr().String() + path)
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	content, err := io.ReadAll(response.Body)
	if err != nil {
		t.Fatal(err)
	}
	return response.StatusCode, string(content)
}

func TestRun(t *testing.T) {
	f := newFake(t)
	asked := make(chan struct{})
	f.set(func(_ http.ResponseWriter, r *http.Request) {
		asked <- struct{}{}
		<-r.Context().Done()
	})
	s, _ := newService(t, configOf(t, f.URL))
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx) }()
	<-asked
	if code, text := get(t, s, "/readyz"); code != http.StatusServiceUnavailable || text != "not ready\nmissing: an answer of Prometheus\n" {
		t.Errorf("got %d, %q before the first answer", code, text)
	}
	cancel() // while a query is under way
	if err := <-done; err != nil {
		t.Errorf("got %v, want nil", err)
	}
}

func TestRunAnswers(t *testing.T) {
	f := newFake(t)
	f.set(vector(at("198.51.100.7", "1")))
	s, _ := newService(t, configOf(t, f.URL))
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx) }()
	for code := 0; code != http.StatusOK; {
		code, _ = get(t, s, "/readyz")
	}
	if code, text := get(t, s, "/metrics"); code != http.StatusOK || !strings.Contains(text, zurich+"1\n") {
		t.Errorf("got %d and no row", code)
	}
	cancel()
	if err := <-done; err != nil {
		t.Errorf("got %v, want nil", err)
	}
}
