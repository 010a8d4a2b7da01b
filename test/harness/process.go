package harness

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"os/exec"
	"sync"
	"time"
)

// Process is a process that a test has started. It is safe for concurrent use.
type Process struct {
	// Log is all it prints, Stderr its standard error alone.
	Log, Stderr *Buffer

	cmd  *exec.Cmd
	done chan struct{}
}

// Start starts a command, whose output goes to the Process. The caller sees to its end.
func Start(cmd *exec.Cmd) (*Process, error) {
	p := &Process{Log: &Buffer{}, Stderr: &Buffer{}, cmd: cmd, done: make(chan struct{})}
	cmd.Stdout, cmd.Stderr = p.Log, io.MultiWriter(p.Log, p.Stderr)
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	go func() {
		defer close(p.done)
		_ = cmd.Wait() // ExitCode tells
	}()
	return p, nil
}

// PID is the process's id.
func (p *Process) PID() int { return p.cmd.Process.Pid }

// Signal sends a signal.
func (p *Process) Signal(sig os.Signal) error { return p.cmd.Process.Signal(sig) }

// Kill is kill -9; it returns when the process has ended.
func (p *Process) Kill() {
	_ = p.cmd.Process.Kill() // it has ended: as good
	<-p.done
}

// Ended is closed when the process has ended and all it printed is in Log.
func (p *Process) Ended() <-chan struct{} { return p.done }

// Exit waits for the process's end and gives its exit code, -1 for one that a signal has ended.
func (p *Process) Exit(limit time.Duration) (int, error) {
	timer := time.NewTimer(limit)
	defer timer.Stop()
	select {
	case <-p.done:
		return p.cmd.ProcessState.ExitCode(), nil
	case <-timer.C:
		return 0, fmt.Errorf("process %d doesn't end in %v", p.PID(), limit)
	}
}

// Buffer collects what a process prints. It is safe for concurrent use.
type Buffer struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

// Write appends to the buffer.
func (b *Buffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.Write(p)
}

// String is all that was written so far.
func (b *Buffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.String()
}
