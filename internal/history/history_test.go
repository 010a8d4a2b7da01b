package history

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/signalman-ci/signalman/internal/jobdir"
	"github.com/signalman-ci/signalman/shared/eventlog"
	"github.com/signalman-ci/signalman/shared/protocol"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var began = time.Now().Add(-time.Hour)

// take makes the folder of a job that was taken so many minutes after the first.
func take(t testing.TB, jobs, id string, minute int) *jobdir.Folder {
	t.Helper()
	f, err := jobdir.Create(jobs, id, 1)
	require.NoError(t, err)
	require.NoError(t, f.Update(func(s *jobdir.State) { s.Taken = began.Add(time.Duration(minute) * time.Minute) }))
	return f
}

// write writes events to a job's log.
func write(t testing.TB, f *jobdir.Folder, events ...eventlog.Event) {
	t.Helper()
	w, err := eventlog.OpenWriter(f.EventsPath(), eventlog.Options{})
	require.NoError(t, err)
	require.NoError(t, w.Append(events...))
	require.NoError(t, w.Close())
}

func end(t testing.TB, f *jobdir.Folder, result protocol.Result) {
	t.Helper()
	require.NoError(t, Close(f, result))
	require.NoError(t, f.Finish())
}

// changed sets when a folder was last changed.
func changed(t *testing.T, jobs, id string, minute int) {
	t.Helper()
	at := began.Add(time.Duration(minute) * time.Minute)
	require.NoError(t, os.Chtimes(filepath.Join(jobs, id), at, at))
}

func ids(list []Job) string {
	var out []string
	for _, j := range list {
		out = append(out, j.ID)
	}
	return strings.Join(out, " ")
}

func TestList(t *testing.T) {
	jobs := t.TempDir()
	list, err := List(filepath.Join(jobs, "none"), 5)
	require.NoError(t, err)
	assert.NotNil(t, list, "an empty list is one in JSON, too")
	take(t, jobs, "long", 0) // runs still
	for i := 1; i <= 4; i++ {
		end(t, take(t, jobs, fmt.Sprint("job", i), i), protocol.Passed)
		changed(t, jobs, fmt.Sprint("job", i), i)
	}
	changed(t, jobs, "long", 0)
	require.NoError(t, os.Mkdir(filepath.Join(jobs, "garbage"), 0o700))
	require.NoError(t, os.Mkdir(filepath.Join(jobs, "job5.broken"), 0o700))
	require.NoError(t, os.WriteFile(filepath.Join(jobs, "file"), nil, 0o600))
	changed(t, jobs, "garbage", -1)

	list, err = List(jobs, 100)
	require.NoError(t, err)
	assert.Equal(t, "job4 job3 job2 job1 long", ids(list))
	list, err = List(jobs, 3)
	require.NoError(t, err)
	assert.Equal(t, "job4 job3 long", ids(list), "one that runs is told of however old it is")
	// Of old ones not even job.json is read.
	require.NoError(t, os.WriteFile(filepath.Join(jobs, "job1", "job.json"), []byte("{"), 0o600))
	changed(t, jobs, "job1", 1)
	list, err = List(jobs, 4)
	require.NoError(t, err)
	assert.Equal(t, "job4 job3 job2 long", ids(list))
}

func TestStates(t *testing.T) {
	jobs := t.TempDir()
	f := take(t, jobs, "j", 0)
	state := func(change func(*jobdir.State)) Job {
		require.NoError(t, f.Update(change))
		j, err := Get(jobs, "j")
		require.NoError(t, err)
		return j
	}
	assert.Equal(t, Starting, state(func(*jobdir.State) {}).State)
	j := state(func(s *jobdir.State) { s.Worker, s.Name = &jobdir.Worker{Executor: "shell"}, "build" })
	assert.Equal(t, Running, j.State)
	assert.Equal(t, "shell build", j.Executor+" "+j.Name)
	assert.InDelta(t, 3600, j.Seconds, 600, "so far")
	assert.Equal(t, Stopping, state(func(s *jobdir.State) { s.StopRequested = true }).State)
	write(t, f, eventlog.JobStarted(began), eventlog.JobFinished(began.Add(90*time.Second), "stopped"))
	require.NoError(t, Close(f, protocol.Stopped))
	j, err := Get(jobs, "j")
	require.NoError(t, err)
	assert.Equal(t, Reporting, j.State)
	assert.Equal(t, "stopped", j.Result)
	assert.Equal(t, "The job was stopped at the hub.", j.Reason)
	require.NoError(t, f.Finish())
	j, err = Get(jobs, "j")
	require.NoError(t, err)
	assert.Equal(t, Ended, j.State)
	assert.InDelta(t, 90, j.Seconds, 1)
	assert.Equal(t, int64(2), j.LogEvents)
	_, err = Get(jobs, "other")
	require.ErrorIs(t, err, ErrNotFound)
}

// Folders of earlier versions have neither sizes nor times of their end.
func TestOldFolder(t *testing.T) {
	jobs := t.TempDir()
	f := take(t, jobs, "j", 0)
	write(t, f, eventlog.JobStarted(began), eventlog.JobFinished(began, "passed"))
	done := began.Add(time.Minute)
	require.NoError(t, f.Update(func(s *jobdir.State) { s.Done = done }))
	j, err := Get(jobs, "j")
	require.NoError(t, err)
	assert.Equal(t, Ended, j.State)
	assert.Equal(t, "passed", j.Result)
	assert.InDelta(t, 60, j.Seconds, 0.01)
	assert.Equal(t, int64(2), j.LogEvents)
	info, err := os.Stat(f.EventsPath())
	require.NoError(t, err)
	assert.Equal(t, info.Size(), j.LogBytes)
}

func TestReason(t *testing.T) {
	now := time.Now()
	start := func(d string) eventlog.Event { return eventlog.CmdStarted(now, d) }
	finish := func(d string, code int) eventlog.Event { return eventlog.CmdFinished(now, d, code, now, now) }
	section := func(d string, code int) []eventlog.Event {
		return []eventlog.Event{start(d), eventlog.CmdOutput(now, "x"), finish(d, code)}
	}
	export := section(exportDirective, 0)
	for name, c := range map[string]struct {
		result   protocol.Result
		state    jobdir.State
		sections [][]eventlog.Event
		want     string
	}{
		"passed": {result: protocol.Passed, sections: [][]eventlog.Event{export, section("make", 0)}},
		"passed, though an epilogue failed": {
			result: protocol.Passed, sections: [][]eventlog.Event{export, section("make", 0), export, section("clean", 3)},
		},
		"a command": {result: protocol.Failed, sections: [][]eventlog.Event{export, section("make", 2)}, want: "exit code 2: make"},
		"a command, and an epilogue": {
			result: protocol.Failed, sections: [][]eventlog.Event{export, section("make", 2), export, section("clean", 3)}, want: "exit code 2: make",
		},
		"a command after a hook that may fail": {
			result: protocol.Failed, sections: [][]eventlog.Event{export, section("hook", 1), section("make", 2), export}, want: "exit code 2: make",
		},
		"of many lines":          {result: protocol.Failed, sections: [][]eventlog.Event{export, section("make\n  all", 2)}, want: "exit code 2: make all"},
		"the supervisor knew it": {result: protocol.Failed, state: jobdir.State{Reason: "it died"}, sections: [][]eventlog.Event{section("make", 1)}, want: "it died"},
		"nobody knows":           {result: protocol.Failed},
		"stopped by the hub":     {result: protocol.Stopped, state: jobdir.State{StopRequested: true}, want: "The job was stopped at the hub."},
		"stopped by others":      {result: protocol.Stopped, state: jobdir.State{StopRequested: true, StopReason: "Time is up."}, want: "Time is up."},
		"stopped by itself":      {result: protocol.Stopped},
		"passed before it was stopped": {
			result: protocol.Passed, state: jobdir.State{StopRequested: true, StopReason: "Time is up.", Reason: "no hub"},
		},
	} {
		t.Run(name, func(t *testing.T) {
			jobs := t.TempDir()
			f := take(t, jobs, "j", 0)
			require.NoError(t, f.Update(func(s *jobdir.State) {
				s.Reason, s.StopReason, s.StopRequested = c.state.Reason, c.state.StopReason, c.state.StopRequested
			}))
			events := []eventlog.Event{eventlog.JobStarted(now)}
			for _, s := range c.sections {
				events = append(events, s...)
			}
			write(t, f, append(events, eventlog.JobFinished(now, string(c.result)))...)
			end(t, f, c.result)
			assert.Equal(t, c.want, f.State().Reason)
		})
	}
}

func TestFind(t *testing.T) {
	jobs := t.TempDir()
	_, err := Find(jobs, Latest)
	require.ErrorContains(t, err, "there are none yet")
	for i, id := range []string{"abc-1", "abc-2", "abc", "def"} {
		take(t, jobs, id, i)
	}
	for ref, want := range map[string]string{Latest: "def", "abc-1": "abc-1", "abc": "abc", "d": "def", "abc-2": "abc-2"} {
		got, err := Find(jobs, ref)
		require.NoError(t, err, ref)
		assert.Equal(t, want, got)
	}
	for ref, want := range map[string]string{"a": "begins the ids of 3 jobs", "x": "no such job", "": "no such job", "../jobs": "no such job"} {
		_, err := Find(jobs, ref)
		require.ErrorContains(t, err, want, ref)
	}
}

func TestStream(t *testing.T) {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	jobs := t.TempDir()
	f := take(t, jobs, "j", 0)
	log, err := OpenLog(jobs, "j", 0) // there is none yet
	require.NoError(t, err)
	got := make(chan string)
	ended := make(chan error, 1)
	go func() {
		defer close(got)
		ended <- log.Stream(ctx, true, func(lines []byte) error {
			for line := range strings.Lines(string(lines)) {
				got <- line
			}
			return nil
		})
	}()
	write(t, f, eventlog.JobStarted(began))
	assert.Contains(t, <-got, "job_started")
	write(t, f, eventlog.CmdOutput(began, "x"))
	assert.Contains(t, <-got, "cmd_output")
	write(t, f, eventlog.JobFinished(began, "passed"))
	assert.Contains(t, <-got, "job_finished")
	require.NoError(t, <-ended)
	require.NoError(t, log.Close())

	_, err = OpenLog(jobs, "j", 4)
	beyond, ok := errors.AsType[*BeyondError](err)
	require.True(t, ok)
	assert.Equal(t, int64(3), beyond.Events)
	_, err = OpenLog(jobs, "k", 0)
	require.ErrorIs(t, err, ErrNotFound)
}

// A job may end without an end of its log, or without a log at all.
func TestStreamOfAJobWithoutALog(t *testing.T) {
	jobs := t.TempDir()
	end(t, take(t, jobs, "j", 0), protocol.Failed)
	log, err := OpenLog(jobs, "j", 0)
	require.NoError(t, err)
	defer log.Close()
	require.NoError(t, log.Stream(context.Background(), true, func([]byte) error { return errors.New("nothing is there") }))
}

func TestStreamEndsWithItsListener(t *testing.T) {
	jobs := t.TempDir()
	write(t, take(t, jobs, "j", 0), eventlog.JobStarted(began))
	log, err := OpenLog(jobs, "j", 0)
	require.NoError(t, err)
	defer log.Close()
	gone := errors.New("gone")
	require.ErrorIs(t, log.Stream(context.Background(), true, func([]byte) error { return gone }), gone)
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	require.ErrorIs(t, log.Stream(ctx, true, func([]byte) error { return nil }), context.Canceled)
}

// What a list of the newest 50 costs beside 5,000 kept folders.
func BenchmarkList(b *testing.B) {
	jobs := b.TempDir()
	for i := range 5000 {
		dir := filepath.Join(jobs, fmt.Sprintf("%08d-4444-4444-8888-000000000000", i))
		require.NoError(b, os.Mkdir(dir, 0o700))
		state := fmt.Sprintf(`{"job_id":%q,"slot":1,"taken":"2026-01-01T00:00:00Z","outcome":"passed","done":"2026-01-01T00:00:01Z","log_events":3,"log_bytes":200}`, filepath.Base(dir))
		require.NoError(b, os.WriteFile(filepath.Join(dir, "job.json"), []byte(state), 0o600))
	}
	b.ReportAllocs()
	for b.Loop() {
		list, err := List(jobs, 50)
		require.NoError(b, err)
		require.Len(b, list, 50)
	}
}

// Closing a log reads it once.
func BenchmarkClose(b *testing.B) {
	f := take(b, b.TempDir(), "j", 0)
	var events []eventlog.Event
	for range 4096 {
		events = append(events, eventlog.CmdOutput(began, strings.Repeat("x", 4000)))
	}
	write(b, f, events...)
	b.SetBytes(4096 * 4000)
	for b.Loop() {
		readLog(f.EventsPath())
	}
}
