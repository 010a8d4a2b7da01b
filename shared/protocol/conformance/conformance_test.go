package conformance_test

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/signalman-ci/signalman/shared/protocol/conformance"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// build makes a worker's binary. The package's path is no import: nothing in shared may import internal.
func build(t *testing.T, name, pkg string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	out, err := exec.Command("go", "build", "-o", path, pkg).CombinedOutput()
	require.NoError(t, err, "%s", out)
	return path
}

func TestShellWorkerConforms(t *testing.T) {
	conformance.Run(t, conformance.Worker{Path: build(t, "worker-shell", "../../../cmd/worker-shell")})
}

// The kit finds what a naive worker does wrong, and nothing else.
func TestNaiveWorker(t *testing.T) {
	w := conformance.Worker{Path: build(t, "worker-naive", "./testdata/worker-naive"), Timeout: time.Minute}
	want := map[string]string{ // "" for what it does right
		"handshake":       "",
		"by-hand":         "",
		"describe":        `the name is "simple" (the binary says "naive"), the version ""`,
		"check-host":      `the result "sh" is not OK and has no message`,
		"waiting":         "",
		"passing-job":     "",
		"unusable-job":    "",
		"large-job":       "",
		"failing-command": "",
		"alias":           "",
		"environment":     "C_BLANKS: the bytes",
		"files":           `the mode of "$HOME/relative/all bytes" is`,
		"shell-state":     `the output of the section "echo \"$EXPORTED`,
		"terminal":        `the job's result is "failed", not "passed"`,
		"signals":         "",
		"output":          "",
		"secrets":         "",
		"hooks":           `the output of the section "echo $FROM_HOOK" is`,
		"failing-hook":    "",
		"exit-130-passed": `the job's result is "stopped", not "passed"`,
		"exit-130-failed": `the job's result is "stopped", not "failed"`,
		"exit-130-other":  "it must tell the value of SEMAPHORE_JOB_RESULT",
		"exit-after-job":  "",
	} // the other cases would leave processes behind
	for _, c := range conformance.Cases() {
		problem, listed := want[c.Name]
		if !listed {
			continue
		}
		delete(want, c.Name)
		if err := c.Check(t.Context(), w).Err; problem == "" {
			require.NoError(t, err, c.Name)
		} else {
			require.ErrorContains(t, err, problem, c.Name)
		}
	}
	require.Empty(t, want, "no such cases")
}

func TestNoWorkerAtAll(t *testing.T) {
	path := filepath.Join(t.TempDir(), "worker-none")
	require.NoError(t, os.WriteFile(path, []byte("#!/bin/sh\necho it is broken >&2\n"), 0o755))
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	for _, r := range conformance.Check(ctx, conformance.Worker{Path: path}) {
		require.Error(t, r.Err, r.Case.Name)
	}
}
