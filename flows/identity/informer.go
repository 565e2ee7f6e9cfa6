// SPDX-License-Identifier: Apache-2.0

package identity

import (
	"context"
	"errors"
	"fmt"
	"reflect"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/tools/cache"

	"github.com/podmeter/podmeter/flows/plain"
	"github.com/podmeter/podmeter/internal/kubeapi"
	"github.com/podmeter/podmeter/internal/sieve"
)

// trimmed is what an informer keeps of an object: a tenth of it at most. It has
// the metadata that informers ask for, and the value that the cache is given.
type trimmed[T any] struct {
	namespace, name, uid, version string
	value                         *T
}

// GetObjectMeta implements [metav1.ObjectMetaAccessor].
func (t *trimmed[T]) GetObjectMeta() metav1.Object {
	return &metav1.ObjectMeta{
		Namespace: t.namespace, Name: t.name, UID: types.UID(t.uid), ResourceVersion: t.version,
	}
}

// GetObjectKind implements [runtime.Object], which lists are made of.
func (t *trimmed[T]) GetObjectKind() schema.ObjectKind { return schema.EmptyObjectKind }

// DeepCopyObject implements [runtime.Object]. The value is never changed.
func (t *trimmed[T]) DeepCopyObject() runtime.Object { return new(*t) }

// watched is where the changes of a kind of objects go.
type watched[T any] struct{ set, remove func(*T) }

// object is an API object of type O.
type object[O any] interface {
	*O
	runtime.Object
	metav1.Object
}

// add makes the informer of one kind of objects, of which no more than what is kept is converted.
func add[O, T any, P object[O]](k *Kubernetes, resource, selector string, api *kubeapi.API, lw *cache.ListWatch, kept sieve.Message, convert func(P) *T, to watched[T]) error {
	trim := func(o P) runtime.Object {
		return &trimmed[T]{
			namespace: shared(plain.Text(o.GetNamespace(), plain.LabelLimit)), name: plain.Text(o.GetName(), plain.NameLimit),
			uid: plain.Text(string(o.GetUID()), plain.UIDLimit), version: plain.Text(o.GetResourceVersion(), plain.LabelLimit),
			value: convert(o),
		}
	}
	if api.Core != nil {
		lw.ListWithContextFunc = listEach[O](api.Core, resource, selector, kept, trim)
	}
	lw = k.access.observe(resource, k.contact.observe(resource, lw))
	i := cache.NewSharedIndexInformer(cache.ToListWatcherWithWatchListSemantics(lw, api.Client), P(new(O)), 0, nil)
	err := i.SetTransform(func(raw any) (any, error) {
		o, ok := raw.(P)
		if !ok {
			return raw, nil // it was trimmed before
		}
		return trim(o), nil
	})
	if err != nil {
		return fmt.Errorf("watch %s: %w", resource, err)
	}
	err = i.SetWatchErrorHandlerWithContext(func(_ context.Context, _ *cache.Reflector, err error) {
		k.logger.Debug("watch ended", "resource", resource, "error", err)
	})
	if err != nil {
		return fmt.Errorf("watch %s: %w", resource, err)
	}
	registration, err := i.AddEventHandler(handler(to))
	if err != nil {
		return fmt.Errorf("watch %s: %w", resource, err)
	}
	k.informers = append(k.informers, informer{i, registration.HasSyncedChecker()})
	return nil
}

// handler passes an informer's events on.
func handler[T any](to watched[T]) cache.ResourceEventHandler {
	return cache.ResourceEventHandlerFuncs{
		AddFunc: func(o any) {
			to.set(o.(*trimmed[T]).value)
		},
		UpdateFunc: func(before, after any) {
			was, is := before.(*trimmed[T]), after.(*trimmed[T])
			if was.uid != is.uid { // made again, and the deletion was missed
				to.remove(was.value)
			}
			to.set(is.value)
		},
		DeleteFunc: func(o any) {
			if unknown, ok := o.(cache.DeletedFinalStateUnknown); ok {
				o = unknown.Obj
			}
			if was, ok := o.(*trimmed[T]); ok {
				to.remove(was.value)
			}
		},
	}
}

// noAnswer is the watch that clients return without an error when the connection
// is closed before there is an answer, as some load balancers do in an outage.
var noAnswer = reflect.TypeOf(watch.NewEmptyWatch())

var errNoAnswer = errors.New("connection closed without an answer")

// listWatch lists and watches what the selector takes, L being the type of lists.
func listWatch[L runtime.Object](api kubeapi.Lister[L], selector string) *cache.ListWatch {
	return &cache.ListWatch{
		ListWithContextFunc: func(ctx context.Context, options metav1.ListOptions) (runtime.Object, error) {
			options.FieldSelector = selector
			return api.List(ctx, options)
		},
		WatchFuncWithContext: func(ctx context.Context, options metav1.ListOptions) (watch.Interface, error) {
			options.FieldSelector = selector
			events, err := api.Watch(ctx, options)
			if err == nil && reflect.TypeOf(events) == noAnswer {
				err = errNoAnswer
			}
			return events, err
		},
	}
}
