// SPDX-License-Identifier: Apache-2.0

// Package browser runs a headless Chromium and takes down what a page does in it. A
// Browser is used by one goroutine; Close ends the process and removes its files.
package browser

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"sync"
	"time"

	"github.com/chromedp/cdproto/cdp"
	"github.com/chromedp/cdproto/emulation"
	"github.com/chromedp/cdproto/log"
	"github.com/chromedp/cdproto/network"
	"github.com/chromedp/cdproto/runtime"
	"github.com/chromedp/chromedp"
)

// doWithin bounds what is done in one step.
const doWithin = time.Minute

var errLate = errors.New("the browser does not answer")

const pollEvery = 100 * time.Millisecond

// Browser is a running Chromium with one page.
type Browser struct {
	ctx    context.Context
	cancel []context.CancelFunc
	folder string

	mu         sync.Mutex
	requests   []string
	complaints []string
}

// Find returns the path of a Chromium, with windows or without: Debian has both.
func Find() (string, error) {
	path, err := exec.LookPath("chromium")
	if err != nil {
		path, err = exec.LookPath("chromium-headless-shell")
	}
	return path, err
}

// Options are what a [Browser] needs.
type Options struct {
	Width, Height int
	// Namespace is the path of a network namespace to run in; this process's if empty.
	Namespace string
	// Resolve has rules for names, such as "MAP a.example 127.0.0.1"; none if empty.
	Resolve string
	// Within bounds the start; a minute if 0.
	Within time.Duration
}

// Start runs a Chromium with a window, without a profile and without anything that
// speaks to the network by itself.
func Start(ctx context.Context, o Options) (*Browser, error) {
	path, err := Find()
	if err != nil {
		return nil, fmt.Errorf("find a browser: %w", err)
	}
	b := &Browser{}
	if b.folder, err = os.MkdirTemp("", "podmeter-browser-"); err != nil {
		return nil, fmt.Errorf("make the browser's folder: %w", err)
	}
	options := append(chromedp.DefaultExecAllocatorOptions[:],
		chromedp.ExecPath(path), chromedp.UserDataDir(b.folder), chromedp.WindowSize(o.Width, o.Height), chromedp.NoSandbox, chromedp.DisableGPU,
		chromedp.Flag("disable-quic", true), chromedp.Flag("disable-component-update", true), chromedp.Flag("no-proxy-server", true),
		chromedp.Flag("hide-scrollbars", true),
	)
	if o.Resolve != "" {
		options = append(options, chromedp.Flag("host-resolver-rules", o.Resolve))
	}
	if o.Namespace != "" {
		options = append(options, chromedp.ModifyCmdFunc(enter(o.Namespace)))
	}
	ctx, abort := context.WithCancelCause(ctx)
	allocated, endProcess := chromedp.NewExecAllocator(ctx, options...)
	page, endPage := chromedp.NewContext(allocated)
	b.ctx, b.cancel = page, []context.CancelFunc{endPage, endProcess, func() { abort(nil) }}
	// The first call starts the process, which ends with the call's context: so that has
	// no deadline, but is ended if the start takes too long.
	late := time.AfterFunc(cmp.Or(o.Within, doWithin), func() { abort(errLate) })
	defer late.Stop()
	if err = chromedp.Listen(page, b.listen); err == nil {
		err = b.enable(o)
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("start %s: %w", path, err), context.Cause(ctx), b.Close())
	}
	return b, nil
}

// enter lets a command run in a network namespace. It speaks to us by a pipe.
func enter(namespace string) func(*exec.Cmd) {
	return func(command *exec.Cmd) {
		command.Args = append([]string{"nsenter", "--net=" + namespace, "--", command.Path}, command.Args[1:]...)
		command.Path, command.Err = exec.LookPath("nsenter")
	}
}

func (b *Browser) enable(o Options) error {
	_, err1 := chromedp.Call(b.ctx, network.Enable, network.EnableParams{})
	_, err2 := chromedp.Call(b.ctx, log.Enable, cdp.Empty{})
	_, err3 := chromedp.Call(b.ctx, runtime.Enable, cdp.Empty{})
	// A window is at least 500 wide, what it shows need not be.
	err4 := b.Do(chromedp.EmulateViewport(int64(o.Width), int64(o.Height)))
	return errors.Join(err1, err2, err3, err4)
}

// Close ends the browser.
func (b *Browser) Close() error {
	for _, cancel := range b.cancel {
		cancel() // which waits
	}
	if err := os.RemoveAll(b.folder); err != nil {
		return fmt.Errorf("remove the browser's folder: %w", err)
	}
	return nil
}

func (b *Browser) listen(event any) {
	b.mu.Lock()
	defer b.mu.Unlock()
	switch e := event.(type) {
	case *network.EventRequestWillBeSent:
		b.requests = append(b.requests, e.Request.URL)
	case *log.EventEntryAdded: // violations of the policy among them
		b.complain(string(e.Entry.Level), e.Entry.Text+" "+e.Entry.URL)
	case *runtime.EventExceptionThrown:
		b.complain("exception", exceptionText(e.ExceptionDetails))
	case *runtime.EventConsoleAPICalled:
		for _, argument := range e.Args {
			b.complain(string(e.Type), string(argument.Value)+argument.Description)
		}
	}
}

func exceptionText(d *runtime.ExceptionDetails) string {
	if d.Exception != nil {
		return d.Exception.Description
	}
	return d.Text
}

func (b *Browser) complain(level, text string) {
	switch level {
	case "debug", "verbose", "info":
	default:
		b.complaints = append(b.complaints, level+": "+text)
	}
}

// Requests are the addresses of everything that was asked for.
func (b *Browser) Requests() []string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return append([]string(nil), b.requests...)
}

// Complaints are the browser's errors and warnings since the last call.
func (b *Browser) Complaints() []string {
	b.mu.Lock()
	defer b.mu.Unlock()
	taken := b.complaints
	b.complaints = nil
	return taken
}

// Do does something in the page.
func (b *Browser) Do(steps ...chromedp.Action[chromedp.Void]) error {
	ctx, cancel := context.WithTimeout(b.ctx, doWithin)
	defer cancel()
	return chromedp.Do(ctx, steps...)
}

// Open goes to an address and waits until its files are loaded.
func (b *Browser) Open(address string) error {
	if err := b.Do(chromedp.Navigate(address)); err != nil {
		return fmt.Errorf("open %s: %w", address, err)
	}
	return nil
}

// Value evaluates an expression of JavaScript.
func Value[T any](b *Browser, expression string) (T, error) {
	ctx, cancel := context.WithTimeout(b.ctx, doWithin)
	defer cancel()
	value, err := chromedp.Run(ctx, chromedp.Evaluate[T](expression))
	if err != nil {
		err = fmt.Errorf("evaluate %s: %w", expression, err)
	}
	return value, err
}

// Await waits until an expression of JavaScript is true, for as long as is given. One that
// throws is not true yet.
func (b *Browser) Await(expression string, within time.Duration) error {
	ctx, cancel := context.WithTimeout(b.ctx, within)
	defer cancel()
	tried := "(() => { try { return " + expression + "; } catch { return false; } })()"
	_, err := chromedp.Run(ctx, chromedp.Poll[bool](tried, chromedp.WithPollingInterval(pollEvery), chromedp.WithPollingTimeout(0)))
	if err != nil {
		return fmt.Errorf("wait for %s: %w", expression, err)
	}
	return nil
}

// Prefer lets the page see a reader who prefers dark or light.
func (b *Browser) Prefer(scheme string) error {
	ctx, cancel := context.WithTimeout(b.ctx, doWithin)
	defer cancel()
	_, err := chromedp.Call(ctx, emulation.SetEmulatedMedia, emulation.SetEmulatedMediaParams{
		Features: []*emulation.MediaFeature{{Name: "prefers-color-scheme", Value: scheme}},
	})
	if err != nil {
		err = fmt.Errorf("prefer %s: %w", scheme, err)
	}
	return err
}

// Screenshot returns a PNG of the whole page, however high it is.
func (b *Browser) Screenshot() ([]byte, error) {
	ctx, cancel := context.WithTimeout(b.ctx, doWithin)
	defer cancel()
	return chromedp.Run(ctx, chromedp.FullScreenshot(100))
}
