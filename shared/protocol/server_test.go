package protocol

import (
	"context"
	"io"
	"os"
	"path/filepath"
	"reflect"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	pb "github.com/signalman-ci/signalman/shared/protocol/internal/executorv1"
)

func TestQuestions(t *testing.T) {
	w := newWorker(t)
	d, err := w.client.Describe(w.ctx())
	require.NoError(t, err)
	require.Equal(t, Description{Name: "fake", Version: "1"}, d)
	checks, err := w.client.Check(w.ctx())
	require.NoError(t, err)
	require.Equal(t, w.executor.Check(w.ctx()), checks)
	left, err := w.client.List(w.ctx(), "me")
	require.NoError(t, err)
	require.Equal(t, []Leftover{{JobID: "job-of-me", What: "2 processes"}}, left)
	require.NoError(t, w.client.Cleanup(w.ctx(), &Job{ID: "job"}, &Settings{InstanceID: "me"}))

	_, err = w.client.List(w.ctx(), "broken")
	require.EqualError(t, err, "cannot list what is left of jobs: cannot look")
	require.EqualError(t, w.client.Cleanup(w.ctx(), &Job{ID: "j"}, &Settings{InstanceID: "broken"}), "cannot clean up after job j: cannot remove j")
}

// All that a worker is told comes through gRPC as it was.
func TestJobArrives(t *testing.T) {
	w := newWorker(t)
	path := w.settings.LogPath
	w.settings = asciiSettings(t)
	w.settings.LogPath, w.settings.LogMaxBytes = path, 0
	w.settings.PreHook, w.settings.PostHook = Hook{}, Hook{}
	w.run(&Job{Env: []EnvVar{{Name: "RAW", Value: "\xff\x00"}}, Commands: commands("c")})
	require.Equal(t, w.settings, w.executor.settings)
	require.Equal(t, "\xff\x00", w.executor.opened[0].vars["RAW"])
}

// asciiSettings are full ones whose texts protobuf takes.
func asciiSettings(t *testing.T) *Settings {
	s := filled[Settings](t)
	v := reflect.ValueOf(s).Elem()
	for i := range v.NumField() {
		if f := v.Field(i); f.Kind() == reflect.String {
			f.SetString(v.Type().Field(i).Name)
		}
	}
	s.Extra = map[string]string{"key": "value"}
	s.Cgroups = []string{"/sys/fs/cgroup/x"}
	s.BaseEnv = []EnvVar{{Name: "NAME", Value: "\xff"}}
	return s
}

func TestStartRefuses(t *testing.T) {
	w := newWorker(t)
	for name, req := range map[string]*pb.StartRequest{
		"empty":       {},
		"no id":       {Settings: &pb.Settings{LogPath: w.settings.LogPath}},
		"no log":      {Job: &pb.Job{Id: "job"}},
		"no log file": {Job: &pb.Job{Id: "job"}, Settings: &pb.Settings{LogPath: filepath.Join(t.TempDir(), "none", "log")}},
	} {
		_, err := w.client.rpc.Start(w.ctx(), req)
		require.Equal(t, codes.InvalidArgument, status.Code(err), "%s: %v", name, err)
	}
	require.NoError(t, w.client.Stop(w.ctx(), ""), "without a job")

	w.executor.scripts["c"] = block
	w.start(&Job{Commands: commands("c")})
	w.await("block")
	w.start(&Job{Commands: commands("d")}) // the same id: nothing happens
	_, err := w.client.rpc.Start(w.ctx(), &pb.StartRequest{Job: &pb.Job{Id: "other"}, Settings: settingsToWire(w.settings)})
	require.Equal(t, codes.FailedPrecondition, status.Code(err))
	require.EqualError(t, w.client.Start(w.ctx(), &Job{ID: "other"}, w.settings), "cannot start the job: this worker already has job job")
	require.NoError(t, w.client.Stop(w.ctx(), ""))
	require.Equal(t, begin+"> c\n  begun\n< c: 1\njob stopped\n", w.finish())
}

func TestWatchTellsPhases(t *testing.T) {
	w := newWorker(t)
	w.executor.scripts["c"] = block
	statuses := make(chan Status, 100)
	watched := make(chan error, 1)
	go func() { watched <- w.client.Watch(w.ctx(), func(s Status) { statuses <- s }) }()
	next := func() Status {
		select {
		case s := <-statuses:
			return s
		case <-time.After(patience):
			require.Fail(t, "no status comes")
			return Status{}
		}
	}
	require.Equal(t, Status{Phase: Waiting}, next())

	w.executor.inPrepare = func(context.Context, SectionLog) error {
		w.executor.reached <- "prepare"
		<-w.executor.released // by the test
		return nil
	}
	w.executor.stuck = true // released is the test's
	w.start(&Job{Commands: commands("c")})
	w.await("prepare")
	require.Equal(t, Status{Phase: Preparing, JobID: "job"}, next())
	seen := make(chan struct{}) // a phase that is over before it was told is left out
	w.executor.scripts["c"] = func(ctx context.Context, s *fakeShell, out io.Writer) (Exit, error) {
		w.executor.reached <- "c"
		<-ctx.Done()
		<-seen
		return Exit{}, ctx.Err()
	}
	close(w.executor.released)
	w.await("c")
	require.Equal(t, Status{Phase: Running, JobID: "job"}, next())
	require.NoError(t, w.client.Stop(w.ctx(), ""))
	stopping := next()
	close(seen)
	require.Equal(t, Status{Phase: Stopping, JobID: "job"}, stopping)
	require.Equal(t, Status{Phase: Finished, JobID: "job", Result: Stopped}, next())
	require.NoError(t, <-watched)
}

// A job that is stopped while it prepares is stopping at once, and never running again.
func TestWatchTellsOfStopWhilePreparing(t *testing.T) {
	w := newWorker(t)
	goOn := make(chan struct{})
	w.executor.inPrepare = func(context.Context, SectionLog) error {
		w.executor.reached <- "prepare"
		<-goOn
		return nil
	}
	w.start(&Job{})
	w.stopAt("prepare")
	var phases []Phase
	require.NoError(t, w.client.Watch(w.ctx(), func(s Status) {
		if phases = append(phases, s.Phase); len(phases) == 1 {
			close(goOn)
		}
	}))
	require.Equal(t, []Phase{Stopping, Finished}, phases)
}

func TestClientErrors(t *testing.T) {
	w := newWorker(t)
	ctx, cancel := context.WithCancel(w.ctx())
	err := w.client.Watch(ctx, func(Status) { cancel() })
	require.ErrorIs(t, err, context.Canceled)
	require.NotErrorIs(t, err, ErrWorkerGone)

	ctx, cancel = context.WithTimeout(w.ctx(), time.Nanosecond)
	defer cancel()
	require.ErrorIs(t, w.client.Stop(ctx, ""), context.DeadlineExceeded)
	gone := rpcError("look", status.Error(codes.Unavailable, "connection refused"))
	require.ErrorIs(t, gone, ErrWorkerGone)
	require.EqualError(t, gone, "cannot look: the worker is gone (connection refused)")
}

func TestUntilOver(t *testing.T) {
	never := limits{orphan: time.Hour, idle: time.Hour, farewell: time.Hour, linger: time.Hour}
	tests := map[string]struct {
		limits limits
		run    func(t *testing.T, w *worker, stop chan<- os.Signal, ended chan<- struct{})
	}{
		"no job comes":        {limits{orphan: time.Hour, idle: time.Millisecond}, func(*testing.T, *worker, chan<- os.Signal, chan<- struct{}) {}},
		"the host ends it":    {never, func(_ *testing.T, _ *worker, _ chan<- os.Signal, ended chan<- struct{}) { close(ended) }},
		"its job is over":     {limits{orphan: time.Hour, idle: time.Hour, farewell: time.Hour}, func(_ *testing.T, w *worker, _ chan<- os.Signal, _ chan<- struct{}) { w.run(&Job{}) }},
		"the host hurries it": {never, func(_ *testing.T, w *worker, _ chan<- os.Signal, ended chan<- struct{}) { w.run(&Job{}); close(ended) }},
		"a signal stops its job": {limits{orphan: time.Hour, idle: time.Hour, farewell: time.Hour}, func(t *testing.T, w *worker, stop chan<- os.Signal, _ chan<- struct{}) {
			w.executor.scripts["c"] = block
			w.start(&Job{Commands: commands("c")})
			w.await("block")
			stop <- syscall.SIGTERM
			require.Contains(t, w.finish(), "job stopped")
		}},
		"no supervisor comes back": {limits{orphan: 50 * time.Millisecond, idle: time.Hour, farewell: time.Hour}, func(_ *testing.T, w *worker, _ chan<- os.Signal, _ chan<- struct{}) {
			w.executor.scripts["c"] = block
			w.start(&Job{Commands: commands("c")})
		}},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			w := newWorker(t)
			stop, ended, over := make(chan os.Signal, 1), make(chan struct{}), make(chan struct{})
			go func() {
				defer close(over)
				w.server.untilOver(stop, ended, test.limits)
			}()
			test.run(t, w, stop, ended)
			select {
			case <-over:
			case <-time.After(patience):
				require.Fail(t, "the worker goes on")
			}
		})
	}
}

// A worker says goodbye only when each watcher has the last status, or takes too long.
func TestFarewell(t *testing.T) {
	w := newWorker(t)
	w.server.watching(1)
	w.server.watching(1)
	w.server.farewell(time.Millisecond) // one that doesn't take it
	told := make(chan struct{})
	go func() {
		defer close(told)
		w.server.farewell(time.Hour)
	}()
	w.server.watching(-1)
	select {
	case <-told:
		require.Fail(t, "a watcher was left")
	default:
	}
	w.server.watching(-1)
	select {
	case <-told:
	case <-time.After(patience):
		require.Fail(t, "farewell waits for nobody")
	}
}
