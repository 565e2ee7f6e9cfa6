// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"fmt"
	"os"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
)

// fillers is how many requests are under way at once while the cluster is made.
const fillers = 32

// changers is how many pods are replaced at once.
const changers = 8

// reportInterval is how often a kubelet reports its node's status without a
// change (nodeStatusReportFrequency).
const reportInterval = 5 * time.Minute

// world is the cluster that is measured on.
type world struct {
	options
	client   kubernetes.Interface
	replaced atomic.Int64 // pods
	reported int          // nodes
}

// prepare fills the cluster, unless a file says that it is filled, and prints
// what is in it.
func (w *world) prepare(ctx context.Context, filled string) error {
	if _, err := os.Stat(filled); err != nil {
		began := time.Now()
		if err := w.fill(ctx); err != nil {
			return fmt.Errorf("fill the cluster: %w", err)
		}
		fmt.Printf("filled in %.0f s\n", time.Since(began).Seconds())
		if err := os.WriteFile(filled, nil, 0o600); err != nil {
			return err
		}
	}
	sizes, err := w.sizes(ctx)
	if err != nil {
		return fmt.Errorf("read the cluster: %w", err)
	}
	fmt.Println("cluster: " + sizes)
	return nil
}

func (w *world) fill(ctx context.Context) error {
	for n := range namespaces {
		_, err := w.client.CoreV1().Namespaces().Create(ctx, &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: namespace(n)}}, metav1.CreateOptions{})
		if err != nil {
			return err
		}
	}
	for _, kind := range []struct {
		count  int
		create func(context.Context, int) error
	}{{w.nodes, w.createNode}, {w.services, w.createService}, {w.pods, w.createPod}} {
		group, ctx := errgroup.WithContext(ctx)
		group.SetLimit(fillers)
		for n := range kind.count {
			group.Go(func() error { return kind.create(ctx, n) })
		}
		if err := group.Wait(); err != nil {
			return err
		}
	}
	return nil
}

// createNode makes a node whose status is that of its object: a node's, unlike a
// pod's, is taken as it comes.
func (w *world) createNode(ctx context.Context, n int) error {
	_, err := w.client.CoreV1().Nodes().Create(ctx, node(n), metav1.CreateOptions{})
	return err
}

func (w *world) createService(ctx context.Context, n int) error {
	_, err := w.client.CoreV1().Services(namespace(n)).Create(ctx, service(n), metav1.CreateOptions{})
	return err
}

// createPod makes a pod that runs.
func (w *world) createPod(ctx context.Context, n int) error {
	steps := w.startPod(ctx, n)
	if err := steps[0](); err != nil {
		return err
	}
	return steps[len(steps)-1]()
}

// startPod returns the changes that make a pod: it is created, starts, and runs.
func (w *world) startPod(ctx context.Context, n int) []func() error {
	pod := w.pod(n)
	api := w.client.CoreV1().Pods(pod.Namespace)
	create := func() (err error) {
		pod, err = api.Create(ctx, pod, metav1.CreateOptions{})
		return err
	}
	report := func(running bool) func() error {
		return func() (err error) {
			pod.Status = status(pod, address("10.128.0.2", 256*(n%w.nodes)+n/w.nodes), address("172.16.0.1", n%w.nodes), running)
			pod, err = api.UpdateStatus(ctx, pod, metav1.UpdateOptions{})
			return err
		}
	}
	return []func() error{create, report(false), report(true)}
}

// replacePod returns the changes that replace one pod by another of its name.
func (w *world) replacePod(ctx context.Context) []func() error {
	// A step through all of them that has no common divisor with their number.
	n := int(w.replaced.Add(1)) * 7919 % w.pods
	pod := w.pod(n)
	remove := func() error {
		err := w.client.CoreV1().Pods(pod.Namespace).Delete(ctx, pod.Name, metav1.DeleteOptions{GracePeriodSeconds: new(int64(0))})
		if apierrors.IsNotFound(err) { // an earlier run ended here
			err = nil
		}
		return err
	}
	return append([]func() error{remove}, w.startPod(ctx, n)...)
}

// churn replaces pods, in four changes each, and lets nodes report, until the
// context ends. It returns how many changes of pods were made.
func (w *world) churn(ctx context.Context) (int, error) {
	pods := time.NewTicker(time.Duration(float64(time.Second) / w.changes))
	defer pods.Stop()
	reports := time.NewTicker(reportInterval / time.Duration(w.nodes))
	defer reports.Stop()
	var changes atomic.Int64
	group, ctx := errgroup.WithContext(ctx)
	for range changers {
		group.Go(func() error {
			var steps []func() error
			return each(ctx, pods.C, func() error {
				if len(steps) == 0 {
					steps = w.replacePod(ctx)
				}
				step := steps[0]
				steps = steps[1:]
				changes.Add(1)
				return step()
			})
		})
	}
	group.Go(func() error {
		return each(ctx, reports.C, func() error { return w.report(ctx) })
	})
	err := group.Wait()
	return int(changes.Load()), err
}

// each acts at each tick until the context ends.
func each(ctx context.Context, ticks <-chan time.Time, act func() error) error {
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-ticks:
		}
		if err := act(); err != nil && ctx.Err() == nil {
			return fmt.Errorf("change the cluster: %w", err)
		}
	}
}

// report lets one node report.
func (w *world) report(ctx context.Context) error {
	api := w.client.CoreV1().Nodes()
	node, err := api.Get(ctx, nodeName(w.reported%w.nodes), metav1.GetOptions{})
	if err != nil {
		return err
	}
	w.reported++
	node.Status.Conditions = heartbeat(time.Now())
	_, err = api.UpdateStatus(ctx, node, metav1.UpdateOptions{})
	return err
}

// sizes tells how large the objects are that the API server has.
func (w *world) sizes(ctx context.Context) (string, error) {
	pod := w.pod(0)
	p, err := w.client.CoreV1().Pods(pod.Namespace).Get(ctx, pod.Name, metav1.GetOptions{})
	if err != nil {
		return "", err
	}
	s, err := w.client.CoreV1().Services(namespace(0)).Get(ctx, service(0).Name, metav1.GetOptions{})
	if err != nil {
		return "", err
	}
	n, err := w.client.CoreV1().Nodes().Get(ctx, nodeName(0), metav1.GetOptions{})
	if err != nil {
		return "", err
	}
	return fmt.Sprintf("%d pods of %.1f kB, %d services of %.1f kB, %d nodes of %.1f kB (protobuf)",
		w.pods, float64(p.Size())/1e3, w.services, float64(s.Size())/1e3, w.nodes, float64(n.Size())/1e3), nil
}
