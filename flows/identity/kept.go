// SPDX-License-Identifier: Apache-2.0

package identity

import (
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/podmeter/podmeter/internal/kubeapi"
	"github.com/podmeter/podmeter/internal/sieve"
)

// What podOf, serviceOf and nodeOf read of objects, and client-go of all of them: nothing else is
// decoded. The numbers are those of k8s.io/api/core/v1/generated.proto and of
// k8s.io/apimachinery/pkg/apis/meta/v1/generated.proto.
var keptFields = kubeapi.Kept{
	"Pod": {
		1: metadata([]string{podTemplateHash}, corev1.MirrorPodAnnotationKey, networkStatus),
		2: sieve.Part(sieve.Message{ // spec
			2:  sieve.Part(sieve.Message{1: sieve.Whole}), // containers: name
			10: sieve.Whole,                               // nodeName
			11: sieve.Whole,                               // hostNetwork
			20: sieve.Part(nil),                           // initContainers: how many
			34: sieve.Part(nil),                           // ephemeralContainers: how many
		}),
		3: sieve.Part(sieve.Message{ // status
			1:  sieve.Whole,           // phase
			6:  sieve.Whole,           // podIP
			7:  sieve.Whole,           // startTime
			8:  keptOfContainerStatus, // containerStatuses
			10: keptOfContainerStatus, // initContainerStatuses
			12: sieve.Whole,           // podIPs
			13: keptOfContainerStatus, // ephemeralContainerStatuses
		}),
	},
	"Service": {
		1: metadata(nil),
		2: sieve.Part(sieve.Message{ // spec
			1:  sieve.Part(sieve.Message{2: sieve.Whole, 3: sieve.Whole}), // ports: protocol, port
			3:  sieve.Whole,                                               // clusterIP
			4:  sieve.Whole,                                               // type
			5:  sieve.Whole,                                               // externalIPs
			18: sieve.Whole,                                               // clusterIPs
		}),
		3: sieve.Part(sieve.Message{ // status
			1: sieve.Part(sieve.Message{ // loadBalancer
				1: sieve.Part(sieve.Message{1: sieve.Whole}), // ingress: ip
			}),
		}),
	},
	"Node": {
		1: metadata([]string{corev1.LabelTopologyZone}, tunnelAnnotations...),
		2: sieve.Part(sieve.Message{ // spec
			1: sieve.Whole, // podCIDR
			7: sieve.Whole, // podCIDRs
		}),
		3: sieve.Part(sieve.Message{ // status
			4: sieve.Part(sieve.Message{1: sieve.Whole, 2: sieve.Whole}), // conditions: type, status
			5: sieve.Part(sieve.Message{2: sieve.Whole}),                 // addresses: address
		}),
	},
}

var (
	keptOfContainerStatus = sieve.Part(sieve.Message{
		1: sieve.Whole, // name
		2: keptOfState, // state
		3: keptOfState, // lastState
		8: sieve.Whole, // containerID
	})
	keptOfState = sieve.Part(sieve.Message{
		2: sieve.Part(nil),                                           // running: whether
		3: sieve.Part(sieve.Message{6: sieve.Whole, 7: sieve.Whole}), // terminated: finishedAt, containerID
	})
)

// metadata is what is kept of the metadata of a kind with some labels and annotations.
func metadata(labels []string, annotations ...string) sieve.Field {
	return sieve.Part(sieve.Message{
		1:  sieve.Whole, // name
		3:  sieve.Whole, // namespace
		5:  sieve.Whole, // uid
		6:  sieve.Whole, // resourceVersion
		8:  sieve.Whole, // creationTimestamp
		9:  sieve.Whole, // deletionTimestamp
		11: sieve.Entries(labels...),
		// The last of the objects that a list as a stream begins with says so.
		12: sieve.Entries(append([]string{metav1.InitialEventsAnnotationKey}, annotations...)...),
		13: sieve.Part(sieve.Message{1: sieve.Whole, 3: sieve.Whole, 6: sieve.Whole}), // ownerReferences: kind, name, controller
	})
}
