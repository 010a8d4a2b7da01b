package e2e

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/signalman-ci/signalman/internal/hub/hubtest"
)

// patience is how long a test waits for anything: far longer than it takes, so that a slow machine fails no test.
const patience = 90 * time.Second

var binaries string

func TestMain(m *testing.M) {
	code, err := buildAndRun(m)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		code = 1
	}
	os.Exit(code)
}

func buildAndRun(m *testing.M) (int, error) {
	dir, err := os.MkdirTemp("", "signalman-e2e-")
	if err != nil {
		return 0, err
	}
	defer os.RemoveAll(dir)
	if err := os.Chmod(dir, 0o755); err != nil { // for jobs of other users
		return 0, err
	}
	build := exec.Command("go", "build", "-o", dir, "../../cmd/...")
	if out, err := build.CombinedOutput(); err != nil {
		return 0, fmt.Errorf("cannot build the binaries: %w\n%s", err, out)
	}
	binaries = dir
	return m.Run(), nil
}

// host is a machine with an agent on it: a state folder, a home, and the settings for its supervisor.
type host struct {
	t    *testing.T
	hub  *hubtest.Hub
	dir  string
	args []string
	env  []string
}

// newHost makes a host whose supervisor registers with a hub of its own.
func newHost(t *testing.T, o hubtest.Options, args ...string) *host {
	t.Helper()
	hub := hubtest.Start(t, o)
	dir := t.TempDir()
	home := filepath.Join(dir, "home")
	require.NoError(t, os.Mkdir(home, 0o755))
	return &host{
		t: t, hub: hub, dir: dir,
		args: append([]string{
			"start", "--endpoint", hub.Endpoint(), "--no-https", "--state-dir", filepath.Join(dir, "state"), "--name", "host-under-test",
		}, args...),
		env: []string{
			"PATH=" + os.Getenv("PATH"), "HOME=" + home, "SEMAPHORE_AGENT_TOKEN=" + hub.RegistrationToken(),
			"TMPDIR=" + os.TempDir(), "LANG=C.UTF-8",
		},
	}
}

// jobDir is the folder of a job.
func (h *host) jobDir(id string) string { return filepath.Join(h.dir, "state", "jobs", id) }

// supervisor is a running supervisor process.
type supervisor struct {
	t    *testing.T
	cmd  *exec.Cmd
	log  *logBuffer
	done chan struct{}
	err  error
}

// start starts the host's supervisor; the test's end kills it if nothing else has ended it.
func (h *host) start(more ...string) *supervisor {
	h.t.Helper()
	s := &supervisor{t: h.t, log: &logBuffer{}, done: make(chan struct{})}
	s.cmd = exec.Command(filepath.Join(binaries, "supervisor"), append(h.args, more...)...)
	s.cmd.Env, s.cmd.Dir = h.env, h.dir
	s.cmd.Stdout, s.cmd.Stderr = s.log, s.log
	require.NoError(h.t, s.cmd.Start())
	go func() {
		s.err = s.cmd.Wait()
		close(s.done)
	}()
	h.t.Cleanup(func() {
		s.kill()
		if h.t.Failed() {
			h.t.Logf("supervisor's log:\n%s", s.log)
		}
	})
	return s
}

// kill is kill -9.
func (s *supervisor) kill() {
	_ = s.cmd.Process.Kill()
	<-s.done
}

func (s *supervisor) signal(sig syscall.Signal) {
	s.t.Helper()
	require.NoError(s.t, s.cmd.Process.Signal(sig))
}

// exit waits for the supervisor's end and gives its exit code.
func (s *supervisor) exit() int {
	s.t.Helper()
	select {
	case <-s.done:
		return s.cmd.ProcessState.ExitCode()
	case <-time.After(patience):
		s.t.Fatalf("the supervisor doesn't end; its log:\n%s", s.log)
		return 0
	}
}

// submit hands a job to the hub.
func (h *host) submit(r hubtest.Request) string {
	h.t.Helper()
	id, err := h.hub.Submit(r)
	require.NoError(h.t, err)
	return id
}

// finished waits for a job's end and checks its log's form.
func (h *host) finished(id string) hubtest.Job {
	h.t.Helper()
	job, err := h.hub.WaitFinished(h.ctx(), id)
	require.NoError(h.t, err, "job %s: log so far:\n%s", id, h.hub.Log(id))
	return job
}

// output waits until a job's log holds a text.
func (h *host) output(id, text string) {
	h.t.Helper()
	for from := 0; ; {
		lines, err := h.hub.WaitLog(h.ctx(), id, from)
		require.NoError(h.t, err, "waiting for %q in:\n%s", text, h.hub.Log(id))
		from += len(lines)
		if strings.Contains(h.outputOf(id), text) {
			return
		}
		require.NotEmpty(h.t, lines, "the job ended without %q in:\n%s", text, h.hub.Log(id))
	}
}

// outputOf is all output of a job so far.
func (h *host) outputOf(id string) string {
	h.t.Helper()
	events, err := h.hub.Events(id)
	require.NoError(h.t, err)
	var b strings.Builder
	for _, e := range events {
		b.WriteString(e.Output)
	}
	return b.String()
}

// checkLog checks the form of a finished job's log.
func (h *host) checkLog(id string) {
	h.t.Helper()
	require.NoError(h.t, hubtest.CheckLog(h.hub.LogLines(id)), "log:\n%s", h.hub.Log(id))
}

// ctx is a context with the test's patience.
func (h *host) ctx() context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	h.t.Cleanup(cancel)
	return ctx
}

// eventually waits for a condition that nothing signals.
func eventually(t *testing.T, what string, cond func() bool) {
	t.Helper()
	require.Eventually(t, cond, patience, 20*time.Millisecond, what)
}

// logBuffer collects what a process prints.
type logBuffer struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (b *logBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.Write(p)
}

func (b *logBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.String()
}
