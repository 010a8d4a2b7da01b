//go:build unix

package pluginhost

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
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

func TestTrimLog(t *testing.T) {
	const limit = 4096
	lines := func(first, last int) string {
		var b strings.Builder
		for i := first; i <= last; i++ {
			fmt.Fprintf(&b, "line %06d\n", i) // 12 bytes
		}
		return b.String()
	}
	note := func(size int) string {
		return fmt.Sprintf("[signalman: this log came to %d bytes; what stood here was left out, as it may have 4096]\n", size)
	}
	blob := func(size int) string { return strings.Repeat("x", size) }
	for name, c := range map[string]struct{ log, want string }{
		"empty":         {"", ""},
		"at the limit":  {blob(limit), blob(limit)},
		"too large":     {lines(0, 999), lines(0, 84) + note(12000) + lines(915, 999)},
		"no end yet":    {lines(0, 999) + "begun", lines(0, 84) + note(12005) + lines(916, 999)},
		"without lines": {blob(5000), blob(1024) + "\n" + note(5000) + blob(1024)},
		"one long line": {"first\n" + blob(5000) + "\n", "first\n" + note(5007) + blob(1023) + "\n"},
	} {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "worker.log")
			require.NoError(t, os.WriteFile(path, []byte(c.log), 0o600))
			require.NoError(t, TrimLog(path, limit))
			got, err := os.ReadFile(path)
			require.NoError(t, err)
			assert.Equal(t, c.want, string(got))
		})
	}
	missing := filepath.Join(t.TempDir(), "none")
	require.NoError(t, TrimLog(missing, limit))
	assert.NoFileExists(t, missing)
	require.ErrorContains(t, TrimLog(t.TempDir(), limit), "cannot shorten a worker's log")
}

// A worker writes on while its log is trimmed: each line stays whole and in its place, and none of those after the last trim is lost.
func TestTrimLogOfAWorkerThatWrites(t *testing.T) {
	const limit, count = 8192, 30000
	path := filepath.Join(t.TempDir(), "worker.log")
	file, err := os.OpenFile(path, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	require.NoError(t, err)
	defer file.Close()
	written := make(chan struct{})
	go func() {
		defer close(written)
		for i := range count {
			if _, err := fmt.Fprintf(file, "%d %s\n", i, strings.Repeat("x", i%200)); !assert.NoError(t, err) {
				return
			}
		}
	}()
	for writing := true; writing; {
		select {
		case <-written:
			writing = false
		default:
		}
		require.NoError(t, TrimLog(path, limit))
	}
	_, err = fmt.Fprintf(file, "%d %s\n", count, strings.Repeat("x", count%200))
	require.NoError(t, err)

	raw, err := os.ReadFile(path)
	require.NoError(t, err)
	assert.Less(t, len(raw), limit+100)
	assert.NotContains(t, string(raw), "\x00")
	line := regexp.MustCompile(`^(\d+) (x*)\n$`)
	last, notes := -1, 0
	for text := range bytes.Lines(raw) {
		found := line.FindSubmatch(text)
		if found == nil {
			assert.Contains(t, string(text), "[signalman: this log came to ")
			notes++
			continue
		}
		i, err := strconv.Atoi(string(found[1]))
		require.NoError(t, err)
		assert.Greater(t, i, last)
		assert.Len(t, found[2], i%200)
		last = i
	}
	assert.Equal(t, count, last)
	assert.Positive(t, notes)
}

func TestStartTrimsTheLog(t *testing.T) {
	l := launch(t)
	require.NoError(t, os.WriteFile(l.StderrPath, bytes.Repeat([]byte("words\n"), LogLimit/5), 0o600))
	start(t, l)
	info, err := os.Stat(l.StderrPath)
	require.NoError(t, err)
	assert.Less(t, info.Size(), int64(LogLimit))
}
