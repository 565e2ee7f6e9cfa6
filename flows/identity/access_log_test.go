// SPDX-License-Identifier: Apache-2.0

package identity

import (
	"errors"
	"log/slog"
	"strings"
	"testing"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/podmeter/podmeter/internal/servertest"
)

// An outage of the API server is a line for each request at its beginning and one at its
// end, however long it is; another cause is another line.
func TestOutagesAreLoggedOnce(t *testing.T) {
	out, now := new(servertest.Log), time.Now()
	a := newAccess(slog.New(slog.NewTextHandler(out, nil)), func() time.Time { return now })
	pods := request{"pods", "watch"}
	for range 24 * 3600 / 30 { // client-go's longest pause is 30 s
		a.note(pods, errors.New("connection refused"))
		now = now.Add(30 * time.Second)
	}
	a.note(pods, apierrors.NewForbidden(schema.GroupResource{Resource: "pods"}, "", errors.New("no")))
	a.note(pods, nil)
	a.note(pods, nil)
	for _, want := range []string{
		`level=WARN msg="Kubernetes API does not answer" verb=watch resource=pods error="connection refused"`,
		`level=ERROR msg="no right to watch pods: grant`,
		`level=INFO msg="Kubernetes API answers again" verb=watch resource=pods failures=2881 for=24h0m0s`,
	} {
		if got := strings.Count(out.String(), want); got != 1 {
			t.Errorf("got %d lines %s, want 1", got, want)
		}
	}
	if got := out.Lines(); got != 3 {
		t.Errorf("got %d lines, want 3:\n%.2000s", got, out)
	}
}
