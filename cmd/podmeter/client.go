// SPDX-License-Identifier: Apache-2.0

package main

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"os"
	"strings"
	"syscall"
	"time"

	"github.com/podmeter/podmeter/cmd/podmeter/agent"
	"github.com/podmeter/podmeter/cmd/podmeter/agent/page"
)

const (
	// answerTimeout is how long an agent may take to answer.
	answerTimeout = 10 * time.Second
	// probePoll is the time between two questions to an agent that is waited for.
	probePoll = 100 * time.Millisecond
)

// reasonLimit bounds what is read of an agent's reason, in bytes.
const reasonLimit = 64 << 10

// client talks HTTP to an agent's socket.
type client struct {
	socket string
	http   http.Client
	// patience is how long an answer is waited for, for errors: the context ends then.
	patience time.Duration
}

func newClient(socket string) *client {
	var dialer net.Dialer
	return &client{socket: socket, patience: answerTimeout, http: http.Client{Transport: &http.Transport{
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return dialer.DialContext(ctx, "unix", socket)
		},
	}}}
}

func (c *client) close() { c.http.CloseIdleConnections() }

// status asks for the agent's status.
func (c *client) status(ctx context.Context) (*agent.Status, error) {
	status := new(agent.Status)
	return status, c.decode(ctx, agent.StatusPath, "status", status)
}

// traffic asks who talks to whom.
func (c *client) traffic(ctx context.Context) (*traffic, error) {
	traffic := new(traffic)
	return traffic, c.decode(ctx, page.StatePath, "traffic", traffic)
}

// decode reads the JSON that the agent has at a path.
func (c *client) decode(ctx context.Context, path, what string, into any) error {
	response, err := c.get(ctx, path)
	if err != nil {
		return err
	}
	defer response.Body.Close()
	if response.StatusCode != http.StatusOK {
		return fmt.Errorf("ask the agent at %s for its %s: it answers %s", c.socket, what, response.Status)
	}
	if err := json.NewDecoder(response.Body).Decode(into); err != nil {
		return fmt.Errorf("read the %s of the agent at %s: %w", what, c.socket, err)
	}
	return nil
}

// probe returns what the agent says at a path if all is well there, an error with it
// if not. The agent is then what the fault says.
func (c *client) probe(ctx context.Context, path, fault string) (string, error) {
	response, err := c.get(ctx, path)
	if err != nil {
		return "", err
	}
	defer response.Body.Close()
	body, err := io.ReadAll(io.LimitReader(response.Body, reasonLimit))
	if err != nil {
		return "", fmt.Errorf("read %s of the agent at %s: %w", path, c.socket, err)
	}
	if reason := strings.TrimSpace(strings.TrimPrefix(string(body), fault+"\n")); response.StatusCode != http.StatusOK {
		return "", fmt.Errorf("the agent at %s is %s: %s", c.socket, fault, reason)
	}
	return string(body), nil
}

// awaitProbe asks as probe does until all is well, at most until ctx is done. The error is
// then the last answer.
func (c *client) awaitProbe(ctx context.Context, path, fault string) (string, error) {
	ticker := time.NewTicker(probePoll)
	defer ticker.Stop()
	var last error
	for {
		answer, err := c.probe(ctx, path, fault)
		switch {
		case err == nil:
			return answer, nil
		case ctx.Err() != nil: // the end of the waiting explains less than what was heard before
			return "", cmp.Or(last, err)
		}
		last = err
		select {
		case <-ctx.Done():
			return "", last
		case <-ticker.C:
		}
	}
}

// metrics returns what the agent serves to Prometheus, in the text format.
func (c *client) metrics(ctx context.Context) ([]byte, error) {
	response, err := c.get(ctx, "/metrics")
	if err != nil {
		return nil, err
	}
	defer response.Body.Close()
	if response.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("ask the agent at %s for its metrics: it answers %s", c.socket, response.Status)
	}
	return io.ReadAll(response.Body)
}

// drainAgain is how long to wait when the agent has too many drains to do.
const drainAgain = 100 * time.Millisecond

// drain asks the agent to publish all that was counted until now, and waits for that.
func (c *client) drain(ctx context.Context) error {
	for {
		code, reason, err := c.drainOnce(ctx)
		switch {
		case err != nil:
			return err
		case code == http.StatusOK:
			return nil
		case code == http.StatusNotFound:
			return fmt.Errorf("ask the agent at %s for a drain: its build cannot do that yet", c.socket)
		case code != http.StatusTooManyRequests:
			return fmt.Errorf("ask the agent at %s for a drain: %s", c.socket, reason)
		}
		select {
		case <-ctx.Done():
			return c.explain(context.Cause(ctx))
		case <-time.After(drainAgain):
		}
	}
}

func (c *client) drainOnce(ctx context.Context) (code int, reason string, err error) {
	response, err := c.do(ctx, http.MethodPost, agent.DrainPath)
	if err != nil {
		return 0, "", err
	}
	defer response.Body.Close()
	body, err := io.ReadAll(io.LimitReader(response.Body, reasonLimit))
	if err != nil {
		return 0, "", fmt.Errorf("read the answer to a drain of the agent at %s: %w", c.socket, err)
	}
	return response.StatusCode, strings.TrimSpace(string(body)), nil
}

func (c *client) get(ctx context.Context, path string) (*http.Response, error) {
	return c.do(ctx, http.MethodGet, path)
}

func (c *client) do(ctx context.Context, method, path string) (*http.Response, error) {
	request, err := http.NewRequestWithContext(ctx, method, "http://unix"+path, nil)
	if err != nil {
		return nil, err
	}
	response, err := c.http.Do(request)
	if err != nil {
		return nil, c.explain(err)
	}
	return response, nil
}

// explain says what to do when the socket cannot be talked to.
func (c *client) explain(err error) error {
	socket := c.socket
	switch {
	case errors.Is(err, fs.ErrNotExist), errors.Is(err, syscall.ECONNREFUSED):
		return fmt.Errorf("no agent answers at %s: is it running? 'podmeter agent' starts it; --socket names another one's", socket)
	case errors.Is(err, fs.ErrPermission):
		return fmt.Errorf("open the agent's socket %s: permission denied: be the user that the agent runs as, mostly root (sudo)", socket)
	case errors.Is(err, os.ErrDeadlineExceeded), errors.Is(err, context.DeadlineExceeded):
		return fmt.Errorf("the agent at %s does not answer within %v: its log may say why", socket, c.patience)
	}
	return fmt.Errorf("ask the agent at %s: %w", socket, err)
}
