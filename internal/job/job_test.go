//go:build unix

package job

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/signalman-ci/signalman/internal/executor/shell"
	"github.com/signalman-ci/signalman/internal/hub/hubtest"
	"github.com/signalman-ci/signalman/internal/jobdir"
	"github.com/signalman-ci/signalman/internal/pluginhost"
	"github.com/signalman-ci/signalman/internal/plugins"
	"github.com/signalman-ci/signalman/internal/process"
	"github.com/signalman-ci/signalman/internal/request"
	"github.com/signalman-ci/signalman/shared/eventlog"
	"github.com/signalman-ci/signalman/shared/protocol"
)

const patience = 90 * time.Second

// asWorker makes the test's own binary a worker for the shell.
const asWorker = "JOB_TEST_WORKER"

// asGlutton makes that worker a glutton, asDeaf a deaf one.
const (
	asGlutton = "JOB_TEST_GLUTTON"
	asDeaf    = "JOB_TEST_DEAF"
)

func TestMain(m *testing.M) {
	if os.Getenv(asWorker) != "" {
		executor := shell.New()
		if os.Getenv(asGlutton) != "" {
			executor = glutton{executor}
		}
		if os.Getenv(asDeaf) != "" {
			executor = deaf{executor}
		}
		protocol.Serve(executor)
		return
	}
	goleak.VerifyTestMain(m)
}

// glutton is an executor whose worker takes more memory than it may have.
type glutton struct{ protocol.Executor }

func (glutton) Prepare(context.Context, *protocol.Job, *protocol.Settings, protocol.SectionLog) (protocol.Environment, error) {
	hoard := make([]byte, 512<<20)
	for i := 0; i < len(hoard); i += os.Getpagesize() {
		hoard[i] = 1
	}
	return nil, errors.New("had all that it wanted")
}

// deaf is an executor that hears no stop.
type deaf struct{ protocol.Executor }

func (deaf) Prepare(context.Context, *protocol.Job, *protocol.Settings, protocol.SectionLog) (protocol.Environment, error) {
	select {}
}

// world is what a job needs, with real workers.
type world struct {
	t        *testing.T
	settings Settings
	folder   *jobdir.Folder
	dir      string // for the commands' files
}

func newWorld(t *testing.T) *world {
	t.Helper()
	self, err := os.Executable()
	require.NoError(t, err)
	own, home := t.TempDir(), t.TempDir()
	require.NoError(t, os.Symlink(self, filepath.Join(own, "worker-shell")))
	run, err := os.MkdirTemp("", "run") // t.TempDir's path may be too long for a socket
	require.NoError(t, err)
	folder, err := jobdir.Create(t.TempDir(), "the-job", 1)
	require.NoError(t, err)
	w := &world{t: t, folder: folder, dir: t.TempDir()}
	w.settings = Settings{
		Finder: plugins.Finder{Own: own}, RunDir: run, Home: home, InstanceID: filepath.Base(run),
		WorkerEnv: []string{asWorker + "=1", "PATH=" + os.Getenv("PATH"), "HOME=" + home},
		BaseEnv:   []protocol.EnvVar{{Name: "PATH", Value: os.Getenv("PATH")}},
		StopGrace: 500 * time.Millisecond, Logger: hclog.NewNullLogger(),
	}
	t.Cleanup(func() {
		left, err := process.MarkedBy("SIGNALMAN_JOB")
		assert.NoError(t, err)
		assert.NotContains(t, left, w.settings.InstanceID+"/the-job", "processes of the job are left")
		sockets, err := os.ReadDir(run)
		assert.NoError(t, err)
		assert.Empty(t, sockets)
		assert.NoError(t, os.RemoveAll(run))
	})
	return w
}

func (w *world) request(commands ...string) *request.Request {
	r := &request.Request{Executor: "shell", Job: &protocol.Job{ID: "the-job"}}
	for _, c := range commands {
		r.Job.Commands = append(r.Job.Commands, protocol.Command{Directive: c})
	}
	return r
}

func (w *world) ctx() context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	w.t.Cleanup(cancel)
	return ctx
}

// outcome is what Run returned.
type outcome struct {
	result protocol.Result
	err    error
}

func (w *world) run(ctx context.Context, req *request.Request, stop <-chan struct{}) <-chan outcome {
	return w.runWith(ctx, req, Control{Stop: stop})
}

func (w *world) runWith(ctx context.Context, req *request.Request, control Control) <-chan outcome {
	done := make(chan outcome, 1)
	go func() {
		result, err := New(w.settings, w.folder).Run(ctx, req, nil, control)
		done <- outcome{result, err}
	}()
	return done
}

func (w *world) await(done <-chan outcome) outcome {
	w.t.Helper()
	select {
	case o := <-done:
		return o
	case <-w.ctx().Done():
		require.FailNow(w.t, "the job doesn't end", "log:\n%s", w.log())
		return outcome{}
	}
}

// awaitFile waits for a file that a command writes, and gives its text.
func (w *world) awaitFile(name string) string {
	w.t.Helper()
	var raw []byte
	require.Eventually(w.t, func() bool {
		raw, _ = os.ReadFile(filepath.Join(w.dir, name))
		return bytes.HasSuffix(raw, []byte("\n"))
	}, patience, 5*time.Millisecond, "no file %s; log:\n%s", name, w.log())
	return strings.TrimSpace(string(raw))
}

func (w *world) awaitProcess(name string) process.Identity {
	w.t.Helper()
	pid, err := strconv.Atoi(w.awaitFile(name))
	require.NoError(w.t, err)
	id, err := process.Identify(pid)
	require.NoError(w.t, err)
	return id
}

func (w *world) log() string {
	raw, _ := os.ReadFile(w.folder.EventsPath())
	return string(raw)
}

// requireLog checks the log's form and result, and gives its output by section.
func (w *world) requireLog(result protocol.Result) map[string]string {
	w.t.Helper()
	var lines [][]byte
	for line := range strings.Lines(w.log()) {
		lines = append(lines, []byte(strings.TrimSuffix(line, "\n")))
	}
	require.NoError(w.t, hubtest.CheckLog(lines), "log:\n%s", w.log())
	out := map[string]string{}
	section := ""
	for _, line := range lines {
		e, err := eventlog.Parse(line)
		require.NoError(w.t, err)
		switch e.Kind {
		case eventlog.KindCmdStarted:
			section = e.Directive
			out[section] += ""
		case eventlog.KindCmdOutput:
			out[section] += e.Output
		case eventlog.KindJobFinished:
			require.Equal(w.t, string(result), e.Result)
		}
	}
	return out
}

func (w *world) workerPID() int { return w.folder.State().Worker.Process.PID }

func TestPasses(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.settings.Env = []protocol.EnvVar{{Name: "A", Value: "agent"}, {Name: "B", Value: "agent"}}
	req := w.request(`echo "$A $B"`)
	req.Job.Env = []protocol.EnvVar{{Name: "B", Value: "job"}}
	o := w.await(w.run(w.ctx(), req, nil))
	require.NoError(t, o.err)
	assert.Equal(t, protocol.Passed, o.result)
	assert.Equal(t, "agent job\n", w.requireLog(protocol.Passed)[`echo "$A $B"`])
	assert.Len(t, req.Job.Env, 1, "the request is left as it is")
	assert.False(t, w.folder.State().Worker.Process.Alive())

	// A supervisor that comes later finds it ended, and starts nothing.
	o = w.await(w.run(w.ctx(), nil, nil))
	assert.Equal(t, outcome{result: protocol.Passed}, o)
}

func TestChoose(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.settings.Executors = map[string]string{"shell": "shell", "dockercompose": "k8s"}
	w.settings.JobExecutors = []string{"special", "shell"}
	j := New(w.settings, w.folder)
	for _, c := range []struct {
		executor string
		wishes   []string
		want     string
	}{
		{"shell", nil, "shell"},
		{"dockercompose", nil, "k8s"},
		{"mine", nil, "mine"}, // what isn't mapped stands for itself
		{"shell", []string{"special"}, "special"},
		{"dockercompose", []string{"k8s", "shell"}, "shell"}, // the last one counts
		{"dockercompose", []string{""}, "k8s"},
		{"shell", []string{"k8s"}, ""},
		{"shell", []string{"../x\n"}, ""},
	} {
		req := &request.Request{Executor: c.executor, Job: &protocol.Job{}}
		for _, wish := range c.wishes {
			req.Job.Env = append(req.Job.Env, protocol.EnvVar{Name: "SIGNALMAN_EXECUTOR", Value: wish})
		}
		got, err := j.choose(req)
		assert.Equal(t, c.want, got)
		if c.want == "" {
			require.ErrorContains(t, err, "job-executors")
			assert.NotContains(t, err.Error(), "\n")
		} else {
			require.NoError(t, err)
		}
	}
}

func TestCannotStart(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		prepare    func(*world, *request.Request)
		requestErr error
		want       string
	}{
		"bad request":      {requestErr: errors.New("files[0]: bad"), want: "files[0]: bad\n"},
		"errors of errors": {requestErr: errors.Join(errors.New("one"), errors.New("two")), want: "one; two\n"},
		"no such executor": {
			prepare: func(_ *world, r *request.Request) { r.Executor = "none" },
			want:    `executor "none": no worker-none in `,
		},
		"broken worker": {
			prepare: func(w *world, _ *request.Request) {
				path := filepath.Join(w.settings.Finder.Own, "worker-shell")
				require.NoError(w.t, os.Remove(path))
				require.NoError(w.t, os.WriteFile(path, []byte("#!/bin/sh\necho sorry >&2; exit 1\n"), 0o700))
			},
			want: "sorry\n",
		},
		"no request": {
			prepare: func(_ *world, r *request.Request) { r.Job.ID = "" },
			want:    "a job needs an id",
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			req := w.request("echo never")
			if c.prepare != nil {
				c.prepare(w, req)
			}
			result, err := New(w.settings, w.folder).Run(w.ctx(), req, c.requestErr, Control{})
			require.NoError(t, err)
			assert.Equal(t, protocol.Failed, result)
			log := w.requireLog(protocol.Failed)
			assert.Contains(t, log[startDirective], c.want)
			assert.Equal(t, 1, strings.Count(log[startDirective], "\n"), "one line")
			assert.NotContains(t, log, "echo never")
		})
	}
}

func TestStoppedBeforeTheStart(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	stop := make(chan struct{})
	close(stop)
	o := w.await(w.run(w.ctx(), w.request("echo never"), stop))
	assert.Equal(t, outcome{result: protocol.Stopped}, o)
	assert.Equal(t, map[string]string{startDirective: "The job was stopped before it began.\n"}, w.requireLog(protocol.Stopped))
	assert.Nil(t, w.folder.State().Worker)
}

// tree is a command that starts processes of several kinds and stays.
func (w *world) tree() string {
	return `cd ` + w.dir + `
(trap '' INT TERM HUP; setsid bash -c 'echo $$ >daemon; while :; do sleep 1; done' &)
nohup sleep 1000 >/dev/null 2>&1 & echo $! >nohup
echo working; echo $$ >shell; sleep 1000`
}

func (w *world) awaitTree() []process.Identity {
	w.t.Helper()
	return []process.Identity{w.awaitProcess("daemon"), w.awaitProcess("nohup"), w.awaitProcess("shell")}
}

func (w *world) requireGone(ids []process.Identity) {
	w.t.Helper()
	for _, id := range ids {
		assert.False(w.t, id.Alive(), "process %d outlives its job", id.PID)
	}
}

func TestStop(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	stop := make(chan struct{})
	done := w.run(w.ctx(), w.request(w.tree(), "echo never"), stop)
	ids := w.awaitTree()
	close(stop)
	assert.Equal(t, outcome{result: protocol.Stopped}, w.await(done))
	w.requireGone(ids)
	assert.NotContains(t, w.requireLog(protocol.Stopped), "echo never")
}

// The worker dies in mid-command: the job's log says why, and what it had started goes.
func TestWorkerIsKilled(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	done := w.run(w.ctx(), w.request(w.tree()), nil)
	ids := w.awaitTree()
	require.NoError(t, syscall.Kill(w.workerPID(), syscall.SIGKILL))
	assert.Equal(t, outcome{result: protocol.Failed}, w.await(done))
	w.requireGone(ids)
	output := w.requireLog(protocol.Failed)[w.tree()]
	assert.Contains(t, output, "The job's worker process died: killed by signal 9, SIGKILL.\n")
}

// A worker that hangs can't stop its job, nor be asked to leave.
// What kills a worker may kill the next one that cleans up as well; another tries again.
func TestCleanupIsTriedAgain(t *testing.T) {
	w := newWorld(t)
	self, err := os.Executable()
	require.NoError(t, err)
	// The first worker runs the job, the second dies at once, the third cleans up.
	launches := filepath.Join(w.dir, "launches")
	script := fmt.Sprintf("#!/bin/sh\necho >>%[1]s\n[ $(wc -l <%[1]s) = 2 ] && kill -9 $$\nexec %[2]s\n", launches, self)
	path := filepath.Join(w.settings.Finder.Own, "worker-shell")
	require.NoError(t, os.Remove(path))
	require.NoError(t, os.WriteFile(path, []byte(script), 0o700))
	done := w.run(w.ctx(), w.request(w.tree()), nil)
	tree := w.awaitTree()
	require.NoError(t, syscall.Kill(w.workerPID(), syscall.SIGKILL))
	assert.Equal(t, outcome{result: protocol.Failed}, w.await(done))
	w.requireGone(tree)
	raw, err := os.ReadFile(launches)
	require.NoError(t, err)
	assert.Len(t, raw, 3)
}

func TestStopOfAFrozenWorker(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	stop := make(chan struct{})
	done := w.run(w.ctx(), w.request(w.tree()), stop)
	ids := w.awaitTree()
	require.NoError(t, syscall.Kill(w.workerPID(), syscall.SIGSTOP))
	close(stop)
	assert.Equal(t, outcome{result: protocol.Stopped}, w.await(done))
	w.requireGone(ids)
	w.requireLog(protocol.Stopped)
}

// A worker that hangs is found out without anybody's asking for the job's end.
func TestFrozenWorker(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.settings.SilenceLimit = 3 * time.Second
	req := w.request(w.tree())
	done := w.run(w.ctx(), req, nil)
	ids := w.awaitTree()
	require.NoError(t, syscall.Kill(w.workerPID(), syscall.SIGSTOP))
	assert.Equal(t, outcome{result: protocol.Failed}, w.await(done))
	w.requireGone(ids)
	assert.Contains(t, w.requireLog(protocol.Failed)[req.Job.Commands[0].Directive], "The job's worker hung and was ended: no answer for 3s.\n")
}

// The time that a job may take is its own, also under the next supervisor with other settings.
func TestTimeout(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.settings.Timeout = time.Hour
	req := w.request(w.tree(), "echo never")
	leave := make(chan struct{})
	done := w.runWith(w.ctx(), req, Control{Leave: leave})
	ids := w.awaitTree()
	close(leave)
	require.ErrorIs(t, w.await(done).err, ErrLeft)
	w.settings.Timeout = 0
	assert.WithinRange(t, w.folder.State().Deadline, time.Now().Add(time.Hour-patience), time.Now().Add(time.Hour))
	require.NoError(t, w.folder.Update(func(s *jobdir.State) { s.Deadline = time.Now() })) // the hour has passed
	assert.Equal(t, outcome{result: protocol.Stopped}, w.await(w.run(w.ctx(), req, nil)))
	w.requireGone(ids)
	assert.Contains(t, w.requireLog(protocol.Stopped)[req.Job.Commands[0].Directive],
		"Warning: The job took longer than 1h0m0s ([limits] timeout) and is stopped.\n")
}

// What a worker says of its own end is told.
func TestWorkerPanics(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	req := w.request(w.tree())
	done := w.run(w.ctx(), req, nil)
	w.awaitTree()
	require.NoError(t, syscall.Kill(w.workerPID(), syscall.SIGQUIT)) // the Go runtime's own way to crash
	assert.Equal(t, outcome{result: protocol.Failed}, w.await(done))
	assert.Contains(t, w.requireLog(protocol.Failed)[req.Job.Commands[0].Directive],
		"The job's worker process died: exit code 2 (SIGQUIT: quit).\n")
}

// A job that is left before it begins hasn't begun.
func TestLeftBeforeTheStart(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	leave := make(chan struct{})
	close(leave)
	require.ErrorIs(t, w.await(w.runWith(w.ctx(), w.request("echo hello"), Control{Leave: leave})).err, ErrLeft)
	assert.Nil(t, w.folder.State().Worker)
	assert.Equal(t, outcome{result: protocol.Passed}, w.await(w.run(w.ctx(), w.request("echo hello"), nil)))
}

// abandoned is a job whose supervisor has died: its worker runs, and nobody is connected.
func (w *world) abandoned(req *request.Request) *pluginhost.Worker {
	w.t.Helper()
	worker, problem := New(w.settings, w.folder).worker(w.ctx(), req, nil, nil)
	require.Nil(w.t, problem)
	worker.Detach()
	w.t.Cleanup(func() { <-worker.Ended() })
	w.t.Cleanup(worker.Kill)
	return worker
}

func TestNextSupervisorGoesOn(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	req := w.request(`cd `+w.dir+`; mkfifo gate; echo $$ >shell; read x <gate; echo "got $x"`, "echo last")
	w.abandoned(req)
	w.awaitFile("shell")
	done := w.run(w.ctx(), req, nil)
	require.NoError(t, os.WriteFile(filepath.Join(w.dir, "gate"), []byte("through\n"), 0))
	assert.Equal(t, outcome{result: protocol.Passed}, w.await(done))
	log := w.requireLog(protocol.Passed)
	assert.Contains(t, log[req.Job.Commands[0].Directive], "got through\n")
	assert.Equal(t, "last\n", log["echo last"])
}

// The first supervisor died when it had noted the worker and not yet given it the job.
func TestNextSupervisorHandsOverTheJob(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	req := w.request("echo here")
	j := New(w.settings, w.folder)
	worker, executor, err := j.launch(w.ctx(), req)
	require.NoError(t, err)
	at := worker.Address()
	require.NoError(t, w.folder.Update(func(s *jobdir.State) {
		s.Worker = &jobdir.Worker{Executor: executor, Process: at.Process, Network: at.Network, Address: at.Socket, Protocol: at.Protocol}
	}))
	worker.Detach()
	t.Cleanup(worker.Kill)
	assert.Equal(t, outcome{result: protocol.Passed}, w.await(w.run(w.ctx(), req, nil)))
	assert.Equal(t, "here\n", w.requireLog(protocol.Passed)["echo here"])
}

func TestWorkerDiesWithoutASupervisor(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	req := w.request(w.tree())
	worker := w.abandoned(req)
	ids := w.awaitTree()
	require.NoError(t, syscall.Kill(w.workerPID(), syscall.SIGKILL))
	<-worker.Ended() // and collected: nobody can know how it ended
	// The machine went down in mid-write, too.
	f, err := os.OpenFile(w.folder.EventsPath(), os.O_APPEND|os.O_WRONLY, 0)
	require.NoError(t, err)
	_, err = f.WriteString(`{"event":"cmd_output","timest`)
	require.NoError(t, errors.Join(err, f.Close()))

	assert.Equal(t, outcome{result: protocol.Failed}, w.await(w.run(w.ctx(), req, nil)))
	w.requireGone(ids)
	assert.Contains(t, w.requireLog(protocol.Failed)[w.tree()], "The job's worker ended while no supervisor was there to see why.\n")
}

// known notes a worker that isn't there any more.
func (w *world) known(change func(*process.Identity)) {
	w.t.Helper()
	other, err := process.Identify(os.Getpid())
	require.NoError(w.t, err)
	change(&other)
	require.NoError(w.t, w.folder.Update(func(s *jobdir.State) {
		s.Worker = &jobdir.Worker{Executor: "shell", Process: other, Network: "unix", Address: "/x", Protocol: 1}
	}))
}

// A worker that died before its first event hasn't begun with the job.
func TestDeadWorkerWithoutALog(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.known(func(id *process.Identity) { id.Start-- })
	assert.Equal(t, outcome{result: protocol.Passed}, w.await(w.run(w.ctx(), w.request("echo now"), nil)))
	assert.Equal(t, "now\n", w.requireLog(protocol.Passed)["echo now"])
}

// begun writes the log of a job that is in the middle of a command.
func (w *world) begun() {
	w.t.Helper()
	log, err := eventlog.OpenWriter(w.folder.EventsPath(), eventlog.Options{})
	require.NoError(w.t, err)
	require.NoError(w.t, log.Append(eventlog.JobStarted(time.Now()), eventlog.CmdStarted(time.Now(), "a")))
	require.NoError(w.t, log.Close())
}

// A job that was stopped ends as that, also if its worker died meanwhile.
func TestStoppedJobWhoseWorkerIsGone(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.known(func(id *process.Identity) { id.Start-- })
	w.begun()
	stop := make(chan struct{})
	close(stop)
	assert.Equal(t, outcome{result: protocol.Stopped}, w.await(w.run(w.ctx(), w.request("a"), stop)))
	assert.Contains(t, w.requireLog(protocol.Stopped)["a"], "no supervisor was there")
}

// How a worker died is told, though the supervisor that saw it didn't live to write it.
func TestEndingThatWasNoted(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.known(func(id *process.Identity) { id.Start-- })
	w.begun()
	j := New(w.settings, w.folder)
	require.NoError(t, j.noteEnding(problem{directive: endDirective, text: "It was so.", result: protocol.Failed}))
	assert.Equal(t, outcome{result: protocol.Failed}, w.await(w.run(w.ctx(), w.request("a"), nil)))
	assert.Equal(t, "It was so.\n", w.requireLog(protocol.Failed)["a"])
}

// A worker that is slow to start isn't waited for by a supervisor that leaves; the next one launches another.
func TestLeftWhileTheWorkerStarts(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	slow := t.TempDir()
	begun := filepath.Join(w.dir, "begun")
	require.NoError(t, os.WriteFile(filepath.Join(slow, "worker-shell"), []byte("#!/bin/sh\necho yes >"+begun+"\nexec sleep 1000\n"), 0o755))
	own := w.settings.Finder
	w.settings.Finder = plugins.Finder{Own: slow}
	leave := make(chan struct{})
	done := w.runWith(w.ctx(), w.request("echo hello"), Control{Leave: leave})
	w.awaitFile("begun")
	close(leave)
	require.ErrorIs(t, w.await(done).err, ErrLeft)
	assert.Nil(t, w.folder.State().Worker)
	w.settings.Finder = own
	assert.Equal(t, outcome{result: protocol.Passed}, w.await(w.run(w.ctx(), w.request("echo hello"), nil)))
}

// A worker that takes note of a stop and does nothing about it doesn't hold its slot for ever.
func TestDeafWorker(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.settings.WorkerEnv = append(w.settings.WorkerEnv, asDeaf+"=1")
	w.settings.StopLimit, w.settings.Timeout = 2*time.Second, time.Second
	assert.Equal(t, outcome{result: protocol.Stopped}, w.await(w.run(w.ctx(), w.request("echo never"), nil)))
	assert.Equal(t, "The job took longer than 1s ([limits] timeout) and is stopped. "+
		"The job's worker hung and was ended: the job did not end in 2s after it was to stop.\n", w.requireLog(protocol.Stopped)[endDirective])
}

func TestHostWasRestarted(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.known(func(id *process.Identity) { id.Boot = "another one" })
	assert.Equal(t, outcome{result: protocol.Failed}, w.await(w.run(w.ctx(), w.request("echo never"), nil)))
	assert.Equal(t, "The host was restarted while the job ran.\n", w.requireLog(protocol.Failed)[endDirective])
}

// Between two sections the reason gets a section of its own.
func TestCloseLogBetweenSections(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	log, err := eventlog.OpenWriter(w.folder.EventsPath(), eventlog.Options{})
	require.NoError(t, err)
	now := time.Now()
	require.NoError(t, log.Append(eventlog.JobStarted(now), eventlog.CmdStarted(now, "a"), eventlog.CmdFinished(now, "a", 0, now, now)))
	require.NoError(t, log.Close())
	require.NoError(t, New(w.settings, w.folder).closeLog(problem{directive: endDirective, text: "Because.", result: protocol.Failed}, nil))
	assert.Equal(t, map[string]string{"a": "", endDirective: "Because.\n"}, w.requireLog(protocol.Failed))
}

// Within a section it is a line of its own, wherever the command's output was cut.
func TestCloseLogInMidLine(t *testing.T) {
	t.Parallel()
	for output, want := range map[string]string{"": "Because.\n", "a line\n": "a line\nBecause.\n", "half a li": "half a li\nBecause.\n"} {
		w := newWorld(t)
		log, err := eventlog.OpenWriter(w.folder.EventsPath(), eventlog.Options{})
		require.NoError(t, err)
		now := time.Now()
		require.NoError(t, log.Append(eventlog.JobStarted(now), eventlog.CmdStarted(now, "a")))
		if output != "" {
			require.NoError(t, log.Append(eventlog.CmdOutput(now, output)))
		}
		require.NoError(t, log.Close())
		require.NoError(t, New(w.settings, w.folder).closeLog(problem{directive: endDirective, text: "Because.", result: protocol.Failed}, nil))
		assert.Equal(t, map[string]string{"a": want}, w.requireLog(protocol.Failed))
	}
}

// When the supervisor has to leave at once it asks the job to stop and doesn't wait; the worker sees to the rest.
func TestContextEnds(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	ctx, cancel := context.WithCancel(w.ctx())
	done := w.run(ctx, w.request(w.tree()), nil)
	ids := w.awaitTree()
	cancel()
	require.ErrorIs(t, w.await(done).err, context.Canceled)
	worker := w.folder.State().Worker
	_, err := process.Wait(w.ctx(), worker.Process)
	require.NoError(t, err)
	w.requireGone(ids)
	w.requireLog(protocol.Stopped)
	// The next supervisor finds its end.
	assert.Equal(t, outcome{result: protocol.Stopped}, w.await(w.run(w.ctx(), nil, nil)))
	require.NoError(t, os.RemoveAll(filepath.Dir(worker.Address)))
}

func TestPluginEnv(t *testing.T) {
	environ := []string{"VAULT_A=1", "VAULT_B=2", "EDITOR=e", "SEMAPHORE_AGENT_TOKEN=t", "NOTIFY_SOCKET=n", "SIGNALMAN_X=x", "=odd"}
	assert.Equal(t, []string{"VAULT_A=1", "VAULT_B=2"}, PluginEnv(environ, []string{"VAULT_*", "NONE"}))
	assert.Equal(t, []string{"VAULT_A=1", "VAULT_B=2", "EDITOR=e"}, PluginEnv(environ, []string{"*"}))
	assert.Empty(t, PluginEnv(environ, nil))
}

func TestWorkerEnv(t *testing.T) {
	t.Parallel()
	got := WorkerEnv([]string{"PATH=/bin", "LC_ALL=C", "AWS_REGION=x", "https_proxy=p", "SEMAPHORE_AGENT_TOKEN=t", "NOTIFY_SOCKET=n", "EDITOR=e", "=odd", "HOME=/h=h"})
	assert.Equal(t, []string{"PATH=/bin", "LC_ALL=C", "AWS_REGION=x", "https_proxy=p", "HOME=/h=h"}, got)
}

func TestBaseEnv(t *testing.T) {
	t.Parallel()
	environ := []string{
		"PATH=/bin", "EDITOR=vi", "EMPTY=", "WITH=a=b", "SEMAPHORE_AGENT_TOKEN=secret", "SEMAPHORE_AGENT_ENDPOINT=e", "NOTIFY_SOCKET=n",
		"WATCHDOG_USEC=1", "LISTEN_FDS=1", "LISTEN_PID=2", "INVOCATION_ID=i", "JOURNAL_STREAM=j", "SIGNALMAN_TOKEN=t", "PLUGIN_X=p", "=C:=x",
	}
	env := func(pairs ...string) (out []protocol.EnvVar) {
		for i := 0; i < len(pairs); i += 2 {
			out = append(out, protocol.EnvVar{Name: pairs[i], Value: pairs[i+1]})
		}
		return out
	}
	assert.Equal(t, env("TERM", "xterm", "PATH", "/bin", "EDITOR", "vi", "EMPTY", "", "WITH", "a=b"), BaseEnv(environ, nil))
	assert.Equal(t, env("TERM", "xterm", "PATH", "/bin", "EDITOR", "vi"), BaseEnv(environ, []string{"PATH", "ED*", "["}))
	assert.Equal(t, env("TERM", "xterm"), BaseEnv(environ, []string{"SEMAPHORE_*", "NOTIFY_SOCKET"}), "what is withheld can't be passed")
}
