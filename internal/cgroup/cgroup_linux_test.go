package cgroup

import (
	"context"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/signalman-ci/signalman/shared/protocol"
)

// These tests use this machine's own cgroups, which only root may as a rule.

const patience = 90 * time.Second

func deadline(t *testing.T) context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	t.Cleanup(cancel)
	return ctx
}

func eventually(t *testing.T, what string, cond func() bool) {
	t.Helper()
	require.Eventually(t, cond, patience, 5*time.Millisecond, what)
}

func openHost(t *testing.T, instance string) *Host {
	t.Helper()
	if os.Getuid() != 0 {
		t.Skip("only root may use this machine's cgroups")
	}
	h, err := Open(instance)
	require.NoError(t, err)
	t.Cleanup(func() {
		assert.Empty(t, h.Jobs())
		h.Close()
		for _, s := range h.seats {
			assert.NoDirExists(t, s.folder)
		}
	})
	return h
}

func newGroup(t *testing.T, h *Host, id string, limits protocol.Limits) *Group {
	t.Helper()
	g, err := h.Create(id, limits)
	require.NoError(t, err)
	cleanUp(t, g)
	return g
}

func cleanUp(t *testing.T, g *Group) {
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		defer cancel()
		assert.NoError(t, g.Kill(ctx))
		assert.NoError(t, g.Remove(ctx))
		for _, dir := range g.JobDirs() {
			assert.NoDirExists(t, dir)
		}
	})
}

// running is a command that was started; at the test's end it is waited for. What it prints goes to a file: the end of a pipe would
// have to be waited for, which a process in the background may hold.
type running struct {
	*exec.Cmd
	done chan struct{}
}

func start(t *testing.T, dirs []string, name string, args ...string) *running {
	t.Helper()
	return startWith(t, dirs, nil, name, args...)
}

// startWith is start with a standard input.
func startWith(t *testing.T, dirs []string, stdin io.Reader, name string, args ...string) *running {
	t.Helper()
	r := &running{Cmd: exec.Command(name, args...), done: make(chan struct{})}
	r.Dir = t.TempDir()
	out, err := os.Create(filepath.Join(r.Dir, "out"))
	require.NoError(t, err)
	defer out.Close()
	r.Stdin, r.Stdout, r.Stderr = stdin, out, out
	require.NoError(t, Start(dirs, r.Cmd, (*exec.Cmd).Start))
	go func() { defer close(r.done); _ = r.Wait() }()
	t.Cleanup(func() {
		_ = r.Process.Kill()
		r.end(t)
	})
	return r
}

// end waits for the end and gives the exit code, -1 for a signal.
func (r *running) end(t *testing.T) int {
	t.Helper()
	select {
	case <-r.done:
		return r.ProcessState.ExitCode()
	case <-deadline(t).Done():
		require.FailNow(t, "the command goes on")
		return 0
	}
}

// said is what the command has printed so far.
func (r *running) said(t *testing.T) string {
	t.Helper()
	raw, err := os.ReadFile(filepath.Join(r.Dir, "out"))
	require.NoError(t, err)
	return string(raw)
}

// pidIn waits for a script to write a pid into a file of its folder.
func (r *running) pidIn(t *testing.T, file string) int {
	t.Helper()
	var pid int
	eventually(t, file+" tells a pid", func() bool {
		raw, err := os.ReadFile(filepath.Join(r.Dir, file))
		pid, _ = strconv.Atoi(strings.TrimSpace(string(raw)))
		return err == nil && strings.HasSuffix(string(raw), "\n")
	})
	return pid
}

func alive(pid int) bool {
	raw, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return false
	}
	_, state, _ := strings.Cut(string(raw), ") ")
	return state[0] != 'Z' && state[0] != 'X'
}

// threads tells the cgroups of each thread of this process that isn't about to end.
func threads(t *testing.T) []string {
	t.Helper()
	found, err := filepath.Glob("/proc/self/task/*/cgroup")
	require.NoError(t, err)
	var out []string
	for _, file := range found {
		if raw, err := os.ReadFile(file); err == nil {
			out = append(out, string(raw))
		}
	}
	slices.Sort(out)
	return slices.Compact(out)
}

func TestProcessesAreBornInTheGroup(t *testing.T) {
	h := openHost(t, uuid.NewString())
	g := newGroup(t, h, "the.job_1", protocol.Limits{Memory: 1 << 30, MilliCPUs: 2000, Pids: 1000})
	before := threads(t)
	require.NotEmpty(t, g.JobDirs())
	for range 100 {
		r := start(t, g.JobDirs(), "cat", "/proc/self/cgroup")
		require.Zero(t, r.end(t))
		for i, s := range h.seats {
			dir, ok := s.folderOf([]byte(r.said(t)))
			require.True(t, ok, r.said(t))
			require.Equal(t, g.JobDirs()[i], dir)
		}
	}
	assert.Equal(t, before, threads(t), "this process itself has stayed where it was")
	e, err := EventsOf(g.JobDirs())
	require.NoError(t, err)
	assert.Zero(t, e.OOMKills+e.PidsRefused)
}

// Where the kernel can't start a process in a v2 cgroup it is moved there.
func TestStartWithoutClone(t *testing.T) {
	g := newGroup(t, openHost(t, uuid.NewString()), "j", protocol.Limits{})
	cmd := exec.Command("sleep", "1000")
	require.NoError(t, startIn(g.JobDirs(), cmd, (*exec.Cmd).Start, func() bool { return false }))
	for _, dir := range g.JobDirs() {
		pids, err := pidsIn(dir)
		require.NoError(t, err)
		assert.Contains(t, pids, cmd.Process.Pid)
	}
	require.NoError(t, g.Kill(deadline(t)))
	require.Error(t, cmd.Wait())
	assert.True(t, cloneIntoCgroup(), "this machine's kernel can")
}

func TestStartThatFails(t *testing.T) {
	g := newGroup(t, openHost(t, uuid.NewString()), "j", protocol.Limits{})
	before := threads(t)
	require.ErrorIs(t, Start(g.JobDirs(), exec.Command("/no/such/program"), (*exec.Cmd).Start), fs.ErrNotExist)
	for _, dir := range g.JobDirs() {
		gone := filepath.Join(dir, "gone")
		for _, dirs := range [][]string{{gone}, {dir, gone}} {
			err := Start(dirs, exec.Command("true"), (*exec.Cmd).Start)
			require.ErrorContains(t, err, gone)
		}
	}
	err := Start([]string{t.TempDir()}, exec.Command("true"), (*exec.Cmd).Start)
	require.ErrorContains(t, err, "there would be no way back")
	assert.Equal(t, before, threads(t))
	require.NoError(t, Start(nil, exec.Command("true"), (*exec.Cmd).Run), "without cgroups it just starts")
}

// greedy takes 200 MB, if it gets them.
const greedy = `printf -v x %200000000s x`

func TestMemoryLimit(t *testing.T) {
	g := newGroup(t, openHost(t, uuid.NewString()), "j", protocol.Limits{Memory: 64 << 20})
	worker := start(t, nil, "sleep", "1000")
	require.NoError(t, g.AddWorker(worker.Process.Pid))

	r := start(t, g.JobDirs(), "bash", "-c", "head -c 20000000 /dev/zero | tail -c 20000000 | wc -c")
	assert.Zero(t, r.end(t))
	assert.Equal(t, "20000000\n", r.said(t))
	before, err := EventsOf(g.JobDirs())
	require.NoError(t, err)
	assert.Zero(t, before.OOMKills)

	r = start(t, g.JobDirs(), "bash", "-c", "bash -c '"+greedy+"'; echo $?")
	assert.Zero(t, r.end(t), "the job goes on")
	assert.Contains(t, r.said(t), "137")
	after, err := EventsOf(g.JobDirs())
	require.NoError(t, err)
	assert.Equal(t, int64(1), after.OOMKills)
	assert.False(t, before.AtLimit)
	assert.True(t, after.AtLimit)
	ofWorker, ofJob, err := g.Events()
	require.NoError(t, err)
	assert.Zero(t, ofWorker.OOMKills)
	assert.Equal(t, int64(1), ofJob.OOMKills)
	assert.True(t, alive(worker.Process.Pid))
}

// A kill in a cgroup that the job has made counts too.
func TestMemoryLimitBelow(t *testing.T) {
	g := newGroup(t, openHost(t, uuid.NewString()), "j", protocol.Limits{Memory: 64 << 20})
	var below []string
	for _, dir := range g.JobDirs() {
		below = append(below, filepath.Join(dir, "made-by-job"))
		require.NoError(t, os.Mkdir(below[len(below)-1], 0o755))
	}
	r := start(t, below, "bash", "-c", greedy)
	assert.Equal(t, -1, r.end(t))
	_, ofJob, err := g.Events()
	require.NoError(t, err)
	assert.Equal(t, int64(1), ofJob.OOMKills)
}

func TestMemoryLimitOfTheWorker(t *testing.T) {
	g := newGroup(t, openHost(t, uuid.NewString()), "j", protocol.Limits{Memory: 64 << 20})
	latch := filepath.Join(t.TempDir(), "latch")
	require.NoError(t, syscall.Mkfifo(latch, 0o600))
	release, err := os.OpenFile(latch, os.O_RDWR, 0)
	require.NoError(t, err)
	defer release.Close()
	worker := start(t, nil, "bash", "-c", "read -r <"+latch+"; "+greedy)
	ofJob := start(t, g.JobDirs(), "sleep", "1000")
	require.NoError(t, g.AddWorker(worker.Process.Pid))
	_, err = release.WriteString("\n")
	require.NoError(t, err)
	assert.Equal(t, -1, worker.end(t))
	w, j, err := g.Events()
	require.NoError(t, err)
	assert.Equal(t, int64(1), w.OOMKills)
	assert.Zero(t, j.OOMKills)
	assert.True(t, alive(ofJob.Process.Pid))
}

func TestPidsLimit(t *testing.T) {
	const limit = 20
	g := newGroup(t, openHost(t, uuid.NewString()), "j", protocol.Limits{Pids: limit})
	// The thread that starts it counts, too, as long as it is there: the command waits until that has left.
	latch, release, err := os.Pipe()
	require.NoError(t, err)
	defer latch.Close()
	r := startWith(t, g.JobDirs(), latch, "sh", "-c", "read -r _; i=0; while [ $i -lt 100 ]; do sleep 1000 & i=$((i+1)); done")
	require.NoError(t, release.Close())
	assert.NotZero(t, r.end(t))
	pids, err := g.Processes()
	require.NoError(t, err)
	assert.Len(t, pids, limit-1)
	e, err := EventsOf(g.JobDirs())
	require.NoError(t, err)
	assert.Positive(t, e.PidsRefused)
}

func TestCPULimit(t *testing.T) {
	h := openHost(t, uuid.NewString())
	g := newGroup(t, h, "j", protocol.Limits{MilliCPUs: 500})
	set := 0
	for _, dir := range g.JobDirs() {
		if _, err := os.Stat(filepath.Join(dir, "cpu.cfs_quota_us")); err == nil {
			assert.Equal(t, "50000", content(t, dir, "cpu.cfs_quota_us"))
			assert.Equal(t, "-1", content(t, filepath.Dir(dir), workerName, "cpu.cfs_quota_us"))
			set++
		}
		if _, err := os.Stat(filepath.Join(dir, "cpu.max")); err == nil {
			assert.Equal(t, "50000 100000", content(t, dir, "cpu.max"))
			set++
		}
	}
	assert.Equal(t, 1, set)
	r := start(t, g.JobDirs(), "bash", "-c", "while :; do :; done")
	eventually(t, "the kernel holds it back", func() bool {
		for _, dir := range g.JobDirs() {
			if n, err := counter(dir, "cpu.stat", "nr_throttled"); err == nil && n > 0 {
				return true
			}
		}
		return false
	})
	assert.True(t, alive(r.Process.Pid))
}

// A job that begins again finds its group, with the limits of now: higher, lower, none.
func TestCreateAgain(t *testing.T) {
	h := openHost(t, uuid.NewString())
	g := newGroup(t, h, "j", protocol.Limits{Memory: 64 << 20})
	r := start(t, g.JobDirs(), "sleep", "1000")
	for _, memory := range []int64{128 << 20, 32 << 20, 0, 32 << 20} {
		again, err := h.Create("j", protocol.Limits{Memory: memory, Pids: 50})
		require.NoError(t, err)
		assert.Subset(t, again.JobDirs(), g.JobDirs())
		set := 0
		for _, dir := range again.JobDirs() {
			for _, file := range []string{"memory.limit_in_bytes", "memory.memsw.limit_in_bytes", "memory.max"} {
				raw, err := os.ReadFile(filepath.Join(dir, file))
				if err != nil {
					continue
				}
				set++
				n, err := number(strings.Replace(string(raw), "max", strconv.Itoa(1<<62), 1))
				require.NoError(t, err)
				if memory > 0 {
					assert.Equal(t, memory, n)
				} else {
					assert.Greater(t, n, int64(1<<50))
				}
			}
		}
		assert.Positive(t, set)
		cleanUp(t, again)
	}
	assert.True(t, alive(r.Process.Pid))
}

// escapes are what a job may do to leave its shell's reach. Each writes a pid into the file pid.
var escapes = map[string]string{
	"setsid without environment": `env -i setsid bash -c 'echo $$ >pid; trap "" INT TERM HUP; while :; do sleep 0.1; done' & wait`,
	"double fork":                `(setsid bash -c '(bash -c "echo \$\$ >pid; exec sleep 1000" &)' &); exit 0`,
	"stopped":                    `sleep 1000 & kill -STOP $!; echo $! >pid; wait`,
	"a cgroup of its own": `for dir in "$@"; do mkdir -p $dir/mine/deep; done
		sleep 1000 & for dir in "$@"; do echo $! >$dir/mine/deep/cgroup.procs; done; echo $! >pid; wait`,
	"forks without end": `bash -c 'while :; do (:) & done' & echo $! >pid; wait`,
}

func testKill(t *testing.T, narrow func(*Group)) {
	for name, script := range escapes {
		t.Run(name, func(t *testing.T) {
			h := openHost(t, uuid.NewString())
			g := newGroup(t, h, "j", protocol.Limits{Pids: 500})
			whole := *g
			narrow(g)
			worker := start(t, nil, "sleep", "1000")
			require.NoError(t, g.AddWorker(worker.Process.Pid))
			r := start(t, g.JobDirs(), "bash", append([]string{"-c", script, "bash"}, g.JobDirs()...)...)
			child := r.pidIn(t, "pid")

			require.NoError(t, Kill(deadline(t), g.JobDirs()), "as the worker does")
			eventually(t, "the child is gone", func() bool { return !alive(child) })
			r.end(t)
			assert.True(t, alive(worker.Process.Pid))
			require.NoError(t, g.Kill(deadline(t)))
			worker.end(t)
			pids, err := g.Processes()
			require.NoError(t, err)
			assert.Empty(t, pids)
			require.NoError(t, whole.Remove(deadline(t)))
			for _, dir := range whole.tops() {
				assert.NoDirExists(t, dir)
			}
			require.NoError(t, g.Kill(deadline(t)), "it can be repeated")
			require.NoError(t, g.Remove(deadline(t)))
			*g = whole
		})
	}
}

func TestKill(t *testing.T) { testKill(t, func(*Group) {}) }

// Without v2's cgroup.kill.
func TestKillOneByOne(t *testing.T) {
	testKill(t, func(g *Group) {
		g.places = slices.Clone(g.places)
		g.places = slices.DeleteFunc(g.places, func(p place) bool { return p.v2 })
		require.NotEmpty(t, g.places)
	})
}

// A thread of the worker that is just starting something in the job's cgroup doesn't get the worker killed.
func TestKillSparesItself(t *testing.T) {
	g := newGroup(t, openHost(t, uuid.NewString()), "j", protocol.Limits{})
	r := start(t, g.JobDirs(), "sleep", "1000")
	var v1 []string
	for _, dir := range g.JobDirs() {
		if !isV2(dir) {
			v1 = append(v1, dir)
		}
	}
	require.NoError(t, visiting(v1, func() error {
		for _, dir := range v1 {
			if pids, err := pidsIn(dir); err != nil || !slices.Contains(pids, os.Getpid()) {
				return fmt.Errorf("not in %s: %v, %w", dir, pids, err)
			}
		}
		return Kill(deadline(t), g.JobDirs())
	}))
	r.end(t)
}

func TestKillWhoseTimeIsUp(t *testing.T) {
	g := newGroup(t, openHost(t, uuid.NewString()), "j", protocol.Limits{})
	r := start(t, g.JobDirs(), "sleep", "1000")
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	err := g.Kill(ctx)
	require.ErrorIs(t, err, context.Canceled)
	assert.ErrorContains(t, err, "cannot end all processes of job j")
	r.end(t) // one round there is in any case
}

func TestRemoveWaits(t *testing.T) {
	g := newGroup(t, openHost(t, uuid.NewString()), "j", protocol.Limits{})
	r := start(t, g.JobDirs(), "sleep", "1000")
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	err := g.Remove(ctx)
	require.ErrorIs(t, err, context.Canceled)
	assert.ErrorContains(t, err, fmt.Sprintf("where processes [%d] run", r.Process.Pid))
	removed := make(chan error, 1)
	go func() { removed <- g.Remove(deadline(t)) }()
	require.NoError(t, r.Process.Kill())
	require.NoError(t, <-removed)
}

func TestFindAfterARestart(t *testing.T) {
	instance := uuid.NewString()
	first := openHost(t, instance)
	g := newGroup(t, first, "job-1.x", protocol.Limits{Pids: 100})
	r := start(t, g.JobDirs(), "sleep", "1000")
	empty := newGroup(t, first, "empty", protocol.Limits{})

	second := openHost(t, instance)
	assert.Equal(t, []string{"empty", "job-1.x"}, second.Jobs())
	found, ok := second.Find("job-1.x")
	require.True(t, ok)
	assert.ElementsMatch(t, g.JobDirs(), found.JobDirs())
	pids, err := found.Processes()
	require.NoError(t, err)
	assert.Equal(t, []int{r.Process.Pid}, pids)
	for _, id := range []string{"job-1", "1.x", "", "supervisor"} {
		_, ok = second.Find(id)
		assert.False(t, ok, id)
	}
	require.NoError(t, found.Kill(deadline(t)))
	require.NoError(t, found.Remove(deadline(t)))
	_, ok = second.Find("job-1.x")
	assert.False(t, ok)
	assert.Equal(t, []string{"empty"}, second.Jobs())
	_, ok = first.Find("job-1.x")
	assert.False(t, ok, "it is gone for others that knew it")
	require.NoError(t, empty.Remove(deadline(t)))
}

// asIf makes a /proc in which this process is in another cgroup, which is made too.
func asIf(t *testing.T, name string) (proc string, dirs []string) {
	t.Helper()
	proc = t.TempDir()
	mountinfo, err := os.ReadFile("/proc/self/mountinfo")
	require.NoError(t, err)
	membership, err := os.ReadFile("/proc/self/cgroup")
	require.NoError(t, err)
	lines := strings.Split(strings.TrimSuffix(string(membership), "\n"), "\n")
	for i, line := range lines {
		lines[i] = strings.TrimSuffix(line, "/") + "/" + name
	}
	other := []byte(strings.Join(lines, "\n") + "\n")
	for _, h := range usable(hierarchies(mountinfo)) {
		dir, ok := h.folderOf(other)
		require.True(t, ok)
		require.NoError(t, os.Mkdir(dir, 0o755))
		t.Cleanup(func() { assert.NoError(t, unix.Rmdir(dir)) })
		dirs = append(dirs, dir)
	}
	fakeKernel(t, filepath.Join(proc, "self"), "mountinfo="+string(mountinfo), "cgroup="+string(other))
	return proc, dirs
}

// The supervisor before was in another cgroup: its groups are found, used again, and go with the folder that held them.
func TestFindGroupsOfAnotherPlace(t *testing.T) {
	instance := uuid.NewString()
	second := openHost(t, instance)
	proc, others := asIf(t, "signalman-test-"+uuid.NewString())
	first, err := openIn(proc, instance)
	require.NoError(t, err)
	for i, s := range first.seats {
		assert.Equal(t, others[i], s.base)
	}
	g, err := first.Create("j", protocol.Limits{})
	require.NoError(t, err)
	cleanUp(t, g)
	r := start(t, g.JobDirs(), "sleep", "1000")

	third, err := Open(instance)
	require.NoError(t, err)
	found, ok := third.Find("j")
	require.True(t, ok)
	again, err := third.Create("j", protocol.Limits{})
	require.NoError(t, err)
	assert.ElementsMatch(t, found.JobDirs(), again.JobDirs())
	pids, err := again.Processes()
	require.NoError(t, err)
	assert.Equal(t, []int{r.Process.Pid}, pids)
	require.NoError(t, again.Kill(deadline(t)))
	require.NoError(t, again.Remove(deadline(t)))
	for _, s := range first.seats {
		assert.NoDirExists(t, s.folder)
	}
	assert.Empty(t, second.Jobs())
}

func TestForeignGroupsAreLeftAlone(t *testing.T) {
	mine, other := uuid.NewString(), uuid.NewString()
	h, foreign := openHost(t, mine), openHost(t, other)
	theirs := newGroup(t, foreign, "j", protocol.Limits{})
	bystander := start(t, theirs.JobDirs(), "sleep", "1000")
	for _, s := range h.seats { // names that are nearly ours
		for _, name := range []string{s.folder + "0", s.folder + "-x", s.folder + "-x.slice"} {
			require.NoError(t, os.MkdirAll(filepath.Join(name, "job-y"), 0o755))
			t.Cleanup(func() {
				assert.NoError(t, unix.Rmdir(filepath.Join(name, "job-y")))
				assert.NoError(t, unix.Rmdir(name))
			})
		}
		require.NoError(t, os.Mkdir(filepath.Join(s.folder, "something"), 0o755))
		t.Cleanup(func() { assert.NoError(t, unix.Rmdir(filepath.Join(s.folder, "something"))) })
	}
	again, err := Open(mine)
	require.NoError(t, err)
	assert.Empty(t, again.Jobs())
	g := newGroup(t, again, "j", protocol.Limits{})
	start(t, g.JobDirs(), "sleep", "1000")
	require.NoError(t, g.Kill(deadline(t)))
	require.NoError(t, g.Remove(deadline(t)))
	again.Close()
	assert.True(t, alive(bystander.Process.Pid))
	for _, dir := range theirs.JobDirs() {
		assert.DirExists(t, dir)
	}
}

// systemd makes the scope, and puts the worker in.
func TestGroupInAScope(t *testing.T) {
	instance := uuid.NewString()
	h := openHost(t, instance)
	worker := start(t, nil, "sleep", "1000")
	var scopes []string
	for _, s := range h.seats {
		if s.has("pids") { // one hierarchy without the scope
			continue
		}
		slice := filepath.Join(s.mount, "signalman-test.slice-"+uuid.NewString())
		scope := filepath.Join(slice, ScopeName(instance, "j"))
		require.NoError(t, os.MkdirAll(scope, 0o755))
		require.NoError(t, write(scope, procsFile, strconv.Itoa(worker.Process.Pid)))
		t.Cleanup(func() { assert.NoError(t, unix.Rmdir(scope)); assert.NoError(t, unix.Rmdir(slice)) })
		scopes = append(scopes, scope)
	}
	// A supervisor that died here has made nothing in the scope yet, and the next one finds it all the same.
	next := openHost(t, instance)
	assert.Equal(t, []string{"j"}, next.Jobs())
	_, ok := next.Find("j")
	assert.True(t, ok)

	limits := protocol.Limits{Memory: 64 << 20, Pids: 100}
	for range 2 { // it can begin again
		g, err := h.CreateIn("j", limits, worker.Process.Pid)
		require.NoError(t, err)
		cleanUp(t, g)
		for _, scope := range scopes {
			assert.Contains(t, g.JobDirs(), filepath.Join(scope, jobName))
			pids, err := pidsIn(filepath.Join(scope, workerName))
			require.NoError(t, err)
			assert.Equal(t, []int{worker.Process.Pid}, pids)
		}
		assert.Greater(t, len(g.JobDirs()), len(scopes), "the limit that the scope has no cgroup for is set in our own")
	}
	g, _ := h.Find("j")
	r := start(t, g.JobDirs(), "bash", "-c", greedy)
	assert.Equal(t, -1, r.end(t))
	_, kills, err := g.Events()
	require.NoError(t, err)
	assert.Equal(t, int64(1), kills.OOMKills)

	after := openHost(t, instance)
	assert.Equal(t, []string{"j"}, after.Jobs())
	found, ok := after.Find("j")
	require.True(t, ok)
	assert.ElementsMatch(t, g.JobDirs(), found.JobDirs())
	require.NoError(t, found.Kill(deadline(t)))
	worker.end(t)
	require.NoError(t, found.Remove(deadline(t)))
	assert.Empty(t, openHost(t, instance).Jobs(), "scopes that are about to go are no jobs")
	_, ok = h.Find("j")
	assert.False(t, ok)
	for _, scope := range scopes {
		assert.DirExists(t, scope, "that is systemd's")
	}
	_, err = h.CreateIn("j", limits, worker.Process.Pid)
	require.ErrorContains(t, err, "cannot tell the cgroup of the job's worker")
}

func TestWorkerThatHasEnded(t *testing.T) {
	g := newGroup(t, openHost(t, uuid.NewString()), "j", protocol.Limits{})
	cmd := exec.Command("true")
	require.NoError(t, cmd.Run())
	require.ErrorContains(t, g.AddWorker(cmd.Process.Pid), "cannot move the job's worker into its cgroup")
}

func TestDescribe(t *testing.T) {
	instance := uuid.NewString()
	h := openHost(t, instance)
	text := h.Describe()
	assert.Contains(t, text, "/sys/fs/cgroup")
	assert.Contains(t, text, "memory")
	assert.NotContains(t, text, "\n")
	other := uuid.NewString()
	seen, err := Inspect(other)
	require.NoError(t, err)
	assert.Equal(t, text, seen)
	for _, s := range h.seats {
		assert.NoDirExists(t, filepath.Join(s.base, folderName(other)), "looking makes nothing")
	}
}

// A limit without its controller is named, and nothing is left of the group.
func TestLimitWithoutController(t *testing.T) {
	h := openHost(t, uuid.NewString())
	h.seats = slices.DeleteFunc(h.seats, func(s seat) bool {
		lacks := s.has("cpu") || s.v2 && slices.Contains(mustWords(t, s.base, "cgroup.controllers"), "cpu")
		if lacks {
			require.NoError(t, unix.Rmdir(s.folder))
		}
		return lacks
	})
	_, err := h.Create("j", protocol.Limits{Memory: 1 << 30, MilliCPUs: 1500, Pids: 10})
	require.ErrorContains(t, err, "cannot hold a job to its [limits] cpus of 1.5")
	assert.NotContains(t, err.Error(), "\n")
	_, ok := h.Find("j")
	assert.False(t, ok)
	for _, s := range h.seats {
		assert.NoDirExists(t, filepath.Join(s.folder, "job-j"))
	}
	newGroup(t, h, "j", protocol.Limits{Memory: 1 << 30, Pids: 10})
}

func mustWords(t *testing.T, dir, file string) []string {
	t.Helper()
	list, err := words(dir, file)
	require.NoError(t, err)
	return list
}

const actVariable = "CGROUP_TEST_ACT"

// again runs one test of this binary as another process, which acts in place of the test.
func again(t *testing.T, test string, change func(*exec.Cmd)) string {
	t.Helper()
	exe, err := os.Executable()
	require.NoError(t, err)
	copied := filepath.Join(t.TempDir(), "test") // where another user may run it
	raw, err := os.ReadFile(exe)
	require.NoError(t, err)
	require.NoError(t, os.WriteFile(copied, raw, 0o755))
	for dir := filepath.Dir(copied); dir != os.TempDir() && len(dir) > 1; dir = filepath.Dir(dir) {
		require.NoError(t, os.Chmod(dir, 0o755))
	}
	cmd := exec.CommandContext(deadline(t), copied, "-test.run=^"+test+"$", "-test.v")
	cmd.Env, cmd.Dir = append(os.Environ(), actVariable+"=1"), "/"
	change(cmd)
	out, err := cmd.CombinedOutput()
	require.NoError(t, err, string(out))
	return string(out)
}

func TestWithoutRights(t *testing.T) {
	if os.Getenv(actVariable) != "" {
		_, err := Open(uuid.NewString())
		fmt.Printf("said: %v\n", err)
		_, err = Inspect(uuid.NewString())
		fmt.Printf("said: %v\n", err)
		return
	}
	if os.Getuid() != 0 {
		t.Skip("only root can take rights away")
	}
	out := again(t, "TestWithoutRights", func(cmd *exec.Cmd) {
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}}
	})
	lines := 0
	for line := range strings.Lines(out) {
		if said, ok := strings.CutPrefix(line, "said: "); ok {
			lines++
			assert.Regexp(t, `^cannot use cgroups: write to /sys/fs/cgroup\S*: permission denied; run the supervisor as root, or in a systemd unit with Delegate=yes$`,
				strings.TrimSpace(said))
		}
	}
	assert.Equal(t, 2, lines, out)
}

// freeController is a controller of v2 that this machine's v1 hasn't taken: none that jobs are limited by, but passing it down has the same
// rules.
const freeController = "hugetlb"

// v2Base makes a cgroup in v2 that has the free controller.
func v2Base(t *testing.T) (mount, base string) {
	t.Helper()
	mountinfo, err := os.ReadFile("/proc/self/mountinfo")
	require.NoError(t, err)
	for _, h := range hierarchies(mountinfo) {
		if h.v2 {
			mount = h.mount
		}
	}
	if os.Getuid() != 0 || mount == "" {
		t.Skip("it takes root and cgroup v2")
	}
	if !slices.Contains(mustWords(t, mount, "cgroup.controllers"), freeController) {
		t.Skip("v2 has no " + freeController + " here")
	}
	if !slices.Contains(mustWords(t, mount, "cgroup.subtree_control"), freeController) {
		require.NoError(t, write(mount, "cgroup.subtree_control", "+"+freeController))
		t.Cleanup(func() { _ = write(mount, "cgroup.subtree_control", "-"+freeController) })
	}
	base = filepath.Join(mount, "signalman-test-"+uuid.NewString())
	require.NoError(t, os.Mkdir(base, 0o755))
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		defer cancel()
		assert.NoError(t, Kill(ctx, []string{base}))
		assert.NoError(t, removeTree(ctx, base))
	})
	return mount, base
}

// The supervisor makes room for controllers when it is alone in its cgroup, and not when somebody else is there.
func TestRoomForControllers(t *testing.T) {
	const instance = "room-for-controllers"
	if os.Getenv(actVariable) != "" {
		for range 2 { // the second is another supervisor, which begins in the leaf
			h, err := Open(instance)
			require.NoError(t, err)
			t.Cleanup((&Host{seats: slices.Clone(h.seats)}).Close)
			h.seats = slices.DeleteFunc(h.seats, func(s seat) bool { return !s.v2 })
			h.wanted = []string{freeController}
			g, err := h.Create("j", protocol.Limits{})
			require.NoError(t, err)
			own, err := os.ReadFile("/proc/self/cgroup")
			require.NoError(t, err)
			dir, _ := h.seats[0].folderOf(own)
			fmt.Printf("said: base %s, self %s, passed %v\n", h.seats[0].base, dir, mustWords(t, g.tops()[0], "cgroup.subtree_control"))
			_, err = h.Create("j", protocol.Limits{Memory: 1 << 20})
			fmt.Printf("said: %v\n", err)
		}
		return
	}
	const alone, company, container = "alone", "with another process", "in a container, below a shell"
	for _, name := range []string{alone, company, container} {
		t.Run(name, func(t *testing.T) {
			mount, base := v2Base(t)
			seen := base
			if name == company {
				start(t, []string{base}, "sleep", "1000")
			}
			out := again(t, "TestRoomForControllers", func(cmd *exec.Cmd) {
				fd, err := unix.Open(base, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
				require.NoError(t, err)
				t.Cleanup(func() { _ = unix.Close(fd) })
				cmd.SysProcAttr = &syscall.SysProcAttr{UseCgroupFD: true, CgroupFD: fd}
				if name == container { // the top that it sees is its own cgroup
					seen = mount
					unshare, err := exec.LookPath("unshare")
					require.NoError(t, err)
					cmd.Path = unshare
					cmd.Args = append([]string{"unshare", "-Cm", "sh", "-c", `umount "$0" && mount -t cgroup2 none "$0" && "$@"; exit $?`, mount}, cmd.Args...)
				}
			})
			var said []string
			for line := range strings.Lines(out) {
				if text, ok := strings.CutPrefix(line, "said: "); ok {
					said = append(said, strings.TrimSpace(text))
				}
			}
			require.Len(t, said, 4, out)
			for _, i := range []int{0, 2} {
				if name == company {
					assert.Equal(t, fmt.Sprintf("base %s, self %s, passed []", base, base), said[i])
					assert.Regexp(t, `^cannot hold a job to its \[limits\] memory of 1 MiB: processes of others \(\[\d+ \d+\]\) run in the supervisor's cgroup `+
						base+`: start it in a unit or container of its own; without the limit the job can run$`, said[i+1])
				} else {
					assert.Equal(t, fmt.Sprintf("base %s, self %s/signalman-room-for/supervisor, passed [%s]", seen, seen, freeController), said[i])
					assert.Contains(t, said[i+1], "there is no cgroup controller memory here")
				}
			}
		})
	}
}

// In a scope all that systemd has put there goes into worker/, and the controllers are passed down.
func TestControllersInAScope(t *testing.T) {
	_, base := v2Base(t)
	require.NoError(t, write(base, "cgroup.subtree_control", "+"+freeController))
	instance := uuid.NewString()
	h := openHost(t, instance)
	h.wanted = []string{freeController}
	h.LimitInScopesOnly()
	scope := filepath.Join(base, ScopeName(instance, "j"))
	require.NoError(t, os.Mkdir(scope, 0o755))
	worker := start(t, []string{scope}, "sleep", "1000")
	g, err := h.CreateIn("j", protocol.Limits{}, worker.Process.Pid)
	require.NoError(t, err)
	cleanUp(t, g)
	assert.Equal(t, []string{freeController}, mustWords(t, scope, "cgroup.subtree_control"))
	pids, err := pidsIn(filepath.Join(scope, workerName))
	require.NoError(t, err)
	assert.Equal(t, []int{worker.Process.Pid}, pids)
	r := start(t, g.JobDirs(), "sleep", "1000")
	pids, err = pidsIn(filepath.Join(scope, jobName))
	require.NoError(t, err)
	assert.Equal(t, []int{r.Process.Pid}, pids)

	// Outside of it they stay where they are.
	h.seats = slices.DeleteFunc(h.seats, func(s seat) bool { return !s.v2 })
	without, err := h.Create("k", protocol.Limits{})
	require.NoError(t, err)
	cleanUp(t, without)
	for _, dir := range []string{without.tops()[0], h.seats[0].folder} {
		assert.Empty(t, mustWords(t, dir, "cgroup.subtree_control"))
	}
	_, err = h.Create("k", protocol.Limits{Memory: 1 << 20})
	require.ErrorContains(t, err, "cannot hold a job to its [limits] memory of 1 MiB: it has no scope of its own")
}
