package compose

import (
	"context"
	"fmt"
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
		for _, reason := range reasons(s.Kernel(), s.limits) {
			told.line(reason + "\n")
		}
	}
	return exit, err
}

// reasons are lines that tell what the kernel did while a command ran.
func reasons(k helper.Kernel, limits protocol.Limits) []string {
	var out []string
	if k.OOMKills > 0 {
		why := "as the host ran out of memory."
		if limits.Memory > 0 {
			why = fmt.Sprintf("at its limit of %s ([limits] memory).", cgroup.Size(limits.Memory))
		}
		out = append(out, "Out of memory: the kernel killed a process of this job "+why)
	}
	if k.PidsRefused > 0 {
		why := "at a limit of the host."
		if limits.Pids > 0 {
			why = fmt.Sprintf("at its limit of %d ([limits] pids).", limits.Pids)
		}
		out = append(out, "Too many processes: the kernel refused this job another process or thread "+why)
	}
	return out
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
