// SPDX-License-Identifier: Apache-2.0

// Command page takes the pictures of the agent's page that docs/ has: of the demo, in
// a headless Chromium, light and dark.
package main

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"regexp"
	"syscall"
	"time"

	"github.com/podmeter/podmeter/hack/page/browser"
)

const (
	// demoFor has the job's pod from 36 s to 84 s on; the pictures are taken between.
	demoFor = 120 * time.Second
	// enough is how many points the chart has then, one in 2 s.
	enough = 31
	height = 900
)

func main() {
	podmeter := flag.String("podmeter", "../../bin/podmeter", "the `binary` whose demo is shown")
	out := flag.String("out", "../../docs", "the `folder` for page-light.png and page-dark.png")
	width := flag.Int("width", 1280, "the window's width in pixels")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, *podmeter, *out, *width); err != nil {
		fmt.Fprintln(os.Stderr, "take pictures of the page:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, podmeter, out string, width int) (err error) {
	address, end, err := startDemo(ctx, podmeter)
	if err != nil {
		return err
	}
	defer end()
	b, err := browser.Start(ctx, browser.Options{Width: width, Height: height})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, b.Close()) }()
	if err := b.Open(address); err != nil {
		return err
	}
	busy := fmt.Sprintf("document.querySelector('#chart').ariaValueMax >= %d && document.querySelector('#verdict.good') !== null", enough)
	if err := b.Await(busy, demoFor); err != nil {
		return err
	}
	for _, scheme := range []string{"light", "dark"} {
		if err := b.Prefer(scheme); err != nil {
			return err
		}
		image, err := b.Screenshot()
		if err != nil {
			return fmt.Errorf("take the %s picture: %w", scheme, err)
		}
		if image, err = shrink(image); err != nil {
			return err
		}
		if err := os.WriteFile(filepath.Join(out, "page-"+scheme+".png"), image, 0o644); err != nil {
			return fmt.Errorf("write the %s picture: %w", scheme, err)
		}
	}
	return nil
}

var pageAddress = regexp.MustCompile(`http://[0-9.:]+/`)

// startDemo returns the address of the demo's page, and what ends the demo.
func startDemo(ctx context.Context, podmeter string) (address string, end func(), err error) {
	demo := exec.CommandContext(ctx, podmeter, "demo", "--duration", demoFor.String(), "--listen", "127.0.0.1:0")
	var complaints bytes.Buffer // at our own interrupt too
	demo.Stderr = &complaints
	demo.Cancel = func() error { return demo.Process.Signal(os.Interrupt) }
	output, err := demo.StdoutPipe()
	if err == nil {
		err = demo.Start()
	}
	if err != nil {
		return "", nil, fmt.Errorf("start the demo: %w", err)
	}
	told, read := make(chan string, 1), make(chan struct{})
	go func() {
		defer close(read)
		for lines := bufio.NewScanner(output); lines.Scan(); { // to the end, or the demo would wait for us
			if found := pageAddress.FindString(lines.Text()); found != "" && len(told) == 0 {
				told <- found
			}
		}
	}()
	end = func() {
		demo.Process.Signal(os.Interrupt) // it may have ended
		<-read
		demo.Wait() // interrupted, it says so
	}
	select {
	case address = <-told:
		return address, end, nil
	case <-read:
		end()
		return "", nil, fmt.Errorf("start the demo: it ended before it said where its page is: %s", &complaints)
	}
}
