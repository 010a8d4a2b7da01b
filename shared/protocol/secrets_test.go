package protocol

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// prints is a script that writes texts one by one.
func prints(texts ...string) scriptFunc {
	return func(_ context.Context, _ *fakeShell, out io.Writer) (Exit, error) {
		for _, t := range texts {
			fmt.Fprint(out, t)
		}
		return Exit{}, nil
	}
}

// Whatever the runner writes passes through the mask.
func TestSecretsAreMasked(t *testing.T) {
	w := newWorker(t)
	w.settings.BaseEnv = []EnvVar{{Name: "BASE_TOKEN", Value: "base-secret", Secret: true}, {Name: "BASE", Value: "base-open"}}
	w.executor.exportErr = &RefusedError{Names: []string{"refused_secret"}}
	w.executor.inPrepare = func(_ context.Context, log SectionLog) error {
		out, end := log.Section("Pulling with pull-secret")
		fmt.Fprint(out, "pull-sec")
		fmt.Fprint(out, "ret, pull-file-secret, container-secret, container-file-secret\n")
		end(0)
		return nil
	}
	w.executor.scripts = map[string]scriptFunc{
		"show":                prints("env-", "sec", "ret\r", "\nline two, base-secret, base-open, env-secret", "\nend, env-sec"),
		"echo file-secret-1":  prints("a file-secret-2\n"),
		"return 130":          set(resultVariable, "my-secret-result", 130),
		"bash '/hook-secret'": prints("hook\n"),
	}
	w.settings.PostHook = Hook{Path: "/hook-secret"}
	log := w.run(&Job{
		Env: []EnvVar{
			{Name: "A", Value: "env-secret\nline two", Secret: true}, {Name: "B", Value: "open", Secret: false}, {Name: "C", Value: "hook-secret", Secret: true},
			{Name: "D", Value: "refused_secret", Secret: true}, {Name: "E", Value: "my-secret-result", Secret: true},
		},
		Files: []File{{Path: "dir/file-secret-1", Content: []byte("file-secret-1\nfile-secret-2\n"), Secret: true}, {Path: "open", Content: []byte("hook\n")}},
		Commands: []Command{
			{Directive: "show"}, {Directive: "echo file-secret-1"}, {Directive: "echo file-secret-1", Alias: "Using env-secret"}, {Directive: "return 130"},
		},
		Compose: &Compose{
			Containers: []Container{{
				Env:   []EnvVar{{Name: "A", Value: "container-secret", Secret: true}},
				Files: []File{{Path: "f", Content: []byte("container-file-secret"), Secret: true}},
			}},
			ImagePullCredentials: []PullCredentials{{
				Env:   []EnvVar{{Name: "A", Value: "pull-secret", Secret: true}},
				Files: []File{{Path: "f", Content: []byte("pull-file-secret"), Secret: true}},
			}},
		},
	})
	refused := "  Warning: *** is not exported, as it is a read-only variable of the shell; it keeps the value it has there.\n"
	require.Equal(t, `job
> Pulling with ***
  ***, ***, ***, ***
< Pulling with ***: 0
> Exporting environment variables
  Exporting A
  Exporting B
  Exporting C
  Exporting D
  Exporting E
`+refused+`< Exporting environment variables: 0
> Injecting Files
  Injecting /home/dir/*** with file mode 0000
  Injecting /home/open with file mode 0000
< Injecting Files: 0
> show
  ***, ***, base-open, ***
  end, env-sec
< show: 0
> echo ***
  a ***
< echo ***: 0
> Using ***
  Running: echo ***
  a ***
< Using ***: 0
> return 130
< return 130: 130
> Checking job result
  SEMAPHORE_JOB_RESULT=***
< Checking job result: 0
`+postHook+`  hook
`+postEnd+`0
job stopped
`, log)
}

// Errors and the reason of a stop are masked too.
func TestSecretsInErrors(t *testing.T) {
	for name, setUp := range map[string]func(*worker){
		"prepare": func(w *worker) { w.executor.prepareErr = errors.New("cannot log in as env-secret") },
		"open":    func(w *worker) { w.executor.openErr = errors.New("no bash for env-secret") },
		"inject":  func(w *worker) { w.executor.injectErr = errors.New("cannot inject env-secret") },
		"export":  func(w *worker) { w.executor.exportErr = errors.New("cannot export env-secret") },
		"run": func(w *worker) {
			w.executor.scripts["c"] = func(context.Context, *fakeShell, io.Writer) (Exit, error) {
				return Exit{}, errors.New("env-secret is gone")
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorker(t)
			setUp(w)
			log := w.run(&Job{
				Env: []EnvVar{{Name: "A", Value: "env-secret", Secret: true}}, Files: []File{{Path: "f"}}, Commands: commands("c"),
			})
			require.NotContains(t, log, "env-secret")
			require.Equal(t, 1, min(1, strings.Count(log, "***")), "%s", log)
		})
	}
	t.Run("stop", func(t *testing.T) {
		w := newWorker(t)
		w.executor.scripts["c"] = block
		w.start(&Job{Env: []EnvVar{{Name: "A", Value: "env-secret", Secret: true}}, Commands: commands("c")})
		w.await("block")
		require.NoError(t, w.client.Stop(w.ctx(), "It uses env-secret."))
		require.Contains(t, w.finish(), "Warning: It uses ***.")
		raw, err := os.ReadFile(w.settings.LogPath)
		require.NoError(t, err)
		require.NotContains(t, string(raw), "env-secret")
	})
}
