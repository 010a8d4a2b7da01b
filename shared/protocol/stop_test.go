package protocol

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

func TestStopWhilePreparing(t *testing.T) {
	w := newWorker(t)
	w.settings.PostHook = Hook{Path: "/post"}
	w.executor.inPrepare = func(ctx context.Context, log SectionLog) error {
		_, end := log.Section("Pulling")
		w.executor.reached <- "prepare"
		<-ctx.Done()
		end(1)
		return errors.New("the pull was cut off")
	}
	w.start(&Job{Commands: commands("never")})
	w.stopAt("prepare")
	require.Equal(t, "job\n> Pulling\n< Pulling: 1\njob stopped\n", w.finish())
	w.requireTidy(false)
	require.Zero(t, w.executor.stops)
}

func TestStopThatPrepareDoesNotNotice(t *testing.T) {
	w := newWorker(t)
	w.executor.inPrepare = func(ctx context.Context, _ SectionLog) error {
		w.executor.reached <- "prepare"
		<-ctx.Done()
		return nil
	}
	w.start(&Job{Commands: commands("never"), EpilogueAlways: commands("never")})
	w.stopAt("prepare")
	log := w.finish()
	require.NotContains(t, log, "never")
	require.Contains(t, log, "job stopped\n")
	w.requireTidy(true)
}

func TestStop(t *testing.T) {
	tests := map[string]struct {
		setUp func(*worker)
		job   Job
		want  string
	}{
		"in a command": {
			setUp: func(w *worker) { w.executor.scripts["c"] = block },
			job:   Job{Commands: commands("c", "never"), EpilogueAlways: commands("never"), EpilogueOnFail: commands("never")},
			want:  begin + "> c\n  begun\n< c: 1\njob stopped\n",
		},
		"in a command that doesn't end with its processes": {
			setUp: func(w *worker) {
				w.executor.scripts["c"] = block
				w.executor.stuck = true
			},
			job:  Job{Commands: commands("c", "never"), EpilogueAlways: commands("never")},
			want: begin + "> c\n  begun\n< c: 1\njob stopped\n",
		},
		"in a pre-job hook": {
			setUp: func(w *worker) {
				w.settings.PreHook = Hook{Path: "/pre"}
				w.executor.scripts["bash '/pre'"] = block
			},
			job:  Job{Commands: commands("never"), EpilogueAlways: commands("never")},
			want: begin + preHook + "  begun\n" + preHookEnd + "1\njob stopped\n",
		},
		"in an epilogue": {
			setUp: func(w *worker) { w.executor.scripts["e"] = block },
			job:   Job{EpilogueAlways: commands("e", "never"), EpilogueOnPass: commands("never")},
			want:  begin + result + "> e\n  begun\n< e: 1\njob stopped\n",
		},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			w := newWorker(t)
			test.setUp(w)
			w.start(&test.job)
			w.stopAt("block")
			require.NoError(t, w.client.Stop(w.ctx(), ""), "a second stop")
			require.Equal(t, test.want, w.finish())
			require.Equal(t, 1, w.executor.stops)
			w.requireTidy(true)
		})
	}
}

// A stopped job's post-job hook has a fresh shell with the job's variables, and an exit code of its own.
func TestPostHookAfterStop(t *testing.T) {
	w := newWorker(t)
	w.settings.PostHook = Hook{Path: "/post", Timeout: time.Hour}
	w.executor.scripts["c"] = block
	w.executor.scripts["bash '/post'"] = exits(7)
	w.start(&Job{Env: []EnvVar{{Name: "A", Value: "1"}}, Commands: commands("c")})
	w.stopAt("block")
	require.Contains(t, w.finish(), "< c: 1\n"+postHook+postEnd+"7\njob stopped\n")
	require.Len(t, w.executor.opened, 2)
	require.Equal(t, map[string]string{"A": "1"}, w.executor.opened[1].vars)
	w.requireTidy(true)
}

// While the post-job hook of a job that has come to its end runs, a stop ends that one, and it runs once more: what it
// cleans up must not stay.
func TestStopInPostHook(t *testing.T) {
	w := newWorker(t)
	w.settings.PostHook = Hook{Path: "/post"}
	w.executor.scripts["bash '/post'"] = block
	w.start(&Job{})
	w.stopAt("block")
	require.Equal(t, begin+result+
		postHook+"  begun\n"+postEnd+"1\n"+
		postHook+"  begun\n"+postEnd+"143\njob stopped\n", w.finish())
	w.requireTidy(true)
}

func TestStoppedPostHookIsBounded(t *testing.T) {
	w := newWorker(t)
	w.settings.PostHook = Hook{Path: "/post", Timeout: time.Millisecond}
	w.executor.stuck = true
	w.executor.scripts["c"] = block
	w.executor.scripts["bash '/post'"] = block
	w.start(&Job{Commands: commands("c")})
	w.stopAt("block")
	require.Equal(t, begin+"> c\n  begun\n< c: 1\n"+
		postHook+"  begun\n  Warning: it took longer than it may and was ended.\n"+postEnd+"1\njob stopped\n", w.finish())
	w.requireTidy(true)
}

func TestStopAfterTheEnd(t *testing.T) {
	w := newWorker(t)
	w.run(&Job{})
	require.NoError(t, w.client.Stop(w.ctx(), ""))
	var seen []Status
	require.NoError(t, w.client.Watch(w.ctx(), func(s Status) { seen = append(seen, s) }))
	require.Equal(t, []Status{{Phase: Finished, JobID: "job", Result: Passed}}, seen)
}

// A stop that nobody at the hub asked for tells why, once: in the section it ended, or in one of its own.
func TestStopTellsWhy(t *testing.T) {
	w := newWorker(t)
	w.executor.scripts["c"] = block
	w.start(&Job{Commands: commands("c")})
	w.await("block")
	require.NoError(t, w.client.Stop(w.ctx(), "Too long."))
	require.Equal(t, begin+"> c\n  begun\n  Warning: Too long.\n< c: 1\njob stopped\n", w.finish())

	w = newWorker(t)
	w.executor.inPrepare = func(ctx context.Context, _ SectionLog) error {
		w.executor.reached <- "prepare"
		<-ctx.Done()
		return ctx.Err()
	}
	w.start(&Job{Commands: commands("never")})
	w.await("prepare")
	require.NoError(t, w.client.Stop(w.ctx(), "Too long."))
	require.Equal(t, "job\n> Stopping the job\n  Warning: Too long.\n< Stopping the job: 0\njob stopped\n", w.finish())
}
