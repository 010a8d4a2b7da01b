package process

import (
	"bufio"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

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

	stop := make(chan struct{})
	ended := make(chan error, 1)
	wait := func(stop <-chan struct{}) {
		status, err := Wait(id, stop)
		assert.False(t, status.Known)
		ended <- err
	}
	go wait(stop)
	close(stop)
	require.NoError(t, <-ended)
	assert.True(t, id.Alive(), "a wait that was given up ends nothing")

	other := id
	other.Start++
	_, err = Wait(other, nil)
	require.NoError(t, err, "the id is another process's now")

	require.NoError(t, stdin.Close())
	status, err := Wait(id, nil)
	require.NoError(t, err)
	assert.Equal(t, Status{Known: true}, status)
	assert.False(t, id.Alive())
	wait(nil)
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
		status, err := Wait(id, nil)
		require.NoError(t, err)
		assert.Equal(t, want, status.String())
		require.Error(t, cmd.Wait())
	}
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
		status, err := Wait(id, nil)
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
