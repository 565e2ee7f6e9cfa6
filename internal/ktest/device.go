// SPDX-License-Identifier: Apache-2.0

package ktest

import (
	"fmt"
	"net"
	"os"
	"runtime"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Offload switches an offload of a device of the namespace, by its command of
// SIOCETHTOOL: unix.ETHTOOL_STSO, ETHTOOL_SGSO, ETHTOOL_SGRO.
func (ns *Namespace) Offload(tb testing.TB, device string, command uint32, on bool) {
	tb.Helper()
	err := ns.Do(func() error {
		fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			return err
		}
		defer unix.Close(fd)
		return ethtool(fd, device, command, on)
	})
	if err != nil {
		tb.Fatalf("set offload %#x of %s to %t: %v", command, device, on, err)
	}
}

// ethtool sets one value (struct ethtool_value in struct ifreq, linux/ethtool.h).
func ethtool(fd int, device string, command uint32, on bool) error {
	value := struct{ command, data uint32 }{command: command}
	if on {
		value.data = 1
	}
	request := struct {
		name [unix.IFNAMSIZ]byte
		data unsafe.Pointer
		_    [16]byte
	}{data: unsafe.Pointer(&value)}
	copy(request.name[:unix.IFNAMSIZ-1], device)
	_, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), unix.SIOCETHTOOL, uintptr(unsafe.Pointer(&request)))
	runtime.KeepAlive(&value)
	if errno != 0 {
		return errno
	}
	return nil
}

// Injector sends whole frames out of a device, past the IP stack.
type Injector struct {
	socket  *os.File
	headers []mmsghdr
	vectors []unix.Iovec
}

// mmsghdr is the kernel's struct of this name, for 64-bit machines.
type mmsghdr struct {
	header unix.Msghdr
	length uint32
	_      uint32
}

// NewInjector makes an injector for a device of the namespace; with bypass its
// frames pass neither TC nor the qdisc of the device. It is for one goroutine.
func (ns *Namespace) NewInjector(tb testing.TB, device string, bypass bool) *Injector {
	tb.Helper()
	i := &Injector{}
	err := ns.Do(func() (err error) {
		link, err := net.InterfaceByName(device)
		if err != nil {
			return err
		}
		fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			return err
		}
		i = InjectorOf(os.NewFile(uintptr(fd), device))
		if bypass {
			if err := unix.SetsockoptInt(fd, unix.SOL_PACKET, unix.PACKET_QDISC_BYPASS, 1); err != nil {
				return err
			}
		}
		return unix.Bind(fd, &unix.SockaddrLinklayer{Ifindex: link.Index})
	})
	if err != nil {
		tb.Fatalf("open packet socket on %s: %v", device, err)
	}
	tb.Cleanup(func() { i.socket.Close() })
	return i
}

// InjectorOf makes an injector of a socket that another process opened and bound.
func InjectorOf(socket *os.File) *Injector { return &Injector{socket: socket} }

// Socket is the injector's, to be handed to another process.
func (i *Injector) Socket() *os.File { return i.socket }

// Send sends the frames and returns how many the device took: where it is busy
// the rest is left out.
func (i *Injector) Send(frames ...[]byte) (int, error) {
	i.headers, i.vectors = i.headers[:0], i.vectors[:0]
	for _, frame := range frames {
		vector := unix.Iovec{Base: &frame[0]}
		vector.SetLen(len(frame))
		i.vectors = append(i.vectors, vector)
	}
	for n := range frames {
		var h mmsghdr
		h.header.Iov = &i.vectors[n]
		h.header.SetIovlen(1)
		i.headers = append(i.headers, h)
	}
	sent, _, errno := unix.Syscall6(unix.SYS_SENDMMSG, i.socket.Fd(),
		uintptr(unsafe.Pointer(&i.headers[0])), uintptr(len(frames)), 0, 0, 0)
	switch errno {
	case 0:
		return int(sent), nil
	case unix.ENOBUFS, unix.EINTR:
		return 0, nil
	}
	return 0, fmt.Errorf("send frames: %w", errno)
}
