package compose

import (
	"context"
	"io"
	"strings"
	"sync"

	"github.com/signalman-ci/signalman/internal/cgroup"
	"github.com/signalman-ci/signalman/internal/session/helper"
	"github.com/signalman-ci/signalman/shared/protocol"
)

// shell is main's shell. It tells, between the lines of a command, of services that have ended, and after a command that
// failed what the kernel did to it.
type shell struct {
	*helper.Shell
	watch  *watcher
	limits protocol.Limits
}

func (s *shell) Run(ctx context.Context, script string, out io.Writer) (protocol.Exit, error) {
	told := &toldOutput{out: out, watch: s.watch}
	stop := told.follow()
	exit, err := s.Shell.Run(ctx, script, told)
	stop()
	if err == nil && exit.Code != 0 {
		kernel := s.Kernel()
		// A container with a limit is taken to be at it: it can't see whether the host has come to its own.
		events := cgroup.Events{OOMKills: int64(kernel.OOMKills), AtLimit: true, PidsRefused: int64(kernel.PidsRefused)}
		for _, reason := range events.Reasons(s.limits) {
			told.line(reason + "\n")
		}
	}
	return exit, err
}

// toldOutput is a command's output with lines of ours in between.
type toldOutput struct {
	watch *watcher

	mu      sync.Mutex
	out     io.Writer
	midLine bool
	waiting []string // for the end of a line
}

func (t *toldOutput) Write(p []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	n, err := t.out.Write(p)
	if n > 0 {
		t.midLine = p[n-1] != '\n'
		t.flush(false)
	}
	return n, err
}

// flush writes what waits, with a line break before it if it can't wait for the output's own.
func (t *toldOutput) flush(force bool) {
	if len(t.waiting) == 0 || (t.midLine && !force) {
		return
	}
	text := strings.Join(t.waiting, "")
	if t.midLine {
		text = "\n" + text
	}
	_, _ = io.WriteString(t.out, text) // the command's own output tells of a log that can't be written
	t.waiting, t.midLine = nil, false
}

// line writes a line now.
func (t *toldOutput) line(text string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.waiting = append(t.waiting, text)
	t.flush(true)
}

// follow passes on the watcher's news until the returned function is called, after which nothing is written for it any more.
func (t *toldOutput) follow() (stop func()) {
	stopped := make(chan struct{})
	var done sync.WaitGroup
	done.Go(func() {
		for {
			texts, more := t.watch.news()
			if len(texts) > 0 {
				t.mu.Lock()
				t.waiting = append(t.waiting, texts...)
				t.flush(false)
				t.mu.Unlock()
			}
			select {
			case <-more:
			case <-stopped:
				return
			}
		}
	})
	return func() {
		close(stopped)
		done.Wait()
		texts, _ := t.watch.news()
		t.mu.Lock()
		defer t.mu.Unlock()
		t.waiting = append(t.waiting, texts...)
		t.flush(true)
	}
}
