// SPDX-License-Identifier: Apache-2.0

package identity

import (
	"context"
	"errors"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/tools/cache"

	"github.com/podmeter/podmeter/flows/plain"
	"github.com/podmeter/podmeter/internal/secret"
)

// access keeps track of what the API server refuses.
type access struct {
	logger *slog.Logger
	clock  func() time.Time

	mu       sync.Mutex
	refusals map[request]refusal
}

type request struct{ resource, verb string }

// refusal is what became of requests since one was granted: it is logged once, and its end.
type refusal struct {
	text    string
	noRight bool
	times   int
	since   time.Time
}

func newAccess(logger *slog.Logger, clock func() time.Time) *access {
	return &access{logger: logger, clock: clock, refusals: make(map[request]refusal)}
}

// observe returns a ListWatch that notes how its requests end.
func (a *access) observe(resource string, lw *cache.ListWatch) *cache.ListWatch {
	list, follow := lw.ListWithContextFunc, lw.WatchFuncWithContext
	return &cache.ListWatch{
		ListWithContextFunc: func(ctx context.Context, options metav1.ListOptions) (runtime.Object, error) {
			objects, err := list(ctx, options)
			a.note(request{resource, "list"}, err)
			return objects, err
		},
		WatchFuncWithContext: func(ctx context.Context, options metav1.ListOptions) (watch.Interface, error) {
			events, err := follow(ctx, options)
			// A refused watch that was to list as well is followed by a list,
			// whose end tells more.
			if options.SendInitialEvents == nil || err == nil || !refused(err) {
				a.note(request{resource, "watch"}, err)
			}
			return events, err
		},
	}
}

// refused reports whether the API server got a request and did not grant it.
func refused(err error) bool { return apierrors.ReasonForError(err) != metav1.StatusReasonUnknown }

func (a *access) note(r request, err error) {
	switch {
	case err == nil:
		a.granted(r)
	case errors.Is(err, context.Canceled), apierrors.IsResourceExpired(err), apierrors.IsGone(err):
	default:
		a.refuse(r, err)
	}
}

// granted takes refusals back. Who may watch does not need to list.
func (a *access) granted(r request) {
	a.mu.Lock()
	defer a.mu.Unlock()
	verbs := []string{r.verb}
	if r.verb == "watch" {
		verbs = append(verbs, "list")
	}
	for _, verb := range verbs {
		r.verb = verb
		if before, ok := a.refusals[r]; ok {
			a.logger.Info("Kubernetes API answers again", "verb", verb, "resource", r.resource,
				"failures", before.times, "for", a.clock().Sub(before.since))
		}
		delete(a.refusals, r)
	}
}

func (a *access) refuse(r request, err error) {
	noRight := apierrors.IsForbidden(err) || apierrors.IsUnauthorized(err)
	text := plain.Text(r.verb+" "+r.resource+": "+secret.Text(err.Error()), plain.MessageLimit)
	if noRight {
		text = "no right to " + r.verb + " " + r.resource
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	now := refusal{text, noRight, 1, a.clock()}
	before, known := a.refusals[r]
	if known {
		now.times, now.since = before.times+1, before.since
	}
	a.refusals[r] = now
	if known && before.noRight == noRight {
		return
	}
	if noRight {
		a.logger.Error(text+": grant list and watch to podmeter's service account",
			"verb", r.verb, "resource", r.resource, "error", err)
		return
	}
	a.logger.Warn("Kubernetes API does not answer", "verb", r.verb, "resource", r.resource, "error", err)
}

// problem tells the refusals, once synced only those for want of a right.
func (a *access) problem(synced bool) string {
	a.mu.Lock()
	defer a.mu.Unlock()
	texts := make(map[string]struct{})
	for _, r := range a.refusals {
		if r.noRight || !synced {
			texts[r.text] = struct{}{}
		}
	}
	return strings.Join(slices.Sorted(maps.Keys(texts)), "; ")
}
