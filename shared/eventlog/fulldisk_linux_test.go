package eventlog

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// onSmallDisk runs the test again in namespaces of its own, on a file system of a megabyte, and returns that one's folder.
func onSmallDisk(t *testing.T) string {
	const marker = "EVENTLOG_SMALL_DISK"
	if os.Getenv(marker) == "" {
		cmd := exec.Command(os.Args[0], "-test.run=^"+t.Name()+"$", "-test.v")
		cmd.Env = append(os.Environ(), marker+"=1")
		cmd.SysProcAttr = &syscall.SysProcAttr{
			Cloneflags:  syscall.CLONE_NEWUSER | syscall.CLONE_NEWNS,
			UidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getuid(), Size: 1}},
			GidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getgid(), Size: 1}},
		}
		out, err := cmd.CombinedOutput()
		if cmd.ProcessState == nil {
			t.Skipf("no namespaces here: %v", err)
		}
		require.NoError(t, err, "%s", out)
		if strings.Contains(string(out), "--- SKIP") {
			t.Skipf("%s", out)
		}
		return ""
	}
	dir := t.TempDir()
	if err := syscall.Mount("tmpfs", dir, "tmpfs", 0, "size=1m"); err != nil {
		t.Skipf("cannot mount: %v", err)
	}
	t.Cleanup(func() { require.NoError(t, syscall.Unmount(dir, 0)) })
	return dir
}

func TestFullDisk(t *testing.T) {
	dir := onSmallDisk(t)
	if dir == "" {
		return
	}
	path := filepath.Join(dir, "events.jsonl")
	w := openWriter(t, path, Options{Reserve: 64 << 10})
	ballast := filepath.Join(dir, "ballast")
	require.NoError(t, os.WriteFile(ballast, make([]byte, 300<<10), 0o600))
	r := openReader(t, path)
	shipped := ""
	ship := func() {
		b, err := r.Next(1<<20, 1<<20)
		require.NoError(t, err)
		shipped += string(b.Data)
	}
	text := strings.Repeat("x", 10_000)
	var printed, lost int64
	flow := func() bool {
		printed += int64(len(text))
		err := w.Append(CmdOutput(noon, text), CmdOutput(noon, "end\n"))
		printed += 4
		ship()
		return err != nil
	}
	require.NoError(t, w.Append(JobStarted(noon), CmdStarted(noon, "0")))
	for !flow() {
	}
	for i := range 100 {
		require.NoError(t, w.Append(CmdFinished(noon, fmt.Sprint(i), 0, noon, noon), CmdStarted(noon, fmt.Sprint(i+1))), "structural events fit")
		require.True(t, flow())
		require.True(t, flow())
	}

	// Another takes the rest; structural events wait.
	other := filepath.Join(dir, "other")
	require.Error(t, os.WriteFile(other, make([]byte, 2<<20), 0o600))
	long := strings.Repeat("y", 5000)
	_ = w.Append(CmdFinished(noon, "100", 0, noon, noon)) // may fit into the log's last page
	require.ErrorIs(t, w.Append(CmdStarted(noon, long)), syscall.ENOSPC)
	require.True(t, flow())
	require.NoError(t, os.Remove(other))
	require.NoError(t, os.Remove(ballast))
	require.False(t, flow())
	require.NoError(t, w.Append(CmdFinished(noon, long, 0, noon, noon), JobFinished(noon, "passed")))
	require.NoError(t, w.Close())
	ship()
	requireOnly(t, path)

	content, err := os.ReadFile(path)
	require.NoError(t, err)
	assert.Equal(t, string(content), shipped, "what a reader saw stays")
	open, notices := "", 0
	for _, e := range readEvents(t, path) {
		switch {
		case e.Kind == KindCmdStarted:
			open = e.Directive
		case e.Kind == KindCmdFinished:
			require.Equal(t, open, e.Directive)
		case strings.Contains(e.Output, "[signalman]"):
			var n int64
			_, err := fmt.Sscanf(e.Output, "\n[signalman] %d bytes of output were lost: no space left on device\n", &n)
			require.NoError(t, err)
			lost += n
			notices++
		default:
			printed -= int64(len(e.Output))
		}
	}
	assert.Equal(t, printed, lost)
	assert.LessOrEqual(t, notices, 103)
	last, _, err := Last(path)
	require.NoError(t, err)
	assert.Equal(t, KindJobFinished, last.Kind)
}

func TestFullDiskWithLimit(t *testing.T) {
	dir := onSmallDisk(t)
	if dir == "" {
		return
	}
	path := filepath.Join(dir, "events.jsonl")
	w := openWriter(t, path, Options{Reserve: 64 << 10, MaxBytes: 800 << 10})
	for i := range 200 {
		directive := fmt.Sprint(i)
		require.NoError(t, w.Append(CmdStarted(noon, directive)))
		for range 5 {
			require.NoError(t, w.Append(CmdOutput(noon, strings.Repeat("x", 5000))))
		}
		require.NoError(t, w.Append(CmdFinished(noon, directive, 0, noon, noon)))
	}
	require.ErrorIs(t, w.Close(), syscall.ENOSPC, "there is no room for all of the tail")
	requireOnly(t, path)
	finished := 0
	for _, e := range readEvents(t, path) {
		if e.Kind == KindCmdFinished {
			require.Equal(t, fmt.Sprint(finished), e.Directive)
			finished++
		}
	}
	require.Equal(t, 200, finished)

	// One that closes a dead worker's log finds the disk full, too.
	other := filepath.Join(dir, "other")
	require.Error(t, os.WriteFile(other, make([]byte, 2<<20), 0o600))
	w = openWriter(t, path, Options{})
	for w.Append(CmdStarted(noon, strings.Repeat("x", 1000))) == nil {
	}
	require.ErrorIs(t, w.Append(JobFinished(noon, "failed")), syscall.ENOSPC)
	require.NoError(t, os.Remove(other))
	require.NoError(t, w.Close())
	last, _, err := Last(path)
	require.NoError(t, err)
	assert.Equal(t, KindJobFinished, last.Kind)
	requireOnly(t, path)
}
