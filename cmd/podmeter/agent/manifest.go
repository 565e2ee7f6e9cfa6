// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"errors"
	"fmt"

	"github.com/podmeter/podmeter/datapath"
	"golang.org/x/sys/unix"
)

// apiVariable is what Kubernetes tells every pod of its API server.
const apiVariable = "KUBERNETES_SERVICE_HOST"

// errUnwritable says that the directory of the socket cannot be written.
var errUnwritable = errors.New("nothing can be written there")

// InPod reports whether an environment is a pod's.
func InPod(environ []string) bool { return variables(environ)[apiVariable] != "" }

// InManifest says what a pod's manifest has to have so that an error goes away that
// keeps an agent from starting; empty if the error is none of the manifest's.
func (c Config) InManifest(err error) string {
	switch {
	case errors.Is(err, datapath.ErrCapability):
		return "the container's securityContext needs runAsUser: 0 and capabilities.add: [BPF, PERFMON, NET_ADMIN]"
	case errors.Is(err, datapath.ErrNoBPFFS):
		return fmt.Sprintf("volumes needs hostPath: {path: /sys/fs/bpf/podmeter, type: DirectoryOrCreate}, "+
			"and the container's volumeMounts that volume at mountPath: %s", c.PinPath)
	case errors.Is(err, errUnwritable):
		return fmt.Sprintf("volumes needs hostPath: {path: /run/podmeter, type: DirectoryOrCreate}, and the container's volumeMounts "+
			"that volume, not readOnly, where --socket %s and --state-dir %s are", c.Socket, c.StateDir)
	case errors.Is(err, unix.EROFS):
		return fmt.Sprintf("the container's volumeMounts must not have %s readOnly", c.PinPath)
	case errors.Is(err, unix.EPERM), errors.Is(err, unix.EACCES):
		return "the capabilities are there, but something else forbids it: try securityContext.seccompProfile or appArmorProfile " +
			"{type: Unconfined}, or seLinuxOptions {type: spc_t}"
	}
	return ""
}
