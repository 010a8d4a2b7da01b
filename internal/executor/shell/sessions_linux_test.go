package shell

import (
	"bufio"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"

	"github.com/google/uuid"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/signalman-ci/signalman/shared/protocol"
)

// host starts a worker and gives the process that its job leaves.
func host(t *testing.T) (dir string, worker *exec.Cmd, pid int) {
	t.Helper()
	dir = filepath.Join(t.TempDir(), uuid.NewString())
	require.NoError(t, os.MkdirAll(filepath.Join(dir, "tmp"), 0o700))
	worker = exec.Command(os.Args[0])
	worker.Env = append(os.Environ(), asHost+"="+dir)
	worker.Stderr = os.Stderr
	out, err := worker.StdoutPipe()
	require.NoError(t, err)
	require.NoError(t, worker.Start())
	t.Cleanup(func() { _, _ = worker.Process.Kill(), worker.Wait() })
	line, err := bufio.NewReader(out).ReadString('\n')
	require.NoError(t, err)
	_, err = fmt.Sscan(line, &pid)
	require.NoError(t, err)
	t.Cleanup(func() { _ = syscall.Kill(pid, syscall.SIGKILL) })
	require.True(t, alive(pid))
	return dir, worker, pid
}

// A process that has dropped the job's mark, but not left its session, is found without cgroups as well.
func TestCleanupBySession(t *testing.T) {
	dir, worker, pid := host(t)
	otherDir, otherWorker, other := host(t)
	require.NoError(t, worker.Process.Kill())
	require.Error(t, worker.Wait())
	require.True(t, alive(pid), "it has survived its worker")

	job, settings := jobIn(dir)
	require.NoError(t, New().Cleanup(ctx(t), job, settings))
	assert.False(t, alive(pid))
	assert.NoFileExists(t, sessionsPath(settings))
	require.NoError(t, New().Cleanup(ctx(t), job, settings), "it can be repeated")
	assert.True(t, alive(other), "of another job")

	require.NoError(t, otherWorker.Process.Kill())
	job, settings = jobIn(otherDir)
	require.NoError(t, New().Cleanup(ctx(t), job, settings))
	assert.False(t, alive(other))
}

// What the worker has noted goes with the job, and what can't be read names nobody.
func TestNotedSessions(t *testing.T) {
	w := newWorld(t, "", func(s *protocol.Settings) { s.LogPath = filepath.Join(filepath.Dir(s.TempDir), "events.jsonl") })
	path := sessionsPath(w.set)
	_, _ = w.run(w.shell(), "true")
	_, _ = w.run(w.shell(), "true")
	noted, err := notedSessions(path)
	require.NoError(t, err)
	require.Len(t, noted, 2)
	assert.True(t, noted[0].Alive())

	raw, err := os.ReadFile(path)
	require.NoError(t, err)
	require.NoError(t, os.WriteFile(path, append([]byte("{}\nnull\n{\"pid\":-1}\n\n"), raw[:len(raw)-5]...), 0o600))
	left, err := notedSessions(path)
	require.NoError(t, err)
	assert.Equal(t, noted[:1], left)
	w.close()
	assert.NoFileExists(t, path)
}

// A job of another user can't name processes to be killed with the worker's rights.
func TestSessionsAreOutOfAJobsReach(t *testing.T) {
	w := newWorld(t, jobUser(t).Username, func(s *protocol.Settings) { s.LogPath = filepath.Join(filepath.Dir(s.TempDir), "events.jsonl") })
	path := protocol.ShellQuote(sessionsPath(w.set))
	out, _ := w.run(w.shell(), "{ echo x >>"+path+"; rm -f "+path+"; cat "+path+"; } 2>/dev/null; ls "+path+" 2>/dev/null")
	assert.NotContains(t, out, "pid")
	noted, err := notedSessions(sessionsPath(w.set))
	require.NoError(t, err)
	assert.Len(t, noted, 1)
}
