package compose

import (
	"context"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/signalman-ci/signalman/internal/engine"
	"github.com/signalman-ci/signalman/internal/executor/settings"
	"github.com/signalman-ci/signalman/internal/testimage"
	"github.com/signalman-ci/signalman/shared/protocol"
)

// A service that answers on a port with a file's content.
const answering = `sh -c "while :; do nc -l -p 80 -e cat /answer; done"`

func TestServices(t *testing.T) {
	eng := testimage.Engine(t)
	image := testimage.Build(t, eng, true)
	w := newWorld(t, eng, image,
		protocol.Container{Name: "db", Image: image, Command: answering, Files: []protocol.File{{Path: "/answer", Content: []byte("from db\n"), Mode: 0o600}}},
		protocol.Container{Name: "who", Image: image, Entrypoint: "sh -c", Command: `'while :; do { id -un; echo "$WHO"; cat ~/note; } | nc -l -p 8080; done'`, User: "app",
			Env: []protocol.EnvVar{{Name: "WHO", Value: "it's me"}}, Files: []protocol.File{{Path: "~/note", Content: []byte("note\n"), Mode: 0o644}}})
	other := newWorld(t, eng, image, protocol.Container{Name: "db", Image: image, Command: answering, Files: []protocol.File{{Path: "answer", Content: []byte("of another job"), Mode: 0o600}}})
	other.shell() // the same names in another job don't get in the way

	sh := w.shell()
	assert.Equal(t, []string{"Pulling docker images...", "Starting the docker image..."}, w.log.directives())
	assert.Equal(t, "Starting a new bash session.\n", w.log.sections[1].output.String())
	out, exit := w.run(sh, "for i in 1 2 3 4 5 6 7 8 9; do nc -w 5 db 80 </dev/null && break; usleep 50000; done")
	assert.Zero(t, exit.Code)
	assert.Equal(t, "from db\n", strings.ReplaceAll(out, "nc: can't connect to remote host", ""))
	out, _ = w.run(sh, "for i in 1 2 3 4 5 6 7 8 9; do nc -w 5 who 8080 </dev/null && break; usleep 50000; done")
	assert.Contains(t, out, "app\nit's me\nnote\n")
	assert.Len(t, w.things(""), 4, "three containers and a network")
}

func TestMainContainer(t *testing.T) {
	eng := testimage.Engine(t)
	image := testimage.Build(t, eng, true, "WORKDIR /var/run", "USER app", "ENV FROM_IMAGE=i")
	file := filepath.Join(t.TempDir(), "on host")
	require.NoError(t, os.WriteFile(file, []byte("host's\n"), 0o644))
	w := newWorld(t, eng, image)
	w.options.Files, w.options.MountDockerSocket = []settings.File{{Host: file, Container: "/etc/from host"}}, false
	w.main().Env = []protocol.EnvVar{{Name: "FROM_JOB", Value: "j"}}
	w.main().Files = []protocol.File{{Path: "/etc/some/file", Content: []byte("f\n"), Mode: 0o644}}
	sh := w.shell()
	out, _ := w.run(sh, `id -un; pwd; echo ~ $FROM_IMAGE $FROM_JOB; cat /etc/some/file "/etc/from host"; [ -t 1 ] && echo terminal; shopt -q login_shell || echo plain; ls /var/run`)
	assert.Equal(t, "app\n/var/run\n/home/app i j\nf\nhost's\nterminal\nplain\n", out)
	require.NoError(t, w.env.Inject(within(t), protocol.File{Path: "a/b", Content: []byte("x"), Mode: 0o640}))
	out, _ = w.run(sh, "ls -ln ~/a/b | cut -d ' ' -f 1; cat ~/a/b")
	assert.Equal(t, "-rw-r-----\nx", out)
	require.ErrorContains(t, w.env.Inject(within(t), protocol.File{Path: "/etc/b"}), "cannot inject /etc/b")
	assert.Equal(t, "~/a", w.env.ResolvePath("~/a"))
}

func TestSocketAndRoot(t *testing.T) {
	eng := testimage.Engine(t)
	w := newWorld(t, eng, testimage.Build(t, eng, true))
	w.main().User = "0:0"
	out, _ := w.run(w.shell(), "pwd; [ -S /var/run/docker.sock ] && echo socket")
	assert.Equal(t, "/root\nsocket\n", out)
}

// What an entrypoint sets up is there in the job's shell, as when it is run by hand.
func TestEntrypointOfMain(t *testing.T) {
	eng := testimage.Engine(t)
	w := newWorld(t, eng, testimage.Build(t, eng, true, `ENTRYPOINT ["/bin/sh", "-c", "usleep 300000; export SET_UP=yes; exec \"$0\" \"$@\""]`))
	out, _ := w.run(w.shell(), "echo $SET_UP")
	assert.Equal(t, "yes\n", out)
}

func TestStop(t *testing.T) {
	eng := testimage.Engine(t)
	image := testimage.Build(t, eng, true)
	w := newWorld(t, eng, image, protocol.Container{Name: "db", Image: image, Command: "sleep 1000"})
	w.set.StopGrace = 100 * time.Millisecond
	sh := w.shell()
	var out syncBuffer
	ended := make(chan protocol.Exit, 1)
	go func() {
		exit, err := sh.Run(context.Background(), "trap '' INT TERM; (setsid sh -c 'sleep 1000; :' &); echo ready; sleep 1000; sleep 1000", &out)
		assert.NoError(t, err)
		ended <- exit
	}()
	later(t, &out, "ready")
	require.NoError(t, w.env.Stop(within(t)))
	assert.True(t, (<-ended).ShellEnded)
	again, exit := w.run(w.shell(), "ps -o comm,args | grep -c '[s]leep 1000'")
	assert.Equal(t, "0\n", again)
	assert.Equal(t, 1, exit.Code)
	assert.Len(t, w.things("db"), 1, "the post-job hook may need the services")
}

func TestServiceDies(t *testing.T) {
	eng := testimage.Engine(t)
	image := testimage.Build(t, eng, true)
	w := newWorld(t, eng, image,
		protocol.Container{Name: "db", Image: image, Command: `sh -c "echo listening; nc -l -p 80 >/dev/null; echo oh no >&2; exit 7"`},
		protocol.Container{Name: "silent", Image: image, Command: `sh -c "nc -l -p 80"`})
	sh := w.shell()
	var out syncBuffer
	ended := make(chan protocol.Exit, 1)
	go func() {
		exit, err := sh.Run(context.Background(), "printf begin; until echo x | nc -w 1 db 80; do usleep 20000; done 2>/dev/null; echo; read -r -t 100 x </tmp/fifo; echo end; false", &out)
		assert.NoError(t, err)
		ended <- exit
	}()
	const line = "Warning: the service db has ended with code 7; its last lines:\n  listening\n  oh no\n"
	later(t, &out, "end")
	assert.Equal(t, 1, (<-ended).Code)
	require.NoError(t, nil)
	if !strings.Contains(out.String(), line) { // its death takes a moment to be known
		var more syncBuffer
		require.Eventually(t, func() bool {
			_, err := sh.Run(within(t), "true", &more)
			return err == nil && strings.Contains(more.String(), line)
		}, patience, 10*time.Millisecond)
	}
	var more syncBuffer
	_, err := sh.Run(within(t), "until echo x | nc -w 1 silent 80; do usleep 20000; done 2>/dev/null", io.Discard)
	require.NoError(t, err)
	require.Eventually(t, func() bool {
		_, err := sh.Run(within(t), "true", &more)
		return err == nil && strings.Contains(more.String(), "Warning: the service silent has ended with code 0.\n")
	}, patience, 10*time.Millisecond)
}

// A service's death is told while a command goes on, and never within a line of its output.
func TestNewsBetweenLines(t *testing.T) {
	eng := testimage.Engine(t)
	image := testimage.Build(t, eng, true)
	w := newWorld(t, eng, image, protocol.Container{Name: "db", Image: image, Command: `sh -c "nc -l -p 80"`})
	sh := w.shell()
	var out syncBuffer
	ended := make(chan error, 1)
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	go func() {
		_, err := sh.Run(ctx, "echo one; until echo x | nc -w 1 db 80; do usleep 20000; done 2>/dev/null; sleep 1000", &out)
		ended <- err
	}()
	later(t, &out, "one\nWarning: the service db has ended with code 0.\n")
	cancel()
	require.ErrorIs(t, <-ended, context.Canceled)
}

func TestHealthChecks(t *testing.T) {
	eng := testimage.Engine(t)
	plain := testimage.Build(t, eng, true)
	healthy := testimage.Build(t, eng, true, "HEALTHCHECK --interval=100ms CMD [ -e /tmp/up ]")
	w := newWorld(t, eng, plain, protocol.Container{Name: "db", Image: healthy, Command: `sh -c "usleep 700000; touch /tmp/up; sleep 1000"`})
	w.shell()
	state, err := eng.State(within(t), w.things("db")[0].ID)
	require.NoError(t, err)
	assert.Equal(t, "healthy", state.Health)

	sick := testimage.Build(t, eng, true, "HEALTHCHECK --interval=100ms --retries=2 CMD echo not well; exit 1")
	w = newWorld(t, eng, plain, protocol.Container{Name: "db", Image: sick, Command: "sleep 1000"})
	require.EqualError(t, w.prepare(), "the service db is unhealthy; its health check says: not well")
	w = newWorld(t, eng, plain, protocol.Container{Name: "db", Image: sick, Command: `sh -c "echo bye; exit 3"`})
	require.EqualError(t, w.prepare(), "the service db ended with code 3 before its health check passed; its last lines:\n  bye")
}

func TestWhatCannotBePrepared(t *testing.T) {
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
		"never pulled": {func(w *world) { w.options.PullPolicy = settings.PullNever; w.main().Image = "signalman-test:none" }, "the image signalman-test:none is not on this host, and compose.pull-policy is never"},
		"no registry":  {func(w *world) { w.main().Image = "127.0.0.1:1/none:1" }, "cannot pull 127.0.0.1:1/none:1: "},
		"no bash":      {func(w *world) { w.main().Image = noBash }, "container main (image " + noBash + "): cannot open a shell: bash is not installed, or not on the PATH"},
		"broken name":  {func(w *world) { w.main().Image = "A B" }, "invalid reference format"},
		"no image":     {func(w *world) { w.main().Image = "" }, "names no image"},
		"missing file": {func(w *world) {
			w.options.Files, w.options.FailOnMissingFiles = []settings.File{{Host: "/nowhere", Container: "/x"}}, true
		}, "the host's file /nowhere for the job's containers (files) is not there"},
		"entrypoint ends":  {func(w *world) { w.main().Entrypoint = `sh -c "echo what; exit 5"` }, "The container main, where the job's commands run, ended with code 5; its last lines:\n  what"},
		"entrypoint none":  {func(w *world) { w.main().Entrypoint = "/nowhere" }, "cannot start container main: "},
		"entrypoint quote": {func(w *world) { w.main().Entrypoint = `"` }, "the entrypoint of container main cannot be split into words"},
		"no user":          {func(w *world) { w.main().User = "nobody-here" }, "cannot start container main: "},
		"host command":     {func(w *world) { w.job.Compose.HostSetupCommands = []protocol.Command{{Directive: "echo no; exit 4"}} }, `the host setup command "echo no; exit 4" ended with code 4`},
	} {
		t.Run(name, func(t *testing.T) {
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

func TestMissingFileIsNoFailure(t *testing.T) {
	eng := testimage.Engine(t)
	w := newWorld(t, eng, testimage.Build(t, eng, true))
	w.options.Files = []settings.File{{Host: "/nowhere", Container: "/x"}}
	w.shell()
	assert.Equal(t, "Warning: the host's file /nowhere for containers (files) is not there.\nStarting a new bash session.\n", w.log.sections[1].output.String())
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
	assert.Equal(t, "begin\n"+w.set.TempDir+"\n", w.log.sections[0].output.String())
	pid, err := os.ReadFile(dir + "/pid")
	require.NoError(t, err)
	assert.Equal(t, string(pid), w.log.sections[1].output.String())
	left, err := w.executor.List(within(t), w.set.InstanceID)
	require.NoError(t, err)
	require.Len(t, left, 1)
	assert.Equal(t, "1 processes, container main, network", left[0].What)
	w.end()
	assert.NoDirExists(t, "/proc/"+strings.TrimSpace(string(pid)))
}

func TestHostSetupCommandIsStopped(t *testing.T) {
	eng := testimage.Engine(t)
	w := newWorld(t, eng, "x")
	w.job.Compose.HostSetupCommands = []protocol.Command{{Directive: "echo ready; sleep 1000; sleep 1000"}}
	ctx, cancel := context.WithCancel(within(t))
	ended := make(chan error, 1)
	go func() {
		_, err := w.executor.Prepare(ctx, w.job, w.set, w.log)
		ended <- err
	}()
	require.Eventually(t, func() bool {
		w.log.mu.Lock()
		defer w.log.mu.Unlock()
		return len(w.log.sections) == 1 && strings.Contains(w.log.sections[0].output.String(), "ready")
	}, patience, 5*time.Millisecond)
	cancel()
	require.ErrorIs(t, <-ended, context.Canceled)
}

func TestJobUserHasNoHostSetupCommands(t *testing.T) {
	eng := testimage.Engine(t)
	w := newWorld(t, eng, "x")
	w.set.User = "daemon"
	w.job.Compose.HostSetupCommands = []protocol.Command{{Directive: "true"}}
	require.ErrorContains(t, w.prepare(), "job-user")
}

func TestLimits(t *testing.T) {
	eng := testimage.Engine(t)
	w := newWorld(t, eng, testimage.Build(t, eng, true))
	w.set.Limits = protocol.Limits{Memory: 96 << 20, Pids: 40, MilliCPUs: 900}
	sh := w.shell()
	out, exit := w.run(sh, `bash -c 'printf -v x %200000000s x'`)
	assert.Equal(t, 137, exit.Code)
	assert.Contains(t, out, "Out of memory: the kernel killed a process of this job at its limit of 96 MiB ([limits] memory).\n")
	out, exit = w.run(sh, "false")
	assert.Equal(t, 1, exit.Code)
	assert.Empty(t, out, "it is said once")
	out, _ = w.run(sh, `sh -c 'i=0; while [ $i -lt 100 ]; do sleep 1000 & i=$((i+1)); done'; false`)
	assert.Contains(t, out, "Too many processes: the kernel refused this job another process or thread at its limit of 40 ([limits] pids).\n")
	require.NoError(t, w.env.Stop(within(t)))
	_, exit = w.run(w.shell(), "true")
	assert.Zero(t, exit.Code)
}

// Whatever happens to main from outside, the command ends with one line that says so.
func TestMainIsGone(t *testing.T) {
	eng := testimage.Engine(t)
	image := testimage.Build(t, eng, true)
	w := newWorld(t, eng, image)
	sh := w.shell()
	var out syncBuffer
	ended := make(chan error, 1)
	go func() {
		_, err := sh.Run(context.Background(), "echo ready; sleep 1000", &out)
		ended <- err
	}()
	later(t, &out, "ready")
	require.NoError(t, eng.Stop(within(t), w.things("main")[0].ID, 0))
	err := <-ended
	require.ErrorIs(t, err, protocol.ErrEnvironmentGone)
	assert.Equal(t, "The container main, where the job's commands run, ended with code 137.", err.Error())
	_, err = w.env.OpenShell(within(t))
	require.ErrorIs(t, err, protocol.ErrEnvironmentGone)
	require.NoError(t, w.env.Stop(within(t)))

	w = newWorld(t, eng, image)
	sh = w.shell()
	require.NoError(t, eng.Remove(within(t), w.things("main")[0].ID))
	_, err = sh.Run(within(t), "true", io.Discard)
	require.EqualError(t, err, "The container main was removed while the job ran.")
}

func TestCleanup(t *testing.T) {
	eng := testimage.Engine(t)
	image := testimage.Build(t, eng, true, "VOLUME /data")
	w := newWorld(t, eng, image, protocol.Container{Name: "db", Image: image, Command: "sleep 1000"})
	sh := w.shell()
	w.run(sh, "touch /data/x; sleep 1000 &")
	require.Len(t, w.things(""), 3)
	before := volumes(t)
	require.NoError(t, w.executor.Cleanup(within(t), &protocol.Job{ID: w.job.ID}, &protocol.Settings{InstanceID: "another"}))
	require.Len(t, w.things(""), 3)
	for range 2 {
		require.NoError(t, w.executor.Cleanup(within(t), &protocol.Job{ID: w.job.ID}, &protocol.Settings{InstanceID: w.set.InstanceID}))
		require.Empty(t, w.things(""))
	}
	assert.Equal(t, before-2, volumes(t), "anonymous volumes go too")
}

// volumes counts those of anonymous volumes on this host.
func volumes(t *testing.T) int {
	t.Helper()
	entries, err := os.ReadDir("/var/lib/docker/volumes")
	if err != nil {
		t.Skip("the engine's folder can't be read: ", err)
	}
	return len(entries)
}

func TestNoEngine(t *testing.T) {
	t.Setenv("DOCKER_HOST", "unix://"+filepath.Join(t.TempDir(), "none.sock"))
	_, err := engine.Connect(within(t))
	require.ErrorIs(t, err, engine.ErrUnreachable)
	x := New(func(string) ([]byte, error) { return nil, nil })
	_, err = x.Prepare(within(t), &protocol.Job{ID: "j", Compose: &protocol.Compose{Containers: []protocol.Container{{Name: "main", Image: "x"}}}}, &protocol.Settings{}, &record{})
	require.ErrorContains(t, err, "cannot reach the Docker engine at unix://")
	assert.NotContains(t, err.Error(), "\n")
	checks := x.Check(within(t))
	require.Len(t, checks, 1)
	assert.Equal(t, protocol.CheckFailed, checks[0].Status)
	require.Error(t, x.Cleanup(within(t), &protocol.Job{ID: "j"}, &protocol.Settings{}))
}
