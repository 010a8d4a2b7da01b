package compose

import (
	"errors"
	"io"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/signalman-ci/signalman/internal/executor/settings"
	"github.com/signalman-ci/signalman/internal/testimage"
	"github.com/signalman-ci/signalman/shared/protocol"
)

func TestMainContainer(t *testing.T) {
	t.Parallel()
	eng := testimage.Engine(t)
	image := testimage.Build(t, eng, true, "WORKDIR /var/run", "USER app", "ENV FROM_IMAGE=i")
	dir := t.TempDir()
	file := filepath.Join(dir, "on:host")
	require.NoError(t, os.WriteFile(file, []byte("host's\n"), 0o644))
	w := newWorld(t, eng, image, protocol.Container{Name: "db", Image: image, Command: `sh -c "cat '/etc/from host'; sleep 1000"`})
	w.options.Files, w.options.MountDockerSocket = []settings.File{{Host: file, Container: "/etc/from host"}, {Host: dir, Container: "/folder"}}, false
	w.main().Env = []protocol.EnvVar{{Name: "FROM_JOB", Value: "j"}}
	w.main().Files = []protocol.File{{Path: "/etc/some/file", Content: []byte("f\n"), Mode: 0o644}}
	sh := w.shell()
	out, _ := w.run(sh, `id -un; pwd; echo ~ $FROM_IMAGE $FROM_JOB; cat /etc/some/file "/etc/from host" "/folder/on:host"; [ -t 1 ] && echo terminal; shopt -q login_shell || echo plain; ls /var/run; ls /dev/kvm 2>/dev/null`)
	assert.Equal(t, "app\n/var/run\n/home/app i j\nf\nhost's\nhost's\nterminal\nplain\n", out, "and no socket, and no /dev/kvm")
	require.NoError(t, w.env.Inject(within(t), protocol.File{Path: "a/b", Content: []byte("x"), Mode: 0o640}))
	out, _ = w.run(sh, "ls -ln ~/a/b | cut -d ' ' -f 1; cat ~/a/b")
	assert.Equal(t, "-rw-r-----\nx", out)
	require.ErrorContains(t, w.env.Inject(within(t), protocol.File{Path: "/etc/b"}), "cannot inject /etc/b")
	assert.Equal(t, "~/a", w.env.ResolvePath("~/a"))
	require.Eventually(t, func() bool { // services have the host's files too
		lines, err := eng.LastLines(within(t), w.things("db")[0].ID, 5)
		return err == nil && len(lines) == 1 && lines[0] == "host's"
	}, patience, look)
}

func TestSocketAndRoot(t *testing.T) {
	t.Parallel()
	eng := testimage.Engine(t)
	image := testimage.Build(t, eng, true)
	w := newWorld(t, eng, image, protocol.Container{Name: "db", Image: image, Command: `sh -c "ls /var/run; echo that is all; sleep 1000"`})
	w.main().User = "0:0"
	sh := w.shell()
	out, _ := w.run(sh, "pwd; [ -S /var/run/docker.sock ] && echo socket")
	assert.Equal(t, "/root\nsocket\n", out)
	// A file that the engine mounts.
	require.NoError(t, w.env.Inject(within(t), protocol.File{Path: "/etc/hosts", Content: []byte("127.0.0.1 me\n"), Mode: 0o600}))
	out, _ = w.run(sh, "cat /etc/hosts; stat -c %a /etc/hosts; ls -a /etc | grep signalman")
	assert.Equal(t, "127.0.0.1 me\n600\n", out)
	require.Eventually(t, func() bool {
		lines, err := eng.LastLines(within(t), w.things("db")[0].ID, 5)
		return err == nil && len(lines) == 1 && lines[0] == "that is all"
	}, patience, look, "services have no socket")
}

func TestKVM(t *testing.T) {
	t.Parallel()
	want := "none\n"
	if _, err := os.Stat("/dev/kvm"); err == nil {
		want = "kvm\n"
	}
	eng := testimage.Engine(t)
	w := newWorld(t, eng, testimage.Build(t, eng, true))
	w.options.ExposeKVM = true
	out, _ := w.run(w.shell(), "[ -c /dev/kvm ] && echo kvm || echo none")
	assert.Equal(t, want, out)
}

func TestUserThatTheImageDoesNotKnow(t *testing.T) {
	t.Parallel()
	eng := testimage.Engine(t)
	w := newWorld(t, eng, testimage.Build(t, eng, true))
	w.main().User = "4321:4321"
	out, _ := w.run(w.shell(), "id -u; id -g; pwd; echo x >/tmp/x && cat /tmp/x")
	assert.Equal(t, "4321\n4321\n/\nx\n", out)
	require.NoError(t, w.env.Inject(within(t), protocol.File{Path: "/tmp/a", Content: []byte("x"), Mode: 0o600}))
}

// What an entrypoint sets up is there in the job's shell, as when it is run by hand.
func TestEntrypointOfMain(t *testing.T) {
	t.Parallel()
	eng := testimage.Engine(t)
	w := newWorld(t, eng, testimage.Build(t, eng, true, `ENTRYPOINT ["/bin/sh", "-c", "usleep 300000; export SET_UP=yes; exec \"$0\" \"$@\""]`))
	out, _ := w.run(w.shell(), "echo $SET_UP")
	assert.Equal(t, "yes\n", out)
}

// An entrypoint need not become what it runs.
func TestEntrypointThatStays(t *testing.T) {
	t.Parallel()
	eng := testimage.Engine(t)
	w := newWorld(t, eng, testimage.Build(t, eng, true))
	w.main().Entrypoint = `sh -c '"$0" "$@"; echo over'`
	sh := w.shell()
	out, ended := w.begin(sh, "echo ready; sleep 1000")
	later(t, out, "ready")
	require.NoError(t, w.env.Stop(within(t)))
	assert.True(t, outcomeOf(t, ended).exit.ShellEnded)
	text, _ := w.run(w.shell(), "echo again")
	assert.Equal(t, "again\n", text)
}

func TestLimits(t *testing.T) {
	t.Parallel()
	eng := testimage.Engine(t)
	image := testimage.Build(t, eng, true)
	w := newWorld(t, eng, image, protocol.Container{Name: "db", Image: image, Command: `bash -c "printf -v x %200000000s x"`})
	w.set.Limits = protocol.Limits{Memory: 96 << 20, Pids: 40, MilliCPUs: 900}
	sh := w.shell()
	out, exit := w.run(sh, `bash -c 'printf -v x %200000000s x'`)
	assert.Equal(t, 137, exit.Code)
	assert.Contains(t, out, "Out of memory: the kernel killed a process of this job at its limit of 96 MiB ([limits] memory).\n")
	all := out
	require.Eventually(t, func() bool {
		out, _ := w.run(sh, "true")
		all += out
		return assert.ObjectsAreEqual("", out) && len(all) > 0 && containsLine(all, "Warning: the service db has ended with code 137, out of memory.")
	}, patience, look)
	out, exit = w.run(sh, "false")
	assert.Equal(t, 1, exit.Code)
	assert.Empty(t, out, "it is said once")
	assert.Equal(t, "100663296 900000000 40", docker(t, "inspect", "-f", "{{.HostConfig.Memory}} {{.HostConfig.NanoCpus}} {{.HostConfig.PidsLimit}}", w.things("db")[0].ID))
	assert.Equal(t, "100663296 900000000 72", docker(t, "inspect", "-f", "{{.HostConfig.Memory}} {{.HostConfig.NanoCpus}} {{.HostConfig.PidsLimit}}", w.things("main")[0].ID),
		"our own processes don't take room from the job's")
}

// A main in which nothing more can be started is stopped nevertheless, and can be used again.
func TestProcessLimit(t *testing.T) {
	t.Parallel()
	eng := testimage.Engine(t)
	w := newWorld(t, eng, testimage.Build(t, eng, true))
	w.set.Limits.Pids = 40
	sh := w.shell()
	out, _ := w.run(sh, `sh -c 'i=0; while [ $i -lt 100 ]; do sleep 1000 & i=$((i+1)); done'; false`)
	assert.Contains(t, out, "Too many processes: the kernel refused this job another process or thread at its limit of 40 ([limits] pids).\n")
	require.NoError(t, w.env.Stop(within(t)))
	out, exit := w.run(w.shell(), "ps -o args | grep -c '[s]leep 1000'")
	assert.Equal(t, "0\n", out)
	assert.Equal(t, 1, exit.Code)
}

// Whatever happens to main from outside, the command ends with one line that says so.
func TestMainIsGone(t *testing.T) {
	t.Parallel()
	eng := testimage.Engine(t)
	image := testimage.Build(t, eng, true)
	for name, c := range map[string]struct {
		end  func(id string) error
		want string
	}{
		"killed":  {func(id string) error { return eng.Signal(within(t), id, "KILL") }, "The container main, where the job's commands run, ended with code 137."},
		"stopped": {func(id string) error { return eng.Stop(within(t), id, patience) }, "The container main, where the job's commands run, ended with code 0, as it was stopped from outside, or with the Docker engine."},
		"removed": {func(id string) error { return eng.Remove(within(t), id) }, "The container main was removed while the job ran."},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, eng, image)
			out, ended := w.begin(w.shell(), "echo ready; sleep 1000")
			later(t, out, "ready")
			require.NoError(t, c.end(w.things("main")[0].ID))
			err := outcomeOf(t, ended).err
			require.ErrorIs(t, err, protocol.ErrEnvironmentGone)
			if name != "removed" || !isAnother(err, "ended with code 137") { // it is killed first
				assert.EqualError(t, err, c.want)
			}
			_, err = w.env.OpenShell(within(t))
			require.ErrorIs(t, err, protocol.ErrEnvironmentGone)
			require.NoError(t, w.env.Stop(within(t)))
		})
	}
	t.Run("between commands", func(t *testing.T) {
		t.Parallel()
		w := newWorld(t, eng, image)
		sh := w.shell()
		require.NoError(t, eng.Remove(within(t), w.things("main")[0].ID))
		_, err := sh.Run(within(t), "true", io.Discard)
		require.EqualError(t, err, "The container main was removed while the job ran.")
		require.Error(t, sh.Close())
	})
}

func isAnother(err error, text string) bool {
	return errors.Is(err, protocol.ErrEnvironmentGone) && containsLine(err.Error()+"\n", "The container main, where the job's commands run, "+text+".")
}

// A hook of the host's is there in main, at its own path, but not in the way of what files gives.
func TestHooksOfTheHost(t *testing.T) {
	t.Parallel()
	eng := testimage.Engine(t)
	dir, given := t.TempDir(), t.TempDir()
	pre, post := filepath.Join(dir, "pre.sh"), filepath.Join(given, "post.sh")
	require.NoError(t, os.WriteFile(pre, []byte("echo from the host\n"), 0o600))
	require.NoError(t, os.WriteFile(post, []byte("echo bound\n"), 0o600))
	w := newWorld(t, eng, testimage.Build(t, eng, true, "USER app"))
	w.set.PreHook.Path, w.set.PostHook.Path = pre, post
	w.options.Files = []settings.File{{Host: dir, Container: given}}
	out, _ := w.run(w.shell(), "bash "+pre+"; ls "+given)
	assert.Equal(t, "from the host\npre.sh\n", out)

	w = newWorld(t, eng, testimage.Build(t, eng, true))
	w.set.PreHook.Path = filepath.Join(dir, "none.sh")
	out, _ = w.run(w.shell(), "ls "+dir+" 2>/dev/null; echo fine")
	assert.Equal(t, "fine\n", out)
}
