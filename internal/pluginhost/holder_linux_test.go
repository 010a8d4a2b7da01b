package pluginhost

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"os"
	"os/exec"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

// A process that KILL doesn't end, as it is with one that waits for a disk, can be had with a tracer that lets it stop on its way out.

// holdable lets every process trace this one, where the kernel would only let its parents.
func holdable() { _ = unix.Prctl(unix.PR_SET_PTRACER, ^uintptr(0), 0, 0, 0) } // a kernel without Yama knows no such thing

// needsTracing skips a test where Yama lets this user trace no process of its own (scope 1: unless that one allows it).
func needsTracing(t *testing.T, scope int) {
	t.Helper()
	raw, err := os.ReadFile("/proc/sys/kernel/yama/ptrace_scope")
	if err != nil {
		return
	}
	is, err := strconv.Atoi(strings.TrimSpace(string(raw)))
	require.NoError(t, err)
	if is > scope && (is > 2 || os.Geteuid() != 0) {
		t.Skipf("kernel.yama.ptrace_scope is %d", is)
	}
}

// hold keeps a process from ending until standard input ends.
func hold() {
	runtime.LockOSThread()
	pid, err := strconv.Atoi(os.Getenv(asHolder))
	if err == nil {
		if _, _, errno := unix.Syscall6(unix.SYS_PTRACE, unix.PTRACE_SEIZE, uintptr(pid), 0, unix.PTRACE_O_TRACEEXIT, 0, 0); errno != 0 {
			err = errno
		}
	}
	fmt.Println(err)
	_, _ = io.Copy(io.Discard, os.Stdin)
}

// keepFromEnding returns what lets the process end at last.
func keepFromEnding(t *testing.T, pid int) (release func()) {
	t.Helper()
	self, err := os.Executable()
	require.NoError(t, err)
	holder := exec.Command(self)
	holder.Env = append(os.Environ(), fmt.Sprintf("%s=%d", asHolder, pid))
	stdin, err := holder.StdinPipe()
	require.NoError(t, err)
	stdout, err := holder.StdoutPipe()
	require.NoError(t, err)
	require.NoError(t, holder.Start())
	release = sync.OnceFunc(func() {
		assert.NoError(t, stdin.Close())
		assert.NoError(t, holder.Wait())
	})
	t.Cleanup(release)
	line, err := bufio.NewReader(stdout).ReadString('\n')
	require.NoError(t, err)
	require.Equal(t, "<nil>\n", line)
	return release
}

// A worker that waits for a disk for ever must not hold its slot, or an upgrade.
func TestKillOfAWorkerThatDoesNotEnd(t *testing.T) {
	needsTracing(t, 1)
	for _, attach := range []bool{false, true} {
		l := launch(t)
		var log bytes.Buffer
		l.Logger = hclog.New(&hclog.LoggerOptions{Output: &log})
		first, err := Start(deadline(t), l)
		require.NoError(t, err)
		w := first
		if attach {
			w, err = Attach(first.Address(), l.Logger)
			require.NoError(t, err)
		}
		pid := first.Address().Process.PID
		release := keepFromEnding(t, pid)
		w.kill(time.Second)
		assert.Contains(t, log.String(), fmt.Sprintf("a worker's process doesn't end; going on without it (if its state is D it waits for a disk or a network file system): pid=%d", pid))
		assert.NoFileExists(t, w.Address().Socket)
		select {
		case <-w.Ended():
			assert.Fail(t, "it was said to have ended")
		default:
		}
		assert.NoError(t, syscall.Kill(pid, 0))

		log.Reset()
		end(w.Address(), time.Second, l.Logger)
		assert.Contains(t, log.String(), "a worker's process doesn't end")

		release()
		w.requireEnded(t)
		first.requireEnded(t)
		first.Detach()
		log.Reset()
		End(w.Address(), l.Logger)
		assert.Empty(t, log.String())
	}
}

// One that doesn't end before its handshake doesn't hold its launch either.
func TestStartOfAWorkerThatDoesNotEnd(t *testing.T) {
	needsTracing(t, 0)
	// It has no child: that one's end would be a signal, for which a process with a tracer stops.
	l := script(t, `echo $$ >"$0.pid"; read -r line <"$0.held"; echo rubbish; exec sleep 1000`)
	require.NoError(t, unix.Mkfifo(l.Path+".held", 0o600))
	started := make(chan error, 1)
	go func() {
		_, err := Start(deadline(t), l)
		started <- err
	}()
	var pid int
	require.Eventually(t, func() bool {
		raw, err := os.ReadFile(l.Path + ".pid")
		if err != nil || !strings.HasSuffix(string(raw), "\n") {
			return false
		}
		pid, err = strconv.Atoi(strings.TrimSpace(string(raw)))
		return assert.NoError(t, err)
	}, patience, 5*time.Millisecond)
	release := keepFromEnding(t, pid)
	require.NoError(t, os.WriteFile(l.Path+".held", nil, 0o600))
	select {
	case err := <-started:
		assert.ErrorContains(t, err, "rubbish")
		assert.NoError(t, syscall.Kill(pid, 0))
	case <-deadline(t).Done():
		assert.Fail(t, "the launch waits for the worker's end")
	}
	release()
	require.Eventually(t, func() bool { return syscall.Kill(pid, 0) != nil }, patience, 5*time.Millisecond, "it isn't collected")
}
