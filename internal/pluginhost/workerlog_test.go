//go:build unix

package pluginhost

import (
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/signalman-ci/signalman/internal/process"
)

// The cause of a worker's death is quoted only if it is one.
func TestLastWords(t *testing.T) {
	const trace = "\n\ngoroutine 1 [running]:\nmain.main()\n"
	crashed, unknown := process.Status{Known: true, Code: 2}, process.Status{}
	for name, c := range map[string]struct {
		log    string
		status process.Status
		want   string
	}{
		"panic":              {"starting\npanic: no way" + trace, crashed, "panic: no way"},
		"fatal error":        {"fatal error: all goroutines are asleep - deadlock!" + trace, crashed, "fatal error: all goroutines are asleep - deadlock!"},
		"signal":             {"SIGQUIT: quit\nPC=0x1\n" + trace, crashed, "SIGQUIT: quit"},
		"the last one":       {"panic: recovered\ngoing on\npanic: for good" + trace, crashed, "panic: for good"},
		"unknown end":        {"panic: no way" + trace, unknown, "panic: no way"},
		"far back":           {"panic: no way" + trace + strings.Repeat("goroutine\n", 10000), crashed, "panic: no way"},
		"long":               {"panic: " + strings.Repeat("x", 1000), crashed, "panic: " + strings.Repeat("x", lastWords-len("panic: ")) + "…"},
		"recovered, killed":  {"panic: recovered\n", process.Status{Known: true, Signal: syscall.SIGKILL}, ""},
		"recovered, left":    {"panic: recovered\n", process.Status{Known: true, Code: 1}, ""},
		"recovered, done":    {"panic: recovered\n", process.Status{Known: true}, ""},
		"a word":             {"SIGNALMAN_HOME is not set\nSIGNATURE: bad\nSIGTERM received\nSIGNATURE: bad\n", crashed, ""},
		"amid a line":        {"http: panic: recovered\n panic: x\n[signal SIGSEGV: segmentation violation]\n", crashed, ""},
		"nothing":            {"", crashed, ""},
		"the end of a panic": {"don't panic: " + strings.Repeat("x", crashLog-len("panic: \nlast\n")) + "\nlast\n", crashed, ""},
	} {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "worker.log")
			require.NoError(t, os.WriteFile(path, []byte(c.log), 0o600))
			assert.Equal(t, c.want, LastWords(path, c.status))
		})
	}
	assert.Empty(t, LastWords(filepath.Join(t.TempDir(), "none"), crashed))
}

// What the Go runtime really writes when it ends a worker.
func TestLastWordsOfAWorker(t *testing.T) {
	l := launch(t)
	w := start(t, l)
	require.NoError(t, syscall.Kill(w.Address().Process.PID, syscall.SIGQUIT))
	w.requireEnded(t)
	assert.Equal(t, "exit code 2", w.Status().String())
	assert.Equal(t, "SIGQUIT: quit", LastWords(l.StderrPath, w.Status()))
}
