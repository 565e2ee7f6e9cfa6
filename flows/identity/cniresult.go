// SPDX-License-Identifier: Apache-2.0

package identity

import (
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strings"

	"github.com/podmeter/podmeter/flows/plain"
)

const (
	// cniKind is the kind of a file that libcni 0.8 and later write
	// (libcni/api.go of containernetworking/cni). Earlier ones name no pod.
	cniKind = "cniCacheV1"
	// calicoPrefix begins the names of Calico's interfaces on the host. Its plugin
	// lists them with the pod's sandbox and the hardware address of the pod's end
	// (cni-plugin/pkg/k8s/k8s.go of projectcalico/calico).
	calicoPrefix = "cali"
	// maxDevices bounds the interfaces of one result, maxDevice the bytes of the name of
	// one (IFNAMSIZ of linux/if.h less its end). Of a pod's addresses as many are kept
	// as of its status.
	maxDevices = 64
	maxDevice  = 15
)

var (
	errCNIKind  = fmt.Errorf("its kind is not %s", cniKind)
	errCNINoPod = errors.New("it names no pod: K8S_POD_UID, K8S_POD_NAMESPACE and K8S_POD_NAME")
)

// cniResult is what is used of the result of a CNI plugin chain.
type cniResult struct {
	// uid, namespace and name are the pod's as the kubelet knows it.
	uid, namespace, name string
	// devices are the interfaces outside of the sandbox, by name, with their hardware
	// addresses, empty where they are not told.
	devices map[string]string
	// addresses are the pod's.
	addresses []netip.Addr
}

// cniFile is the part of libcni's file that is read.
type cniFile struct {
	Kind   string      `json:"kind"`
	IfName string      `json:"ifName"`
	Args   [][2]string `json:"cniArgs"`
	Result struct {
		Interfaces []cniInterface `json:"interfaces"`
		IPs        []struct {
			Address string `json:"address"`
		} `json:"ips"`
	} `json:"result"`
}

type cniInterface struct {
	Name    string `json:"name"`
	MAC     string `json:"mac"`
	Sandbox string `json:"sandbox"`
}

// parseCNIResult reads a file of libcni's cache. One without interfaces, as plugins
// of CNI 0.2 leave it, is no error.
func parseCNIResult(data []byte) (*cniResult, error) {
	var file cniFile
	if err := json.Unmarshal(data, &file); err != nil {
		return nil, err
	}
	if file.Kind != cniKind {
		return nil, errCNIKind
	}
	if len(file.Result.Interfaces) > maxDevices {
		return nil, fmt.Errorf("it has %d interfaces, more than %d", len(file.Result.Interfaces), maxDevices)
	}
	r := &cniResult{devices: make(map[string]string)}
	for _, arg := range file.Args {
		switch arg[0] {
		case "K8S_POD_UID":
			r.uid = plain.Text(arg[1], plain.UIDLimit)
		case "K8S_POD_NAMESPACE":
			r.namespace = plain.Text(arg[1], plain.LabelLimit)
		case "K8S_POD_NAME":
			r.name = plain.Text(arg[1], plain.NameLimit)
		}
	}
	if r.uid == "" || r.namespace == "" || r.name == "" {
		return nil, errCNINoPod
	}
	for _, i := range file.Result.Interfaces {
		r.add(i, file.IfName)
	}
	for _, ip := range file.Result.IPs[:min(len(file.Result.IPs), maxOwnAddresses)] {
		if prefix, err := netip.ParsePrefix(ip.Address); err == nil {
			r.addresses = append(r.addresses, prefix.Addr().Unmap())
		}
	}
	return r, nil
}

// add takes an interface if it is one of the host's. The pod's own may be listed
// without its sandbox, as kindnet does: the host may have another of that name.
func (r *cniResult) add(i cniInterface, ifName string) {
	if i.Name == ifName || len(i.Name) > maxDevice {
		return
	}
	if i.Sandbox != "" {
		if strings.HasPrefix(i.Name, calicoPrefix) {
			r.devices[i.Name] = ""
		}
		return
	}
	if i.MAC == "" {
		r.devices[i.Name] = ""
		return
	}
	// A plugin may keep something else there, as AWS VPC CNI does: a VLAN's id.
	if mac, err := net.ParseMAC(i.MAC); err == nil {
		r.devices[i.Name] = mac.String()
	}
}

// contradicts reports whether these addresses, which the host routes to an interface
// alone, are others than the result's. Of a family of which the result has none it says nothing:
// the pod may have got its address of that otherwise.
func (r *cniResult) contradicts(routed []netip.Addr) bool {
	told := false
	for _, address := range routed {
		address = address.Unmap()
		if address.IsLinkLocalUnicast() || address.IsUnspecified() {
			continue
		}
		for _, own := range r.addresses {
			if own == address {
				return false
			}
			told = told || own.Is4() == address.Is4()
		}
	}
	return told
}
