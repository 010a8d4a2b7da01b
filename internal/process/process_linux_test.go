package process

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
	"unsafe"

	"github.com/google/uuid"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"
	"golang.org/x/sys/unix"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// These tests start real processes, and a Tree ends all below the test's own process: none of them runs in parallel.

const (
	patience = 90 * time.Second
	grace    = 300 * time.Millisecond
)

func deadline(t *testing.T) context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	t.Cleanup(cancel)
	return ctx
}

func eventually(t *testing.T, what string, cond func() bool) {
	t.Helper()
	require.Eventually(t, cond, patience, 5*time.Millisecond, what)
}

// newTree makes a tree; at the test's end nothing is left of it.
func newTree(t *testing.T) *Tree {
	t.Helper()
	tree, err := NewTree()
	require.NoError(t, err)
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		defer cancel()
		assert.NoError(t, tree.End(ctx, 0, 0))
		tree.Close()
	})
	return tree
}

// job is a bash script in a tree. What it prints, a line each, tells that it has come so far.
type job struct {
	t     *testing.T
	cmd   *exec.Cmd
	lines *bufio.Scanner
	done  chan error
}

func startJob(t *testing.T, tree *Tree, script string, env ...string) *job {
	t.Helper()
	j := &job{t: t, cmd: exec.Command("bash", "-c", script), done: make(chan error, 1)}
	j.cmd.Env = append(os.Environ(), env...)
	j.cmd.Dir = t.TempDir()
	r, w, err := os.Pipe()
	require.NoError(t, err)
	t.Cleanup(func() { r.Close() })
	j.cmd.Stdout = w
	require.NoError(t, tree.Start(j.cmd))
	require.NoError(t, w.Close())
	go func() { j.done <- j.cmd.Wait() }()
	j.lines = bufio.NewScanner(r)
	return j
}

// line reads the next line that the script prints.
func (j *job) line() string {
	j.t.Helper()
	require.True(j.t, j.lines.Scan(), "the script has ended: %v", j.lines.Err())
	return j.lines.Text()
}

// pid reads a line with a process id.
func (j *job) pid() Identity {
	j.t.Helper()
	pid, err := strconv.Atoi(j.line())
	require.NoError(j.t, err)
	id, err := Identify(pid)
	require.NoError(j.t, err)
	return id
}

func (j *job) requireEnded() {
	j.t.Helper()
	select {
	case <-j.done:
	case <-deadline(j.t).Done():
		require.FailNow(j.t, "the job's first process doesn't end")
	}
}

func requireNothingLeft(t *testing.T) {
	t.Helper()
	pids, err := descendants()
	require.NoError(t, err)
	require.Empty(t, pids)
}

func TestIdentity(t *testing.T) {
	self, err := Identify(os.Getpid())
	require.NoError(t, err)
	assert.True(t, self.Alive())
	assert.NotZero(t, self.Start)
	assert.NotEmpty(t, self.Boot)

	reused := self
	reused.Start++
	assert.False(t, reused.Alive(), "the id was given to a later process")
	rebooted := self
	rebooted.Boot = "another"
	assert.False(t, rebooted.Alive())
	assert.False(t, Identity{}.Alive())
	assert.False(t, Identity{PID: -1, Boot: self.Boot}.Alive())
}

func TestZombieIsNotAlive(t *testing.T) {
	cmd := exec.Command("cat")
	stdin, err := cmd.StdinPipe()
	require.NoError(t, err)
	require.NoError(t, cmd.Start())
	id, err := Identify(cmd.Process.Pid)
	require.NoError(t, err)
	require.True(t, id.Alive())
	require.NoError(t, stdin.Close())
	eventually(t, "the process ends", func() bool { return !id.Alive() })
	assert.NoError(t, syscall.Kill(id.PID, 0), "it is still there as a zombie")
	_, err = Identify(id.PID)
	require.ErrorIs(t, err, os.ErrProcessDone)
	require.NoError(t, cmd.Wait())
	_, err = Identify(id.PID)
	require.ErrorIs(t, err, os.ErrNotExist)
}

// The name of a process stands in the middle of its stat line and may look like the rest of it.
func TestProcessWithAnOddName(t *testing.T) {
	bash, err := exec.LookPath("cat")
	require.NoError(t, err)
	odd := filepath.Join(t.TempDir(), "x) Z 1 (1")
	require.NoError(t, os.Symlink(bash, odd))
	cmd := exec.Command(odd)
	stdin, err := cmd.StdinPipe()
	require.NoError(t, err)
	require.NoError(t, cmd.Start())
	id, err := Identify(cmd.Process.Pid)
	assert.NoError(t, err)
	assert.True(t, id.Alive())
	require.NoError(t, stdin.Close())
	require.NoError(t, cmd.Wait())
}

func TestWait(t *testing.T) {
	cmd := exec.Command("cat")
	stdin, err := cmd.StdinPipe()
	require.NoError(t, err)
	require.NoError(t, cmd.Start())
	id, err := Identify(cmd.Process.Pid)
	require.NoError(t, err)

	ctx, stop := context.WithCancel(deadline(t))
	ended := make(chan error, 1)
	wait := func(ctx context.Context) {
		status, err := Wait(ctx, id)
		assert.False(t, status.Known)
		ended <- err
	}
	go wait(ctx)
	stop()
	require.ErrorIs(t, <-ended, context.Canceled)
	assert.True(t, id.Alive(), "a wait that was given up ends nothing")

	other := id
	other.Start++
	_, err = Wait(deadline(t), other)
	require.NoError(t, err, "the id is another process's now")

	require.NoError(t, stdin.Close())
	status, err := Wait(deadline(t), id)
	require.NoError(t, err)
	assert.Equal(t, Status{Known: true}, status)
	assert.False(t, id.Alive())
	wait(deadline(t))
	require.NoError(t, <-ended)
	require.Error(t, cmd.Wait(), "it was collected")
}

func TestWaitTellsHowAChildEnded(t *testing.T) {
	for script, want := range map[string]string{"exit 3": "exit code 3", "kill -9 $$": "killed by signal 9, SIGKILL", "kill -SEGV $$": "killed by signal 11, SIGSEGV", "read": "exit code 1"} {
		cmd := exec.Command("bash", "-c", "read; "+script)
		stdin, err := cmd.StdinPipe()
		require.NoError(t, err)
		require.NoError(t, cmd.Start())
		id, err := Identify(cmd.Process.Pid)
		require.NoError(t, err)
		require.NoError(t, stdin.Close())
		status, err := Wait(deadline(t), id)
		require.NoError(t, err)
		assert.Equal(t, want, status.String())
		require.Error(t, cmd.Wait())
	}
}

// shortOfFiles runs f while this process may open no file.
func shortOfFiles(t *testing.T, f func()) {
	t.Helper()
	var old unix.Rlimit
	require.NoError(t, unix.Getrlimit(unix.RLIMIT_NOFILE, &old))
	require.NoError(t, unix.Setrlimit(unix.RLIMIT_NOFILE, &unix.Rlimit{Cur: 0, Max: old.Max}))
	defer func() { require.NoError(t, unix.Setrlimit(unix.RLIMIT_NOFILE, &old)) }()
	f()
}

// withoutPidfds runs f on a thread whose pidfd_open fails, as it does in a sandbox or before Linux 5.3.
func withoutPidfds(t *testing.T, errno syscall.Errno, f func()) {
	t.Helper()
	filter := []unix.SockFilter{
		{Code: unix.BPF_LD | unix.BPF_W | unix.BPF_ABS, K: 0}, // the number of the call
		{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, K: unix.SYS_PIDFD_OPEN, Jf: 1},
		{Code: unix.BPF_RET | unix.BPF_K, K: unix.SECCOMP_RET_ERRNO | uint32(errno)},
		{Code: unix.BPF_RET | unix.BPF_K, K: unix.SECCOMP_RET_ALLOW},
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		runtime.LockOSThread() // for good: the thread ends with this goroutine, and the filter with it
		prog := unix.SockFprog{Len: uint16(len(filter)), Filter: &filter[0]}
		if assert.NoError(t, unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)) &&
			assert.NoError(t, unix.Prctl(unix.PR_SET_SECCOMP, unix.SECCOMP_MODE_FILTER, uintptr(unsafe.Pointer(&prog)), 0, 0)) {
			f()
		}
	}()
	<-done
}

// reader is a child that ends when its standard input does.
func reader(t *testing.T, script string) (Identity, *exec.Cmd, io.Closer) {
	t.Helper()
	cmd := exec.Command("sh", "-c", "read -r line; "+script)
	stdin, err := cmd.StdinPipe()
	require.NoError(t, err)
	require.NoError(t, cmd.Start())
	id, err := Identify(cmd.Process.Pid)
	require.NoError(t, err)
	return id, cmd, stdin
}

// soon gives a wait up that must not end before.
func soon() (context.Context, context.CancelFunc) {
	return context.WithTimeout(context.Background(), 3*lookInterval)
}

// The supervisor writes into the log of a worker that has ended: a worker of which nothing can be known has not.
func TestAProcessThatCannotBeSeenIsAlive(t *testing.T) {
	id, cmd, stdin := reader(t, "exit 0")
	other := id
	other.Start++
	shortOfFiles(t, func() {
		assert.True(t, id.Alive())
		assert.True(t, other.Alive(), "its start can't be read")
		assert.False(t, id.Rebooted())
		_, err := Identify(id.PID)
		assert.ErrorIs(t, err, unix.EMFILE)
		ctx, cancel := soon()
		defer cancel()
		_, err = Wait(ctx, id)
		assert.ErrorIs(t, err, context.DeadlineExceeded)
		assert.ErrorIs(t, Kill(ctx, id), unix.EMFILE, "nobody knows whose that number is")
	})
	assert.False(t, other.Alive())
	require.NoError(t, stdin.Close())
	require.NoError(t, cmd.Wait(), "it was killed")
	shortOfFiles(t, func() {
		assert.False(t, id.Alive(), "nothing has that number: no file is needed to know that")
		_, err := Wait(deadline(t), id)
		assert.NoError(t, err)
		assert.NoError(t, Kill(deadline(t), id))
	})
}

// Where no pidfd can be had a process is looked at until it has certainly ended.
func TestWaitWithoutPidfds(t *testing.T) {
	for _, errno := range []syscall.Errno{unix.ENOSYS, unix.EPERM} {
		withoutPidfds(t, errno, func() {
			id, cmd, stdin := reader(t, "kill -SEGV $$")
			ctx, cancel := soon()
			defer cancel()
			_, err := Wait(ctx, id)
			assert.ErrorIs(t, err, context.DeadlineExceeded)
			assert.NoError(t, stdin.Close())
			status, err := Wait(deadline(t), id)
			assert.NoError(t, err)
			assert.Equal(t, "killed by signal 11, SIGSEGV", status.String())
			assert.Error(t, cmd.Wait(), "it was collected")
			_, err = Wait(deadline(t), id)
			assert.NoError(t, err)
		})
	}
}

func TestKill(t *testing.T) {
	id, cmd, _ := reader(t, "exit 0")
	other := id
	other.Start++
	require.NoError(t, Kill(deadline(t), other))
	require.NoError(t, Kill(deadline(t), Identity{}))
	require.True(t, id.Alive(), "a stranger was killed")
	require.NoError(t, Kill(deadline(t), id))
	require.ErrorContains(t, cmd.Wait(), "killed")
	require.NoError(t, Kill(deadline(t), id))
}

// The worker that an earlier supervisor had started is nobody's child that could be waited for.
func TestWaitTellsHowAnotherProcessEnded(t *testing.T) {
	var kernel unix.Utsname
	require.NoError(t, unix.Uname(&kernel))
	var major, minor int
	_, err := fmt.Sscanf(unix.ByteSliceToString(kernel.Release[:]), "%d.%d", &major, &minor)
	require.NoError(t, err)
	if major < 6 || major == 6 && minor < 15 {
		t.Skip("the kernel tells it from 6.15 on")
	}
	out, err := exec.Command("bash", "-c", "sleep 1000 >/dev/null 2>&1 & echo $!").Output()
	require.NoError(t, err)
	pid, err := strconv.Atoi(strings.TrimSpace(string(out)))
	require.NoError(t, err)
	id, err := Identify(pid)
	require.NoError(t, err)
	told := make(chan Status, 1)
	go func() {
		status, err := Wait(deadline(t), id)
		assert.NoError(t, err)
		told <- status
	}()
	eventually(t, "the process is watched", func() bool { return watched(t, pid) })
	require.NoError(t, syscall.Kill(pid, syscall.SIGKILL))
	status := <-told
	if s, err := readStat(pid); err == nil && s.ended() {
		t.Skip("init doesn't collect orphans here")
	}
	assert.Equal(t, "killed by signal 9, SIGKILL", status.String())
}

// watched tells whether this process holds a pidfd of another one.
func watched(t *testing.T, pid int) bool {
	infos, err := filepath.Glob("/proc/self/fdinfo/*")
	require.NoError(t, err)
	for _, path := range infos {
		if raw, err := os.ReadFile(path); err == nil && strings.Contains(string(raw), fmt.Sprintf("\nPid:\t%d\n", pid)) {
			return true
		}
	}
	return false
}

func TestEndOfAnEmptyTree(t *testing.T) {
	tree := newTree(t)
	require.NoError(t, tree.End(deadline(t), time.Hour, 0))
	require.NoError(t, tree.End(deadline(t), time.Hour, os.Getpid()), "this process is no leader of its own tree")
}

// A process that handles INT gets the time to do so, and no other signal.
func TestEndIsGentle(t *testing.T) {
	tree := newTree(t)
	dir := t.TempDir()
	j := startJob(t, tree, fmt.Sprintf(`trap 'echo int >>%[1]s/said; exit 0' INT; trap 'echo term >>%[1]s/said' TERM
		echo ready; while :; do sleep 0.05; done`, dir))
	j.line()
	require.NoError(t, tree.End(deadline(t), time.Minute, 0))
	j.requireEnded()
	requireNothingLeft(t)
	said, err := os.ReadFile(filepath.Join(dir, "said"))
	require.NoError(t, err)
	assert.Equal(t, "int\n", string(said))
}

func TestEndOfStubbornProcesses(t *testing.T) {
	tree := newTree(t)
	dir := t.TempDir()
	j := startJob(t, tree, fmt.Sprintf(`trap 'echo int >>%[1]s/said' INT; trap 'echo term >>%[1]s/said' TERM
		echo ready; while :; do sleep 0.01; done`, dir))
	j.line()
	require.NoError(t, tree.End(deadline(t), 2*time.Second, 0))
	j.requireEnded()
	requireNothingLeft(t)
	said, err := os.ReadFile(filepath.Join(dir, "said"))
	require.NoError(t, err)
	assert.Equal(t, "int\nterm\n", string(said))
}

// Whatever a job does to leave its shell's reach, it stays below the reaper.
func TestEndReachesDaemons(t *testing.T) {
	for name, script := range map[string]string{
		"background":     `sleep 1000 & echo $!; wait`,
		"nohup":          `nohup sleep 1000 >/dev/null 2>&1 & echo $!; wait`,
		"ignored INT":    `trap '' INT TERM HUP; sleep 1000 & echo $!; wait`,
		"setsid":         `setsid bash -c 'echo $$; exec sleep 1000' & wait`,
		"double fork":    `(setsid bash -c 'trap "" HUP; (sleep 1000 & echo $!) ' </dev/null 2>&1 &); sleep 1000`,
		"orphan":         `(sleep 1000 & echo $!); exit 0`,
		"stopped":        `sleep 1000 & kill -STOP $!; echo $!; wait`,
		"no environment": `env -i setsid bash -c 'echo $$; exec -a x sleep 1000' & wait`,
	} {
		t.Run(name, func(t *testing.T) {
			tree := newTree(t)
			j := startJob(t, tree, script)
			child := j.pid()
			require.NoError(t, tree.End(deadline(t), grace, 0))
			assert.False(t, child.Alive())
			j.requireEnded()
			requireNothingLeft(t)
		})
	}
}

// The leader is a shell that would go on with its next line once its command has ended.
func TestFrozenLeaderStartsNothingMore(t *testing.T) {
	tree := newTree(t)
	mark := filepath.Join(t.TempDir(), "went-on")
	j := startJob(t, tree, fmt.Sprintf(`trap : INT TERM; bash -c 'echo $$; exec sleep 1000'; touch %s; sleep 1000`, mark))
	child := j.pid()
	require.NoError(t, tree.End(deadline(t), time.Minute, j.cmd.Process.Pid))
	assert.False(t, child.Alive())
	j.requireEnded()
	assert.NoFileExists(t, mark)
	requireNothingLeft(t)
}

// The grace is cut short when the time is up, and no frozen leader stays behind.
func TestEndWhoseTimeIsUp(t *testing.T) {
	tree := newTree(t)
	j := startJob(t, tree, `trap '' INT TERM; sleep 1000 & echo $!; wait; sleep 1000`)
	child := j.pid()
	ctx, cancel := context.WithCancel(deadline(t))
	cancel()
	require.ErrorIs(t, tree.End(ctx, time.Hour, j.cmd.Process.Pid), context.Canceled)
	j.requireEnded()
	eventually(t, "the child is killed", func() bool { return !child.Alive() })
}

func TestEndOfAForkLoop(t *testing.T) {
	tree := newTree(t)
	j := startJob(t, tree, `trap '' INT TERM
		for i in $(seq 300); do (setsid sleep 1000 </dev/null >/dev/null 2>&1 &); [ $i != 20 ] || echo going; done; wait`)
	j.line()
	require.NoError(t, tree.End(deadline(t), 0, 0))
	j.requireEnded()
	requireNothingLeft(t)
}

// Orphans are collected as they end, and the exit status of what somebody waits for is left alone.
func TestOrphansAreReaped(t *testing.T) {
	tree := newTree(t)
	j := startJob(t, tree, `for i in $(seq 50); do (sleep 0.01 &); done; echo done; read -r; exit 7`)
	j.line()
	eventually(t, "no zombie is left", func() bool {
		procs, err := all()
		require.NoError(t, err)
		for _, p := range procs {
			if p.ppid == os.Getpid() && p.pid != j.cmd.Process.Pid {
				return false
			}
		}
		return true
	})
	require.NoError(t, tree.End(deadline(t), 0, 0))
	j.requireEnded()
}

func TestReaperLeavesExitCodes(t *testing.T) {
	tree := newTree(t)
	for range 30 {
		cmd := exec.Command("bash", "-c", `(true &); exit 7`)
		require.NoError(t, tree.Start(cmd))
		var exit *exec.ExitError
		require.ErrorAs(t, cmd.Wait(), &exit)
		require.Equal(t, 7, exit.ExitCode())
	}
}

// A child that nobody has waited for yet must not hide the orphans that end behind it.
func TestOrphansBehindAnUnwaitedChildAreReaped(t *testing.T) {
	tree := newTree(t)
	known := exec.Command("true")
	require.NoError(t, tree.Start(known))
	id := known.Process.Pid
	eventually(t, "it is a zombie", func() bool { s, err := readStat(id); return err == nil && s.ended() })
	j := startJob(t, tree, `for i in $(seq 5); do (sleep 0.01 &); done; exit 0`)
	j.requireEnded()
	eventually(t, "no orphan is left", func() bool {
		procs, err := all()
		require.NoError(t, err)
		left := 0
		for _, p := range procs {
			if p.ppid == os.Getpid() && p.pid != id {
				left++
			}
		}
		return left == 0
	})
	require.NoError(t, known.Wait())
}

func TestStartOfNothing(t *testing.T) {
	tree := newTree(t)
	require.Error(t, tree.Start(exec.Command("/no/such/file")))
	requireNothingLeft(t)
}

func TestMarked(t *testing.T) {
	const variable = "SIGNALMAN_TEST_MARK"
	mine, other := uuid.NewString(), uuid.NewString()
	tree := newTree(t)
	first := startJob(t, tree, `trap '' TERM; (setsid bash -c 'echo $$; exec sleep 1000' &); sleep 1000`, variable+"="+mine)
	daemon := first.pid()
	second := startJob(t, tree, `sleep 1000 & echo $!; wait`, variable+"="+other)
	bystander := second.pid()

	found, err := MarkedBy(variable)
	require.NoError(t, err)
	assert.Contains(t, found[mine], daemon.PID)
	assert.Contains(t, found[other], bystander.PID)

	require.NoError(t, EndMarked(deadline(t), grace, variable, mine))
	first.requireEnded()
	assert.False(t, daemon.Alive())
	assert.True(t, bystander.Alive(), "another job's processes are left alone")
	require.NoError(t, EndMarked(deadline(t), grace, variable, mine), "it can be repeated")
	require.NoError(t, EndMarked(deadline(t), grace, variable, uuid.NewString()))
	found, err = MarkedBy(variable)
	require.NoError(t, err)
	assert.NotContains(t, found, mine)
	assert.Contains(t, found, other)
}

// The mark is what a process was started with: it can change its variables, but a part of a value is no mark.
func TestMarkIsExact(t *testing.T) {
	const variable = "SIGNALMAN_TEST_MARK"
	mine := uuid.NewString()
	tree := newTree(t)
	changed := startJob(t, tree, `export `+variable+`=other; unset `+variable+`; echo $$; sleep 1000; :`, variable+"="+mine)
	longer := startJob(t, tree, `echo $$; exec sleep 1000`, variable+"="+mine+"-more", "X"+variable+"="+mine)
	id, bystander := changed.pid(), longer.pid()
	require.NoError(t, EndMarked(deadline(t), grace, variable, mine))
	assert.False(t, id.Alive())
	assert.True(t, bystander.Alive())
}

// In the middle of execve a process has no environment. One that executes one program after another is found all the same, each time.
func TestMarkOfAProcessThatExecutes(t *testing.T) {
	const variable = "SIGNALMAN_TEST_MARK"
	mine := uuid.NewString()
	tree := newTree(t)
	again := `exec sh -c "$0" "$0"`
	j := startJob(t, tree, `echo $$; `+strings.Replace(again, "$0", "$AGAIN", 2), variable+"="+mine, "AGAIN="+again)
	id := j.pid()
	for range 300 {
		found, err := MarkedBy(variable)
		require.NoError(t, err)
		require.Equal(t, []int{id.PID}, found[mine])
	}
	require.NoError(t, EndMarked(deadline(t), grace, variable, mine))
	assert.False(t, id.Alive())
}

func TestEndMarkedWhoseTimeIsUp(t *testing.T) {
	const variable = "SIGNALMAN_TEST_MARK"
	mine := uuid.NewString()
	tree := newTree(t)
	j := startJob(t, tree, `trap '' TERM; echo $$; while :; do sleep 0.1; done`, variable+"="+mine)
	id := j.pid()
	ctx, cancel := context.WithCancel(deadline(t))
	cancel()
	err := EndMarked(ctx, time.Hour, variable, mine)
	require.ErrorIs(t, err, context.Canceled)
	assert.True(t, strings.HasPrefix(err.Error(), "cannot end processes ["), err)
	eventually(t, "it is killed all the same", func() bool { return !id.Alive() })
}
