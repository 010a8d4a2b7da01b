//go:build unix

package shell

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/user"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/signalman-ci/signalman/internal/process"
	"github.com/signalman-ci/signalman/shared/protocol"
)

func TestMain(m *testing.M) {
	if dir := os.Getenv(asHost); dir != "" { // a test has started this binary as a worker
		if err := beHost(dir); err != nil {
			fmt.Fprintln(os.Stderr, err)
		}
		return
	}
	goleak.VerifyTestMain(m)
}

// An environment ends all that descends from this process: none of these tests runs in parallel.

const patience = 90 * time.Second

// world is an environment and what it was made of.
type world struct {
	t    *testing.T
	env  protocol.Environment
	job  *protocol.Job
	set  *protocol.Settings
	open bool
}

// jobUser is a user that a job can run as.
func jobUser(t *testing.T) *user.User {
	t.Helper()
	if os.Getuid() != 0 {
		t.Skip("only root can run jobs as another user")
	}
	u, err := user.Lookup("nobody")
	if err != nil {
		t.Skip("there is no user nobody")
	}
	return u
}

// openDir is a temporary folder that other users can pass through.
func openDir(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "shell-test")
	require.NoError(t, err)
	require.NoError(t, os.Chmod(dir, 0o711))
	t.Cleanup(func() { assert.NoError(t, os.RemoveAll(dir)) })
	return dir
}

func ctx(t *testing.T) context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	t.Cleanup(cancel)
	return ctx
}

func newWorld(t *testing.T, userName string, changes ...func(*protocol.Settings)) *world {
	t.Helper()
	base := openDir(t)
	w := &world{t: t, open: true, job: &protocol.Job{ID: "the-job"}, set: &protocol.Settings{
		TempDir: filepath.Join(base, "tmp"), Home: filepath.Join(base, "home"), User: userName,
		InstanceID: uuid.NewString(), StopGrace: 300 * time.Millisecond,
		BaseEnv: []protocol.EnvVar{{Name: "PATH", Value: os.Getenv("PATH")}, {Name: "TERM", Value: "xterm"}, {Name: "HOME", Value: "/wrong"}},
	}}
	for _, dir := range []string{w.set.TempDir, w.set.Home} {
		require.NoError(t, os.Mkdir(dir, 0o700))
	}
	for _, change := range changes {
		change(w.set)
	}
	env, err := New().Prepare(ctx(t), w.job, w.set, nil)
	require.NoError(t, err)
	w.env = env
	t.Cleanup(w.close)
	return w
}

// close closes the environment; then nothing of the job is left.
func (w *world) close() {
	w.t.Helper()
	if !w.open {
		return
	}
	w.open = false
	require.NoError(w.t, w.env.Close(ctx(w.t)))
	left, err := New().List(ctx(w.t), w.set.InstanceID)
	require.NoError(w.t, err)
	assert.Empty(w.t, left)
	entries, err := os.ReadDir(w.set.TempDir)
	require.NoError(w.t, err)
	assert.Empty(w.t, entries, "scripts are left")
}

func (w *world) shell() protocol.Shell {
	w.t.Helper()
	sh, err := w.env.OpenShell(ctx(w.t))
	require.NoError(w.t, err)
	w.t.Cleanup(func() { assert.NoError(w.t, sh.Close()) })
	return sh
}

func (w *world) run(sh protocol.Shell, script string) (string, protocol.Exit) {
	w.t.Helper()
	var out bytes.Buffer
	exit, err := sh.Run(ctx(w.t), script, &out)
	require.NoError(w.t, err)
	return strings.ReplaceAll(out.String(), "\r\n", "\n"), exit
}

func (w *world) inject(path, content string, mode fs.FileMode) error {
	return w.env.Inject(ctx(w.t), protocol.File{Path: path, Content: []byte(content), Mode: mode})
}

func (w *world) home(parts ...string) string {
	return filepath.Join(append([]string{w.set.Home}, parts...)...)
}

func requireFile(t *testing.T, path, content string, mode fs.FileMode) {
	t.Helper()
	info, err := os.Lstat(path)
	require.NoError(t, err)
	assert.Equal(t, mode, info.Mode(), path)
	raw, err := os.ReadFile(path)
	require.NoError(t, err)
	assert.Equal(t, content, string(raw))
}

func TestDescribeAndCheck(t *testing.T) {
	assert.Equal(t, "shell", New().Describe().Name)
	checks := New().Check(ctx(t))
	require.Len(t, checks, 1)
	assert.Equal(t, protocol.CheckOK, checks[0].Status)
	t.Setenv("PATH", t.TempDir())
	checks = New().Check(ctx(t))
	assert.Equal(t, protocol.CheckFailed, checks[0].Status)
	assert.Contains(t, checks[0].Message, "install it")
}

func TestPrepareRefusals(t *testing.T) {
	set := &protocol.Settings{TempDir: t.TempDir()}
	_, err := New().Prepare(ctx(t), &protocol.Job{ID: "j", Compose: &protocol.Compose{Containers: []protocol.Container{{}}}}, set, nil)
	require.ErrorContains(t, err, "the job has containers")
	_, err = New().Prepare(ctx(t), &protocol.Job{ID: "j"}, &protocol.Settings{TempDir: t.TempDir(), User: "no-such-user-here"}, nil)
	require.ErrorContains(t, err, `"no-such-user-here" (job-user)`)
	_, err = New().Prepare(ctx(t), &protocol.Job{ID: "j"}, &protocol.Settings{TempDir: filepath.Join(t.TempDir(), "none")}, nil)
	require.ErrorContains(t, err, "cannot make a folder for the job's commands")
}

func TestEnvironmentOfAJob(t *testing.T) {
	t.Setenv("OF_THE_WORKER", "secret") // the environment is what the settings say, not the worker's
	w := newWorld(t, "")
	sh := w.shell()
	out, exit := w.run(sh, `pwd; echo "$HOME|$TMPDIR|$SIGNALMAN_JOB|$TERM"; env`)
	assert.Zero(t, exit.Code)
	lines := strings.Split(out, "\n")
	assert.Equal(t, w.set.Home, lines[0])
	assert.Equal(t, strings.Join([]string{w.set.Home, w.set.TempDir, w.set.InstanceID + "/the-job", "xterm"}, "|"), lines[1])
	assert.NotContains(t, out, "OF_THE_WORKER")
	out, _ = w.run(sh, `touch "$TMPDIR/x" && mktemp`)
	assert.Contains(t, out, w.set.TempDir)
	require.NoError(t, os.Remove(filepath.Join(w.set.TempDir, "x")))
	_, _ = w.run(sh, `rm -rf "$TMPDIR"/tmp.*`)
}

func TestResolvePath(t *testing.T) {
	w := newWorld(t, "")
	for path, want := range map[string]string{
		"~": w.home(), "~/a/b": w.home("a", "b"), "/etc/x": "/etc/x", "a": w.home("a"), "./a": w.home("a"), "~other/x": w.home("~other", "x"),
	} {
		assert.Equal(t, want, w.env.ResolvePath(path), path)
	}
}

func testInject(t *testing.T, w *world) {
	require.NoError(t, w.inject("~/.ssh/id_rsa", "key", 0o600))
	requireFile(t, w.home(".ssh", "id_rsa"), "key", 0o600)
	require.NoError(t, w.inject("deep/er/run.sh", "#!/bin/sh\n", 0o755))
	requireFile(t, w.home("deep", "er", "run.sh"), "#!/bin/sh\n", 0o755)
	require.NoError(t, w.inject(w.home("-odd name\n"), "", 0o644))
	requireFile(t, w.home("-odd name\n"), "", 0o644)
	big := strings.Repeat("x", 1<<20)
	require.NoError(t, w.inject("big", big, 0o400))
	requireFile(t, w.home("big"), big, 0o400)
	require.NoError(t, w.inject("big", "again", 0o440)) // over a file that can't be written
	requireFile(t, w.home("big"), "again", 0o440)
	require.NoError(t, w.inject("\x01binary", "\x00\xff", 0o600))
	requireFile(t, w.home("\x01binary"), "\x00\xff", 0o600)

	// A link is replaced and not followed.
	target := w.home("target")
	require.NoError(t, os.WriteFile(target, []byte("old"), 0o644))
	require.NoError(t, os.Symlink(target, w.home("link")))
	require.NoError(t, w.inject("link", "new", 0o644))
	requireFile(t, w.home("link"), "new", 0o644)
	requireFile(t, target, "old", 0o644)

	// What can't be says where, in words of one line, and leaves nothing.
	require.NoError(t, os.MkdirAll(w.home("folder", "inner"), 0o755))
	before, err := os.ReadDir(w.home())
	require.NoError(t, err)
	for _, path := range []string{"folder", "target/below", "~"} {
		err := w.inject(path, "x", 0o644)
		require.ErrorContains(t, err, "cannot inject "+w.env.ResolvePath(path)+": ")
		assert.NotContains(t, err.Error(), "\n")
	}
	after, err := os.ReadDir(w.home())
	require.NoError(t, err)
	assert.Len(t, after, len(before))
	inner, err := os.ReadDir(w.home("folder"))
	require.NoError(t, err)
	assert.Len(t, inner, 1)
}

func TestInject(t *testing.T) { testInject(t, newWorld(t, "")) }

func TestInjectAsJobUser(t *testing.T) {
	u := jobUser(t)
	w := newWorld(t, u.Username)
	testInject(t, w)
	o, err := lookup(u.Username)
	require.NoError(t, err)
	for _, path := range []string{w.home("deep"), w.home("deep", "er"), w.home("deep", "er", "run.sh"), w.home(".ssh", "id_rsa")} {
		info, err := os.Stat(path)
		require.NoError(t, err)
		assert.EqualValues(t, o.uid, info.Sys().(*syscall.Stat_t).Uid, path)
	}
}

// A job can't write with the worker's rights: neither by a path nor by a link that an earlier job has left.
func TestJobUserCannotReachFurther(t *testing.T) {
	u := jobUser(t)
	w := newWorld(t, u.Username)
	forbidden := t.TempDir()
	require.NoError(t, os.Chmod(forbidden, 0o755))
	require.NoError(t, os.Symlink(forbidden, w.home("link")))
	for _, path := range []string{filepath.Join(forbidden, "x"), "~/link/x", "link/deep/x"} {
		err := w.inject(path, "x", 0o644)
		require.ErrorContains(t, err, "as nobody (job-user): ")
	}
	entries, err := os.ReadDir(forbidden)
	require.NoError(t, err)
	assert.Empty(t, entries)
}

func TestJobUser(t *testing.T) {
	u := jobUser(t)
	w := newWorld(t, u.Username)
	sh := w.shell()
	out, exit := w.run(sh, `id -un; echo "$USER $LOGNAME"; pwd; touch ~/mine "$TMPDIR/mine" && rm "$TMPDIR/mine"; echo $?; sleep 1000 &`)
	assert.Zero(t, exit.Code)
	assert.Equal(t, "nobody\nnobody nobody\n"+w.set.Home+"\n0\n", out)
}

// Stop ends the running command and all it has left behind; a shell can be opened afterwards.
func TestStop(t *testing.T) {
	w := newWorld(t, "")
	sh := w.shell()
	pids := filepath.Join(w.home(), "pids")
	type outcome struct {
		exit protocol.Exit
		err  error
	}
	done := make(chan outcome, 1)
	go func() {
		exit, err := sh.Run(ctx(t), `(trap '' INT TERM HUP; setsid bash -c 'echo $$ >>pids; while :; do sleep 1; done' & )
nohup sleep 1000 >/dev/null 2>&1 & echo $! >>pids
while [ "$(wc -l <pids)" -lt 2 ]; do sleep 0.01; done; touch ready; sleep 1000; touch went-on`, io.Discard)
		done <- outcome{exit, err}
	}()
	require.Eventually(t, func() bool { _, err := os.Stat(w.home("ready")); return err == nil }, patience, 5*time.Millisecond)
	require.NoError(t, w.env.Stop(ctx(t)))
	select {
	case o := <-done:
		require.NoError(t, o.err)
		assert.NotZero(t, o.exit.Code)
	case <-ctx(t).Done():
		require.FailNow(t, "the command goes on")
	}
	assert.NoFileExists(t, w.home("went-on"))
	raw, err := os.ReadFile(pids)
	require.NoError(t, err)
	for pid := range strings.FieldsSeq(string(raw)) { // an ended one shows until it is collected
		require.Eventually(t, func() bool {
			_, err := os.Stat("/proc/" + pid)
			return errors.Is(err, fs.ErrNotExist)
		}, patience, 5*time.Millisecond, "process %s", pid)
	}
	out, exit := w.run(w.shell(), "echo post-job")
	assert.Zero(t, exit.Code)
	assert.Equal(t, "post-job\n", out)
	require.NoError(t, w.env.Stop(ctx(t)))
}

func TestStopOfNothing(t *testing.T) {
	require.NoError(t, newWorld(t, "").env.Stop(ctx(t)))
}

// What a job leaves behind at its regular end is found by its mark, and Close ends it.
func TestCloseAndLeftovers(t *testing.T) {
	w := newWorld(t, "")
	_, exit := w.run(w.shell(), `(setsid sleep 1000 </dev/null >/dev/null 2>&1 &)`)
	require.Zero(t, exit.Code)
	var left []protocol.Leftover
	require.Eventually(t, func() bool { // a process that is just executing something has no environment to be found by
		var err error
		left, err = New().List(ctx(t), w.set.InstanceID)
		return assert.NoError(t, err) && len(left) == 1 && regexp.MustCompile(`^[2-9] processes$`).MatchString(left[0].What)
	}, patience, 5*time.Millisecond)
	assert.Equal(t, "the-job", left[0].JobID)
	other, err := New().List(ctx(t), "another")
	require.NoError(t, err)
	assert.Empty(t, other)
	require.NoError(t, New().Cleanup(ctx(t), &protocol.Job{ID: "the-job"}, &protocol.Settings{InstanceID: "another"}))
	require.NoError(t, New().Cleanup(ctx(t), &protocol.Job{ID: "the-jo"}, &protocol.Settings{InstanceID: w.set.InstanceID}))
	found, err := process.MarkedBy(markVariable)
	require.NoError(t, err)
	assert.Contains(t, found, process.JobMark(w.set.InstanceID, "the-job"), "another job's cleanup has ended it")
	w.close()
}

func TestCleanup(t *testing.T) {
	w := newWorld(t, "")
	_, exit := w.run(w.shell(), `(trap '' TERM; setsid sleep 1000 </dev/null >/dev/null 2>&1 &)`)
	require.Zero(t, exit.Code)
	require.NoError(t, New().Cleanup(ctx(t), &protocol.Job{ID: "the-job"}, &protocol.Settings{InstanceID: w.set.InstanceID}))
	left, err := New().List(ctx(t), w.set.InstanceID)
	require.NoError(t, err)
	assert.Empty(t, left)
	require.NoError(t, New().Cleanup(ctx(t), &protocol.Job{ID: "the-job"}, &protocol.Settings{InstanceID: w.set.InstanceID}), "it can be repeated")
}

func TestHomeOfTheWorkersUser(t *testing.T) {
	t.Setenv("HOME", "/somewhere")
	o, err := lookup("")
	require.NoError(t, err)
	assert.Equal(t, "/somewhere", o.home)
	assert.False(t, o.switched)
	assert.NoError(t, o.give("/no/such/file"), "nothing changes hands")
	assert.Nil(t, o.attributes())
}
