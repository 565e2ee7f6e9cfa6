// SPDX-License-Identifier: Apache-2.0

package main

import (
	"encoding/binary"
	"fmt"
	"io"
	"math"
	"math/rand/v2"
	"net"
	"net/netip"
	"strconv"
	"time"
)

// patience is how long an answer may take.
const patience = 10 * time.Second

// datagrams sends one after the other, each when the echo of the last is there.
// One that is lost is an error, since it is not known how far it came.
func datagrams(to string, count, size int64) error {
	connection, err := net.Dial("udp", to)
	if err != nil {
		return err
	}
	defer connection.Close()
	payload, answer := make([]byte, size), make([]byte, size+1)
	for n := range count {
		_ = connection.SetDeadline(time.Now().Add(patience))
		if _, err := connection.Write(payload); err != nil {
			return fmt.Errorf("send datagram %d: %w", n, err)
		}
		got, err := connection.Read(answer)
		if err != nil || int64(got) != size {
			return fmt.Errorf("read the echo of datagram %d of %d bytes: got %d, %w", n, size, got, err)
		}
	}
	return nil
}

// request sends so many bytes and reads so many.
func request(to string, sent, wanted int64) error {
	connection, err := net.DialTimeout("tcp", to, patience)
	if err != nil {
		return err
	}
	defer connection.Close()
	if err := head(connection, uint64(sent), uint64(wanted)); err != nil {
		return err
	}
	if _, err := io.CopyN(connection, zeros{}, sent); err != nil {
		return err
	}
	got, err := io.Copy(io.Discard, connection)
	if err == nil && got != wanted {
		err = fmt.Errorf("got %d bytes of %d", got, wanted)
	}
	return err
}

func head(connection net.Conn, sent, wanted uint64) error {
	head := binary.BigEndian.AppendUint64(make([]byte, 0, headSize), sent)
	_, err := connection.Write(binary.BigEndian.AppendUint64(head, wanted))
	return err
}

// stream sends as fast as it goes.
func stream(to string, seconds int64) error {
	connection, err := net.DialTimeout("tcp", to, patience)
	if err != nil {
		return err
	}
	defer connection.Close()
	if err := head(connection, math.MaxInt64, 0); err != nil {
		return err
	}
	buffer := make([]byte, 1<<17)
	for end := time.Now().Add(time.Duration(seconds) * time.Second); time.Now().Before(end); {
		if _, err := connection.Write(buffer); err != nil {
			return err
		}
	}
	return nil
}

// flood sends datagrams to addresses and ports at random; nobody need be there.
func flood(seconds string, prefixes []string) error {
	length, err := strconv.Atoi(seconds)
	if err != nil {
		return err
	}
	var targets []netip.Prefix
	for _, text := range prefixes {
		prefix, err := netip.ParsePrefix(text)
		if err != nil {
			return err
		}
		targets = append(targets, prefix.Masked())
	}
	socket, err := net.ListenUDP("udp", nil)
	if err != nil {
		return err
	}
	defer socket.Close()
	sent := 0
	for end := time.Now().Add(time.Duration(length) * time.Second); time.Now().Before(end); {
		for range 1000 {
			to := netip.AddrPortFrom(within(targets[rand.IntN(len(targets))]), uint16(1+rand.IntN(65535)))
			// An error is of an earlier datagram, which nobody took.
			if _, err := socket.WriteToUDPAddrPort(make([]byte, 32), to); err == nil {
				sent++
			}
		}
	}
	fmt.Println("sent", sent)
	return nil
}

// within returns an address of a prefix at random.
func within(prefix netip.Prefix) netip.Addr {
	address := prefix.Addr().AsSlice()
	for bit := prefix.Bits(); bit < len(address)*8; bit++ {
		address[bit/8] |= byte(rand.IntN(2)) << (7 - bit%8)
	}
	random, _ := netip.AddrFromSlice(address)
	return random
}
