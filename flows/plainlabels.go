// SPDX-License-Identifier: Apache-2.0

package flows

import "github.com/podmeter/podmeter/flows/plain"

// What was kept by an earlier build need not have passed plain.Text: labels and names
// are bounded when a state is restored, as they are where they come from. A later build may know more
// kinds, localities and protocols.

// bound makes texts plain.
func bound(limit int, texts ...*string) {
	for _, text := range texts {
		*text = plain.Text(*text, limit)
	}
}

// bound makes a kind that this build does not know other, as the next two do theirs.
func (k *PeerKind) bound() {
	if int(*k) >= len(peerKindNames) {
		*k = PeerOther
	}
}

func (l *Locality) bound() {
	if int(*l) >= len(localityNames) {
		*l = LocalityUnknown
	}
}

func (p *Protocol) bound() {
	if int(*p) >= len(protocolNames) {
		*p = ProtoOther
	}
}

func (l *FlowLabels) bound() {
	l.PeerKind.bound()
	l.Locality.bound()
	l.Protocol.bound()
	bound(plain.LabelLimit, &l.Container, &l.Workload.Type, &l.PeerNamespace, &l.PeerWorkloadType, &l.Service)
	bound(plain.NameLimit, &l.Workload.Name, &l.Peer, &l.PeerPod)
	bound(plain.KernelLimit, &l.Process)
}

func (l *ExternalLabels) bound() {
	bound(plain.LabelLimit, &l.Container)
	bound(plain.PlaceLimit, &l.Country, &l.ASN, &l.Organization, &l.City, &l.Latitude, &l.Longitude)
}

func (l *UplinkLabels) bound() {
	l.PeerKind.bound()
	l.Locality.bound()
	bound(plain.KernelLimit, &l.Interface)
	bound(plain.NameLimit, &l.Peer)
	bound(plain.PlaceLimit, &l.Country, &l.ASN, &l.Organization)
}

func (p *Pod) bound() {
	bound(plain.MessageLimit, &p.UID) // nobody sees it
	bound(plain.LabelLimit, &p.Namespace, &p.Workload.Type, &p.Container, &p.Zone)
	bound(plain.NameLimit, &p.Name, &p.Workload.Name, &p.Node)
}
