// SPDX-License-Identifier: Apache-2.0

package identity

import (
	"bytes"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

const (
	// populatedInterval is how often the cgroups of pods are asked whether they have processes.
	populatedInterval = 10 * time.Second
	// unpopulatedAfter is how long the cgroup of a running pod has to be without a process
	// before that is reported: the pod's sandbox may be about to be made again.
	unpopulatedAfter = 30 * time.Second
)

// UnpopulatedPod is a pod of this node that runs, though there has been no process in its
// cgroup nor below it for a while: its sockets are in cgroups that nobody here knows. So its
// containers and TCP health are unknown, and in the node's network it is not metered.
type UnpopulatedPod struct {
	LocalPod
	// Cgroup is the path of the one that was found, Since when it was first seen so.
	Cgroup string
	Since  time.Time

	told bool
}

// Unpopulated returns these pods in the order of their names.
func (c *Cgroups) Unpopulated() (all []UnpopulatedPod) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, pod := range c.unpopulated {
		if pod.told {
			all = append(all, *pod)
		}
	}
	slices.SortFunc(all, func(a, b UnpopulatedPod) int {
		return strings.Compare(a.Namespace+"/"+a.Name, b.Namespace+"/"+b.Name)
	})
	return all
}

// lookForProcesses finds the pods that run and whose cgroups have no process.
func (c *Cgroups) lookForProcesses() {
	now, pods := c.clock(), c.podPaths()
	c.lookForPods(len(pods) > 0, now)
	found := make(map[string]*UnpopulatedPod)
	for uid, paths := range pods {
		pod, running := c.cache.runningPod(uid)
		if running && !slices.ContainsFunc(paths, populated) {
			found[uid] = &UnpopulatedPod{LocalPod: pod, Cgroup: paths[0], Since: now}
		}
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	for uid, pod := range found {
		if before := c.unpopulated[uid]; before != nil && before.UID == pod.UID {
			pod.Since, pod.told = before.Since, before.told
		}
		if !pod.told && now.Sub(pod.Since) >= unpopulatedAfter {
			pod.told = true
			c.tellUnpopulated(pod)
		}
	}
	c.unpopulated = found
}

// lookForPods says once that pods run and that none has a cgroup here: the kubelet's root is of a shape that is
// not known, or in another hierarchy, as with a driver of cgroup v1.
func (c *Cgroups) lookForPods(found bool, now time.Time) {
	switch {
	case found || !c.cache.runsPods():
		c.without = time.Time{}
	case c.without.IsZero():
		c.without = now
	case !c.toldWithout && now.Sub(c.without) >= unpopulatedAfter:
		c.toldWithout = true
		c.logger.Warn("pods run, and none has a cgroup that podmeter knows: containers and TCP health are unknown, and pods in the node's network are not counted",
			"root", c.root)
	}
}

func (c *Cgroups) tellUnpopulated(pod *UnpopulatedPod) {
	consequence := "its containers and TCP health are unknown"
	if pod.HostNetwork {
		consequence = "its traffic is not counted"
	}
	c.logger.Warn("there is no process in the cgroup of a running pod: its sockets are in cgroups that podmeter does not know",
		"namespace", pod.Namespace, "pod", pod.Name, "cgroup", pod.Cgroup, "consequence", consequence)
}

// podPaths are the cgroups of pods that are there, by what they call the pod. Of a pod of a
// flatCgroup there are several.
func (c *Cgroups) podPaths() map[string][]string {
	c.mu.Lock()
	defer c.mu.Unlock()
	paths := make(map[string][]string)
	for _, known := range c.byID {
		if known.path != "" && known.gone.IsZero() {
			paths[known.pod] = append(paths[known.pod], known.path)
		}
	}
	for _, all := range paths {
		slices.Sort(all)
	}
	return paths
}

// populated reports whether there is a process in a cgroup or below it. One that cannot be
// asked has gone, or is none: nothing is said of it.
func populated(cgroup string) bool {
	events, err := os.ReadFile(filepath.Join(cgroup, "cgroup.events"))
	return err != nil || !slices.ContainsFunc(bytes.Split(events, []byte("\n")), func(line []byte) bool {
		return string(line) == "populated 0"
	})
}
