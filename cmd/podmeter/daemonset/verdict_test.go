// SPDX-License-Identifier: Apache-2.0

package daemonset

import (
	"bytes"
	"encoding/json"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/podmeter/podmeter/internal/kubetest"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
)

const (
	daemonSetPath = "/apis/apps/v1/namespaces/meters/daemonsets/meter"
	namespacePath = "/api/v1/namespaces/meters"
	nodesPath     = "/api/v1/nodes"
)

// answer is what the API server says to one request; a nil one hangs up.
type answer func(http.ResponseWriter)

// object answers with one of Kubernetes'.
func object(o any) answer {
	return func(w http.ResponseWriter) { reply(w, http.StatusOK, o) }
}

// status answers with an error as the API server does.
func status(code int, reason metav1.StatusReason) answer {
	return func(w http.ResponseWriter) {
		reply(w, code, metav1.Status{
			TypeMeta: metav1.TypeMeta{Kind: "Status", APIVersion: "v1"}, Status: metav1.StatusFailure,
			Code: int32(code), Reason: reason, Message: string(reason),
		})
	}
}

// page answers with an error as somebody between us and the API server does.
func page(code int) answer {
	return func(w http.ResponseWriter) {
		w.WriteHeader(code)
		fmt.Fprintln(w, "<html>no</html>")
	}
}

func reply(w http.ResponseWriter, code int, o any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(code)
	json.NewEncoder(w).Encode(o) // the client may be gone
}

var (
	notFound     = status(http.StatusNotFound, metav1.StatusReasonNotFound)
	forbidden    = status(http.StatusForbidden, metav1.StatusReasonForbidden)
	unauthorized = status(http.StatusUnauthorized, metav1.StatusReasonUnauthorized)
	unavailable  = status(http.StatusServiceUnavailable, metav1.StatusReasonServiceUnavailable)
)

// api plays the API server: at each path it gives its answers in turn, the last of
// them for ever.
type api struct {
	mu      sync.Mutex
	answers map[string][]answer
	asked   int
}

func (a *api) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	a.mu.Lock()
	a.asked++
	answers := a.answers[r.URL.Path]
	var next answer
	if len(answers) > 0 {
		next = answers[0]
	}
	if len(answers) > 1 {
		a.answers[r.URL.Path] = answers[1:]
	}
	a.mu.Unlock()
	if r.URL.Path == nodesPath && r.FormValue("fieldSelector") != "metadata.name=here" {
		next = status(http.StatusBadRequest, metav1.StatusReasonBadRequest)
	}
	if next == nil {
		panic(http.ErrAbortHandler)
	}
	next(w)
}

// serve plays an API server that at first has everything as it should be.
func serve(t *testing.T) (*api, *Own) {
	t.Helper()
	a := &api{}
	a.answers = map[string][]answer{
		daemonSetPath: {object(set())}, namespacePath: {object(namespace())}, nodesPath: {object(list(node()))},
	}
	server := httptest.NewServer(a)
	t.Cleanup(server.Close)
	client, err := kubernetes.NewForConfig(&rest.Config{Host: server.URL, QPS: -1})
	if err != nil {
		t.Fatal(err)
	}
	o := New(Options{Client: kubetest.API(client), Namespace: "meters", Name: "meter", Node: "here", Logger: slog.New(slog.DiscardHandler)})
	o.times = times{learn: time.Millisecond, verdict: 2500 * time.Millisecond, retry: 10 * time.Millisecond, refusal: time.Second}
	return a, o
}

// now changes what the API server answers at some paths.
func (a *api) now(answers map[string][]answer) {
	a.mu.Lock()
	defer a.mu.Unlock()
	for path, next := range answers {
		a.answers[path] = next
	}
}

func set(change ...func(*appsv1.DaemonSet)) *appsv1.DaemonSet {
	d := &appsv1.DaemonSet{
		TypeMeta:   metav1.TypeMeta{Kind: "DaemonSet", APIVersion: "apps/v1"},
		ObjectMeta: metav1.ObjectMeta{Namespace: "meters", Name: "meter"},
	}
	d.Spec.Template.Spec.NodeSelector = map[string]string{corev1.LabelOSStable: "linux"}
	for _, c := range change {
		c(d)
	}
	return d
}

func namespace() *corev1.Namespace {
	return &corev1.Namespace{
		TypeMeta: metav1.TypeMeta{Kind: "Namespace", APIVersion: "v1"}, ObjectMeta: metav1.ObjectMeta{Name: "meters"},
	}
}

func leavingNamespace() *corev1.Namespace {
	n := namespace()
	n.DeletionTimestamp = new(metav1.Now())
	return n
}

func node() corev1.Node {
	return corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "here", Labels: map[string]string{corev1.LabelOSStable: "linux"}}}
}

func list(nodes ...corev1.Node) *corev1.NodeList {
	return &corev1.NodeList{TypeMeta: metav1.TypeMeta{Kind: "NodeList", APIVersion: "v1"}, Items: nodes}
}

// repeated is an answer that is given so often before another one.
func repeated(first answer, times int, then answer) []answer {
	all := make([]answer, 0, times+1)
	for range times {
		all = append(all, first)
	}
	return append(all, then)
}

func yes() bool { return true }
func no() bool  { return false }

// verdicts are what the API server answers at the end, after it had answered well at the
// start, and what follows.
var verdicts = []struct {
	name      string
	answers   map[string][]answer
	ending    func() bool
	uninstall bool
	why       string
}{
	{"a roll-out", nil, nil, false, "still selects this node"},
	{"the DaemonSet is gone", map[string][]answer{daemonSetPath: {notFound}}, nil, true, "DaemonSet is gone"},
	{"the DaemonSet is going", map[string][]answer{daemonSetPath: {object(set(func(d *appsv1.DaemonSet) {
		d.DeletionTimestamp = new(metav1.Now())
	}))}}, nil, true, "DaemonSet is being deleted"},
	{"the namespace is going", map[string][]answer{namespacePath: {object(leavingNamespace())}}, nil, true, "namespace meters is being deleted"},
	{"the namespace is gone", map[string][]answer{namespacePath: {notFound}}, nil, true, "namespace meters is being deleted"},
	{"the namespace is going, and the right of the DaemonSet went with it", map[string][]answer{
		daemonSetPath: {forbidden}, namespacePath: {object(leavingNamespace())},
	}, nil, true, "namespace meters is being deleted"},
	{"the node is not selected any more", map[string][]answer{daemonSetPath: {object(set(func(d *appsv1.DaemonSet) {
		d.Spec.Template.Spec.NodeSelector["metered"] = "yes"
	}))}}, nil, true, "does not select this node any more: its labels"},
	{"the node is not in the API", map[string][]answer{nodesPath: {object(list())}}, nil, false, "is not in the API"},

	{"no right any more", map[string][]answer{daemonSetPath: {forbidden}}, no, true, "our rights to ask are gone"},
	{"no right to read the namespace any more", map[string][]answer{namespacePath: {forbidden}}, no, true, "our rights to ask are gone"},
	{"no right to list nodes any more", map[string][]answer{nodesPath: {forbidden}}, no, true, "our rights to ask are gone"},
	{"no right for a moment", map[string][]answer{daemonSetPath: repeated(forbidden, 3, object(set()))}, yes, false, "still selects"},
	{"no right, and then gone", map[string][]answer{daemonSetPath: repeated(forbidden, 3, notFound)}, yes, true, "DaemonSet is gone"},
	{"no account, and the pods go", map[string][]answer{daemonSetPath: {unauthorized}, namespacePath: {unauthorized}}, yes, true, "account is not known"},
	{"no account, and the pods stay", map[string][]answer{daemonSetPath: {unauthorized}, namespacePath: {unauthorized}}, no, false, "nothing says that the pods"},
	{"no account, and pods are not watched", map[string][]answer{daemonSetPath: {unauthorized}}, nil, false, "nothing says that the pods"},

	{"no answer", map[string][]answer{daemonSetPath: {nil}}, yes, false, "no answer of the API server"},
	{"no answer for a moment", map[string][]answer{daemonSetPath: repeated(nil, 1, notFound)}, nil, true, "DaemonSet is gone"},
	{"no answer about the namespace", map[string][]answer{namespacePath: {nil}}, yes, false, "no answer of the API server"},
	{"no answer about the node", map[string][]answer{nodesPath: {nil}}, yes, false, "no answer of the API server"},
	{"an error of the API server", map[string][]answer{daemonSetPath: {unavailable}}, yes, false, "no answer of the API server"},
	{"another's 404", map[string][]answer{daemonSetPath: {page(http.StatusNotFound)}}, yes, false, "no answer of the API server"},
	{"another's 403", map[string][]answer{daemonSetPath: {page(http.StatusForbidden)}}, yes, false, "no answer of the API server"},
	{"another's 401", map[string][]answer{daemonSetPath: {page(http.StatusUnauthorized)}}, yes, false, "no answer of the API server"},
	{"an API server that hangs", map[string][]answer{daemonSetPath: {func(http.ResponseWriter) { time.Sleep(3 * time.Second) }}}, yes, false, "no answer of the API server"},
}

func TestVerdict(t *testing.T) {
	t.Parallel()
	for _, test := range verdicts {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			a, o := serve(t)
			o.options.Ending = test.ending
			o.Learn(t.Context())
			a.now(test.answers)
			got := o.Verdict(t.Context())
			if got.Uninstall != test.uninstall || !strings.Contains(got.Why, test.why) {
				t.Errorf("got %+v, want uninstall %v with %q", got, test.uninstall, test.why)
			}
		})
	}
}

// Who was never let in learns nothing from a refusal.
func TestVerdictOfAStranger(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		answers   map[string][]answer
		uninstall bool
		why       string
	}{
		"no right":         {map[string][]answer{daemonSetPath: {forbidden}}, false, "as it always has"},
		"no account":       {map[string][]answer{daemonSetPath: {unauthorized}}, false, "as it always has"},
		"gone":             {map[string][]answer{daemonSetPath: {notFound}}, true, "DaemonSet is gone"},
		"no namespace's":   {map[string][]answer{namespacePath: {forbidden}}, false, "still selects"},
		"neither, and yet": {map[string][]answer{namespacePath: {forbidden}, nodesPath: {forbidden}}, false, "as it always has"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			a, o := serve(t)
			o.options.Ending = yes
			a.now(test.answers)
			if got := o.Verdict(t.Context()); got.Uninstall != test.uninstall || !strings.Contains(got.Why, test.why) {
				t.Errorf("got %+v, want uninstall %v with %q", got, test.uninstall, test.why)
			}
		})
	}
}

// A name that never named a DaemonSet is a mistake, and no uninstallation.
func TestVerdictWithAWrongName(t *testing.T) {
	t.Parallel()
	a, o := serve(t)
	a.now(map[string][]answer{daemonSetPath: {notFound}})
	if why := o.look(t.Context()); !strings.Contains(why, "there is no such DaemonSet") {
		t.Errorf("got %q, want that there is none", why)
	}
	if got := o.Verdict(t.Context()); got.Uninstall || !strings.Contains(got.Why, "never was") {
		t.Errorf("got %+v, want to stay", got)
	}
}

// The DaemonSet is asked for until the API server answers, and what is missing is
// logged once.
func TestLearn(t *testing.T) {
	t.Parallel()
	a, o := serve(t)
	var log bytes.Buffer
	o.options.Logger = slog.New(slog.NewTextHandler(&log, nil))
	a.now(map[string][]answer{
		daemonSetPath: repeated(forbidden, 3, object(set())), namespacePath: repeated(forbidden, 3, object(namespace())),
	})
	o.Learn(t.Context())
	if !o.known.Load() || !o.namespaceKnown.Load() {
		t.Error("got them unknown, want both known")
	}
	for _, want := range []string{
		"no right to get daemonset meter: grant it to podmeter's service account in its Role",
		"no right to get namespace meters: grant it to podmeter's service account in its ClusterRole",
	} {
		if got := strings.Count(log.String(), want); got != 1 {
			t.Errorf("got %d times %q, want once, in:\n%s", got, want, log.String())
		}
	}
	before := a.asked
	o.Learn(t.Context())
	if got := a.asked - before; got != 2 {
		t.Errorf("got %d questions, want one of each", got)
	}
}
