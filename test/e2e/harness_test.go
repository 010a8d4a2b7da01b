//go:build unix

package e2e

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/signalman-ci/signalman/internal/hub"
	"github.com/signalman-ci/signalman/internal/hub/hubtest"
	"github.com/signalman-ci/signalman/test/harness"
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
	if err := harness.Build(context.Background(), dir); err != nil {
		return 0, err
	}
	binaries = dir
	// The tests wait more than they work, so that more of them can run side by side than there are processors.
	flag.Parse()
	if p := flag.Lookup("test.parallel"); p.Value.String() == p.DefValue {
		if err := p.Value.Set("12"); err != nil {
			return 0, err
		}
	}
	return m.Run(), nil
}

// agentName is the name that hosts register with, unless they are told another.
const agentName = "host-under-test"

// host is a machine with an agent on it: a state folder, a home, and the settings for its supervisor.
type host struct {
	t    *testing.T
	hub  *hubtest.Hub
	dir  string
	bin  string // where its binaries are
	args []string
	env  []string
}

// newHost makes a host whose supervisor registers with a hub of its own.
func newHost(t *testing.T, o hubtest.Options, args ...string) *host {
	t.Helper()
	return newHostAt(t, hubtest.Start(t, o), args...)
}

// newHostAt makes a host whose supervisor registers with a hub.
func newHostAt(t *testing.T, hub *hubtest.Hub, args ...string) *host {
	t.Helper()
	dir := openDir(t)
	home := filepath.Join(dir, "home")
	require.NoError(t, os.Mkdir(home, 0o755))
	return &host{
		t: t, hub: hub, dir: dir, bin: binaries,
		args: append([]string{
			"start", "--endpoint", hub.Endpoint(), "--no-https", "--state-dir", filepath.Join(dir, "state"), "--name", agentName,
		}, args...),
		env: []string{
			"PATH=" + os.Getenv("PATH"), "HOME=" + home, "SEMAPHORE_AGENT_TOKEN=" + hub.RegistrationToken(),
			"TMPDIR=" + os.TempDir(), "LANG=C.UTF-8",
		},
	}
}

// openDir is a folder for the test that other users may enter, as t.TempDir isn't.
func openDir(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "signalman-host-")
	require.NoError(t, err)
	t.Cleanup(func() { assert.NoError(t, os.RemoveAll(dir)) })
	require.NoError(t, os.Chmod(dir, 0o755))
	return dir
}

// path is a path in the host's folder.
func (h *host) path(name string) string { return filepath.Join(h.dir, name) }

// write puts a file into the host's folder.
func (h *host) write(name, content string) string {
	h.t.Helper()
	path := h.path(name)
	require.NoError(h.t, os.WriteFile(path, []byte(content), 0o644))
	return path
}

// read gives a file of the host's folder; "" if there is none.
func (h *host) read(name string) string {
	h.t.Helper()
	raw, err := os.ReadFile(h.path(name))
	if !errors.Is(err, fs.ErrNotExist) {
		require.NoError(h.t, err)
	}
	return string(raw)
}

// config gives the supervisor a config file.
func (h *host) config(toml string) {
	h.t.Helper()
	h.args = append(h.args, "--config-file", h.write("agent.toml", toml))
}

// untilFile is a command that waits for a file of the host's folder.
func (h *host) untilFile(name string) string {
	return "until [ -e " + h.path(name) + " ]; do sleep 0.02; done"
}

// jobDir is the folder of a job.
func (h *host) jobDir(id string) string { return filepath.Join(h.dir, "state", "jobs", id) }

// supervisor is a running supervisor process.
type supervisor struct {
	*harness.Process
	t *testing.T
}

// start starts the host's supervisor; the test's end kills it if nothing else has ended it.
func (h *host) start(more ...string) *supervisor {
	h.t.Helper()
	return h.startBy(exec.Command(filepath.Join(h.bin, "supervisor"), append(h.args, more...)...))
}

// startBy is start by a command of the test's own, which becomes the supervisor.
func (h *host) startBy(cmd *exec.Cmd) *supervisor {
	h.t.Helper()
	cmd.Env, cmd.Dir = h.env, h.dir
	p, err := harness.Start(cmd)
	require.NoError(h.t, err)
	h.t.Cleanup(func() {
		p.Kill()
		assert.Empty(h.t, harness.Crashes(p.Log.String()))
		crashes, err := harness.WorkerCrashes(h.path("state"))
		assert.NoError(h.t, err)
		assert.Empty(h.t, crashes)
		if h.t.Failed() {
			h.t.Logf("supervisor's log:\n%s", p.Log)
		}
	})
	return &supervisor{Process: p, t: h.t}
}

// kill is kill -9.
func (s *supervisor) kill() { s.Kill() }

func (s *supervisor) signal(sig syscall.Signal) {
	s.t.Helper()
	require.NoError(s.t, s.Signal(sig))
}

// exit waits for the supervisor's end and gives its exit code.
func (s *supervisor) exit() int {
	s.t.Helper()
	code, err := s.Exit(patience)
	require.NoError(s.t, err, "the supervisor's log:\n%s", s.Log)
	return code
}

// says waits until the supervisor has printed a text.
func (s *supervisor) says(text string) {
	s.t.Helper()
	eventually(s.t, "the supervisor says "+text, func() bool { return strings.Contains(s.Log.String(), text) })
}

// logLines gives the lines of the supervisor's log that hold all the texts.
func (s *supervisor) logLines(texts ...string) []string {
	var found []string
	for line := range strings.Lines(s.Log.String()) {
		if !slices.ContainsFunc(texts, func(text string) bool { return !strings.Contains(line, text) }) {
			found = append(found, line)
		}
	}
	return found
}

// saysOnce waits for a line of the supervisor's log that holds all the texts, and checks that there is one only.
func (s *supervisor) saysOnce(texts ...string) {
	s.t.Helper()
	eventually(s.t, fmt.Sprintf("the supervisor says %q", texts), func() bool { return len(s.logLines(texts...)) > 0 })
	assert.Len(s.t, s.logLines(texts...), 1, "%q", texts)
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
	require.NoError(h.t, h.hub.WaitOutput(h.ctx(), id, text), "log so far:\n%s", h.hub.Log(id))
}

// outputOf is all output of a job so far.
func (h *host) outputOf(id string) string {
	h.t.Helper()
	output, err := h.hub.Output(id)
	require.NoError(h.t, err)
	return output
}

// delivered checks that the hub has the log of a finished job as it is on disk, byte for byte, and all of it before the result.
func (h *host) delivered(id string) {
	h.t.Helper()
	h.checkLog(id)
	job, _ := h.hub.Job(id)
	assert.Equal(h.t, job.LogEvents, job.LogEventsAtEnd, "the log must be complete before finished-job")
	raw, err := os.ReadFile(filepath.Join(h.jobDir(id), "events.jsonl"))
	require.NoError(h.t, err)
	assert.Equal(h.t, string(raw), string(h.hub.Log(id)), "every event once, in order")
}

// transcript tells a job's log in short: a line an event, with the pieces of one output put together.
func (h *host) transcript(id string) []string {
	h.t.Helper()
	events, err := h.hub.Events(id)
	require.NoError(h.t, err)
	var out []string
	piece := false
	for _, e := range events {
		switch e.Event {
		case "cmd_output":
			if piece {
				out[len(out)-1] += e.Output
			} else {
				out = append(out, "output "+e.Output)
			}
		case "cmd_started":
			out = append(out, "begin "+e.Directive)
		case "cmd_finished":
			require.NotNil(h.t, e.ExitCode)
			out = append(out, fmt.Sprintf("end %s: %d", e.Directive, *e.ExitCode))
		case "job_finished":
			out = append(out, "job_finished "+e.Result)
		default:
			out = append(out, e.Event)
		}
		piece = e.Event == "cmd_output"
	}
	return out
}

// agentState waits until the hub has heard a state of an agent.
func (h *host) agentState(state hub.State) {
	h.t.Helper()
	require.NoError(h.t, h.hub.WaitAgents(h.ctx(), func(agents []hubtest.Agent) bool {
		return slices.ContainsFunc(agents, func(a hubtest.Agent) bool { return a.State == state })
	}))
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
