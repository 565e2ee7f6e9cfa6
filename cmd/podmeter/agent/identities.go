// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"slices"
	"sync"
	"time"

	"github.com/podmeter/podmeter/datapath"
	"github.com/podmeter/podmeter/flows"
	"github.com/podmeter/podmeter/flows/identity"
	"github.com/podmeter/podmeter/internal/kubeapi"
	"k8s.io/client-go/rest"
)

// hostInterval is how often this host's own addresses are looked up.
const hostInterval = 10 * time.Second

// identities are the directory and what fills it.
type identities struct {
	log    *slog.Logger
	cache  *identity.Cache
	source identity.Source
	// client is of the API server, nil without Kubernetes.
	client *kubeapi.API
	// reloads read files again.
	reloads []func() error
	// ready is the datapath's Options.Ready, nil without Kubernetes.
	ready func(flows.Interface) bool

	mu   sync.Mutex
	host time.Time // when this host's addresses were last looked up
}

func newIdentities(config Config, version string, log *slog.Logger) (*identities, error) {
	i := &identities{log: log, cache: identity.NewCache(identity.CacheOptions{Node: config.NodeName, Logger: log})}
	if err := i.openSource(config, version); err != nil {
		return nil, err
	}
	if config.CIDRFile == "" {
		return i, nil
	}
	ranges, err := identity.NewCIDRFile(i.cache, config.CIDRFile)
	i.reloads = append(i.reloads, ranges.Reload)
	return i, Usage(about("cidr-file", err))
}

func (i *identities) openSource(config Config, version string) (err error) {
	switch config.Identity {
	case IdentityKubernetes:
		return i.openKubernetes(config, version)
	case IdentityStatic:
		static, err := identity.NewStatic(i.cache, config.StaticFile)
		i.source, i.reloads = static, append(i.reloads, static.Reload)
		return Usage(about("static-file", err))
	}
	i.source = identity.None{Cache: i.cache}
	return nil
}

func (i *identities) openKubernetes(config Config, version string) error {
	var err error
	if i.client, err = identity.NewClient(config.Kubeconfig, "podmeter/"+version); errors.Is(err, rest.ErrNotInCluster) {
		return Usage(NewFault("kubeconfig", "is missing", "outside of a pod a file is expected, such as /etc/kubernetes/admin.conf"))
	} else if err != nil {
		return Usage(about("kubeconfig", err))
	}
	source, err := identity.NewKubernetes(i.cache, identity.KubernetesOptions{
		Client: i.client, Scope: identity.Scope(config.Scope), CNICache: config.CNICache, Logger: i.log,
	})
	if err != nil {
		return err
	}
	i.source = source
	i.ready = func(candidate flows.Interface) bool {
		return source.Made(candidate) || hasPod(i.cache, candidate.Addresses, time.Now())
	}
	return nil
}

// hasPod reports whether one of the addresses is that of a pod of this node: the
// pod has it in its status, so the CNI plugins have done their work.
func hasPod(directory flows.Directory, addresses []netip.Addr, now time.Time) bool {
	return slices.ContainsFunc(addresses, func(address netip.Addr) bool {
		return directory.LocalPod(address, now, now) != nil
	})
}

// refreshHost tells the cache this host's own addresses, now and then.
func (i *identities) refreshHost(now time.Time) {
	i.mu.Lock()
	defer i.mu.Unlock()
	if now.Sub(i.host) < hostInterval {
		return
	}
	i.host = now
	addresses, err := datapath.HostAddresses()
	if err != nil {
		i.log.Warn("look up this host's addresses", "error", err)
		return
	}
	i.cache.SetHostAddresses(addresses)
}

func (i *identities) reload() error {
	var errs []error
	for _, reload := range i.reloads {
		errs = append(errs, reload())
	}
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("reload identity, what was known stays: %w", err)
	}
	return nil
}
