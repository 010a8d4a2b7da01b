package admin

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/signalman-ci/signalman/internal/agent"
	"github.com/signalman-ci/signalman/internal/config"
	"github.com/signalman-ci/signalman/internal/plugins"
	"github.com/signalman-ci/signalman/internal/reconcile"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func socket(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "admin") // t.TempDir's path may be too long for a socket
	require.NoError(t, err)
	t.Cleanup(func() { assert.NoError(t, os.RemoveAll(dir)) })
	return filepath.Join(dir, SocketName)
}

func ctx(t *testing.T) context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), 60*time.Second)
	t.Cleanup(cancel)
	return ctx
}

func listenAt(path string, sup Supervisor) (*Server, error) {
	return Listen(Settings{Socket: path, Supervisor: sup, Logger: hclog.NewNullLogger()})
}

// fake is a supervisor.
type fake struct {
	status Status
	err    error
	alive  error
	before func() // its answer
	stop   func(ctx context.Context, jobID string) error
}

func (f fake) Alive() error { return f.alive }

func (f fake) StopJob(ctx context.Context, jobID string) error { return f.stop(ctx, jobID) }

func (f fake) Status() Status {
	if f.before != nil {
		f.before()
	}
	return f.status
}

func (f fake) Plugins() []plugins.Plugin {
	return []plugins.Plugin{{Name: "mine", Path: "/p/worker-mine", Pin: plugins.Unpinned}}
}

func (f fake) Upgrade(context.Context) (string, error) { return "2", f.err }

func (f fake) Reconcile(_ context.Context, dryRun bool) []reconcile.Leftover {
	return []reconcile.Leftover{{JobID: "j", Of: "shell", What: fmt.Sprint(dryRun)}}
}

func (f fake) Reload() (Reload, error) {
	r := Reload{At: time.Unix(1, 0).UTC(), Changes: []config.Change{{Key: "name", Old: "a", New: "b", When: config.NewRegistration}}}
	if f.err != nil {
		r.Error = f.err.Error()
	}
	return r, f.err
}

func (f fake) EffectiveConfig() []config.Setting {
	return []config.Setting{{Key: "name", Value: `"a"`, Origin: config.Origin{Source: config.FromFile, Where: "agent.toml:1"}}}
}

func (f fake) Drain() error  { return f.err }
func (f fake) Resume() error { return f.err }

func TestReload(t *testing.T) {
	path := socket(t)
	s, err := listenAt(path, fake{})
	require.NoError(t, err)
	r, err := AskReload(ctx(t), path)
	require.NoError(t, err)
	assert.Equal(t, "name: a -> b; needs a new registration, which each slot does when it is free", r.Changes[0].String())
	require.NoError(t, s.Close())
	s, err = listenAt(path, fake{err: errors.New("agent.toml:1: what")})
	require.NoError(t, err)
	_, err = AskReload(ctx(t), path)
	require.EqualError(t, err, "agent.toml:1: what")
	require.NoError(t, s.Close())
}

func TestDrainAndResume(t *testing.T) {
	for name, ask := range map[string]func(context.Context, string) (Status, error){"drain": Drain, "resume": Resume} {
		t.Run(name, func(t *testing.T) {
			path := socket(t)
			s, err := listenAt(path, fake{status: Status{PID: 3}})
			require.NoError(t, err)
			st, err := ask(ctx(t), path)
			require.NoError(t, err)
			assert.Equal(t, 3, st.PID)
			require.NoError(t, s.Close())
			s, err = listenAt(path, fake{err: errors.New("a full disk")})
			require.NoError(t, err)
			_, err = ask(ctx(t), path)
			require.EqualError(t, err, "a full disk")
			require.NoError(t, s.Close())
		})
	}
}

func TestReconcile(t *testing.T) {
	path := socket(t)
	s, err := listenAt(path, fake{})
	require.NoError(t, err)
	for _, dry := range []bool{true, false} {
		left, err := Reconcile(ctx(t), path, dry)
		require.NoError(t, err)
		assert.Equal(t, fmt.Sprintf("job j: shell: %v", dry), left[0].String())
	}
	require.NoError(t, s.Close())
}

func TestUpgrade(t *testing.T) {
	path := socket(t)
	s, err := listenAt(path, fake{})
	require.NoError(t, err)
	version, err := Upgrade(ctx(t), path)
	require.NoError(t, err)
	assert.Equal(t, "2", version)
	require.NoError(t, s.Close())
	s, err = listenAt(path, fake{err: errors.New("not today")})
	require.NoError(t, err)
	_, err = Upgrade(ctx(t), path)
	require.EqualError(t, err, "not today")
	require.NoError(t, s.Close())
}

func TestStatus(t *testing.T) {
	path := socket(t)
	want := Status{
		Version: "1", PID: 7, StateDir: "/s", InstanceID: "i", Since: time.Unix(1, 0).UTC(), Interrupted: true,
		Slots: []agent.Status{{Slot: 1, Name: "n", State: "running-job", JobID: "j", Since: time.Unix(2, 0).UTC(), Problem: "p"}},
	}
	s, err := listenAt(path, fake{status: want})
	want.Socket = path
	require.NoError(t, err)
	info, err := os.Stat(path)
	require.NoError(t, err)
	assert.Equal(t, os.FileMode(0o600), info.Mode().Perm(), "only this user may ask")
	for range 3 {
		got, err := GetStatus(ctx(t), path)
		require.NoError(t, err)
		assert.Equal(t, want, got)
	}
	require.NoError(t, s.Close())
	assert.NoFileExists(t, path)
	_, err = GetStatus(ctx(t), path)
	require.ErrorContains(t, err, "no supervisor runs with this state folder")
}

// A supervisor that was killed leaves its socket behind.
func TestListenOverADeadSocket(t *testing.T) {
	path := socket(t)
	l, err := net.Listen("unix", path)
	require.NoError(t, err)
	l.(*net.UnixListener).SetUnlinkOnClose(false)
	require.NoError(t, l.Close())
	_, err = GetStatus(ctx(t), path)
	require.ErrorContains(t, err, "no supervisor runs")
	s, err := listenAt(path, fake{status: Status{PID: 5}})
	require.NoError(t, err)
	got, err := GetStatus(ctx(t), path)
	require.NoError(t, err)
	assert.Equal(t, 5, got.PID)
	require.NoError(t, s.Close())
}

func TestListenWhereNobodyCan(t *testing.T) {
	_, err := listenAt(filepath.Join(t.TempDir(), "none", SocketName), nil)
	require.ErrorContains(t, err, "cannot open the admin socket")
}

// Something else may listen there, or a supervisor of another version.
func TestAnswersThatAreNoStatus(t *testing.T) {
	for name, handler := range map[string]http.HandlerFunc{
		"not found": http.NotFound,
		"garbage":   func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte("hello")) },
		"an error":  func(w http.ResponseWriter, _ *http.Request) { http.Error(w, "{}", http.StatusInternalServerError) },
	} {
		t.Run(name, func(t *testing.T) {
			path := socket(t)
			l, err := net.Listen("unix", path)
			require.NoError(t, err)
			server := &http.Server{Handler: handler}
			done := make(chan struct{})
			go func() { defer close(done); _ = server.Serve(l) }()
			_, err = GetStatus(ctx(t), path)
			require.Error(t, err)
			assert.NotContains(t, err.Error(), "no supervisor runs")
			require.NoError(t, server.Close())
			<-done
		})
	}
}

func TestCallerThatDoesNotWait(t *testing.T) {
	path := socket(t)
	asked, answer := make(chan struct{}), make(chan struct{})
	s, err := listenAt(path, fake{before: func() { close(asked); <-answer }})
	require.NoError(t, err)
	c, cancel := context.WithCancel(ctx(t))
	go func() { <-asked; cancel() }()
	_, err = GetStatus(c, path)
	require.ErrorIs(t, err, context.Canceled)
	close(answer)
	require.NoError(t, s.Close())
}
