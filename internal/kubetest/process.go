// SPDX-License-Identifier: Apache-2.0

package kubetest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"syscall"
	"time"
)

// tail is how much of a log an error quotes.
const tail = 2000

// Process is a command that ends with the process that started it.
type Process struct {
	name, log string
	command   *exec.Cmd
	ended     chan struct{} // closed when it has ended
}

// StartProcess starts a command that writes to a log file, at its end.
func StartProcess(log, name string, arguments ...string) (*Process, error) {
	file, err := os.OpenFile(log, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		return nil, fmt.Errorf("start %s: %w", filepath.Base(name), err)
	}
	defer file.Close()
	p := &Process{name: filepath.Base(name), log: log, command: exec.Command(name, arguments...), ended: make(chan struct{})}
	p.command.Stdout, p.command.Stderr = file, file
	p.command.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	started := make(chan error)
	go func() {
		// The signal comes when the thread ends that started the command.
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		err := p.command.Start()
		started <- err
		if err == nil {
			_ = p.command.Wait()
		}
		close(p.ended)
	}()
	if err := <-started; err != nil {
		return nil, fmt.Errorf("start %s: %w", p.name, err)
	}
	return p, nil
}

// PID returns the id of the process.
func (p *Process) PID() int { return p.command.Process.Pid }

// Interrupt asks it to end, with SIGTERM, and waits until it has.
func (p *Process) Interrupt() {
	_ = p.command.Process.Signal(syscall.SIGTERM)
	<-p.ended
}

// Kill ends it at once. It does nothing to one that has ended, or to nil.
func (p *Process) Kill() {
	if p == nil {
		return
	}
	_ = p.command.Process.Kill()
	<-p.ended
}

// Await tries until there is no error. It returns the last one, with the end of
// the log, when that takes too long or the process ends.
func (p *Process) Await(ctx context.Context, timeout time.Duration, try func(context.Context) error) error {
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	ticker := time.NewTicker(100 * time.Millisecond)
	defer ticker.Stop()
	for {
		err := try(ctx)
		if err == nil {
			return nil
		}
		select {
		case <-ticker.C:
			continue
		case <-p.ended:
			err = errors.New("it has ended")
		case <-ctx.Done():
		}
		return fmt.Errorf("wait for %s: %w; the end of its log:\n%s", p.name, err, p.lastLines())
	}
}

func (p *Process) lastLines() []byte {
	text, err := os.ReadFile(p.log)
	if err != nil {
		return []byte(err.Error())
	}
	return bytes.TrimSpace(text[max(0, len(text)-tail):])
}
