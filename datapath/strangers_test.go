// SPDX-License-Identifier: Apache-2.0

package datapath

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/link"
	"github.com/podmeter/podmeter/flows"
	"github.com/podmeter/podmeter/internal/ktest"
	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

// bystander is somebody else's program, which lets every packet pass on.
func bystander(t testing.TB, kind ebpf.ProgramType) *ebpf.Program {
	t.Helper()
	result := int32(-1) // TC_ACT_UNSPEC
	if kind == ebpf.XDP {
		result = 2 // XDP_PASS
	}
	program, err := ebpf.NewProgram(&ebpf.ProgramSpec{
		Name: "bystander", Type: kind, License: "GPL",
		Instructions: asm.Instructions{asm.Mov.Imm(asm.R0, result), asm.Return()},
	})
	if err != nil {
		t.Fatalf("load program: %v", err)
	}
	t.Cleanup(func() { program.Close() })
	return program
}

// add adds somebody's qdisc or filter to the interface.
func (w *wire) add(t testing.TB, what any) {
	t.Helper()
	err := w.host.Do(func() error {
		switch what := what.(type) {
		case netlink.Filter:
			what.Attrs().LinkIndex = w.index
			return netlink.FilterAdd(what)
		case netlink.Qdisc:
			what.Attrs().LinkIndex = w.index
			return netlink.QdiscAdd(what)
		}
		return fmt.Errorf("unknown %T", what)
	})
	if err != nil {
		t.Fatalf("add %T: %v", what, err)
	}
}

const (
	hookIngress = netlink.HANDLE_MIN_INGRESS
	hookEgress  = netlink.HANDLE_MIN_EGRESS
)

// bpfFilter is somebody's filter that lets every packet pass on.
func bpfFilter(t testing.TB, parent uint32, priority, protocol uint16, handle uint32, name string) *netlink.BpfFilter {
	return &netlink.BpfFilter{
		FilterAttrs: netlink.FilterAttrs{Parent: parent, Priority: priority, Protocol: protocol, Handle: handle},
		Fd:          bystander(t, ebpf.SchedCLS).FD(), Name: name, DirectAction: true,
	}
}

// u32Filter is somebody's filter that matches nothing that is sent.
func u32Filter(parent uint32, priority, protocol uint16) *netlink.U32 {
	return &netlink.U32{
		FilterAttrs: netlink.FilterAttrs{Parent: parent, Priority: priority, Protocol: protocol},
		ClassId:     netlink.MakeHandle(1, 1),
		Sel: &netlink.TcU32Sel{
			Flags: nl.TC_U32_TERMINAL, Nkeys: 1,
			Keys: []netlink.TcU32Key{{Mask: 0xffffffff, Val: 0xc0000201, Off: 16}}, // to 192.0.2.1
		},
	}
}

// haveU32 reports whether the kernel has this kind of filter, and says if not.
func haveU32(t testing.TB) bool {
	t.Helper()
	w := newWire(t)
	w.addClsact(t)
	filter := u32Filter(hookIngress, 1, unix.ETH_P_ALL)
	filter.LinkIndex = w.index
	err := w.host.Do(func() error { return netlink.FilterAdd(filter) })
	if err != nil {
		t.Logf("left out, as the kernel has no u32 filters: %v", err)
	}
	return err == nil
}

func ingressQdisc() *netlink.Ingress {
	return &netlink.Ingress{QdiscAttrs: netlink.QdiscAttrs{
		Handle: netlink.MakeHandle(0xffff, 0), Parent: netlink.HANDLE_INGRESS,
	}}
}

// tbf shapes, but nothing that is sent here.
func tbf() *netlink.Tbf {
	return &netlink.Tbf{
		QdiscAttrs: netlink.QdiscAttrs{Handle: netlink.MakeHandle(7, 0), Parent: netlink.HANDLE_ROOT},
		Rate:       1 << 30, Limit: 1 << 24, Buffer: 1 << 24,
	}
}

// addTCX attaches somebody's program in both directions, with its links pinned
// nowhere: they end with the test.
func (w *wire) addTCX(t testing.TB, anchor link.Anchor) {
	t.Helper()
	for d := range flows.Direction(flows.Directions) {
		err := w.host.Do(func() error {
			l, err := link.AttachTCX(link.TCXOptions{
				Interface: w.index, Program: bystander(t, ebpf.SchedCLS), Attach: tcxAttachType(d), Anchor: anchor,
			})
			if err == nil {
				t.Cleanup(func() { l.Close() })
			}
			return err
		})
		if err != nil {
			t.Fatalf("attach foreign TCX program: %v", err)
		}
	}
}

// inventory is what there is in a network namespace on all interfaces, in the
// kernel's order: qdiscs, filters, TCX programs.
type inventory struct {
	// all is everything, foreign what is not of the meters of this test.
	all, foreign []string
}

// takeInventory lists a namespace. What has our names counts as ours if it is of a
// meter with one of these pin paths.
func takeInventory(t testing.TB, host *ktest.Namespace, paths ...string) (i inventory) {
	t.Helper()
	handles := make(map[uint32]bool)
	for _, path := range paths {
		handles[filterHandle(path)] = true
	}
	err := host.Do(func() error {
		links, err := listLinks()
		if err != nil {
			return err
		}
		for _, l := range links {
			index := l.Attrs().Index
			if err := i.qdiscs(index); err != nil {
				return err
			}
			for _, parent := range []uint32{hookIngress, hookEgress} {
				if err := i.filters(index, parent, handles); err != nil {
					return err
				}
			}
			for d := range flows.Direction(flows.Directions) {
				if err := i.programs(index, d); err != nil {
					return err
				}
			}
		}
		return nil
	})
	if err != nil {
		t.Fatalf("take inventory: %v", err)
	}
	return i
}

func (i *inventory) add(ours bool, format string, arguments ...any) {
	entry := fmt.Sprintf(format, arguments...)
	i.all = append(i.all, entry)
	if !ours {
		i.foreign = append(i.foreign, entry)
	}
}

// dump asks the kernel for qdiscs or filters and returns each with its attributes,
// but statistics.
func dump(kind, answer uint16, index int, parent uint32, visit func(nl.TcMsg, map[uint16][]byte)) error {
	request := nl.NewNetlinkRequest(int(kind), unix.NLM_F_DUMP)
	request.AddData(&nl.TcMsg{Family: nl.FAMILY_ALL, Ifindex: int32(index), Parent: parent})
	messages, err := request.Execute(unix.NETLINK_ROUTE, answer)
	if err != nil {
		return err
	}
	for _, message := range messages {
		m := nl.DeserializeTcMsg(message)
		if int(m.Ifindex) != index {
			continue
		}
		attributes, err := attributesOf(message[m.Len():])
		if err != nil {
			return err
		}
		for _, statistics := range []uint16{nl.TCA_STATS, nl.TCA_XSTATS, nl.TCA_STATS2} {
			delete(attributes, statistics)
		}
		visit(*m, attributes)
	}
	return nil
}

func attributesOf(b []byte) (map[uint16][]byte, error) {
	list, err := nl.ParseRouteAttr(b)
	if err != nil {
		return nil, err
	}
	attributes := make(map[uint16][]byte)
	for _, a := range list {
		attributes[a.Attr.Type&^uint16(unix.NLA_F_NESTED)] = a.Value
	}
	return attributes, nil
}

// qdiscs lists those of an interface. A clsact counts as foreign like the others:
// a test that has us make it asks for all.
func (i *inventory) qdiscs(index int) error {
	return dump(unix.RTM_GETQDISC, unix.RTM_NEWQDISC, index, 0, func(m nl.TcMsg, a map[uint16][]byte) {
		i.add(string(a[nl.TCA_KIND]) == "clsact\x00", "qdisc of %d: handle %x, parent %x, %v", index, m.Handle, m.Parent, a)
	})
}

func (i *inventory) filters(index int, parent uint32, handles map[uint32]bool) error {
	return dump(unix.RTM_GETTFILTER, unix.RTM_NEWTFILTER, index, parent, func(m nl.TcMsg, a map[uint16][]byte) {
		options, err := attributesOf(a[nl.TCA_OPTIONS])
		if err != nil || len(options) == 0 {
			return // a priority and not a filter
		}
		ours := false
		switch kind := strings.TrimRight(string(a[nl.TCA_KIND]), "\x00"); kind {
		case "bpf":
			ours = handles[m.Handle] && strings.HasPrefix(string(options[nl.TCA_BPF_NAME]), filterPrefix)
		case "u32":
			delete(options, nl.TCA_U32_PCNT)
			delete(options, nl.TCA_U32_ACT) // has the time of its last use
		}
		delete(a, nl.TCA_OPTIONS)
		i.add(ours, "filter of %d: handle %x, parent %x, info %x, %v, %v", index, m.Handle, m.Parent, m.Info, a, options)
	})
}

func (i *inventory) programs(index int, d flows.Direction) error {
	found, err := link.QueryPrograms(link.QueryOptions{Target: index, Attach: tcxAttachType(d)})
	if errors.Is(err, ebpf.ErrNotSupported) || errors.Is(err, unix.EINVAL) {
		return nil
	}
	if err != nil {
		return err
	}
	for _, program := range found.Programs {
		name, err := programName(program.ID)
		if err != nil {
			return err
		}
		link, _ := program.LinkID()
		i.add(strings.HasPrefix(name, "podmeter_"), "TCX %s of %d: program %d %s, link %d", d, index, program.ID, name, link)
	}
	return nil
}

func programName(id ebpf.ProgramID) (string, error) {
	program, err := ebpf.NewProgramFromID(id)
	if err != nil {
		return "", err
	}
	defer program.Close()
	info, err := program.Info()
	if err != nil {
		return "", err
	}
	return info.Name, nil
}
