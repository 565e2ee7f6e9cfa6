// SPDX-License-Identifier: Apache-2.0

package identity

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"testing"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/tools/cache"
)

func TestAccess(t *testing.T) {
	no := apierrors.NewForbidden(schema.GroupResource{Resource: "pods"}, "", errors.New("no"))
	away := errors.New("connection refused")
	type step struct {
		verb    string // list, watch, or stream: a watch that lists as well
		err     error
		problem string
	}
	for _, test := range []struct {
		name  string
		steps []step
	}{
		{"no right at all: the list tells", []step{
			{"stream", no, ""}, {"list", no, "no right to list pods"},
		}},
		{"the right is given, the list never needed again", []step{
			{"list", no, "no right to list pods"}, {"stream", nil, ""},
		}},
		{"may list, not watch", []step{
			{"stream", no, ""}, {"list", nil, ""}, {"watch", no, "no right to watch pods"},
			{"list", nil, "no right to watch pods"}, {"watch", nil, ""},
		}},
		{"away", []step{{"stream", away, "watch pods: connection refused"}, {"stream", nil, ""}}},
		{"normal ends", []step{
			{"watch", context.Canceled, ""}, {"watch", fmt.Errorf("get: %w", context.Canceled), ""},
			{"watch", apierrors.NewResourceExpired("old"), ""}, {"stream", apierrors.NewMethodNotSupported(schema.GroupResource{}, "watch"), ""},
		}},
	} {
		t.Run(test.name, func(t *testing.T) {
			var result error
			a := newAccess(slog.New(slog.DiscardHandler), (&clock{start}).now)
			lw := a.observe("pods", &cache.ListWatch{
				ListWithContextFunc:  func(context.Context, metav1.ListOptions) (runtime.Object, error) { return nil, result },
				WatchFuncWithContext: func(context.Context, metav1.ListOptions) (watch.Interface, error) { return nil, result },
			})
			for n, step := range test.steps {
				result = step.err
				switch step.verb {
				case "list":
					_, _ = lw.ListWithContext(t.Context(), metav1.ListOptions{})
				case "watch":
					_, _ = lw.WatchWithContext(t.Context(), metav1.ListOptions{})
				case "stream":
					_, _ = lw.WatchWithContext(t.Context(), metav1.ListOptions{SendInitialEvents: new(true)})
				}
				if got := a.problem(false); got != step.problem {
					t.Errorf("after step %d: got %q, want %q", n+1, got, step.problem)
				}
			}
		})
	}
}
