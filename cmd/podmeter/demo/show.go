// SPDX-License-Identifier: Apache-2.0

package demo

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"time"

	"github.com/podmeter/podmeter/cmd/podmeter/verify"
	"github.com/podmeter/podmeter/flows/geo/demodb"
	"github.com/podmeter/podmeter/flows/plain"
	"github.com/podmeter/podmeter/internal/ratelog"
)

const (
	// refreshEvery is the screen's period, and the agent's: what is shown is then
	// at most two periods old.
	refreshEvery = time.Second
	// pollEvery is for what is waited for and comes soon.
	pollEvery = 100 * time.Millisecond
	// readyWithin bounds the agent's start and each later attachment.
	readyWithin = time.Minute
	// quietWithin bounds the end of the last packets.
	quietWithin = 20 * time.Second
	// settleWithin bounds the last comparison.
	settleWithin = 40 * time.Second
)

// show is one demo from the first pod to the reconciliation.
type show struct {
	options Options
	world   *world
	screen  *screen
	agent   Agent
	tally   *tally
	// Traffic of the pods that are there from the start, and of those that come.
	base, replica, job *traffic
	departed           []departed
	began              time.Time
	last               *view
}

// departed is a pod that has gone, and what was known of it just before.
type departed struct {
	podPlan
	own     verify.Pair
	metered verify.Interface
}

// newShow prepares a demo; address is where metrics are served.
func newShow(options Options, w *world, address net.Addr) *show {
	hints := []string{
		"a browser at http://" + address.String() + "/",
		"curl -s " + address.String() + "/metrics | grep podmeter_flow",
		"bpftool --json map dump pinned " + fromOutside(pinPath) + "/flows_front_0_* | jq '.[].formatted.value.slots[] | select(.tag > 0)'",
	}
	t := newTally()
	return &show{
		options: options, world: w, screen: newScreen(options.Output, options.Duration, hints),
		tally: t, base: newTraffic(t), replica: newTraffic(t), job: newTraffic(t),
	}
}

// stopTraffic may be called again.
func (s *show) stopTraffic() error {
	return errors.Join(s.job.stop(), s.replica.stop(), s.base.stop())
}

// run shows everything and returns nil if every byte was accounted for. The
// agent has ended when it returns.
func (s *show) run(ctx context.Context, listener net.Listener) (err error) {
	defer func() { err = errors.Join(err, s.stopTraffic()) }()
	if err := s.populate(); err != nil {
		return errors.Join(err, listener.Close())
	}
	if s.agent, err = s.newAgent(listener); err != nil {
		return errors.Join(fmt.Errorf("start the agent: %w", err), listener.Close())
	}
	ctx, cancel := context.WithCancelCause(ctx)
	agentCtx, stopAgent := context.WithCancel(context.WithoutCancel(ctx))
	ended := make(chan error, 1)
	go func() {
		err := s.agent.Run(agentCtx)
		if err == nil && agentCtx.Err() == nil {
			err = errors.New("it ended by itself")
		}
		if err != nil {
			err = fmt.Errorf("run the agent: %w", err)
		}
		cancel(err)
		ended <- err
	}()
	defer func() {
		stopAgent()
		if e := <-ended; e != nil && !errors.Is(err, e) {
			err = errors.Join(e, err)
		}
	}()
	return s.play(ctx)
}

// populate makes the first pods and lets traffic flow, so that the agent finds
// interfaces on which something has passed.
func (s *show) populate() error {
	for _, plan := range startPods() {
		if _, err := s.world.addPod(plan); err != nil {
			return err
		}
	}
	if err := s.base.serveAll(s.world); err != nil {
		return err
	}
	s.base.startAll(s.world)
	return nil
}

func (s *show) newAgent(listener net.Listener) (Agent, error) {
	identity, err := staticIdentity(append(startPods(), laterPods()...))
	if err != nil {
		return nil, err
	}
	static, err1 := writeFile("static.yaml", identity)
	city, err2 := writeFile("demo-city.mmdb", demodb.City())
	asn, err3 := writeFile("demo-asn.mmdb", demodb.ASN())
	if err := errors.Join(err1, err2, err3); err != nil {
		return nil, err
	}
	return s.options.NewAgent(AgentOptions{
		PinPath: pinPath, StateDir: directory + "/state", Socket: directory + "/agent.sock",
		StaticFile: static, NodeName: nodeName, Attach: s.options.Attach,
		GeoIP: []string{city, asn}, Interfaces: []string{"!" + uplink},
		FlowLabels: []string{"peer_ip"}, ExternalLabels: []string{"city", "latitude", "longitude"},
		Listener: listener, DrainInterval: refreshEvery,
		Logger: slog.New(ratelog.New(slog.NewTextHandler(s.screen, &slog.HandlerOptions{Level: slog.LevelWarn, ReplaceAttr: plain.Attr}))),
	})
}

// play is the demo once the agent runs.
func (s *show) play(ctx context.Context) error {
	if err := s.awaitReady(ctx, s.world.devices()...); err != nil {
		return err
	}
	s.screen.start()
	s.began = time.Now()
	for _, scene := range s.scenes() {
		if err := s.watch(ctx, scene.at); err != nil {
			return err
		}
		if err := scene.play(ctx); err != nil {
			return err
		}
	}
	return s.finish(ctx)
}

// watch shows the world until a time of the demo.
func (s *show) watch(ctx context.Context, until time.Duration) error {
	ticker := time.NewTicker(refreshEvery)
	defer ticker.Stop()
	end := time.NewTimer(until - time.Since(s.began))
	defer end.Stop()
	for {
		if err := s.refresh(ctx); err != nil {
			return err
		}
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-end.C:
			return nil
		case <-ticker.C:
		}
	}
}

func (s *show) refresh(ctx context.Context) error {
	e, err := s.scrape(ctx)
	if err != nil {
		return err
	}
	s.last = newView(e, time.Since(s.began), s.last)
	s.screen.show(s.last)
	return nil
}

// scrape drains, so that what is shown is of now, and reads the metrics.
func (s *show) scrape(ctx context.Context) (verify.Exposition, error) {
	err := s.agent.Drain(ctx)
	var text []byte
	if err == nil {
		text, err = s.agent.Metrics(ctx)
	}
	if err != nil {
		if ctx.Err() != nil {
			return nil, context.Cause(ctx)
		}
		return nil, fmt.Errorf("read the agent's metrics: %w", err)
	}
	return verify.Parse(text)
}

// awaitReady waits until interfaces are metered, bound to their pods, and what
// had passed before is known.
func (s *show) awaitReady(ctx context.Context, devices ...string) error {
	bounded, cancel := context.WithTimeout(ctx, readyWithin)
	defer cancel()
	ticker := time.NewTicker(pollEvery)
	defer ticker.Stop()
	for {
		missing, err := s.missing(bounded, devices)
		if err == nil && len(missing) == 0 {
			return nil
		}
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-bounded.Done():
			return errors.Join(fmt.Errorf("wait until the agent meters every pod: %v are not ready", missing), err)
		case <-ticker.C:
		}
	}
}

// missing returns the devices that are not ready. A drain comes first: it is
// what binds and settles.
func (s *show) missing(ctx context.Context, devices []string) ([]string, error) {
	if err := s.agent.Drain(ctx); err != nil {
		return devices, err
	}
	metered, err := s.metered(ctx)
	var missing []string
	for _, device := range devices {
		if !ready(metered[device]) {
			missing = append(missing, device)
		}
	}
	return missing, err
}

// metered asks the agent for its interfaces, by device.
func (s *show) metered(ctx context.Context) (map[string]verify.Interface, error) {
	status, err := s.agent.Status(ctx)
	if err != nil {
		return nil, fmt.Errorf("ask the agent for its interfaces: %w", err)
	}
	return byDevice(status), nil
}

// byDevice are the interfaces that are metered, by name.
func byDevice(status *verify.Agent) map[string]verify.Interface {
	all := make(map[string]verify.Interface, len(status.Interfaces))
	for _, i := range status.Interfaces {
		if i.State != stateGone {
			all[i.Name] = i
		}
	}
	return all
}
