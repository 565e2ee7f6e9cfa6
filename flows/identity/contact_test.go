// SPDX-License-Identifier: Apache-2.0

package identity

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/tools/cache"
)

func TestContact(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		begin := time.Now()
		c := newContact(time.Now)
		var err error
		follow := make(map[string]func() (watch.Interface, *watch.FakeWatcher))
		list := make(map[string]func())
		for _, resource := range []string{"pods", "nodes"} {
			var next *watch.FakeWatcher
			lw := c.observe(resource, &cache.ListWatch{
				ListWithContextFunc:  func(context.Context, metav1.ListOptions) (runtime.Object, error) { return nil, err },
				WatchFuncWithContext: func(context.Context, metav1.ListOptions) (watch.Interface, error) { return next, err },
			})
			list[resource] = func() { _, _ = lw.ListWithContext(t.Context(), metav1.ListOptions{}) }
			follow[resource] = func() (watch.Interface, *watch.FakeWatcher) {
				next = watch.NewFake()
				w, _ := lw.WatchWithContext(t.Context(), metav1.ListOptions{})
				return w, next
			}
		}
		expect := func(what string, want time.Time) {
			t.Helper()
			synctest.Wait()
			if got := c.at(); !got.Equal(want) {
				t.Errorf("%s: got %v, want %v", what, got.Sub(begin), want.Sub(begin))
			}
		}
		expect("at first", time.Time{})
		list["pods"]()
		expect("one is listed, nothing is known of the other", time.Time{})
		list["nodes"]()
		expect("both are listed", begin)
		time.Sleep(time.Second)
		pods, podEvents := follow["pods"]()
		expect("one is watched, the other is as old as its list", begin)
		nodes, nodeEvents := follow["nodes"]()
		expect("both are watched", begin.Add(time.Second))
		time.Sleep(time.Minute)
		expect("nothing happens", begin.Add(time.Second))
		go podEvents.Action(watch.Bookmark, &corev1.Pod{})
		<-pods.ResultChan()
		expect("a bookmark for either is news of both", begin.Add(61*time.Second))
		nodeEvents.Stop()
		if _, open := <-nodes.ResultChan(); open {
			t.Error("got an event, want the watch's end")
		}
		time.Sleep(time.Second)
		err = errors.New("no")
		follow["nodes"]()
		go podEvents.Add(&corev1.Pod{})
		<-pods.ResultChan()
		expect("one has no watch", begin.Add(61*time.Second))
		err = nil
		again, _ := follow["nodes"]()
		expect("it has one again", begin.Add(62*time.Second))
		time.Sleep(time.Second)
		later, laterEvents := follow["nodes"]()
		again.Stop()
		time.Sleep(time.Second)
		go laterEvents.Add(&corev1.Node{})
		<-later.ResultChan()
		expect("the end of an earlier watch", begin.Add(64*time.Second))
		pods.Stop()
		later.Stop()
	})
}
