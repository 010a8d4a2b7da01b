//go:build unix

package pluginhost

import (
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

	"github.com/hashicorp/go-hclog"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/signalman-ci/signalman/internal/process"
	"github.com/signalman-ci/signalman/shared/protocol"
)

const patience = 90 * time.Second

// asWorker makes the test's own binary a worker.
const asWorker = "SIGNALMAN_TEST_WORKER"

// asHolder makes it what keeps a process from ending; the value is its id.
const asHolder = "SIGNALMAN_TEST_HOLDER"

func TestMain(m *testing.M) {
	if os.Getenv(asHolder) != "" {
		hold()
		return
	}
	if os.Getenv(asWorker) != "" {
		holdable()
		protocol.Serve(fake{})
		return
	}
	goleak.VerifyTestMain(m)
}

// fake is an executor that only answers.
type fake struct{ protocol.Executor }

func (fake) Describe() protocol.Description {
	return protocol.Description{Name: "fake", Version: os.Getenv(asWorker)}
}

// Check tells what the worker's process looks like.
func (fake) Check(context.Context) []protocol.CheckResult {
	stdin, _ := os.Readlink("/proc/self/fd/0")
	sid, _, _ := syscall.Syscall(syscall.SYS_GETSID, 0, 0, 0)
	return []protocol.CheckResult{
		{Name: "env", Message: strings.Join(os.Environ(), "\n")},
		{Name: "stdin", Message: stdin},
		{Name: "session", Message: fmt.Sprint(sid)},
	}
}

func deadline(t *testing.T) context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	t.Cleanup(cancel)
	return ctx
}

// launch is for a worker that the test's binary plays.
func launch(t *testing.T) Launch {
	t.Helper()
	self, err := os.Executable()
	require.NoError(t, err)
	run, err := os.MkdirTemp("", "run") // t.TempDir's path may be too long for a socket
	require.NoError(t, err)
	t.Cleanup(func() {
		left, err := os.ReadDir(run)
		assert.NoError(t, err)
		assert.Empty(t, left, "socket folders are left")
		assert.NoError(t, os.RemoveAll(run))
	})
	return Launch{
		Path: self, Env: []string{asWorker + "=1", "PATH=" + os.Getenv("PATH")}, RunDir: run,
		StderrPath: filepath.Join(t.TempDir(), "worker.log"), Logger: hclog.NewNullLogger(),
	}
}

// script is for a worker that a shell script plays.
func script(t *testing.T, text string) Launch {
	t.Helper()
	l := launch(t)
	l.Path = filepath.Join(t.TempDir(), "worker-script")
	require.NoError(t, os.WriteFile(l.Path, []byte("#!/bin/sh\n"+text+"\n"), 0o700))
	return l
}

func start(t *testing.T, l Launch) *Worker {
	t.Helper()
	w, err := Start(deadline(t), l)
	require.NoError(t, err)
	t.Cleanup(w.Kill)
	return w
}

func (w *Worker) requireEnded(t *testing.T) {
	t.Helper()
	select {
	case <-w.Ended():
	case <-deadline(t).Done():
		require.FailNow(t, "the worker's end isn't seen")
	}
}

func TestStart(t *testing.T) {
	t.Setenv("OF_THE_HOST", "secret")
	w := start(t, launch(t))
	d, err := w.Describe(deadline(t))
	require.NoError(t, err)
	assert.Equal(t, protocol.Description{Name: "fake", Version: "1"}, d)

	at := w.Address()
	assert.True(t, at.Process.Alive())
	assert.Equal(t, "unix", at.Network)
	assert.Less(t, len(at.Socket), 108)
	assert.Equal(t, protocol.Version, at.Protocol)

	checks, err := w.Check(deadline(t))
	require.NoError(t, err)
	seen := map[string]string{}
	for _, c := range checks {
		seen[c.Name] = c.Message
	}
	assert.NotContains(t, seen["env"], "OF_THE_HOST")
	assert.Equal(t, os.DevNull, seen["stdin"])
	assert.Equal(t, fmt.Sprint(at.Process.PID), seen["session"], "the worker leads a session of its own")

	w.Kill()
	w.requireEnded(t)
	assert.False(t, at.Process.Alive())
	w.Kill() // again: nothing
}

// Whatever is wrong with a worker, the error is one line that says what, and nothing is left.
func TestWorkersThatDoNotStart(t *testing.T) {
	for name, c := range map[string]struct {
		script string
		want   []string
	}{
		"ends at once":       {`echo first >&2; echo "no such thing as a frobnicator" >&2; exit 3`, []string{"before its handshake (exit code 3)", ": no such thing as a frobnicator"}},
		"ends silently":      {`exit 0`, []string{"before its handshake (exit code 0)"}},
		"is killed":          {`kill -SEGV $$`, []string{"before its handshake (killed by signal 11, SIGSEGV)"}},
		"is killed for good": {`kill -KILL $$`, []string{"before its handshake (killed by signal 9, SIGKILL)"}},
		"is killed midway":   {`printf 1; echo no memory >&2; kill -KILL $$`, []string{"before its handshake (killed by signal 9, SIGKILL)", ": no memory"}},
		"says nothing":       {`echo what for >&2; exec sleep 1000 >&-`, []string{"it closed its standard output instead of a handshake", ": what for"}},
		"prints rubbish":     {`echo "hello there"; exec sleep 1000`, []string{"hello there"}},
		"prints binary":      {`printf 'a\033[31m\001b\n'; exec sleep 1000`, []string{"a[31mb"}},
		"prints much":        {`head -c 50000 /dev/zero | tr '\0' x; echo; exec sleep 1000`, []string{"xxx…"}},
		"of another core":    {`echo "9|1|unix|/x|grpc"; exec sleep 1000`, []string{"core API version"}},
		"of another age":     {`echo "1|99|unix|/x|grpc"; exec sleep 1000`, []string{"99"}},
		"says much at last":  {`head -c 50000 /dev/zero | tr '\0' y >&2; echo >&2; exit 1`, []string{"(exit code 1)", "yyy…"}},
	} {
		t.Run(name, func(t *testing.T) {
			l := script(t, c.script)
			_, err := Start(deadline(t), l)
			require.Error(t, err)
			for _, want := range append(c.want, "cannot start worker "+l.Path) {
				assert.ErrorContains(t, err, want)
			}
			assert.NotContains(t, err.Error(), "\n")
			assert.Less(t, len(err.Error()), 1000)
		})
	}
}

func TestWorkerThatHangs(t *testing.T) {
	l := script(t, `echo $$ >"$0.pid"; exec sleep 1000`)
	l.HandshakeLimit = time.Second
	_, err := Start(deadline(t), l)
	require.ErrorContains(t, err, "timeout while waiting for plugin to start")
	assert.NotContains(t, err.Error(), "SIGKILL", "that was us")
	if raw, err := os.ReadFile(l.Path + ".pid"); err == nil { // it may not have come that far
		require.NoError(t, exec.Command("sh", "-c", "! kill -0 "+string(raw)).Run())
	}
}

func TestFilesThatAreNoWorkers(t *testing.T) {
	for name, prepare := range map[string]func(path string){
		"not executable": func(path string) { require.NoError(t, os.Chmod(path, 0o600)) },
		"missing":        func(path string) { require.NoError(t, os.Remove(path)) },
		"no program":     func(path string) { require.NoError(t, os.WriteFile(path, []byte("\x00\x01\x02"), 0o700)) },
	} {
		t.Run(name, func(t *testing.T) {
			l := script(t, "exit 0")
			prepare(l.Path)
			_, err := Start(deadline(t), l)
			require.ErrorContains(t, err, "cannot start worker "+l.Path)
			assert.NotContains(t, err.Error(), "\n")
		})
	}
}

func TestLogThatCannotBeOpened(t *testing.T) {
	l := launch(t)
	l.StderrPath = filepath.Join(t.TempDir(), "missing", "worker.log")
	_, err := Start(deadline(t), l)
	require.ErrorContains(t, err, "cannot open the worker's log")
}

func TestStatus(t *testing.T) {
	w := start(t, launch(t))
	require.NoError(t, syscall.Kill(w.Address().Process.PID, syscall.SIGKILL))
	w.requireEnded(t)
	assert.Equal(t, "killed by signal 9, SIGKILL", w.Status().String())
	_, err := w.Describe(deadline(t))
	require.ErrorIs(t, err, protocol.ErrWorkerGone)
	assert.NotContains(t, err.Error(), "\n")
}

// A worker that is frozen doesn't answer, not even to a request to leave.
func TestKillOfAFrozenWorker(t *testing.T) {
	w := start(t, launch(t))
	require.NoError(t, syscall.Kill(w.Address().Process.PID, syscall.SIGSTOP))
	w.Kill()
	w.requireEnded(t)
	assert.False(t, w.Address().Process.Alive())
}

func TestAttach(t *testing.T) {
	first := start(t, launch(t))
	second, err := Attach(first.Address(), hclog.NewNullLogger())
	require.NoError(t, err)
	t.Cleanup(second.Kill)
	assert.Equal(t, first.Address(), second.Address())
	d, err := second.Describe(deadline(t))
	require.NoError(t, err)
	assert.Equal(t, "fake", d.Name)

	// The first supervisor leaves, and the worker stays.
	first.Detach()
	_, err = first.Describe(deadline(t))
	require.Error(t, err)
	_, err = second.Describe(deadline(t))
	require.NoError(t, err)

	require.NoError(t, syscall.Kill(first.Address().Process.PID, syscall.SIGKILL))
	second.requireEnded(t)
	assert.Equal(t, "killed by signal 9, SIGKILL", second.Status().String())
	first.requireEnded(t)

	_, err = Attach(first.Address(), hclog.NewNullLogger())
	gone := (*GoneError)(nil)
	require.ErrorAs(t, err, &gone)
}

func TestKillOfAnAttachedWorker(t *testing.T) {
	first := start(t, launch(t))
	second, err := Attach(first.Address(), hclog.NewNullLogger())
	require.NoError(t, err)
	second.Kill()
	second.requireEnded(t)
	first.requireEnded(t)
	assert.False(t, first.Address().Process.Alive())
}

// The process id may be another process's by now: that one is no business of ours.
func TestAttachToAReusedProcessID(t *testing.T) {
	cmd := exec.Command("sleep", "1000")
	require.NoError(t, cmd.Start())
	reap := sync.OnceFunc(func() { _ = cmd.Process.Kill(); _ = cmd.Wait() })
	t.Cleanup(reap)
	id, err := process.Identify(cmd.Process.Pid)
	require.NoError(t, err)
	id.Start--
	_, err = Attach(Address{Process: id, Network: "unix", Socket: "/nowhere", Protocol: 1}, hclog.NewNullLogger())
	gone := (*GoneError)(nil)
	require.ErrorAs(t, err, &gone)
	assert.False(t, gone.Status.Known)
	End(Address{Process: id}, hclog.NewNullLogger())
	id.Start++
	assert.True(t, id.Alive(), "a stranger was killed")
}

// A process that lives and doesn't listen is something else than one that is gone.
func TestAttachToAProcessThatDoesNotAnswer(t *testing.T) {
	for name, c := range map[string]Address{
		"no socket":        {Network: "unix", Socket: filepath.Join(t.TempDir(), "none"), Protocol: 1},
		"unknown network":  {Network: "pigeon", Socket: "x", Protocol: 1},
		"unknown protocol": {Network: "unix", Socket: filepath.Join(t.TempDir(), "none"), Protocol: 99},
	} {
		t.Run(name, func(t *testing.T) {
			cmd := exec.Command("sleep", "1000")
			require.NoError(t, cmd.Start())
			ended := make(chan struct{})
			go func() { _ = cmd.Wait(); close(ended) }()
			t.Cleanup(func() { _ = cmd.Process.Kill(); <-ended })
			id, err := process.Identify(cmd.Process.Pid)
			require.NoError(t, err)
			c.Process = id
			_, err = Attach(c, hclog.NewNullLogger())
			require.Error(t, err)
			assert.NotErrorAs(t, err, new(*GoneError))
			assert.NotContains(t, err.Error(), "\n")
			End(Address{Process: id}, hclog.NewNullLogger())
			<-ended
		})
	}
}
