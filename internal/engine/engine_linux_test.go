package engine_test

import (
	"cmp"
	"context"
	"crypto/rand"
	"errors"
	"io"
	"io/fs"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"testing/iotest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/signalman-ci/signalman/internal/engine"
	"github.com/signalman-ci/signalman/internal/testimage"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const (
	patience = 90 * time.Second
	look     = 20 * time.Millisecond
)

func within(t *testing.T) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	t.Cleanup(cancel)
	return ctx
}

// running starts a container, without network if no other is named, that the test's end removes.
func running(t *testing.T, e *engine.Engine, c engine.Container) string {
	t.Helper()
	c.Network = cmp.Or(c.Network, "none")
	id, err := e.Create(within(t), c)
	require.NoError(t, err)
	t.Cleanup(func() { assert.NoError(t, e.Remove(within(t), id)) })
	require.NoError(t, e.Start(within(t), id))
	return id
}

func marked(t *testing.T) map[string]string {
	t.Helper()
	return map[string]string{"signalman.test": rand.Text()}
}

// answering is an engine that says which version of the API it speaks, and handles nothing else.
func answering(t *testing.T, version string) {
	t.Helper()
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Api-Version", version)
		if r.URL.Path != "/_ping" {
			w.Header().Set("Content-Type", "application/json")
			w.WriteHeader(http.StatusInternalServerError)
			_, _ = io.WriteString(w, `{"message":"no\n  more"}`)
		}
	}))
	t.Cleanup(server.Close)
	t.Setenv("DOCKER_HOST", "tcp://"+server.Listener.Addr().String())
}

func TestVersions(t *testing.T) {
	for version, want := range map[string]string{
		"1.40": "speaks version 1.40 of its API, and 1.41 is needed: update it to 20.10 or later",
		"":     "and 1.41 is needed",
		"1.41": "", "1.44": "", "1.99": "",
	} {
		t.Run("version "+version, func(t *testing.T) {
			answering(t, version)
			e, err := engine.Connect(within(t))
			if want != "" {
				require.ErrorContains(t, err, want)
				assert.NotContains(t, err.Error(), "\n")
				return
			}
			require.NoError(t, err)
			defer e.Close()
			_, err = e.Image(within(t), "x")
			require.EqualError(t, err, "no more", "in one line")
		})
	}
}

func TestUnreachable(t *testing.T) {
	for name, host := range map[string]string{"no socket": "unix://" + filepath.Join(t.TempDir(), "none.sock"), "nobody listens": "tcp://" + closedPort(t)} {
		t.Run(name, func(t *testing.T) {
			t.Setenv("DOCKER_HOST", host)
			_, err := engine.Connect(within(t))
			require.ErrorIs(t, err, engine.ErrUnreachable)
			assert.EqualError(t, err, "cannot reach the Docker engine at "+host+": is it running, and may this user use it?")
		})
	}
	t.Run("no such host", func(t *testing.T) {
		t.Setenv("DOCKER_HOST", "tcp://engine.invalid:2375")
		_, err := engine.Connect(within(t))
		require.ErrorIs(t, err, engine.ErrUnreachable)
		assert.Contains(t, err.Error(), "engine.invalid")
		assert.NotContains(t, err.Error(), "\n")
	})
	t.Run("bad setting", func(t *testing.T) {
		t.Setenv("DOCKER_HOST", "nonsense")
		_, err := engine.Connect(within(t))
		require.ErrorContains(t, err, "DOCKER_HOST")
	})
	t.Run("stopped", func(t *testing.T) {
		t.Setenv("DOCKER_HOST", "unix:///nowhere")
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		_, err := engine.Connect(ctx)
		require.ErrorIs(t, err, context.Canceled)
	})
}

func closedPort(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	defer l.Close()
	return l.Addr().String()
}

// A user who may not use the socket is told so. Root may use all, so the test runs itself as another user.
func TestPermission(t *testing.T) {
	const want = "this user may not use it: add it to the group docker"
	if os.Getenv("DOCKER_HOST_OF_TEST") != "" {
		t.Setenv("DOCKER_HOST", os.Getenv("DOCKER_HOST_OF_TEST"))
		_, err := engine.Connect(within(t))
		require.ErrorIs(t, err, engine.ErrUnreachable)
		require.ErrorContains(t, err, want)
		return
	}
	if os.Geteuid() != 0 {
		t.Skip("only root can run a test as another user")
	}
	dir, err := os.MkdirTemp("", "socket")
	require.NoError(t, err)
	defer os.RemoveAll(dir)
	require.NoError(t, os.Chmod(dir, 0o755))
	l, err := net.Listen("unix", dir+"/s")
	require.NoError(t, err)
	defer l.Close()
	require.NoError(t, os.Chmod(dir+"/s", 0o600))
	cmd := exec.CommandContext(within(t), "/proc/self/exe", "-test.run=^TestPermission$", "-test.v")
	cmd.Dir = dir
	cmd.Env = []string{"DOCKER_HOST_OF_TEST=unix://" + dir + "/s", "PATH=" + os.Getenv("PATH"), "GOCOVERDIR=" + dir}
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}}
	out, err := cmd.CombinedOutput()
	require.NoError(t, err, string(out))
	assert.Contains(t, string(out), "--- PASS: TestPermission")
}

func TestNotFound(t *testing.T) {
	e := testimage.Engine(t)
	_, err := e.Image(within(t), "signalman-test:none")
	require.ErrorIs(t, err, engine.ErrNotFound)
	_, err = e.State(within(t), "none")
	require.ErrorIs(t, err, engine.ErrNotFound)
	require.ErrorIs(t, e.Start(within(t), "none"), engine.ErrNotFound)
	require.NoError(t, e.Remove(within(t), "none"))
	require.NoError(t, e.RemoveNetwork(within(t), "signalman-none"))
	require.NoError(t, e.RemoveImage(within(t), "signalman-test:none"))
	require.NoError(t, e.RemoveThing(within(t), engine.Thing{Kind: engine.KindVolume, ID: "none"}))
}

func TestImage(t *testing.T) {
	e := testimage.Engine(t)
	name := testimage.Build(t, e, true, "WORKDIR /tmp", "USER app", `ENTRYPOINT ["a", "b c"]`, "HEALTHCHECK CMD true")
	image, err := e.Image(within(t), name)
	require.NoError(t, err)
	image.ID = ""
	info, err := e.Info(within(t))
	require.NoError(t, err)
	assert.Equal(t, engine.Image{OS: "linux", Arch: info.Arch, WorkingDir: "/tmp", User: "app", Env: []string{"PATH=/usr/local/bin:/bin"},
		Entrypoint: []string{"a", "b c"}, HasHealth: true}, image)
	name = testimage.Build(t, e, true, "HEALTHCHECK NONE")
	image, err = e.Image(within(t), name)
	require.NoError(t, err)
	assert.False(t, image.HasHealth)
}

func TestExec(t *testing.T) {
	e := testimage.Engine(t)
	id := running(t, e, engine.Container{Image: testimage.Build(t, e, true), Command: []string{"sleep", "1000"}})
	run := func(script string) (string, error) {
		streams, err := e.Exec(within(t), id, "sh", "-c", script)
		require.NoError(t, err)
		defer streams.Close()
		_, err = io.WriteString(streams, "a line\n")
		require.NoError(t, err)
		out, err := io.ReadAll(iotest.OneByteReader(streams))
		return string(out), err
	}
	out, err := run(`read -r x; echo "got $x"`)
	require.NoError(t, err)
	assert.Equal(t, "got a line\n", out)

	// Standard error is no part of the output, and the reason of its end.
	out, err = run(`echo one; echo in between >&2; sleep 0.1; echo two; sleep 0.1; printf '\n more\n' >&2; exit 3`)
	require.ErrorIs(t, err, io.ErrUnexpectedEOF)
	require.EqualError(t, err, "in between")
	assert.Equal(t, "one\ntwo\n", out)

	// More standard error than is kept doesn't hold the command.
	out, err = run(`head -c 100000 /dev/zero | tr '\0' x >&2; seq 20000`)
	require.ErrorIs(t, err, io.ErrUnexpectedEOF)
	assert.Len(t, err.Error(), 1<<10)
	assert.Len(t, strings.Split(out, "\n"), 20001)

	_, err = e.Exec(within(t), "none", "true")
	require.ErrorIs(t, err, engine.ErrNotFound)
}

// A container's end ends what runs in it, and who reads it.
func TestExecInAContainerThatEnds(t *testing.T) {
	e := testimage.Engine(t)
	id := running(t, e, engine.Container{Image: testimage.Build(t, e, true), Command: []string{"sleep", "1000"}})
	streams, err := e.Exec(within(t), id, "sh", "-c", "echo ready; sleep 1000")
	require.NoError(t, err)
	defer streams.Close()
	begin := make([]byte, 6)
	_, err = io.ReadFull(streams, begin)
	require.NoError(t, err)
	require.NoError(t, e.Signal(within(t), id, "KILL"))
	_, err = io.ReadAll(streams)
	require.NoError(t, err)
	_, err = e.Exec(within(t), id, "true")
	require.Error(t, err)
	assert.NotContains(t, err.Error(), "\n")
}

func TestLastLines(t *testing.T) {
	e := testimage.Engine(t)
	image := testimage.Build(t, e, true)
	for name, c := range map[string]struct {
		script string
		want   []string
	}{
		"nothing":     {"", nil},
		"blank":       {"echo; echo", nil},
		"few":         {"echo a; echo; echo b", []string{"a", "", "b"}},
		"many":        {"seq 10", []string{"8", "9", "10"}},
		"no line end": {"echo a; printf b", []string{"a", "b"}},
		"no text":     {`printf 'a\377b\n'`, []string{"a\uFFFDb"}},
		"an error":    {"echo a >&2", []string{"a"}},
	} {
		t.Run(name, func(t *testing.T) {
			id := running(t, e, engine.Container{Image: image, Command: []string{"sh", "-c", c.script}})
			require.Eventually(t, func() bool {
				s, err := e.State(within(t), id)
				return err == nil && !s.Running
			}, patience, look)
			lines, err := e.LastLines(within(t), id, 3)
			require.NoError(t, err)
			assert.Equal(t, c.want, lines)
		})
	}
}

func TestStopAndState(t *testing.T) {
	e := testimage.Engine(t)
	image := testimage.Build(t, e, true)
	polite := running(t, e, engine.Container{Image: image, StopSignal: "INT", Command: []string{"sh", "-c", "trap 'exit 7' INT; echo ready; sleep 1000 & wait"}})
	require.Eventually(t, func() bool {
		lines, err := e.LastLines(within(t), polite, 1)
		return err == nil && len(lines) == 1
	}, patience, look)
	s, err := e.State(within(t), polite)
	require.NoError(t, err)
	assert.Equal(t, engine.State{Running: true}, s)
	require.NoError(t, e.Stop(within(t), polite, patience))
	s, err = e.State(within(t), polite)
	require.NoError(t, err)
	assert.Equal(t, engine.State{ExitCode: 7}, s)

	deaf := running(t, e, engine.Container{Image: image, Command: []string{"sleep", "1000"}})
	require.NoError(t, e.Stop(within(t), deaf, time.Millisecond))
	s, err = e.State(within(t), deaf)
	require.NoError(t, err)
	assert.Equal(t, engine.State{ExitCode: 137}, s)
	require.NoError(t, e.Stop(within(t), deaf, time.Millisecond), "one that has ended")
}

// Who removes what another one is removing waits until it is gone.
func TestRemoveAtTheSameTime(t *testing.T) {
	e := testimage.Engine(t)
	id := running(t, e, engine.Container{Image: testimage.Build(t, e, true), Command: []string{"sleep", "1000"}})
	errs := make(chan error, 8)
	var all sync.WaitGroup
	for range cap(errs) {
		all.Go(func() {
			err := e.Remove(within(t), id)
			if _, gone := e.State(within(t), id); err == nil && !errors.Is(gone, engine.ErrNotFound) {
				err = errors.New("it is there still")
			}
			errs <- err
		})
	}
	all.Wait()
	close(errs)
	for err := range errs {
		assert.NoError(t, err)
	}
}

// What the host doesn't have is told, and not made there as a folder of root's.
func TestBindOfNothing(t *testing.T) {
	e := testimage.Engine(t)
	missing := filepath.Join(t.TempDir(), "none")
	id, err := e.Create(within(t), engine.Container{Image: testimage.Build(t, e, true), Binds: []engine.Bind{{Host: missing, Container: "/x"}}})
	if err == nil {
		_ = e.Remove(within(t), id)
	}
	require.ErrorContains(t, err, missing)
	assert.NotContains(t, err.Error(), "\n")
	assert.NoFileExists(t, missing)
	assert.NoDirExists(t, missing)
}

// What another one can't remove isn't taken for removed.
func TestRemovalOfAnotherFails(t *testing.T) {
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Api-Version", "1.41")
		w.Header().Set("Content-Type", "application/json")
		switch {
		case r.Method == http.MethodDelete:
			w.WriteHeader(http.StatusConflict)
			_, _ = io.WriteString(w, `{"message":"removal of container x is already in progress"}`)
		case strings.HasSuffix(r.URL.Path, "/wait"):
			_, _ = io.WriteString(w, `{"StatusCode":0,"Error":{"Message":"device or\n resource busy"}}`)
		}
	}))
	t.Cleanup(server.Close)
	t.Setenv("DOCKER_HOST", "tcp://"+server.Listener.Addr().String())
	e, err := engine.Connect(within(t))
	require.NoError(t, err)
	defer e.Close()
	require.EqualError(t, e.Remove(within(t), "x"), "device or resource busy")
}

func TestCopy(t *testing.T) {
	e := testimage.Engine(t)
	id := running(t, e, engine.Container{Image: testimage.Build(t, e, true), User: "app", Command: []string{"sleep", "1000"}})
	require.NoError(t, e.Copy(within(t), id, engine.File{Path: "/../../new/x/../folder/f", Mode: 0o640, Content: []byte("x")},
		engine.File{Path: "/shared", Mode: fs.ModeDir | fs.ModeSticky | 0o777}))
	streams, err := e.Exec(within(t), id, "stat", "-c", "%a %u %n", "/new/folder", "/new/folder/f", "/shared")
	require.NoError(t, err)
	defer streams.Close()
	out, err := io.ReadAll(streams)
	require.NoError(t, err)
	assert.Equal(t, "755 0 /new/folder\n640 0 /new/folder/f\n1777 0 /shared\n", string(out))
}

func TestLabels(t *testing.T) {
	e := testimage.Engine(t)
	image := testimage.Build(t, e, true)
	labels := marked(t)
	network, err := e.CreateNetwork(within(t), "signalman-test-"+rand.Text(), labels)
	require.NoError(t, err)
	// One in the network that carries no label: the network can go nevertheless.
	stranger := running(t, e, engine.Container{Image: image, Network: network, Command: []string{"sleep", "1000"}})
	id, err := e.Create(within(t), engine.Container{Image: image, Network: network, Labels: labels, Command: []string{"sleep", "1000"}, Volumes: []string{"/data"}})
	require.NoError(t, err)
	require.NoError(t, e.Start(within(t), id))

	named, err := exec.Command("docker", "inspect", "-f", "{{(index .Mounts 0).Name}}", id).Output()
	require.NoError(t, err)
	volume := strings.TrimSpace(string(named))
	things, err := e.List(within(t), labels)
	require.NoError(t, err)
	assert.Equal(t, []engine.Thing{{Kind: engine.KindContainer, ID: id, Labels: labels}, {Kind: engine.KindNetwork, ID: network, Labels: labels},
		{Kind: engine.KindVolume, ID: volume, Labels: labels}}, things)
	require.ErrorContains(t, e.RemoveThing(within(t), things[2]), "cannot remove volume "+volume[:12]+": ")
	for range 2 {
		for _, thing := range things {
			require.NoError(t, e.RemoveThing(within(t), thing))
		}
	}
	things, err = e.List(within(t), labels)
	require.NoError(t, err)
	assert.Empty(t, things)
	state, err := e.State(within(t), stranger)
	require.NoError(t, err)
	assert.True(t, state.Running)
}

func TestEvents(t *testing.T) {
	e := testimage.Engine(t)
	image := testimage.Build(t, e, true, "HEALTHCHECK --interval=100ms CMD true")
	labels := marked(t)
	ctx, cancel := context.WithCancel(within(t))
	defer cancel()
	started, events, ended := make(chan struct{}), make(chan engine.Event, 100), make(chan error, 1)
	go func() {
		ended <- e.Events(ctx, labels, func() { close(started) }, func(ev engine.Event) { events <- ev })
	}()
	<-started
	running(t, e, engine.Container{Image: image, Command: []string{"true"}}) // another one's
	id := running(t, e, engine.Container{Image: image, Labels: labels, Command: []string{"sleep", "1000"}})
	receive := func() engine.Event {
		select {
		case ev := <-events:
			return ev
		case <-time.After(patience):
			require.Fail(t, "no event")
			return engine.Event{}
		}
	}
	assert.Equal(t, engine.Event{Kind: engine.EventHealth, ContainerID: id}, receive())
	require.NoError(t, e.Signal(within(t), id, "KILL"))
	assert.Equal(t, engine.Event{Kind: engine.EventDied, ContainerID: id}, receive())
	cancel()
	require.ErrorIs(t, <-ended, context.Canceled)
	assert.Empty(t, events)
}

func TestEventsOfNoEngine(t *testing.T) {
	answering(t, "1.41")
	e, err := engine.Connect(within(t))
	require.NoError(t, err)
	defer e.Close()
	called := false
	require.EqualError(t, e.Events(within(t), nil, func() { called = true }, func(engine.Event) {}), "no more")
	assert.True(t, called, "nobody waits for ever")
}
