// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/chromedp/chromedp"
	"github.com/chromedp/chromedp/kb"
	"github.com/podmeter/podmeter/hack/page/browser"
	"github.com/podmeter/podmeter/internal/ktest"
)

// requireChromium is the variable that turns a test that is skipped without a browser
// into one that fails.
const requireChromium = "REQUIRE_CHROMIUM"

// reader is a browser that looks at the page of a node.
type reader struct {
	*testing.T
	*browser.Browser
}

// newReader opens the page in the node's namespace, from which no way leads out.
func newReader(t *testing.T, n *node) *reader {
	t.Helper()
	b, err := browser.Start(context.Background(), browser.Options{
		Width: 1280, Height: 900, Namespace: fmt.Sprintf("/proc/%d/fd/%d", os.Getpid(), n.Node.FD()),
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := b.Close(); err != nil {
			t.Error(err)
		}
	})
	r := &reader{t, b}
	if err := b.Open("http://" + address + "/"); err != nil {
		t.Fatal(err)
	}
	return r
}

func (r *reader) await(what, expression string) {
	r.Helper()
	if err := r.Await(expression, within); err != nil {
		text, _ := browser.Value[string](r.Browser, "document.body.innerText")
		r.Fatalf("never came: %s: %v; complaints: %q; the page:\n%s", what, err, r.Complaints(), text)
	}
}

func (r *reader) text(expression string) string { return value[string](r, expression) }

func value[T any](r *reader, expression string) T {
	r.Helper()
	v, err := browser.Value[T](r.Browser, expression)
	if err != nil {
		r.Fatal(err)
	}
	return v
}

// press sends keys to what has the focus.
func (r *reader) press(keys string) {
	r.Helper()
	if err := r.Do(chromedp.KeyEvent(keys)); err != nil {
		r.Fatal(err)
	}
}

func needChromium(t *testing.T) {
	t.Helper()
	ktest.Privileged(t)
	if _, err := browser.Find(); err != nil {
		if os.Getenv(requireChromium) == "1" {
			t.Fatal(requireChromium+"=1, and:", err)
		}
		t.Skip("needs Chromium (package chromium-headless-shell):", err)
	}
}

// names are the first cells of a table's rows.
func names(table string) string {
	return fmt.Sprintf(`[...document.querySelectorAll("#%s tbody th > span:first-child")].map(n => n.firstChild && n.textContent)`, table)
}

// A real agent, real packets and a real browser.
func TestPage(t *testing.T) {
	needChromium(t)
	n := newNode(t)
	n.start(t)
	stop := n.send(t)
	r := newReader(t, n)
	for _, test := range []struct {
		name string
		run  func(*testing.T, *reader, *node)
	}{
		{"traffic", testTraffic}, {"hostile name", testHostileName}, {"keyboard", testKeyboard}, {"themes", testThemes}, {"numbers", testNumbers},
		{"rate of all pods", testRateOfAllPods},
		{"what waits", testWaiting}, {"narrow", testNarrow}, {"nothing from elsewhere", testRequests}, {"restart", testRestart},
	} {
		t.Run(test.name, func(t *testing.T) { test.run(t, &reader{t, r.Browser}, n) })
	}
	stop()
	t.Run("sums", func(t *testing.T) { testSums(t, &reader{t, r.Browser}, n) })
}

func testTraffic(t *testing.T, r *reader, _ *node) {
	r.await("the client's rate", `[...document.querySelectorAll("#pods-table tbody tr")].some(row =>
		row.children[0].textContent === "shop/client" && /^\d[\d.]* [kM]bit\/s$/.test(row.children[1].textContent))`)
	r.await("the rate to the pod", `[...document.querySelectorAll("#edges-table tbody tr")].some(row =>
		row.textContent.includes(" ⇄ shop/client") && row.textContent.includes("same node") && /^\d[\d.]* [kM]bit\/s$/.test(row.children[2].textContent))`)
	r.await("the rate to the internet", `[...document.querySelectorAll("#places-table tbody tr")].some(row =>
		row.textContent.includes("São Paulo, Brazil") && row.textContent.includes("Exemplo Telecom") && /^\d[\d.]* [kM]bit\/s/.test(row.children[1].textContent))`)
	r.await("the place on the map", `document.querySelector("#map circle.spot:not(.idle) title").textContent.startsWith("São Paulo, Brazil: ")`)
	r.await("the tick", `document.querySelector("#verdict.good").textContent === "✓Every byte accounted for"`)
	r.await("the lines of the chart", `["sent", "received"].every(k => document.querySelector("#chart path.curve." + k).getTotalLength() > 20)`)
	r.await("the chart in words", `/received [1-9][\d.]* [kM]bit\/s/.test(document.querySelector("#chart").getAttribute("aria-valuetext"))`)
	if got := r.text(`document.querySelector("#interfaces").textContent`); got != "3 attached" {
		t.Errorf("interfaces: got %q, want 3 attached", got)
	}
	if got := r.text(`document.title`); !strings.HasPrefix(got, "node-a ") {
		t.Errorf("title: got %q, want the node's name", got)
	}
}

func testHostileName(t *testing.T, r *reader, _ *node) {
	r.await("the name as text", fmt.Sprintf(`%s.includes(%q)`, names("pods-table"), "shop/"+hostile))
	if got := value[int](r, `document.querySelectorAll("img, main script").length`); got != 0 {
		t.Errorf("got %d elements that a name brought along, want none", got)
	}
	if got := r.Complaints(); len(got) > 0 {
		t.Errorf("the browser complained: %q", got)
	}
}

// focused tells what has the focus: its id, else its text.
const focused = `document.activeElement.id || document.activeElement.textContent`

func testKeyboard(t *testing.T, r *reader, _ *node) {
	want := []string{"Skip to the traffic", "verdict", "pause", "theme", "chart", "Pod", "Sent", "Received", "Total", "Between"}
	var got []string
	for range want {
		r.press(kb.Tab)
		got = append(got, r.text(focused))
		if outline := r.text(`getComputedStyle(document.activeElement).outlineStyle`); outline != "solid" {
			t.Errorf("%s has the focus: got an outline %s, want one to be seen", got[len(got)-1], outline)
		}
	}
	if !slices.Equal(got, want) {
		t.Errorf("by Tab: got %q, want %q", got, want)
	}
	testSorting(t, r)
	testChart(t, r)
	r.press("p")
	r.await("pause", `document.querySelector("#pause").ariaPressed === "true" && document.querySelector("#notice").textContent.startsWith("Paused")`)
	r.press("p")
	r.await("no pause", `document.querySelector("#pause").ariaPressed === "false" && document.querySelector("#notice").hidden`)
}

func testSorting(t *testing.T, r *reader) {
	value[bool](r, `document.querySelectorAll("#pods-table thead button")[0].focus() || true`)
	const order = `document.querySelector("#pods-table thead th").ariaSort ?? "none"`
	for _, want := range []string{"ascending", "descending", "none"} {
		r.press(kb.Enter)
		if got := r.text(order); got != want {
			t.Errorf("sorted by name: got %s, want %s", got, want)
		}
		both := value[[2][]string](r, `(all => [all, all.toSorted((a, b) => a.localeCompare(b))])(`+names("pods-table")+`)`)
		if want == "descending" {
			slices.Reverse(both[1])
		}
		if want != "none" && !slices.Equal(both[0], both[1]) {
			t.Errorf("%s: got %q, want %q", want, both[0], both[1])
		}
	}
	if got := r.text(focused); got != "Pod" {
		t.Errorf("after sorting the focus is at %q, want it where it was", got)
	}
}

// The arrow keys go back in time, and Escape to now.
func testChart(t *testing.T, r *reader) {
	r.await("a few points", `document.querySelector("#chart").ariaValueMax >= 2`)
	value[bool](r, `document.querySelector("#chart").focus() || true`)
	r.press(kb.Home)
	if got := r.text(`document.querySelector("#chart").ariaValueNow`); got != "0" {
		t.Errorf("Home: got point %s, want 0", got)
	}
	r.press(kb.ArrowRight)
	if got := r.text(`document.querySelector("#chart").ariaValueNow`); got != "1" {
		t.Errorf("right: got point %s, want 1", got)
	}
	if got := r.text(`document.querySelector("#chart-when").textContent`); got == "now" {
		t.Error("right: got now, want the point's time")
	}
	r.press(kb.Escape)
	if got := r.text(`document.querySelector("#chart-when").textContent`); got != "now" {
		t.Errorf("Escape: got %s, want now", got)
	}
}

func testThemes(t *testing.T, r *reader, _ *node) {
	const ground = `getComputedStyle(document.body).backgroundColor`
	seen := make(map[string]string)
	for _, scheme := range []string{"light", "dark"} {
		if err := r.Prefer(scheme); err != nil {
			t.Fatal(err)
		}
		seen[scheme] = r.text(ground)
	}
	if seen["light"] == seen["dark"] {
		t.Errorf("light and dark: got %s for both", seen["light"])
	}
	for _, theme := range []string{"light", "dark", "system"} { // the reader prefers dark
		value[bool](r, `document.querySelector("#theme").click() || true`)
		want := seen["dark"]
		if theme == "light" {
			want = seen["light"]
		}
		if got := r.text(ground); got != want || r.text(`document.querySelector("#theme").textContent`) != "Theme: "+theme {
			t.Errorf("theme %s: got %s, want %s", theme, got, want)
		}
	}
}

func testNarrow(t *testing.T, r *reader, _ *node) {
	defer r.Do(chromedp.EmulateViewport(1280, 900))
	for _, width := range []int64{320, 400, 800} {
		if err := r.Do(chromedp.EmulateViewport(width, 900)); err != nil {
			t.Fatal(err)
		}
		if got := value[int64](r, `document.documentElement.scrollWidth`); got > width {
			t.Errorf("%d wide: got a page of %d, which has to be moved sideways", width, got)
		}
	}
}

// Three digits, but no parts of a byte or bit.
func testNumbers(t *testing.T, r *reader, _ *node) {
	value[bool](r, `import("./page/format.js").then(module => window.format = module) && true`)
	r.await("the module", `"bytes" in window.format`)
	for call, want := range map[string]string{
		"bytes(0)": "0 B", "bytes(7)": "7 B", "bytes(12)": "12 B", "bytes(99)": "99 B", "bytes(999)": "999 B", "bytes(1000)": "1.00 kB",
		"bytes(12345)": "12.3 kB", "bytes(999600)": "1.00 MB", "rate(12.4)": "12 bit/s", "rate(123456)": "123 kbit/s", "rate(null)": "–",
	} {
		if got := r.text("window.format." + call); got != want {
			t.Errorf("%s: got %s, want %s", call, got, want)
		}
	}
}

// amended lets the page see answers that a script has changed, until the test ends.
func (r *reader) amended(t *testing.T, change string) {
	t.Helper()
	value[bool](r, `{
		window.unamended ??= window.fetch;
		window.fetch = async (...asked) => {
			const state = await (await window.unamended(...asked)).json();
			`+change+`
			return new Response(JSON.stringify(state));
		};
	} true`)
	t.Cleanup(func() { value[bool](r, `(window.fetch = window.unamended) && true`) })
}

// The rate of all pods is the sum of the pods' own, whatever the last two seconds were like.
func testRateOfAllPods(t *testing.T, r *reader, _ *node) {
	r.amended(t, `state.watch = 1; // another line of the chart
		state.moved = [state.asOf, state.asOf]; // 8 kbit/s
		state.grownSeconds = 8;
		state.pods = { rows: [{ namespace: "shop", name: "a", total: [1e9, 1e9], grown: [3e6, 1e6] }, { namespace: "shop", name: "b", total: [1e9, 1e9], grown: [1e6, 0] }],
			others: 2, rest: { total: [1e9, 1e9], grown: [1e6, 0] } };
		state.grown = [5e6, 1e6];`)
	r.await("the sum of the rows", `["sent", "received"].map(k => document.querySelector("#now-" + k).textContent).join() === "5.00 Mbit/s,1.00 Mbit/s"`)
	const press = `document.querySelector("#chart").dispatchEvent(new KeyboardEvent("keydown", { key: %q })) && `
	r.await("what the chart has at a point", fmt.Sprintf(press, "End")+`document.querySelector("#now-sent").textContent === "8.00 kbit/s"`)
	r.await("the sum of the rows again", fmt.Sprintf(press, "Escape")+`document.querySelector("#now-sent").textContent === "5.00 Mbit/s"`)
}

// While bytes wait for a pod, or were lost, the page is not green, and says which.
func testWaiting(t *testing.T, r *reader, _ *node) {
	t.Run("waiting", func(t *testing.T) {
		r.amended(t, `state.unboundBytes = 12345;
			state.waiting = [{ interface: "eth0", since: state.now - 180_000, gone: 0, bytes: 12000, needs: ["10.0.0.9", "fd00::9"] },
				{ interface: "<b>", since: state.now - 60_000, gone: state.now, bytes: 345, needs: [] }];`)
		r.await("the verdict", `document.querySelector("#verdict.waits:not(.good)")?.textContent === "…12.3 kB wait for their pod"`)
		r.await("the books", `document.querySelector("#books-verdict.waits").textContent.startsWith("… Not all: 12,345 bytes are on no series")`)
		const rows = `[...document.querySelectorAll("#waiting-rows tr")].map(row => [...row.children].map(c => c.textContent).join("|")).join("\n")`
		if got, want := r.text(rows), "eth0|10.0.0.9, fd00::9|3 min ago|12,000\n<b> (gone)|not known|60 s ago|345"; got != want {
			t.Errorf("got %q, want %q", got, want)
		}
	})
	t.Run("lost", func(t *testing.T) {
		r.amended(t, `state.lostBytes = 7;`)
		r.await("the verdict", `document.querySelector("#verdict.waits:not(.good)")?.textContent === "…7 B lost"`)
	})
	r.await("the tick again", `document.querySelector("#verdict.good").textContent === "✓Every byte accounted for" && document.querySelector("#waiting").hidden`)
}

func testRequests(t *testing.T, r *reader, _ *node) {
	states := 0
	for _, url := range r.Requests() {
		if !strings.HasPrefix(url, "http://"+address+"/") && !strings.HasPrefix(url, "data:") {
			t.Errorf("asked for %s, which is elsewhere", url)
		}
		if strings.HasSuffix(url, "/page/state") {
			states++
		}
	}
	if states == 0 {
		t.Error("the state was not asked for: requests are not seen")
	}
	if got := r.Complaints(); len(got) > 0 {
		t.Errorf("the browser complained: %q", got)
	}
}

// An agent that goes is told of, one that comes is gone on with, and no rate is negative.
func testRestart(t *testing.T, r *reader, n *node) {
	n.stop(t)
	r.await("the outage", `/^The agent has not answered since \d\d:\d\d:\d\d\./.test(document.querySelector("#notice").textContent)`)
	if got := r.text(`document.querySelector("#notice").role`); got != "status" {
		t.Errorf("role of the notice: got %s, want one that is read out", got)
	}
	n.start(t)
	r.await("the agent's return", `document.querySelector("#notice").hidden`)
	r.await("a line from before and one from after", `document.querySelectorAll("#chart path.curve.sent").length >= 2`)
	low := value[bool](r, `[...document.querySelectorAll("#chart path.curve")].some(path => {
		const box = path.getBBox();
		return box.y + box.height > document.querySelector("#chart").clientHeight - 24 + 0.5;
	})`)
	if low {
		t.Error("the chart goes below zero")
	}
	for _, complaint := range r.Complaints() {
		if !strings.Contains(complaint, "ERR_CONNECTION_REFUSED") && !strings.Contains(complaint, "ERR_CONNECTION_RESET") && !strings.Contains(complaint, "ERR_EMPTY_RESPONSE") {
			t.Errorf("the browser complained: %s", complaint)
		}
	}
}

// When nothing moves any more, the page and /metrics say the same to the byte.
func testSums(t *testing.T, r *reader, n *node) {
	var last books
	for deadline := time.Now().Add(within); ; time.Sleep(1100 * time.Millisecond) { // answers are shared for 1 s
		now := n.books(t)
		if now == last && now.Books.Pods > 0 {
			break
		}
		if last = now; time.Now().After(deadline) {
			t.Fatalf("counters still move: %+v", now)
		}
	}
	metrics, err := n.get("/metrics")
	if err != nil {
		t.Fatal(err)
	}
	for what, c := range map[string]struct {
		family string
		want   uint64
	}{
		"#sum-pods": {"podmeter_pod", last.Books.Pods}, "#sum-flows": {"podmeter_flow", last.Books.Flows},
		"#sum-places": {"podmeter_external", last.Books.Places},
	} {
		if got := sum(string(metrics), c.family); got != c.want || got == 0 {
			t.Errorf("%s: /metrics has %d bytes, the state %d", c.family, got, c.want)
		}
		r.await(what, fmt.Sprintf(`document.querySelector(%q).textContent.replaceAll(",", "") === "%d"`, what, c.want))
	}
}

// sum adds up the bytes of a family in both directions.
func sum(metrics, family string) (bytes uint64) {
	for line := range strings.Lines(metrics) {
		name, rest, _ := strings.Cut(line, "{")
		if name != family+"_transmit_bytes_total" && name != family+"_receive_bytes_total" {
			continue
		}
		var value float64
		fmt.Sscan(rest[strings.LastIndex(rest, "} ")+2:], &value)
		bytes += uint64(value)
	}
	return bytes
}
