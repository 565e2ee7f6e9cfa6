// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/podmeter/podmeter/datapath"
	"github.com/podmeter/podmeter/flows/identity"
)

// hostPodsInterval is how often it is looked for pods in the node's network that no event
// told of: the API may tell of a pod after its cgroup was made.
const hostPodsInterval = time.Second

// findCgroups finds the node's cgroups, which tell containers apart and where pods in the
// node's network are metered, if one of both is wanted.
func (a *Agent) findCgroups(context.Context) error {
	if a.config.Identity != IdentityKubernetes || a.config.Sockets == ModeOff && a.config.HostPods == ModeOff {
		return nil
	}
	root, err := datapath.CgroupRoot(a.config.CgroupRoot)
	if err != nil {
		err = Usage(fmt.Errorf("--cgroup-root: %w", err))
		return errors.Join(a.withoutSockets(err), a.withoutHostPods(err))
	}
	a.cgroups = identity.NewCgroups(root, a.identity.cache, a.log)
	return nil
}

// scannedCgroups is closed when the cgroups are known, and at once if they are not looked
// at.
func (a *Agent) scannedCgroups() <-chan struct{} {
	if a.cgroups != nil {
		return a.cgroups.Scanned()
	}
	known := make(chan struct{})
	close(known)
	return known
}

// withoutHostPods goes on without them, unless they are asked for.
func (a *Agent) withoutHostPods(err error) error {
	return a.goWithout(a.config.HostPods, "pods in the node's network are not metered", err)
}

// goWithout says what follows from an error, unless the mode is off; with on it is the
// agent's.
func (a *Agent) goWithout(mode, consequence string, err error) error {
	switch mode {
	case ModeOn:
		return err
	case ModeAuto:
		a.log.Warn(consequence, "error", err)
	}
	return nil
}

// followHostPods meters the pods in the node's network that come, until ctx is done.
func (a *Agent) followHostPods(ctx context.Context) error {
	if a.cgroups == nil || a.config.HostPods == ModeOff {
		return a.meter.MeterHostPods(nil)
	}
	poll := time.NewTicker(hostPodsInterval)
	defer poll.Stop()
	var told string
	for {
		err := a.meter.MeterHostPods(a.hostPods())
		switch {
		case err == nil:
			told = ""
		case a.config.HostPods == ModeOn:
			return err
		case told != err.Error():
			told = err.Error()
			a.log.Warn("not all pods in the node's network are metered", "error", err)
		}
		select {
		case <-ctx.Done():
			return nil
		case <-a.cgroups.Appeared():
		case <-poll.C:
		}
	}
}

func (a *Agent) hostPods() (all []datapath.HostPod) {
	for _, pod := range a.cgroups.HostPods() {
		all = append(all, datapath.HostPod(pod))
	}
	return all
}

// unpopulated are the running pods in whose cgroup there is no process.
func (a *Agent) unpopulated() []identity.UnpopulatedPod {
	if a.cgroups == nil {
		return nil
	}
	return a.cgroups.Unpopulated()
}

func (a *Agent) unpopulatedStatus() (all []UnpopulatedStatus) {
	for _, pod := range a.unpopulated() {
		all = append(all, UnpopulatedStatus{
			Namespace: pod.Namespace, Pod: pod.Name, HostNetwork: pod.HostNetwork, Cgroup: pod.Cgroup, Since: pod.Since,
		})
	}
	return all
}
