// SPDX-License-Identifier: Apache-2.0

package identity

import (
	"context"
	"fmt"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/tools/cache"
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

// watched is where the changes of a kind of objects go.
type watched[T any] struct{ set, remove func(*T) }

// object is an API object of type O.
type object[O any] interface {
	*O
	runtime.Object
	metav1.Object
}

// add makes the informer of one kind of objects.
func add[O, T any, P object[O]](k *Kubernetes, resource string, client any, lw *cache.ListWatch, convert func(P) *T, to watched[T]) error {
	lw = k.access.observe(resource, lw, k.touch)
	i := cache.NewSharedIndexInformer(cache.ToListWatcherWithWatchListSemantics(lw, client), P(new(O)), 0, nil)
	err := i.SetTransform(func(raw any) (any, error) {
		o, ok := raw.(P)
		if !ok {
			return raw, nil // it was trimmed before
		}
		return &trimmed[T]{o.GetNamespace(), o.GetName(), string(o.GetUID()), o.GetResourceVersion(), convert(o)}, nil
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
	registration, err := i.AddEventHandler(handler(k, to))
	if err != nil {
		return fmt.Errorf("watch %s: %w", resource, err)
	}
	k.informers = append(k.informers, informer{i, registration.HasSyncedChecker()})
	return nil
}

// handler passes an informer's events on.
func handler[T any](k *Kubernetes, to watched[T]) cache.ResourceEventHandler {
	return cache.ResourceEventHandlerFuncs{
		AddFunc: func(o any) {
			to.set(o.(*trimmed[T]).value)
			k.touch()
		},
		UpdateFunc: func(before, after any) {
			was, is := before.(*trimmed[T]), after.(*trimmed[T])
			if was.uid != is.uid { // made again, and the deletion was missed
				to.remove(was.value)
			}
			to.set(is.value)
			k.touch()
		},
		DeleteFunc: func(o any) {
			if unknown, ok := o.(cache.DeletedFinalStateUnknown); ok {
				o = unknown.Obj
			}
			if was, ok := o.(*trimmed[T]); ok {
				to.remove(was.value)
			}
			k.touch()
		},
	}
}

// listWatch lists and watches with a typed client, L being its type of lists.
func listWatch[L runtime.Object](
	list func(context.Context, metav1.ListOptions) (L, error),
	follow func(context.Context, metav1.ListOptions) (watch.Interface, error), selector string,
) *cache.ListWatch {
	return &cache.ListWatch{
		ListWithContextFunc: func(ctx context.Context, options metav1.ListOptions) (runtime.Object, error) {
			options.FieldSelector = selector
			return list(ctx, options)
		},
		WatchFuncWithContext: func(ctx context.Context, options metav1.ListOptions) (watch.Interface, error) {
			options.FieldSelector = selector
			return follow(ctx, options)
		},
	}
}
