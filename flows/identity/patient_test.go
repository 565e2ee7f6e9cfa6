// SPDX-License-Identifier: Apache-2.0

package identity

import (
	"context"
	"errors"
	"io"
	"net"
	"testing"
	"testing/synctest"
	"time"
)

// drip is a connection on which so many bytes come at each interval, numbered, until it is closed.
type drip struct {
	net.Conn
	interval time.Duration
	bytes    int
	began    time.Time
	taken    int
	closed   chan struct{}
}

func newDrip(bytes int, interval time.Duration) *drip {
	return &drip{interval: interval, bytes: bytes, began: time.Now(), closed: make(chan struct{})}
}

// Read implements [net.Conn]: it returns all that has come.
func (d *drip) Read(b []byte) (n int, err error) {
	for ; ; time.Sleep(d.interval - time.Since(d.began)%d.interval) {
		select {
		case <-d.closed:
			return 0, net.ErrClosed
		default:
		}
		for came := d.bytes * int(time.Since(d.began)/d.interval); d.taken < came && n < len(b); n++ {
			b[n] = byte(d.taken)
			d.taken++
		}
		if n > 0 {
			return n, nil
		}
	}
}

func (d *drip) Close() error {
	close(d.closed)
	return nil
}

// readsIn returns how often something is read from a connection in a time. What is read is checked
// to be all there is, in its order.
func readsIn(t *testing.T, c net.Conn, within time.Duration) (reads int) {
	t.Helper()
	var next byte
	b := make([]byte, 64<<10)
	for i, began := 0, time.Now(); time.Since(began) < within; i++ {
		n, err := c.Read(b)
		if err != nil {
			t.Fatal(err)
		}
		if i == 0 {
			next = b[0]
		}
		for _, got := range b[:n] {
			if got != next {
				t.Fatalf("got %d, want %d", got, next)
			}
			next++
		}
		reads++
	}
	return reads
}

func TestNewsWaitsForMore(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newPatient(newDrip(100, 10*time.Millisecond))
		if got := readsIn(t, c, youth); got != int(youth/(10*time.Millisecond)) {
			t.Errorf("got %d reads of a new connection, want each as it comes", got)
		}
		if got := readsIn(t, c, 10*time.Second); got != int(10*time.Second/patience) {
			t.Errorf("got %d reads of 1000 pieces in 10 s", got)
		}
	})
}

// What comes after a silence waits for nothing.
func TestNewsAfterSilence(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const silence = patience + time.Millisecond
		d := newDrip(1, silence)
		c := newPatient(d)
		readsIn(t, c, youth)
		for range 10 {
			readsIn(t, c, 1)
			if late := time.Since(d.began) % silence; late != 0 {
				t.Fatalf("got it %v after it came", late)
			}
		}
		time.Sleep(3 * silence)
		began := time.Now()
		if _, err := c.Read(make([]byte, 1)); err != nil || time.Since(began) != 0 {
			t.Errorf("got %v, after %v though it was there", err, time.Since(began))
		}
	})
}

// A list is read as fast as it comes, however old the connection.
func TestBulkDoesNotWait(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := newDrip(bulk, 10*time.Millisecond)
		c := newPatient(d)
		time.Sleep(2 * youth)
		began, taken := time.Now(), d.taken
		for d.taken-taken < 3000*bulk { // of which 2000 are there
			if _, err := c.Read(make([]byte, bulk)); err != nil {
				t.Fatal(err)
			}
		}
		if took := time.Since(began); took > 10*time.Second+patience {
			t.Errorf("got it in %v, want it when it has come, after 10 s", took)
		}
	})
}

func TestPatientReadsIntoSmallBuffers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newPatient(newDrip(100, 10*time.Millisecond))
		time.Sleep(youth)
		b := make([]byte, 1000)
		if _, err := io.ReadFull(oneByte{c}, b); err != nil {
			t.Fatal(err)
		}
		for i := range b {
			if b[i] != byte(i) {
				t.Fatalf("byte %d: got %d", i, b[i])
			}
		}
	})
}

// oneByte reads one byte at a time.
type oneByte struct{ io.Reader }

func (r oneByte) Read(b []byte) (int, error) { return r.Reader.Read(b[:1]) }

// Whoever closes a connection does not wait for who reads it.
func TestCloseEndsPatience(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, err := patiently(func(context.Context, string, string) (net.Conn, error) {
			return newDrip(1, time.Millisecond), nil
		})(t.Context(), "", "")
		if err != nil {
			t.Fatal(err)
		}
		readsIn(t, c, youth+time.Second)
		began := time.Now()
		go func() {
			time.Sleep(patience / 10)
			c.Close()
		}()
		if _, err := io.Copy(io.Discard, c); !errors.Is(err, net.ErrClosed) || time.Since(began) >= patience {
			t.Errorf("got %v after %v", err, time.Since(began))
		}
	})
}
