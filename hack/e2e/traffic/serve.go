// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"os"
	"os/signal"
	"syscall"

	"golang.org/x/sys/unix"
)

// A request begins with two numbers: how many bytes follow, and how many are wanted.
const headSize = 16

// serve echoes datagrams and answers requests until it is told to end. Datagrams to
// one of several addresses of a family are answered from it only if it is named. Others
// may have the same ports.
func serve(addresses []string) error {
	shared := net.ListenConfig{Control: reusePort}
	for _, address := range addresses {
		connections, err := shared.Listen(context.Background(), "tcp", address)
		if err != nil {
			return err
		}
		packets, err := shared.ListenPacket(context.Background(), "udp", address)
		if err != nil {
			return err
		}
		go echo(packets)
		go accept(connections)
	}
	end := make(chan os.Signal, 1)
	signal.Notify(end, syscall.SIGTERM, syscall.SIGINT)
	<-end
	return nil
}

func reusePort(_, _ string, socket syscall.RawConn) error {
	var failed error
	err := socket.Control(func(fd uintptr) {
		failed = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_REUSEPORT, 1)
	})
	return errors.Join(err, failed)
}

func accept(connections net.Listener) {
	for {
		connection, err := connections.Accept()
		if err != nil {
			return
		}
		go answer(connection)
	}
}

func echo(packets net.PacketConn) {
	buffer := make([]byte, 1<<16)
	for {
		// An ICMP error is of an earlier datagram.
		if n, from, err := packets.ReadFrom(buffer); err == nil {
			_, _ = packets.WriteTo(buffer[:n], from)
		}
	}
}

func answer(connection net.Conn) {
	defer connection.Close()
	head := make([]byte, headSize)
	if _, err := io.ReadFull(connection, head); err != nil {
		return
	}
	sent, wanted := binary.BigEndian.Uint64(head), binary.BigEndian.Uint64(head[8:])
	if _, err := io.CopyN(io.Discard, connection, int64(sent)); err != nil {
		return
	}
	_, _ = io.CopyN(connection, zeros{}, int64(wanted))
}

// zeros is a reader without an end.
type zeros struct{}

// Read implements io.Reader.
func (zeros) Read(p []byte) (int, error) {
	clear(p)
	return len(p), nil
}
