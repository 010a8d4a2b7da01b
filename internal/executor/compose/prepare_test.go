package compose

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/signalman-ci/signalman/internal/engine"
	"github.com/signalman-ci/signalman/internal/executor/settings"
	"github.com/signalman-ci/signalman/internal/process"
	"github.com/signalman-ci/signalman/internal/testimage"
	"github.com/signalman-ci/signalman/shared/protocol"
)

func TestWhatCannotBePrepared(t *testing.T) {
	t.Parallel()
	eng := testimage.Engine(t)
	image, noBash := testimage.Build(t, eng, true), testimage.Build(t, eng, false)
	for name, c := range map[string]struct {
		change func(*world)
		want   string
	}{
		"no containers": {func(w *world) { w.job.Compose = nil }, "the job has no containers, and the executor compose runs none without"},
		"not allowed": {func(w *world) {
			w.options.AllowedImages = []*regexp.Regexp{regexp.MustCompile("^registry[.]example/.+"), regexp.MustCompile("^other")}
		}, "the image " + image + " of container main may not be used here: it matches none of compose.allowed-images"},
		"service not allowed": {func(w *world) {
			w.options.AllowedImages = []*regexp.Regexp{regexp.MustCompile("^" + regexp.QuoteMeta(image) + "$")}
			w.job.Compose.Containers[1].Image = "other"
		}, "the image other of container db may not be used here"},
		"never pulled":   {func(w *world) { w.options.PullPolicy = settings.PullNever; w.main().Image = "signalman-test:none" }, "the image signalman-test:none is not on this host, and compose.pull-policy is never"},
		"no bash":        {func(w *world) { w.main().Image = noBash }, "container main (image " + noBash + "): cannot open a shell: bash is not installed, or not on the PATH"},
		"broken name":    {func(w *world) { w.main().Image = "A B" }, "invalid reference format"},
		"no image":       {func(w *world) { w.main().Image = "" }, "names no image"},
		"no name":        {func(w *world) { w.job.Compose.Containers[1].Name = "" }, "container 2 of the job (image " + image + ") has no name"},
		"one name twice": {func(w *world) { w.job.Compose.Containers[1].Name = "main" }, "two containers of the job have the name main"},
		"missing file": {func(w *world) {
			w.options.Files, w.options.FailOnMissingFiles = []settings.File{{Host: "/nowhere", Container: "/x"}}, true
		}, "the host's file /nowhere for the job's containers (files) is not there"},
		"entrypoint ends":  {func(w *world) { w.main().Entrypoint = `sh -c "echo what; exit 5"` }, "The container main, where the job's commands run, ended with code 5; its last lines:\n  what"},
		"entrypoint none":  {func(w *world) { w.main().Entrypoint = "/nowhere" }, "cannot start container main: "},
		"entrypoint quote": {func(w *world) { w.main().Entrypoint = `"` }, "the entrypoint of container main cannot be split into words"},
		"command quote":    {func(w *world) { w.job.Compose.Containers[1].Command = `"` }, "the command of container db cannot be split into words"},
		"service none":     {func(w *world) { w.job.Compose.Containers[1].Command = "/nowhere" }, "cannot start container db: "},
		"no user":          {func(w *world) { w.main().User = "nobody-here" }, "cannot start container main: "},
		"architecture": {func(w *world) {
			w.executor = New(func(arch string) ([]byte, error) {
				return nil, errors.New("containers of architecture " + arch + " are not supported")
			})
		}, "cannot run commands in image " + image + ": containers of architecture"},
		"job user": {func(w *world) {
			w.set.User = "daemon"
			w.job.Compose.HostSetupCommands = []protocol.Command{{Directive: "true"}}
		}, "would not run as daemon (job-user)"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, eng, image, protocol.Container{Name: "db", Image: image, Command: "sleep 1000"})
			c.change(w)
			err := w.prepare()
			require.ErrorContains(t, err, c.want)
			if !strings.Contains(c.want, "\n") {
				assert.NotContains(t, err.Error(), "\n", "it is one line")
			}
		})
	}
}

func TestAllowedImage(t *testing.T) {
	t.Parallel()
	eng := testimage.Engine(t)
	w := newWorld(t, eng, testimage.Build(t, eng, true))
	w.options.AllowedImages = []*regexp.Regexp{regexp.MustCompile("^other"), regexp.MustCompile("^signalman-test:")}
	w.options.PullPolicy = settings.PullNever
	w.shell()
}

func TestMissingFileIsNoFailure(t *testing.T) {
	t.Parallel()
	eng := testimage.Engine(t)
	w := newWorld(t, eng, testimage.Build(t, eng, true))
	w.options.Files = []settings.File{{Host: "/nowhere", Container: "/x"}}
	w.shell()
	out, _ := w.log.of(t, "Starting the docker image...")
	assert.Equal(t, "Warning: the host's file /nowhere for containers (files) is not there.\nStarting a new bash session.\n", out)
}

func TestHostSetupCommands(t *testing.T) {
	eng := testimage.Engine(t)
	w := newWorld(t, eng, testimage.Build(t, eng, true))
	dir := t.TempDir()
	w.job.Compose.HostSetupCommands = []protocol.Command{
		{Directive: "echo begin; sleep 1000 & echo $! >" + dir + "/pid; pwd"}, {Directive: "cat " + dir + "/pid >&2", Alias: "show"},
	}
	w.shell()
	assert.Equal(t, []string{w.job.Compose.HostSetupCommands[0].Directive, "show", "Pulling docker images...", "Starting the docker image..."}, w.log.directives())
	out, _ := w.log.of(t, w.job.Compose.HostSetupCommands[0].Directive)
	assert.Equal(t, "begin\n"+w.set.TempDir+"\n", out)
	pid, err := os.ReadFile(dir + "/pid")
	require.NoError(t, err)
	out, _ = w.log.of(t, "show")
	assert.Equal(t, string(pid), out)
	left, err := w.executor.List(within(t), w.set.InstanceID)
	require.NoError(t, err)
	require.Len(t, left, 1)
	assert.Equal(t, "1 processes, container main, network", left[0].What)
	w.end()
	require.Eventually(t, func() bool { // an ended one shows until it is collected
		_, err := os.Stat("/proc/" + strings.TrimSpace(string(pid)))
		return errors.Is(err, fs.ErrNotExist)
	}, patience, look)
}

func TestHostSetupCommandFails(t *testing.T) {
	eng := testimage.Engine(t)
	w := newWorld(t, eng, "x")
	w.job.Compose.HostSetupCommands = []protocol.Command{{Directive: "echo no\nexit 4"}, {Directive: "echo never"}}
	require.EqualError(t, w.prepare(), `the host setup command "echo no…" ended with code 4`)
	assert.Equal(t, []string{"echo no\nexit 4"}, w.log.directives())
	out, code := w.log.of(t, "echo no\nexit 4")
	assert.Equal(t, "no\n", out)
	assert.Equal(t, 4, code)
}

func TestHostSetupCommandIsStopped(t *testing.T) {
	eng := testimage.Engine(t)
	w := newWorld(t, eng, "x")
	w.job.Compose.HostSetupCommands = []protocol.Command{{Directive: "echo ready; sleep 1000; sleep 1000"}}
	ctx, cancel := context.WithCancel(within(t))
	defer cancel()
	ended := make(chan error, 1)
	go func() {
		_, err := w.executor.Prepare(ctx, w.job, w.set, w.log)
		ended <- err
	}()
	require.Eventually(t, func() bool { return strings.HasSuffix(w.log.all(), "\nready\n") }, patience, look)
	cancel()
	require.ErrorIs(t, <-ended, context.Canceled)
	left, err := process.MarkedBy(markVariable)
	require.NoError(t, err)
	assert.NotContains(t, left, process.JobMark(w.set.InstanceID, w.job.ID))
}

func TestNoEngine(t *testing.T) {
	t.Setenv("DOCKER_HOST", "unix://"+filepath.Join(t.TempDir(), "none.sock"))
	x := New(func(string) ([]byte, error) { return nil, nil })
	_, err := x.Prepare(within(t), &protocol.Job{ID: "j", Compose: &protocol.Compose{Containers: []protocol.Container{{Name: "main", Image: "x"}}}}, &protocol.Settings{}, &record{})
	require.ErrorIs(t, err, engine.ErrUnreachable)
	require.ErrorContains(t, err, "cannot reach the Docker engine at unix://")
	assert.NotContains(t, err.Error(), "\n")
	checks := x.Check(within(t))
	require.Len(t, checks, 1)
	assert.Equal(t, protocol.CheckFailed, checks[0].Status)
	require.Error(t, x.Cleanup(within(t), &protocol.Job{ID: "j"}, &protocol.Settings{}))
	_, err = x.List(within(t), "i")
	require.Error(t, err)
}

func TestCheck(t *testing.T) {
	t.Parallel()
	testimage.Engine(t)
	checks := New(func(string) ([]byte, error) { return nil, nil }).Check(within(t))
	require.Len(t, checks, 1)
	assert.Equal(t, protocol.CheckOK, checks[0].Status)
	assert.Regexp(t, `^engine .+ at unix://.+, API 1\.\d+$`, checks[0].Message)
	checks = New(func(string) ([]byte, error) { return nil, errors.New("no helper") }).Check(within(t))
	require.Len(t, checks, 2)
	assert.Equal(t, protocol.CheckResult{Name: "helper", Status: protocol.CheckFailed, Message: "no helper"}, checks[1])
}
