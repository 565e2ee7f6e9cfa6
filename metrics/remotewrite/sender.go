// SPDX-License-Identifier: Apache-2.0

package remotewrite

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/klauspost/compress/snappy"
	"github.com/podmeter/podmeter/internal/ratelog"
	"github.com/podmeter/podmeter/internal/secret"
	remote "github.com/prometheus/client_golang/exp/api/remote/genproto/v2"
	"golang.org/x/sys/unix"
	"google.golang.org/protobuf/proto"
)

const (
	// The pause after a failure, doubled each time.
	firstPause = time.Second
	lastPause  = time.Minute
	// longestPause bounds what a receiver may ask for: it may be back long before.
	longestPause = 2 * time.Minute
	// answerLimit is how much of an error's text is read, in bytes.
	answerLimit = 512
)

const (
	contentV2 = "application/x-protobuf;proto=io.prometheus.write.v2.Request"
	contentV1 = "application/x-protobuf"
	// writtenHeader tells, in protocol 2.0, how many samples were taken.
	writtenHeader = "X-Prometheus-Remote-Write-Samples-Written"
)

// sender sends what is in a spool to one receiver.
type sender struct {
	name    string // of the receiver, without secrets
	url     string
	headers map[string]string
	client  *http.Client
	agent   string
	spool   *spool
	log     *slog.Logger
	counts  *counts

	// old is whether the receiver knows protocol 1.0 alone.
	old bool
	// away is that requests fail and are tried again, refusing that they are given up,
	// unkept that the spool cannot take them.
	away, refusing, unkept ratelog.Outage
	doubt                  doubt
	pause                  time.Duration
}

// run sends until ctx is done.
func (s *sender) run(ctx context.Context) {
	for ctx.Err() == nil {
		more, err := s.sendFirst(ctx)
		switch {
		case err != nil:
			s.wait(ctx, err)
		case !more:
			select {
			case <-ctx.Done():
			case <-s.spool.arrived:
			}
		}
	}
}

// flush sends what there is, until the first failure.
func (s *sender) flush(ctx context.Context) {
	for more := true; more; {
		var err error
		if more, err = s.sendFirst(ctx); err != nil {
			s.log.Warn("what could not be sent stays in the spool", "receiver", s.name, "bytes", s.spool.size(), "error", err)
			return
		}
	}
}

// sendFirst sends the eldest request; more is false if there is none. One that the
// receiver refuses for good is given up; the error is of what may pass.
func (s *sender) sendFirst(ctx context.Context) (more bool, err error) {
	number, request, ok, err := s.spool.first()
	if !ok {
		return false, nil
	}
	if err == nil && s.spool.inherited(number) {
		// A crash of the node can have left a file without its content, and a receiver may
		// take it for a fault of its own, which passes.
		_, err = snappy.Decode(nil, request)
	}
	switch {
	case err == nil:
		err = s.send(ctx, request)
	case scarce(err):
		err = fmt.Errorf("read spool: %w", err)
	default:
		err = &answer{text: "read spool: " + err.Error()} // it never can be
	}
	switch verdict, _ := judge(err); {
	case err == nil:
		s.succeeded()
	case ctx.Err() != nil:
		return true, ctx.Err()
	case verdict == passes:
		s.doubt.other()
		return true, err
	case verdict == doubtful && !s.doubt.lasts(time.Now()):
		return true, err
	default:
		s.counts.add(s.name, outcomeRefused)
		s.away.Set(nil, "receiver", s.name)
		s.refusing.Set(err, "receiver", s.name)
	}
	return true, s.spool.remove(number)
}

// scarce reports whether a file cannot be read for want of descriptors or memory, which passes.
func scarce(err error) bool {
	return errors.Is(err, unix.EMFILE) || errors.Is(err, unix.ENFILE) || errors.Is(err, unix.ENOMEM)
}

func (s *sender) succeeded() {
	s.counts.add(s.name, outcomeSent)
	s.counts.succeeded(s.name, time.Now())
	s.away.Set(nil, "receiver", s.name)
	s.refusing.Set(nil, "receiver", s.name)
	s.pause = 0
	s.doubt.taken()
}

// wait waits after a failure: for as long as the receiver wants, twice as long as the last
// time at least.
func (s *sender) wait(ctx context.Context, err error) {
	s.counts.add(s.name, outcomeRetried)
	s.away.Set(err, "receiver", s.name)
	s.pause = min(max(2*s.pause, firstPause), lastPause)
	_, after := judge(err)
	timer := time.NewTimer(max(s.pause, min(after, longestPause)))
	defer timer.Stop()
	select {
	case <-ctx.Done():
	case <-timer.C:
	}
}

// send sends a request of protocol 2.0, in 1.0 if the receiver does not know that.
func (s *sender) send(ctx context.Context, compressed []byte) error {
	if !s.old {
		err := s.post(ctx, compressed, contentV2, "2.0.0")
		if !errors.Is(err, errOld) {
			return err
		}
		s.old = true
		s.log.Info("the receiver knows remote write 1.0 alone", "receiver", s.name)
	}
	encoded, err := snappy.Decode(nil, compressed)
	if err != nil {
		return &answer{text: "read spool: " + err.Error()}
	}
	var request remote.Request
	if err := proto.Unmarshal(encoded, &request); err != nil {
		return &answer{text: "read spool: " + err.Error()}
	}
	first, err := encodeV1(&request)
	if err != nil {
		return &answer{text: "read spool: " + err.Error()}
	}
	return s.post(ctx, snappy.Encode(nil, first), contentV1, "0.1.0")
}

func (s *sender) post(ctx context.Context, body []byte, content, version string) error {
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, s.url, bytes.NewReader(body))
	if err != nil {
		return err
	}
	for name, value := range s.headers {
		request.Header.Set(name, value)
	}
	request.Header.Set("User-Agent", s.agent)
	request.Header.Set("Content-Encoding", "snappy")
	request.Header.Set("Content-Type", content)
	request.Header.Set("X-Prometheus-Remote-Write-Version", version)
	response, err := s.client.Do(request)
	if err != nil {
		return secret.Request(err)
	}
	defer response.Body.Close()
	text, _ := io.ReadAll(io.LimitReader(response.Body, answerLimit))
	switch {
	case content == contentV2 && response.StatusCode == http.StatusUnsupportedMediaType:
		return errOld
	case response.StatusCode/100 == 2 && isPage(response.Header):
		return &answer{status: response.StatusCode, text: "the answer is a page for people: somebody else than a receiver has made it"}
	case response.StatusCode/100 != 2:
		return &answer{response.StatusCode, retryAfter(response.Header.Get("Retry-After"), time.Now()), strings.TrimSpace(string(text))}
	case content == contentV2 && response.Header.Get(writtenHeader) == "":
		// An old one reads nothing it knows in it, and says nothing of samples.
		return errOld
	}
	return nil
}

// retryAfter reads the header: seconds, or a time.
func retryAfter(header string, now time.Time) time.Duration {
	if seconds, err := strconv.Atoi(header); err == nil {
		return time.Duration(seconds) * time.Second
	}
	if at, err := http.ParseTime(header); err == nil {
		return at.Sub(now)
	}
	return 0
}
