package protocol

import (
	"context"
	"errors"
	"fmt"
	"io"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

func TestWholeJob(t *testing.T) {
	w := newWorker(t)
	w.settings.PreHook = Hook{Path: "/pre it's", Source: true}
	w.settings.PostHook = Hook{Path: "/post"}
	w.executor.inPrepare = func(_ context.Context, log SectionLog) error {
		out, end := log.Section("Pulling")
		fmt.Fprint(out, "half\r\n\xff")
		end(0)
		return nil
	}
	w.executor.scripts = map[string]scriptFunc{
		`source '/pre it'\''s'`: set("FROM_HOOK", "h", 9), // doesn't fail the job
		"break":                 exits(7),
		"bad epilogue":          exits(3),
		"bash '/post'":          exits(4),
	}
	log := w.run(&Job{
		Env:            []EnvVar{{Name: "B", Value: "old"}, {Name: "A", Value: "1"}, {Name: "B", Value: "2"}},
		Files:          []File{{Path: "f", Mode: 0o600}, {Path: "g", Content: []byte{0}, Mode: 0o4}},
		Commands:       []Command{{Directive: "show"}, {Directive: "show me", Alias: "Showing"}, {Directive: "break", Alias: "Breaking"}, {Directive: "never"}},
		EpilogueAlways: commands("always"),
		EpilogueOnPass: commands("pass"),
		EpilogueOnFail: commands("bad epilogue", "not after it"),
	})
	require.Equal(t, `job
> Pulling
  half
  `+"\uFFFD"+`
< Pulling: 0
> Exporting environment variables
  Exporting A
  Exporting B
< Exporting environment variables: 0
> Injecting Files
  Injecting /home/f with file mode 0600
  Injecting /home/g with file mode 0004
< Injecting Files: 0
> Running the pre-job hook configured in the agent
< Running the pre-job hook configured in the agent: 9
> show
  A=1
  B=2
  FROM_HOOK=h
< show: 0
> Showing
  Running: show me
  A=1
  B=2
  FROM_HOOK=h
< Showing: 0
> Breaking
  Running: break
< Breaking: 7
> Exporting environment variables
  Exporting SEMAPHORE_JOB_RESULT
< Exporting environment variables: 0
> always
  A=1
  B=2
  FROM_HOOK=h
  SEMAPHORE_JOB_RESULT=failed
< always: 0
> bad epilogue
< bad epilogue: 3
> Running the post-job hook configured in the agent
< Running the post-job hook configured in the agent: 4
job failed
`, log)
	require.Equal(t, []File{{Path: "f", Mode: 0o600}, {Path: "g", Content: []byte{0}, Mode: 0o4}}, w.executor.injected)
	require.Len(t, w.executor.opened, 1)
	require.Equal(t, 1, w.executor.opened[0].closed)
	require.Equal(t, 1, w.executor.closed)
	require.Equal(t, DefaultStopGrace, w.executor.settings.StopGrace)
}

// begin and onFail are what most logs have in common.
const (
	begin = `job
> Exporting environment variables
< Exporting environment variables: 0
> Injecting Files
< Injecting Files: 0
`
	result = `> Exporting environment variables
  Exporting SEMAPHORE_JOB_RESULT
< Exporting environment variables: 0
`
	preHook    = "> Running the pre-job hook configured in the agent\n"
	preHookEnd = "< Running the pre-job hook configured in the agent: "
	postHook   = "> Running the post-job hook configured in the agent\n"
	postEnd    = "< Running the post-job hook configured in the agent: "
)

func TestJobs(t *testing.T) {
	tests := map[string]struct {
		setUp func(*worker)
		job   Job
		want  string
	}{
		"nothing to do": {want: begin + result + "job passed\n"},
		"epilogues of a passed job": {
			job: Job{EpilogueAlways: commands("always"), EpilogueOnPass: commands("pass"), EpilogueOnFail: commands("fail")},
			want: begin + result +
				"> always\n  SEMAPHORE_JOB_RESULT=passed\n< always: 0\n> pass\n  SEMAPHORE_JOB_RESULT=passed\n< pass: 0\njob passed\n",
		},
		"failing hook that fails the job": {
			setUp: func(w *worker) {
				w.settings.PreHook = Hook{Path: "/pre", FailJob: true}
				w.settings.PostHook = Hook{Path: "/post", Source: true}
				w.executor.scripts["bash '/pre'"] = exits(5)
				w.executor.scripts["source '/post'"] = exits(0)
			},
			job: Job{Commands: commands("never"), EpilogueOnFail: commands("fail")},
			want: begin + preHook + preHookEnd + "5\n" + result + "> fail\n  SEMAPHORE_JOB_RESULT=failed\n< fail: 0\n" +
				postHook + postEnd + "0\njob failed\n",
		},
		"hook that may fail the job and doesn't": {
			setUp: func(w *worker) {
				w.settings.PreHook = Hook{Path: "/pre", FailJob: true}
				w.executor.scripts["bash '/pre'"] = exits(0)
			},
			job:  Job{Commands: commands("c")},
			want: begin + preHook + preHookEnd + "0\n> c\n< c: 0\n" + result + "job passed\n",
		},
		"prepare fails": {
			setUp: func(w *worker) {
				w.executor.prepareErr = errors.New("no image of that name")
				w.settings.PostHook = Hook{Path: "/post"}
			},
			job:  Job{Commands: commands("never"), EpilogueAlways: commands("never")},
			want: "job\n> Preparing the job\n  no image of that name\n< Preparing the job: 1\njob failed\n",
		},
		"no shell": {
			setUp: func(w *worker) { w.executor.openErr = errors.New("no bash") },
			job:   Job{Env: []EnvVar{{Name: "A", Value: "1"}}, Commands: commands("never"), EpilogueAlways: commands("never")},
			want: "job\n> Exporting environment variables\n  Exporting A\n  no bash\n< Exporting environment variables: 1\n" +
				"> Exporting environment variables\n  Exporting SEMAPHORE_JOB_RESULT\n  no bash\n< Exporting environment variables: 1\njob failed\n",
		},
		"variable refused": {
			setUp: func(w *worker) { w.executor.exportErr = errors.New("UID is read-only") },
			job:   Job{Commands: commands("never")},
			want: "job\n> Exporting environment variables\n  UID is read-only\n< Exporting environment variables: 1\n" +
				"> Exporting environment variables\n  Exporting SEMAPHORE_JOB_RESULT\n  UID is read-only\n< Exporting environment variables: 1\njob failed\n",
		},
		"read-only variable": {
			setUp: func(w *worker) {
				w.executor.exportErr = &RefusedError{Names: []string{"UID"}}
				w.executor.scripts["exit 0"] = ends(0)
			},
			job: Job{Env: []EnvVar{{Name: "UID", Value: "1"}}, Commands: commands("exit 0", "c")},
			want: "job\n> Exporting environment variables\n  Exporting UID\n" +
				"  Warning: UID is not exported, as it is a read-only variable of the shell; it keeps the value it has there.\n" +
				"< Exporting environment variables: 0\n> Injecting Files\n< Injecting Files: 0\n> exit 0\n< exit 0: 0\n" +
				"> c\n  Warning: the command before ended its shell; this one runs in a new one, without the folder and variables it had set.\n< c: 0\n" +
				"> Exporting environment variables\n  Exporting SEMAPHORE_JOB_RESULT\n" +
				"  Warning: UID is not exported, as it is a read-only variable of the shell; it keeps the value it has there.\n" +
				"< Exporting environment variables: 0\njob passed\n",
		},
		"file refused": {
			setUp: func(w *worker) { w.executor.injectErr = errors.New("cannot inject /home/f: disk full") },
			job:   Job{Files: []File{{Path: "f", Mode: 0o644}, {Path: "g"}}, Commands: commands("never"), EpilogueOnFail: commands("fail")},
			want: "job\n> Exporting environment variables\n< Exporting environment variables: 0\n" +
				"> Injecting Files\n  Injecting /home/f with file mode 0644\n  cannot inject /home/f: disk full\n< Injecting Files: 1\n" +
				result + "> fail\n  SEMAPHORE_JOB_RESULT=failed\n< fail: 0\njob failed\n",
		},
		"shell ends with 0 in the middle": {
			setUp: func(w *worker) {
				w.executor.scripts["set"] = set("LOST", "1", 0)
				w.executor.scripts["exit 0"] = ends(0)
			},
			job: Job{Env: []EnvVar{{Name: "A", Value: "1"}}, Commands: commands("set", "exit 0", "c", "d")},
			want: "job\n> Exporting environment variables\n  Exporting A\n< Exporting environment variables: 0\n> Injecting Files\n< Injecting Files: 0\n" +
				"> set\n< set: 0\n> exit 0\n< exit 0: 0\n" +
				"> c\n  Warning: the command before ended its shell; this one runs in a new one, without the folder and variables it had set.\n  A=1\n< c: 0\n" +
				"> d\n  A=1\n< d: 0\n" + result + "job passed\n",
		},
		"shell ends in the last command": {
			setUp: func(w *worker) { w.executor.scripts["exit 3"] = ends(3) },
			job:   Job{Commands: commands("exit 3", "never"), EpilogueOnFail: commands("fail")},
			want:  begin + "> exit 3\n< exit 3: 3\n" + result + "> fail\n  SEMAPHORE_JOB_RESULT=failed\n< fail: 0\njob failed\n",
		},
		"the place is gone": {
			setUp: func(w *worker) {
				w.executor.scripts["c"] = func(context.Context, *fakeShell, io.Writer) (Exit, error) {
					w.executor.openErr = errors.New("no pod")
					return Exit{}, errors.New("the pod is gone")
				}
			},
			job: Job{Commands: commands("c", "never"), EpilogueOnFail: commands("never")},
			want: begin + "> c\n  the pod is gone\n< c: 1\n" +
				"> Exporting environment variables\n  Exporting SEMAPHORE_JOB_RESULT\n  no pod\n< Exporting environment variables: 1\njob failed\n",
		},
		"130, passed": {
			setUp: func(w *worker) { w.executor.scripts["return 130"] = set(resultVariable, "passed", 130) },
			job:   Job{Commands: commands("return 130", "never"), EpilogueOnPass: commands("pass"), EpilogueOnFail: commands("fail")},
			want: begin + "> return 130\n< return 130: 130\n> Checking job result\n  SEMAPHORE_JOB_RESULT=passed\n< Checking job result: 0\n" +
				result + "> pass\n  SEMAPHORE_JOB_RESULT=passed\n< pass: 0\njob passed\n",
		},
		"130, failed": {
			setUp: func(w *worker) { w.executor.scripts["return 130"] = set(resultVariable, "failed", 130) },
			job:   Job{Commands: commands("return 130", "never"), EpilogueOnPass: commands("pass"), EpilogueOnFail: commands("fail")},
			want: begin + "> return 130\n< return 130: 130\n> Checking job result\n  SEMAPHORE_JOB_RESULT=failed\n< Checking job result: 0\n" +
				result + "> fail\n  SEMAPHORE_JOB_RESULT=failed\n< fail: 0\njob failed\n",
		},
		"130, something else": {
			setUp: func(w *worker) {
				w.executor.scripts["return 130"] = set(resultVariable, "x", 130)
				w.executor.scripts["bash '/post'"] = exits(0)
				w.settings.PostHook = Hook{Path: "/post"}
			},
			job: Job{Commands: commands("return 130"), EpilogueAlways: commands("never"), EpilogueOnFail: commands("never")},
			want: begin + "> return 130\n< return 130: 130\n> Checking job result\n  SEMAPHORE_JOB_RESULT=x\n< Checking job result: 0\n" +
				postHook + postEnd + "0\njob stopped\n",
		},
		"130 and the shell is gone": {
			setUp: func(w *worker) { w.executor.scripts["exit 130"] = ends(130) },
			job:   Job{Commands: commands("exit 130"), EpilogueAlways: commands("never")},
			want: begin + "> exit 130\n< exit 130: 130\n> Checking job result\n" +
				"  Warning: the command ended its shell, and SEMAPHORE_JOB_RESULT with it; use return 130 to keep it.\n" +
				"< Checking job result: 0\njob stopped\n",
		},
		"130 in a hook or an epilogue is nothing special": {
			setUp: func(w *worker) {
				w.settings.PreHook = Hook{Path: "/pre"}
				w.executor.scripts["bash '/pre'"] = exits(130)
				w.executor.scripts["e"] = exits(130)
			},
			job:  Job{EpilogueAlways: commands("e", "never"), EpilogueOnPass: commands("pass")},
			want: begin + preHook + preHookEnd + "130\n" + result + "> e\n< e: 130\n> pass\n  SEMAPHORE_JOB_RESULT=passed\n< pass: 0\njob passed\n",
		},
		"post-job hook that takes too long": {
			setUp: func(w *worker) {
				w.settings.PostHook = Hook{Path: "/post", Timeout: time.Millisecond}
				w.executor.scripts["bash '/post'"] = block
			},
			want: begin + result + postHook + "  begun\n  Warning: it took longer than it may and was ended.\n" + postEnd + "1\njob passed\n",
		},
		"pre-job hook that takes too long": {
			setUp: func(w *worker) {
				w.settings.PreHook = Hook{Path: "/pre", Timeout: time.Millisecond, FailJob: true}
				w.executor.scripts["bash '/pre'"] = block
			},
			job: Job{Commands: commands("never")},
			want: begin + preHook + "  begun\n  Warning: it took longer than it may and was ended.\n" + preHookEnd + "1\n" +
				result + "job failed\n",
		},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			w := newWorker(t)
			if test.setUp != nil {
				test.setUp(w)
			}
			prepared := w.executor.prepareErr == nil
			require.Equal(t, test.want, w.run(&test.job))
			w.requireTidy(prepared)
		})
	}
}

// requireTidy checks that the runner has closed all that it has opened.
func (w *worker) requireTidy(prepared bool) {
	w.t.Helper()
	for _, s := range w.executor.opened {
		require.Equal(w.t, 1, s.closed, "shells closed")
	}
	if prepared {
		require.Equal(w.t, 1, w.executor.closed, "environment closed")
	} else {
		require.Zero(w.t, w.executor.closed, "an environment that was never made has been closed")
	}
}
