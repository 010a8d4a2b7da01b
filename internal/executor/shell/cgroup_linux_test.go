package shell

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/signalman-ci/signalman/internal/cgroup"
	"github.com/signalman-ci/signalman/shared/protocol"
)

// greedy is a command that takes 200 MB, if it gets them.
const greedy = `bash -c 'printf -v x %200000000s x'`

// newGroup makes a job's group, as the supervisor does.
func newGroup(t *testing.T, limits protocol.Limits) *cgroup.Group {
	t.Helper()
	if os.Getuid() != 0 {
		t.Skip("only root may use this machine's cgroups")
	}
	host, err := cgroup.Open(uuid.NewString())
	require.NoError(t, err)
	group, err := host.Create("the-job", limits)
	require.NoError(t, err)
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		defer cancel()
		assert.NoError(t, group.Kill(ctx))
		assert.NoError(t, group.Remove(ctx))
		host.Close()
	})
	return group
}

func in(group *cgroup.Group, limits protocol.Limits) func(*protocol.Settings) {
	return func(s *protocol.Settings) { s.Cgroups, s.Limits = group.JobDirs(), limits }
}

func alive(pid int) bool {
	raw, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return false
	}
	_, state, _ := strings.Cut(string(raw), ") ")
	return state[0] != 'Z' && state[0] != 'X'
}

func TestOutOfMemory(t *testing.T) {
	limits := protocol.Limits{Memory: 64 << 20}
	w := newWorld(t, "", in(newGroup(t, limits), limits))
	sh := w.shell()
	const line = "Out of memory: the kernel killed a process of this job at its limit of 64 MiB ([limits] memory).\n"
	out, exit := w.run(sh, "echo begin; "+greedy)
	assert.Equal(t, protocol.Exit{Code: 137}, exit)
	assert.True(t, strings.HasPrefix(out, "begin\n"), out)
	assert.True(t, strings.HasSuffix(out, "\n"+line), out)
	out, exit = w.run(sh, "false")
	assert.Equal(t, 1, exit.Code)
	assert.Empty(t, out, "it is said once")
	out, exit = w.run(sh, greedy+"; true")
	assert.Zero(t, exit.Code)
	assert.NotContains(t, out, "Out of memory:", "the command has coped")
	out, _ = w.run(sh, greedy+" 2>/dev/null; printf partial; false")
	assert.True(t, strings.HasSuffix(out, "partial\n"+line), out)

	out, exit = w.run(sh, `printf -v x %200000000s x`)
	assert.Equal(t, protocol.Exit{Code: 137, ShellEnded: true}, exit)
	assert.Equal(t, line, out)
	_, exit = w.run(w.shell(), "true")
	assert.Zero(t, exit.Code)
}

func TestOutOfMemoryOfTheHost(t *testing.T) {
	// To the shell a limit of somebody else's is what the host's memory is.
	w := newWorld(t, "", in(newGroup(t, protocol.Limits{Memory: 64 << 20}), protocol.Limits{}))
	out, exit := w.run(w.shell(), greedy)
	assert.Equal(t, 137, exit.Code)
	assert.Equal(t, "Out of memory: the kernel killed a process of this job as the host ran out of memory.\n", out)
}

func TestTooManyProcesses(t *testing.T) {
	limits := protocol.Limits{Pids: 20}
	group := newGroup(t, limits)
	w := newWorld(t, "", in(group, limits))
	out, exit := w.run(w.shell(), `sh -c 'i=0; while [ $i -lt 100 ]; do sleep 1000 & i=$((i+1)); done'`)
	assert.NotZero(t, exit.Code)
	assert.Contains(t, out, "\nToo many processes: the kernel refused this job another process or thread at its limit of 20 ([limits] pids).\n")

	var err error
	for range limits.Pids {
		if err = w.env.(*environment).start(exec.Command("sleep", "1000")); err != nil {
			break
		}
	}
	require.Error(t, err)
	_, err = w.env.OpenShell(ctx(t))
	require.ErrorContains(t, err, "the job has as many processes and threads as it may, 20 ([limits] pids)")

	require.NoError(t, w.env.Stop(ctx(t)))
	_, exit = w.run(w.shell(), "true")
	assert.Zero(t, exit.Code, "there is room again")
}

// From the first line of a user's profile on, the job is in its cgroups, and is what the kernel takes first; the worker isn't.
func testFirstLine(t *testing.T, user string) {
	group := newGroup(t, protocol.Limits{Pids: 1000})
	w := newWorld(t, user, in(group, protocol.Limits{}))
	own, err := os.ReadFile("/proc/self/oom_score_adj")
	require.NoError(t, err)
	require.NoError(t, os.WriteFile(w.home(".bash_profile"), []byte("cat /proc/self/cgroup /proc/self/oom_score_adj >~/seen\n"), 0o644))
	sh := w.shell()
	out, _ := w.run(sh, "cat ~/seen; cat /proc/self/oom_score_adj")
	lines := strings.Split(strings.TrimSpace(out), "\n")
	score, err := strconv.Atoi(strings.TrimSpace(string(own)))
	require.NoError(t, err)
	want := strconv.Itoa(min(score+500, 1000))
	assert.Equal(t, []string{want, want}, lines[len(lines)-2:])
	for _, dir := range group.JobDirs() {
		_, tail, _ := strings.Cut(dir, "/signalman-")
		hits := 0
		for _, line := range lines {
			if strings.HasSuffix(line, tail) {
				hits++
			}
		}
		assert.Equal(t, len(group.JobDirs()), hits)
	}
	after, err := os.ReadFile("/proc/self/oom_score_adj")
	require.NoError(t, err)
	assert.Equal(t, string(own), string(after))
	membership, err := os.ReadFile("/proc/thread-self/cgroup")
	require.NoError(t, err)
	assert.NotContains(t, string(membership), "/signalman-")
}

func TestFirstLine(t *testing.T)          { testFirstLine(t, "") }
func TestFirstLineOfJobUser(t *testing.T) { testFirstLine(t, jobUser(t).Username) }

// daemon starts a process in a group that is no descendant of this one and carries no mark.
func daemon(t *testing.T, group *cgroup.Group) int {
	t.Helper()
	require.NoError(t, unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 0, 0, 0, 0)) // an environment sets it
	cmd := exec.Command("bash", "-c", "(setsid sleep 1000 </dev/null >/dev/null 2>&1 & echo $!)")
	var out bytes.Buffer
	cmd.Stdout = &out
	require.NoError(t, cgroup.Start(group.JobDirs(), cmd, (*exec.Cmd).Start))
	require.NoError(t, cmd.Wait())
	pid, err := strconv.Atoi(strings.TrimSpace(out.String()))
	require.NoError(t, err)
	require.True(t, alive(pid))
	return pid
}

func TestEndByCgroup(t *testing.T) {
	for name, end := range map[string]func(w *world) error{
		"Stop":    func(w *world) error { return w.env.Stop(ctx(w.t)) },
		"Close":   func(w *world) error { w.close(); return nil },
		"Cleanup": func(w *world) error { return New().Cleanup(ctx(w.t), w.job, w.set) },
	} {
		t.Run(name, func(t *testing.T) {
			group := newGroup(t, protocol.Limits{})
			pid := daemon(t, group)
			w := newWorld(t, "", in(group, protocol.Limits{}))
			require.NoError(t, end(w))
			assert.False(t, alive(pid))
			pids, err := group.Processes()
			require.NoError(t, err)
			assert.Empty(t, pids)
		})
	}
}

func TestCgroupsThatAreGone(t *testing.T) {
	gone := filepath.Join(t.TempDir(), "gone")
	w := newWorld(t, "", func(s *protocol.Settings) { s.Cgroups = []string{gone} })
	_, err := w.env.OpenShell(ctx(t))
	require.ErrorContains(t, err, "cannot start a process in the cgroup "+gone)
	require.NoError(t, New().Cleanup(ctx(t), w.job, w.set))
}

// Looking for reasons costs a command next to nothing.
func BenchmarkEvents(b *testing.B) {
	host, err := cgroup.Open(uuid.NewString())
	if err != nil {
		b.Skip(err)
	}
	defer host.Close()
	group, err := host.Create("j", protocol.Limits{Memory: 1 << 30, Pids: 100, MilliCPUs: 1000})
	require.NoError(b, err)
	defer func() {
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
		defer cancel()
		assert.NoError(b, group.Remove(ctx))
	}()
	for b.Loop() {
		_, err := cgroup.EventsOf(group.JobDirs())
		require.NoError(b, err)
	}
}
