// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"fmt"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"

	"golang.org/x/sync/errgroup"
)

// fillers is how many requests are under way at once while the cluster is made.
const fillers = 32

// reportInterval is how often a kubelet reports its node's status without a
// change (nodeStatusReportFrequency).
const reportInterval = 5 * time.Minute

// world is the cluster that is measured on.
type world struct {
	options
	client  kubernetes.Interface
	changed int // pods that were replaced
	beaten  int // nodes that reported
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
	_, err := w.client.CoreV1().Nodes().Create(ctx, w.node(n), metav1.CreateOptions{})
	return err
}

func (w *world) createService(ctx context.Context, n int) error {
	_, err := w.client.CoreV1().Services(namespace(n)).Create(ctx, w.service(n), metav1.CreateOptions{})
	return err
}

// createPod makes a pod, which starts and runs: three changes.
func (w *world) createPod(ctx context.Context, n int) error {
	steps, err := w.startPod(ctx, n)
	for _, step := range steps {
		if err == nil {
			err = step()
		}
	}
	return err
}

// startPod returns the changes that make a pod.
func (w *world) startPod(ctx context.Context, n int) (steps []func() error, err error) {
	pod := w.pod(n)
	api := w.client.CoreV1().Pods(pod.Namespace)
	report := func(running bool) func() error {
		return func() (err error) {
			pod.Status = status(pod, address("10.128.0.2", 256*(n%w.nodes)+n/w.nodes), address("172.16.0.1", n%w.nodes), running)
			pod, err = api.UpdateStatus(ctx, pod, metav1.UpdateOptions{})
			return err
		}
	}
	return []func() error{
		func() (err error) {
			pod, err = api.Create(ctx, pod, metav1.CreateOptions{})
			return err
		}, report(false), report(true),
	}, nil
}

// churn replaces pods, in four changes each, and lets nodes report, until the
// context ends. It returns how many changes of pods were made.
func (w *world) churn(ctx context.Context) (changes int, err error) {
	pods := time.NewTicker(time.Duration(float64(time.Second) / w.changes))
	defer pods.Stop()
	reports := time.NewTicker(reportInterval / time.Duration(w.nodes))
	defer reports.Stop()
	var steps []func() error
	for {
		select {
		case <-ctx.Done():
			return changes, nil
		case <-reports.C:
			err = w.report(ctx)
		case <-pods.C:
			if len(steps) == 0 {
				steps, err = w.replacePod(ctx)
			}
			if err == nil {
				err, steps = steps[0](), steps[1:]
				changes++
			}
		}
		if err != nil && ctx.Err() == nil {
			return changes, fmt.Errorf("change the cluster: %w", err)
		}
	}
}

// replacePod returns the changes that replace one pod by another of its name.
func (w *world) replacePod(ctx context.Context) ([]func() error, error) {
	// A step through all of them that has no common divisor with their number.
	n := w.changed * 7919 % w.pods
	w.changed++
	steps, err := w.startPod(ctx, n)
	pod := w.pod(n)
	remove := func() error {
		return w.client.CoreV1().Pods(pod.Namespace).Delete(ctx, pod.Name, metav1.DeleteOptions{GracePeriodSeconds: new(int64(0))})
	}
	return append([]func() error{remove}, steps...), err
}

// report lets one node report.
func (w *world) report(ctx context.Context) error {
	api := w.client.CoreV1().Nodes()
	node, err := api.Get(ctx, nodeName(w.beaten%w.nodes), metav1.GetOptions{})
	if err != nil {
		return err
	}
	w.beaten++
	node.Status.Conditions = heartbeat(time.Now())
	_, err = api.UpdateStatus(ctx, node, metav1.UpdateOptions{})
	return err
}
