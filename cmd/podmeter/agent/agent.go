// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"os/signal"
	"sync/atomic"
	"time"

	"github.com/cilium/ebpf"
	"github.com/podmeter/podmeter/cmd/podmeter/agent/page"
	"github.com/podmeter/podmeter/datapath"
	"github.com/podmeter/podmeter/flows"
	"github.com/podmeter/podmeter/flows/geo"
	"github.com/podmeter/podmeter/flows/identity"
	"github.com/podmeter/podmeter/internal/ratelog"
	"github.com/podmeter/podmeter/metrics"
	"github.com/podmeter/podmeter/metrics/remotewrite"
	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"
)

const (
	// freshness is how old the last drain may be at a scrape.
	freshness = time.Second
	// syncWait is how long the first attachment waits for the identity, so that
	// the first epochs find the owners of their addresses.
	syncWait = 30 * time.Second
)

// Options are what an [Agent] needs besides its configuration.
type Options struct {
	// Version and Revision are those of the build.
	Version, Revision string
	// Listener is where metrics are served instead of Config.Listen; it may be
	// nil. The agent closes it.
	Listener net.Listener
	// Amend, if not nil, may change what is exported before anybody sees it. It is for
	// tests that want to see it found, and nil in every build but theirs.
	Amend func(*flows.Snapshot)
	// Programs are [datapath.Options]' Programs, and nil in every build but tests'.
	Programs func() (*ebpf.CollectionSpec, error)
	Logger   *slog.Logger
}

// Agent is a running meter with everything around it.
type Agent struct {
	config  Config
	options Options
	log     *slog.Logger
	// stale is that scrapes cannot drain.
	stale *ratelog.Outage

	places    *geo.Databases
	identity  *identities
	optional  flows.Optional
	table     *flows.Table
	publisher *flows.Publisher
	exporter  *metrics.Exporter
	server    *metrics.Server
	page      *page.Page
	meter     *datapath.Meter
	// remoteWriter is nil if there is no receiver.
	remoteWriter *remotewrite.Writer
	// conntrack is nil if backends of Services are not looked up.
	conntrack *datapath.Conntrack
	// cgroups is nil if neither sockets nor pods in the node's network are looked at,
	// sockets if these are not.
	cgroups *identity.Cgroups
	sockets *datapath.Sockets

	departure *departure
	keeper    *keeper
	// epoch is what is being published.
	epoch *flows.Epoch
	// uplinks is nil if there are none to be metered.
	uplinks *uplinks
	// drains are those that are asked for by the socket.
	drains *drainRequests
	// metering is when drains began, nil before.
	metering atomic.Pointer[time.Time]

	// listener serves metrics to the network, socket also the status to this host.
	listener, socket net.Listener
	// hangup gets SIGHUP, from before the agent is made: it would end the process.
	hangup chan os.Signal
}

// Run is an agent's whole life: it ends when ctx is done, or with the error that
// keeps it from working.
func Run(ctx context.Context, config Config, options Options) error {
	beThrifty()
	a, err := New(ctx, config, options)
	if err != nil {
		return err
	}
	return a.Run(ctx)
}

// New makes an agent from a valid configuration: it reads all files, listens and
// loads the BPF programs. What is wrong with a file is a [UsageError]. It waits
// while another agent holds the pin path or the port.
func New(ctx context.Context, config Config, options Options) (*Agent, error) {
	a := &Agent{config: config, options: options, log: options.Logger, stale: newStale(options.Logger), drains: newDrainRequests(), hangup: make(chan os.Signal, 1)}
	signal.Notify(a.hangup, unix.SIGHUP)
	for _, step := range []func(context.Context) error{
		a.openPlaces, a.openIdentity, a.openDeparture, a.findCgroups, a.makeTable, a.makeExporter, a.openRemoteWrite, a.listen, a.loadMeter,
		a.openSockets, a.resume, a.loadUplinks,
	} {
		if err := step(ctx); err != nil {
			return nil, errors.Join(err, a.close())
		}
	}
	return a, nil
}

func (a *Agent) openPlaces(context.Context) (err error) {
	if len(a.config.GeoIP) == 0 {
		return nil
	}
	a.places, err = geo.Open(geo.Options{Paths: a.config.GeoIP, Optional: a.config.GeoIPOptional, Logger: a.log})
	return Usage(about("geoip", err))
}

func (a *Agent) openIdentity(context.Context) (err error) {
	a.identity, err = newIdentities(a.config, a.options.Version, a.log)
	return err
}

func (a *Agent) makeTable(context.Context) error {
	var err error
	if a.optional, err = flows.ParseOptional(a.config.FlowLabels, a.config.ExternalLabels); err != nil {
		return Usage(err)
	}
	a.optional.LinkLocalPeers = a.config.LinkLocalPeers
	a.table = flows.NewTable(flows.TableOptions{
		FlowLimit: a.config.FlowSeriesLimit, ExternalLimit: a.config.ExternalSeriesLimit,
		FlowIdle: a.config.FlowIdle, SeriesGrace: a.config.SeriesGrace,
		LinkLocalPeers: a.config.LinkLocalPeers,
	})
	options := flows.PublisherOptions{
		Table: a.table, Directory: a.identity.cache, Binder: a.identity.source.Binder(), Places: a.whereabouts(),
		Addresses: a.identity.cache, Optional: a.optional, NAT64: a.config.nat64(), Translator: a.translator(), Persist: a.persist, Logger: a.log,
	}
	if a.cgroups != nil && a.config.Sockets != ModeOff {
		options.Sockets, options.Containers = a, a.cgroups
	}
	a.publisher = flows.NewPublisher(options)
	return nil
}

// translator tells the backends of Services, nil if it is off or no Service is known.
func (a *Agent) translator() flows.Translator {
	if a.config.ServiceTranslation == TranslationOff || a.config.Identity == IdentityNone {
		return nil
	}
	a.conntrack = &datapath.Conntrack{}
	return a.conntrack
}

// whereabouts are the places of addresses, nil without databases.
func (a *Agent) whereabouts() flows.Places {
	if a.places == nil { // which in the interface would not be nil
		return nil
	}
	return a.places
}

func (a *Agent) makeExporter(context.Context) (err error) {
	a.exporter, err = metrics.New(metrics.Options{
		Source: a, Optional: a.optional, Known: known(),
		FlowSeriesLimit: a.config.FlowSeriesLimit, ExternalSeriesLimit: a.config.ExternalSeriesLimit,
		UplinkSeriesLimit: a.config.UplinkSeriesLimit, ClassicRTT: a.config.RTTClassicBuckets,
		Version: a.options.Version, Revision: a.options.Revision, Logger: a.log,
	})
	if err != nil {
		return err
	}
	a.page = a.newPage()
	a.server, err = metrics.NewServer(metrics.ServerOptions{
		Registry: a.exporter.Registry(), Readiness: a.readiness, Health: a.health, WebConfigFile: a.config.WebConfigFile,
		Page: a.shownPage(), PageHosts: a.config.PageHosts, Node: a.node, Pprof: a.config.Pprof, Version: a.options.Version, Logger: a.log,
	})
	return Usage(about("web-config-file", err))
}

func (a *Agent) newPage() *page.Page {
	options := page.Options{Source: a, Version: a.options.Version, Node: a.node, Logger: a.log}
	if a.places != nil {
		options.Databases = a.places.Info
	}
	return page.New(options)
}

// shownPage is what the network gets at /, nil if that was not asked for. This host gets
// what is on it at any rate, see serveSocket.
func (a *Agent) shownPage() http.Handler {
	if !a.config.Page {
		return nil
	}
	return a.page
}

func (a *Agent) node() string {
	name, _ := a.identity.cache.Here()
	return name
}

func (a *Agent) listen(ctx context.Context) (err error) {
	if a.socket, err = listenSocket(ctx, a.config.Socket, a.log); err != nil {
		return about("socket", err)
	}
	if a.listener = a.options.Listener; a.listener != nil {
		return nil
	}
	a.listener, err = listenTCP(ctx, a.config.Listen, a.log)
	return about("listen", err)
}

func (a *Agent) loadMeter(ctx context.Context) (err error) {
	if a.keeper, err = newKeeper(a.config.StateDir, checkpointName, a.log); err != nil {
		return about("state-dir", err)
	}
	if err := a.checkMapMemory(); err != nil {
		return err
	}
	a.meter, err = datapath.New(ctx, a.meterOptions())
	if errors.Is(err, datapath.ErrPinPath) {
		return Usage(about("pin-path", err))
	}
	return a.config.withoutRoom(err)
}

// meterOptions are those of the pods' meter.
func (a *Agent) meterOptions() datapath.Options {
	cgroups := ""
	if a.cgroups != nil {
		cgroups = a.cgroups.Root()
	}
	return datapath.Options{
		PinPath: a.config.PinPath, Interfaces: a.config.Interfaces, Uplinks: a.config.Uplinks, Cgroups: cgroups,
		Attach: datapath.AttachMode(a.config.Attach), MapMemory: a.config.MapMemory,
		DrainInterval: a.config.DrainInterval, Sink: a, Saved: a.keeper.saved, OnDrain: a.exporter.ObserveDrain,
		Ready: a.identity.ready, Programs: a.options.Programs, Logger: a.log,
	}
}

// Publish implements [datapath.Sink].
func (a *Agent) Publish(epoch *flows.Epoch) error {
	a.identity.refreshHost(epoch.End)
	a.epoch = epoch
	return a.publisher.Publish(epoch)
}

// Run meters and serves until ctx is done; then it publishes what is left and
// closes the agent. What outlives it is removed if this node is to have no agent any
// more, see [Config.DaemonSet].
func (a *Agent) Run(ctx context.Context) error {
	told := ctx
	group, ctx := errgroup.WithContext(ctx)
	// The names of pods are followed until it is known what the end is for.
	following, forget := context.WithCancel(context.WithoutCancel(ctx))
	group.Go(func() error {
		keepToLimit(ctx.Done(), a.socketGrowth())
		return nil
	})
	group.Go(func() error { return a.identity.source.Run(following) })
	group.Go(func() error {
		defer forget()
		<-ctx.Done()
		if told.Err() != nil { // and not a failure
			a.departure.decide(following)
		}
		return nil
	})
	if a.cgroups != nil {
		group.Go(func() error { return a.cgroups.Run(ctx) })
	}
	group.Go(func() error { return a.departure.learn(ctx) })
	group.Go(func() error { return a.requireNode(ctx) })
	group.Go(func() error { return a.meterWhenSynced(ctx) })
	group.Go(func() error { return a.server.Serve(ctx, a.listener) })
	group.Go(func() error { return a.serveSocket(ctx) })
	group.Go(func() error { return a.writeRemotely(ctx) })
	group.Go(func() error { return a.reloadOnHangup(ctx) })
	if a.places != nil {
		group.Go(func() error { return a.places.Watch(ctx) })
	}
	a.log.Info("serving metrics", "address", a.listener.Addr(), "socket", a.config.Socket,
		"version", a.options.Version)
	return errors.Join(group.Wait(), a.close(), a.departure.leave())
}

// meterWhenSynced begins to meter when the identity is there, containers included, or
// when it has been waited for long enough: packets are then counted all the same.
func (a *Agent) meterWhenSynced(ctx context.Context) error {
	a.awaitIdentity(ctx)
	if ctx.Err() != nil {
		return nil
	}
	returnMemory()
	a.identity.refreshHost(time.Now())
	a.metering.Store(new(time.Now()))
	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() error { return a.meter.Run(ctx) })
	group.Go(func() error { return a.followHostPods(ctx) })
	group.Go(func() error { return a.uplinks.run(ctx) })
	return group.Wait()
}

// awaitIdentity returns when the names of pods and containers are known, or syncWait is
// over.
func (a *Agent) awaitIdentity(ctx context.Context) {
	timeout := time.NewTimer(syncWait)
	defer timeout.Stop()
	for _, known := range []<-chan struct{}{a.identity.source.Synced(), a.scannedCgroups()} {
		select {
		case <-ctx.Done():
			return
		case <-timeout.C:
			a.log.Warn("identity is not there yet: counting, and publishing when it comes",
				"problem", a.identity.source.Status().Problem)
			return
		case <-known:
		}
	}
}

// Drain publishes what has rested, see [datapath.Meter.Drain].
func (a *Agent) Drain(ctx context.Context) error {
	return errors.Join(a.meter.Drain(ctx), a.uplinks.drain(ctx))
}

// close lets go of everything, in the order in which data flows.
func (a *Agent) close() error {
	signal.Stop(a.hangup)
	errs := []error{a.uplinks.close()}
	if a.meter != nil {
		errs = append(errs, a.meter.Close())
	}
	if a.conntrack != nil { // after the meter, which drains once more
		errs = append(errs, a.conntrack.Close())
	}
	if a.sockets != nil {
		errs = append(errs, a.sockets.Close())
	}
	for _, l := range []net.Listener{a.listener, a.socket} {
		if l != nil {
			errs = append(errs, closeListener(l))
		}
	}
	if a.places != nil {
		errs = append(errs, a.places.Close())
	}
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("close agent: %w", err)
	}
	return nil
}
