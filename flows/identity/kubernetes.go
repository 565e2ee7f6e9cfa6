// SPDX-License-Identifier: Apache-2.0

package identity

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/go-logr/logr"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/client-go/tools/cache"
	"k8s.io/klog/v2"

	"github.com/podmeter/podmeter/flows"
	"github.com/podmeter/podmeter/internal/kubeapi"
	"github.com/podmeter/podmeter/internal/ratelog"
)

// Scope says which pods the source [Kubernetes] reads.
type Scope string

// The scopes. With ScopeNode peers on other nodes are known only as cluster.
const (
	ScopeCluster Scope = "cluster" // all pods
	ScopeNode    Scope = "node"    // this node's pods
)

// scheduled selects the pods that have a node. The others have no address and no traffic,
// and anybody may make as many as the API server holds.
const scheduled = "spec.nodeName!="

// newsAge is how old the news that a pod has ended may be when it arrives.
const newsAge = 5 * time.Second

// KubernetesOptions configure a [Kubernetes] source.
type KubernetesOptions struct {
	// Client is from [NewClient].
	Client *kubeapi.API
	// Scope is ScopeCluster if empty.
	Scope Scope
	// CNICache is the directory of libcni's caches, which tell interfaces' pods;
	// empty for none. It need not exist.
	CNICache string
	Logger   *slog.Logger
}

// Kubernetes is the source that watches pods, services and nodes.
type Kubernetes struct {
	cache     *Cache
	logger    *slog.Logger
	access    *access
	contact   *contact
	results   *cniCache // nil for none
	informers []informer
	synced    chan struct{}
	// copies are the pods of which was said that they are no mirrors.
	copies map[string]bool
}

// informer is a shared informer and when its first objects are in the cache.
type informer struct {
	cache.SharedIndexInformer
	delivered cache.DoneChecker
}

// NewKubernetes returns a source that fills the cache when it runs. The cache's
// options must name this node: no pod is local otherwise.
func NewKubernetes(c *Cache, options KubernetesOptions) (*Kubernetes, error) {
	node, _ := c.Here()
	if node == "" {
		return nil, errors.New("watch Kubernetes: this node's name is not known")
	}
	k := &Kubernetes{
		cache: c, logger: options.Logger, synced: make(chan struct{}), copies: make(map[string]bool),
		access: newAccess(options.Logger, c.clock), contact: newContact(c.clock),
	}
	if options.CNICache != "" {
		k.results = newCNICache(options.CNICache, c.clock, options.Logger)
	}
	var pods string
	switch options.Scope {
	case ScopeNode:
		pods = "spec.nodeName=" + node
	case ScopeCluster, "":
		pods = scheduled
	default:
		return nil, fmt.Errorf("watch Kubernetes: unknown scope %q", options.Scope)
	}
	return k, errors.Join(
		watchPods(k, options.Client, pods),
		watchServices(k, options.Client),
		watchNodes(k, options.Client),
	)
}

// Run implements [Source]. It returns nil when the context ends, and may be
// called once. What the API server refuses is in the status, and tried again.
func (k *Kubernetes) Run(ctx context.Context) error {
	library := ratelog.Apart(k.logger)
	defer ratelog.Flush(library)
	logged := klog.NewContext(ctx, logr.FromSlogHandler(library.Handler()))
	var running sync.WaitGroup
	defer running.Wait()
	if k.results != nil {
		running.Go(func() { k.results.watch(ctx) })
	}
	var delivered []cache.DoneChecker
	for _, i := range k.informers {
		running.Go(func() { i.RunWithContext(logged) })
		delivered = append(delivered, i.delivered)
	}
	if cache.WaitFor(ctx, "", delivered...) {
		k.logger.Info("identity synced", "source", "kubernetes", "objects", k.cache.Counts())
		close(k.synced)
	}
	<-ctx.Done()
	return nil
}

// Synced implements [Source].
func (k *Kubernetes) Synced() <-chan struct{} { return k.synced }

// Made reports whether the CNI plugins are done with an interface, as libcni's cache
// tells: it has their result then. False is no answer.
func (k *Kubernetes) Made(i flows.Interface) bool {
	return cniBinder{results: k.results, cache: k.cache}.sandboxOf(i) != nil
}

// Binder implements [Source]. What libcni's cache says goes before addresses.
func (k *Kubernetes) Binder() flows.Binder {
	addresses := flows.AddressBinder{Directory: k.cache, MinAge: newsAge, Now: k.cache.clock}
	return cniBinder{results: k.results, cache: k.cache, fallback: addresses}
}

// Status implements [Source]. The problem is a missing right, or before the
// first sync any error; once synced the API server may be away: the age of
// Updated tells.
func (k *Kubernetes) Status() Status {
	s := Status{Source: "kubernetes", Objects: k.cache.Counts(), Updated: k.contact.at()}
	select {
	case <-k.synced:
		s.Synced = true
	default:
	}
	s.Problem = k.access.problem(s.Synced)
	return s
}

// podOf returns what is used of a pod, with its containers if they can be on this node.
func (k *Kubernetes) podOf(p *corev1.Pod) *Pod {
	pod := podOf(p)
	if here, _ := k.cache.Here(); pod.Container == "" && p.Spec.NodeName == here {
		pod.Containers = pod.Over.containersOf(p)
	}
	return pod
}

func watchPods(k *Kubernetes, api *kubeapi.API, selector string) error {
	return add(k, "pods", selector, api, listWatch(api.Pods, selector), keptFields["Pod"], k.podOf, watched[Pod]{
		set:    k.setPod,
		remove: k.cache.DeletePod,
	})
}

func watchServices(k *Kubernetes, api *kubeapi.API) error {
	return add(k, "services", "", api, listWatch(api.Services, ""), keptFields["Service"], serviceOf, watched[Service]{
		set: func(s *Service) {
			k.cache.SetService(s)
			s.Addresses, s.Shared, s.Ports = nil, nil, nil // the informer keeps it, and needs them no more
		},
		remove: func(s *Service) { k.cache.DeleteService(s.UID) },
	})
}

func watchNodes(k *Kubernetes, api *kubeapi.API) error {
	return add(k, "nodes", "", api, listWatch(api.Nodes, ""), keptFields["Node"], nodeOf, watched[Node]{
		set:    k.cache.SetNode,
		remove: func(n *Node) { k.cache.DeleteNode(n.Name) },
	})
}
