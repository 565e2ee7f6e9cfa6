// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"testing"
	"time"

	"github.com/podmeter/podmeter/internal/ktest"
	"github.com/podmeter/podmeter/internal/kubetest"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
)

// Addresses of the internet, of ranges that the demo's databases place, but for the last of
// worldPlaces, which they do not know.
var (
	worldPlaces = []string{"198.51.100.10", "198.51.100.200", "203.0.113.20", "192.0.2.200"}
	worldNew    = "192.0.2.10"
)

// dashboardWorld is a node of a Kubernetes with two pods in cgroups of their own, a pod on
// another node in another zone, and an internet: what shows in every panel.
type dashboardWorld struct {
	*host
	service     *ktest.ServiceNode
	world       *ktest.Namespace
	api         kubernetes.Interface
	cgroups     *ktest.Cgroup // of all pods
	client, web *ktest.Cgroup
	kubeconfig  string
	talking     sync.WaitGroup
	ctx         context.Context
	discovered  chan struct{} // closed when the pod talks to a place that is new
	late        int           // pods that came while an agent ran
}

func newDashboardWorld(t *testing.T) *dashboardWorld {
	t.Helper()
	server := kubetest.Start(t)
	w := &dashboardWorld{service: ktest.NewServiceNode(t), world: ktest.NewNamespace(t), discovered: make(chan struct{})}
	w.host = hostOf(t, w.service.Node, w.service.Client)
	w.connect(t)
	w.populate(t, server)
	w.kubeconfig = gateInto(t, w.node, server)
	return w
}

// connect joins the internet to the node.
func (w *dashboardWorld) connect(t *testing.T) {
	t.Helper()
	w.node.Veth(t, "up0", w.world, "eth0")
	w.node.Address(t, "up0", "172.16.0.1/30")
	w.world.Address(t, "eth0", "172.16.0.2/30")
	for _, address := range append(worldPlaces, worldNew) {
		w.world.Address(t, "lo", address+"/32")
		route(t, w.node, address+"/32", "172.16.0.2")
	}
	route(t, w.world, "10.1.0.0/16", "172.16.0.1")
}

// populate makes what the API server knows, and the cgroups of the node's pods.
func (w *dashboardWorld) populate(t *testing.T, server *kubetest.Server) {
	t.Helper()
	var err error
	if w.api, err = server.Client(); err != nil {
		t.Fatal(err)
	}
	for _, namespace := range []string{"shop", "batch"} {
		createNamespace(t, w.api, namespace)
	}
	createNode(t, w.api, "here", "zone-a")
	createNode(t, w.api, "far", "zone-b")
	service := &corev1.Service{ObjectMeta: metav1.ObjectMeta{Name: "web", Namespace: "shop"},
		Spec: corev1.ServiceSpec{ClusterIP: ktest.Service4, Ports: []corev1.ServicePort{{Port: 80}}}}
	if _, err := w.api.CoreV1().Services("shop").Create(t.Context(), service, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	w.cgroups = ktest.NewCgroup(t).Child(t, "kubepods")
	w.client = w.createPod(t, "shop", "client", "here", ktest.Client4)
	w.web = w.createPod(t, "shop", "web", "here", ktest.Blue4)
	w.createPod(t, "batch", "report", "far", ktest.Green4)
}

// createPod makes a pod of a workload with one container, and returns the cgroup of that.
func (w *dashboardWorld) createPod(t *testing.T, namespace, workload, on, address string) *ktest.Cgroup {
	t.Helper()
	owner := metav1.OwnerReference{APIVersion: "apps/v1", Kind: "StatefulSet", Name: workload, UID: "1", Controller: new(true)}
	pod := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: workload + "-0", Namespace: namespace, OwnerReferences: []metav1.OwnerReference{owner}},
		Spec: corev1.PodSpec{NodeName: on, Containers: []corev1.Container{{Name: "main", Image: "none"}}}}
	id := fmt.Sprintf("%x", sha256.Sum256([]byte(workload))) // as long as a runtime's
	uid := createPod(t, w.api, pod, address, corev1.ContainerStatus{Name: "main", ContainerID: "containerd://" + id,
		State: corev1.ContainerState{Running: &corev1.ContainerStateRunning{StartedAt: metav1.Now()}}})
	return w.cgroups.Child(t, "pod"+string(uid)).Child(t, id)
}

// addLate makes a pod on the node that an agent runs on. What it sends before the API server
// knows its address is unattributed: attached by netlink its interface waits for that.
func (w *dashboardWorld) addLate(t *testing.T) {
	t.Helper()
	w.late++
	name, address := fmt.Sprint("late-", w.late), fmt.Sprint("10.1.9.", 1+w.late)
	pod := ktest.NewNamespace(t)
	index := w.node.Veth(t, "veth-"+name, pod, "eth0")
	w.node.Address(t, "veth-"+name, "10.1.9.1/32")
	pod.Address(t, "eth0", address+"/24")
	err := w.node.Do(func() error {
		to := &net.IPNet{IP: net.ParseIP(address).To4(), Mask: net.CIDRMask(32, 32)}
		return netlink.RouteAdd(&netlink.Route{LinkIndex: index, Dst: to, Scope: netlink.SCOPE_LINK})
	})
	if err != nil {
		t.Fatalf("route to the late pod: %v", err)
	}
	pod.Send(t, "10.1.9.1:9", 100, 20)
	w.createPod(t, "batch", name, "here", address)
}

// talk lets a pod do something every 50 ms, in its cgroup and its network, until the end.
func (w *dashboardWorld) talk(t *testing.T, in *ktest.Cgroup, pod *ktest.Namespace, talk func() error) {
	w.talking.Go(func() {
		err := in.Do(pod, func() error {
			ticker := time.NewTicker(50 * time.Millisecond)
			defer ticker.Stop()
			for {
				if err := talk(); err != nil {
					return err
				}
				select {
				case <-w.ctx.Done():
					return nil
				case <-ticker.C:
				}
			}
		})
		if err != nil {
			t.Errorf("talk: %v", err)
		}
	})
}

// start begins all traffic. Each 20th packet that the web's sockets are to receive is lost.
func (w *dashboardWorld) start(t *testing.T) {
	t.Helper()
	swallowAt(t, w.web, w.service.Blue)
	swallowAt(t, nil, w.service.Green)
	swallowAt(t, nil, w.world)
	w.web.Lose(t, 20)
	ctx, cancel := context.WithCancel(context.Background())
	w.ctx = ctx
	t.Cleanup(func() { // before what it talks to ends
		cancel()
		w.talking.Wait()
	})
	w.talk(t, w.client, w.service.Client, func() error {
		return errors.Join(datagram(ktest.Blue4+":8080"), datagram(ktest.Service4+":80"), datagram(ktest.Green4+":8080"), refused(worldPlaces[0]+":1"))
	})
	w.talk(t, w.web, w.service.Blue, func() error { return errors.Join(datagram(ktest.Client4+":9"), datagram(ktest.Green4+":8080")) })
	for _, to := range append([]string{ktest.Blue4, ktest.Green4}, worldPlaces...) {
		w.talk(t, w.client, w.service.Client, stream(w.ctx, to+":8090"))
	}
	w.talk(t, w.client, w.service.Client, func() error {
		select {
		case <-w.discovered:
			return datagram(worldNew + ":9")
		default:
			return nil
		}
	})
}

// swallowAt swallows what comes by TCP to port 8090.
func swallowAt(t *testing.T, in *ktest.Cgroup, ns *ktest.Namespace) {
	t.Helper()
	var listener net.Listener
	listen := func() (err error) {
		listener, err = net.Listen("tcp4", ":8090")
		return err
	}
	var err error
	if in != nil {
		err = in.Do(ns, listen)
	} else {
		err = ns.Do(listen)
	}
	if err != nil {
		t.Fatal(err)
	}
	var served sync.WaitGroup
	t.Cleanup(served.Wait)
	t.Cleanup(func() { listener.Close() })
	served.Go(func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			served.Go(func() {
				io.Copy(io.Discard, conn)
				conn.Close()
			})
		}
	})
}

func datagram(to string) error {
	conn, err := net.Dial("udp4", to)
	if err != nil {
		return err
	}
	defer conn.Close()
	_, err = conn.Write(make([]byte, 100))
	return err
}

// refused asks for a connection where nobody listens.
func refused(to string) error {
	if _, err := net.Dial("tcp4", to); !errors.Is(err, unix.ECONNREFUSED) {
		return fmt.Errorf("connect to %s: got %w, want it refused", to, err)
	}
	return nil
}

// stream writes to one connection, and now and then begins another.
func stream(ctx context.Context, to string) func() error {
	var conn net.Conn
	written := 0
	return func() error {
		if conn == nil || written == 20 {
			next, err := new(net.Dialer).DialContext(ctx, "tcp4", to)
			if err != nil {
				return ignoreEnd(ctx, err)
			}
			if conn != nil {
				conn.Close()
			}
			conn, written = next, 0
			context.AfterFunc(ctx, func() { next.Close() })
		}
		written++
		_, err := conn.Write(make([]byte, 4000))
		return ignoreEnd(ctx, err)
	}
}

// ignoreEnd leaves out what the end of the test brings about.
func ignoreEnd(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return nil
	}
	return err
}
