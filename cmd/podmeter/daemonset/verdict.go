// SPDX-License-Identifier: Apache-2.0

package daemonset

import (
	"context"
	"fmt"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
)

// Verdict says whether the agent's traces are to be removed from the node.
type Verdict struct {
	Uninstall bool
	// Why is the reason, for a log.
	Why string
}

func uninstall(format string, args ...any) Verdict {
	return Verdict{Uninstall: true, Why: fmt.Sprintf(format, args...)}
}

func stay(format string, args ...any) Verdict { return Verdict{Why: fmt.Sprintf(format, args...)} }

// Verdict asks what the signal to end was for. In doubt the answer is to stay: what
// is left can be removed later, and counters that are gone stay so. It takes at most
// 5 s.
func (o *Own) Verdict(ctx context.Context) Verdict {
	ctx, cancel := context.WithTimeout(ctx, o.times.verdict)
	defer cancel()
	var refused time.Time // since when nothing else was answered
	last := stay("no answer of the API server within %v", o.times.verdict)
	for {
		verdict, err := o.ask(ctx)
		if err == nil {
			return verdict
		}
		if ctx.Err() != nil { // the error is only that time is over
			return last
		}
		switch {
		case !refusal(err):
			refused, last = time.Time{}, stay("no answer of the API server: %v", err)
		case !o.known.Load():
			return stay("the API server refuses, as it always has: %v", err)
		case refused.IsZero():
			refused = time.Now()
			last = stay("the API server refuses, but not for long enough to be believed: %v", err)
		case time.Since(refused) >= o.times.refusal:
			if last = o.refused(err); last.Uninstall {
				return last
			}
		}
		select {
		case <-ctx.Done():
			return last
		case <-time.After(o.times.retry):
		}
	}
}

// refused judges a refusal that lasts, of who was answered before. Rights go with an
// uninstallation. An account that is unknown may also be a token that was not renewed,
// so the pods have to be going as well.
func (o *Own) refused(err error) Verdict {
	switch {
	case apierrors.IsForbidden(err):
		return uninstall("our rights to ask are gone: %v", err)
	case o.options.Ending == nil || !o.options.Ending():
		return stay("our account is not known any more, but nothing says that the pods of this node are to end: %v", err)
	}
	return uninstall("our account is not known any more, and the pods of this node are to end: %v", err)
}

// ask finds a verdict, or says why the API server did not let it be found.
func (o *Own) ask(ctx context.Context) (Verdict, error) {
	d, err := o.options.Client.DaemonSets(o.options.Namespace).Get(ctx, o.options.Name, metav1.GetOptions{})
	switch {
	case gone(err) && o.missing.Load():
		return stay("there never was such a DaemonSet, --daemonset names another"), nil
	case gone(err):
		return uninstall("the DaemonSet is gone"), nil
	case err == nil && d.DeletionTimestamp != nil:
		return uninstall("the DaemonSet is being deleted"), nil
	case err != nil && !refusal(err):
		return Verdict{}, err
	}
	going, namespaceErr := o.namespaceGoing(ctx)
	switch {
	case going:
		return uninstall("the namespace %s is being deleted", o.options.Namespace), nil
	case err != nil:
		return Verdict{}, err
	case namespaceErr != nil:
		return Verdict{}, namespaceErr
	}
	return o.selected(ctx, d)
}

// namespaceGoing reports whether the namespace is gone or being deleted. Its pods are
// told to end first, while the DaemonSet does not show anything yet. A refusal of
// what was never granted says nothing.
func (o *Own) namespaceGoing(ctx context.Context) (bool, error) {
	n, err := o.options.Client.Namespaces.Get(ctx, o.options.Namespace, metav1.GetOptions{})
	switch {
	case gone(err):
		return true, nil
	case refusal(err) && !o.namespaceKnown.Load():
		return false, nil
	case err != nil:
		return false, err
	}
	return n.DeletionTimestamp != nil || n.Status.Phase == corev1.NamespaceTerminating, nil
}

// selected judges whether a DaemonSet keeps a pod on this node. The node is listed,
// as that is the right that we have.
func (o *Own) selected(ctx context.Context, d *appsv1.DaemonSet) (Verdict, error) {
	nodes, err := o.options.Client.Nodes.List(ctx, metav1.ListOptions{
		FieldSelector: fields.OneTermEqualSelector(metav1.ObjectNameField, o.options.Node).String(),
	})
	if err != nil {
		return Verdict{}, err
	}
	if len(nodes.Items) != 1 {
		return stay("the node %s is not in the API", o.options.Node), nil
	}
	if why := unfit(&d.Spec.Template.Spec, &nodes.Items[0], o.options.Logger); why != "" {
		return uninstall("the DaemonSet does not select this node any more: %s", why), nil
	}
	return stay("the DaemonSet still selects this node"), nil
}

// gone reports whether the API server, and not somebody before it, says that there is
// no such object.
func gone(err error) bool {
	return apierrors.IsNotFound(err) && !foreign(err)
}

// refusal reports whether the API server, and not somebody before it, lacks our account
// or our rights.
func refusal(err error) bool {
	return (apierrors.IsUnauthorized(err) || apierrors.IsForbidden(err)) && !foreign(err)
}

// foreign reports whether an answer was not in the API's form.
func foreign(err error) bool {
	return apierrors.HasStatusCause(err, metav1.CauseTypeUnexpectedServerResponse)
}
