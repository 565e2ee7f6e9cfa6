// SPDX-License-Identifier: Apache-2.0

// Package daemonset tells an agent that is asked to end whether it is uninstalled
// or only replaced. A pod gets the same signal either way, so the agent's own
// DaemonSet is looked at: whether it still wants an agent on this node.
//
// An [Own] is safe for concurrent use, and nothing has to be closed.
package daemonset

import (
	"context"
	"fmt"
	"log/slog"
	"sync/atomic"
	"time"

	"github.com/podmeter/podmeter/internal/kubeapi"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// Options are what an [Own] needs.
type Options struct {
	Client *kubeapi.API
	// Namespace and Name are the DaemonSet's, Node is this node's name.
	Namespace, Name, Node string
	// Ending reports whether all of the DaemonSet's pods on this node have been told
	// to end, or are gone; nil if pods are not watched. It is asked when the API server
	// does not know our account any more.
	Ending func() bool
	Logger *slog.Logger
}

// Own is the DaemonSet that an agent belongs to.
type Own struct {
	options Options
	times   times
	// known and namespaceKnown say that the API server has let us read them,
	// missing that at the last look there was no such DaemonSet.
	known, namespaceKnown, missing atomic.Bool
}

// times are how long things are waited for.
type times struct {
	// learn is the time between two attempts to know the DaemonSet.
	learn time.Duration
	// verdict bounds the time to find one: that is how much later an agent ends.
	verdict time.Duration
	// retry is the time between two questions.
	retry time.Duration
	// refusal is how long a refusal has to last: an API server that starts refuses
	// until it knows all roles.
	refusal time.Duration
}

// New returns the DaemonSet that the options name. Nothing is asked yet.
func New(o Options) *Own {
	return &Own{options: o, times: times{
		learn: time.Minute, verdict: 5 * time.Second, retry: 250 * time.Millisecond, refusal: 2 * time.Second,
	}}
}

// String returns namespace/name.
func (o *Own) String() string { return o.options.Namespace + "/" + o.options.Name }

// Learn asks for the DaemonSet and its namespace until both were there once, or ctx is
// done. Only who was once allowed to read them is told something by a refusal.
func (o *Own) Learn(ctx context.Context) {
	told := ""
	for {
		why := o.look(ctx)
		if why == "" || ctx.Err() != nil {
			return
		}
		if why != told {
			told = why
			o.options.Logger.Warn("cannot tell an uninstallation from a roll-out yet", "daemonset", o.String(), "reason", why)
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(o.times.learn):
		}
	}
}

// look notes what may be read, and says what may not.
func (o *Own) look(ctx context.Context) (why string) {
	_, err := o.options.Client.DaemonSets(o.options.Namespace).Get(ctx, o.options.Name, metav1.GetOptions{})
	o.missing.Store(gone(err))
	switch {
	case gone(err):
		return "there is no such DaemonSet: --daemonset has to name the agent's own"
	case err != nil:
		return explain("get daemonset "+o.options.Name, "Role", err)
	}
	o.known.Store(true)
	_, err = o.options.Client.Namespaces.Get(ctx, o.options.Namespace, metav1.GetOptions{})
	if err != nil {
		return explain("get namespace "+o.options.Namespace, "ClusterRole", err)
	}
	o.namespaceKnown.Store(true)
	return ""
}

// explain says what to grant if a right is missing.
func explain(what, role string, err error) string {
	if apierrors.IsForbidden(err) {
		return fmt.Sprintf("no right to %s: grant it to podmeter's service account in its %s", what, role)
	}
	return fmt.Sprintf("%s: %v", what, err)
}
