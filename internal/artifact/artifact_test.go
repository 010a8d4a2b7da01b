//go:build unix

package artifact

import (
	"bytes"
	"compress/gzip"
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/signalman-ci/signalman/shared/eventlog"
	"github.com/signalman-ci/signalman/shared/protocol"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const token = "the-artifact-token"

// world is a host with an artifact command, and a job's log on it.
type world struct {
	t      *testing.T
	dir    string
	pusher Pusher
	log    Log
}

// newWorld makes a world whose artifact command does what a script says, with $dir its folder.
func newWorld(t *testing.T, script string) *world {
	t.Helper()
	w := &world{t: t, dir: t.TempDir()}
	bin := filepath.Join(w.dir, "bin")
	require.NoError(t, os.Mkdir(bin, 0o755))
	if script != "" {
		script = fmt.Sprintf("#!/bin/sh\ndir='%s'\n%s\n", w.dir, script)
		require.NoError(t, os.WriteFile(filepath.Join(bin, "artifact"), []byte(script), 0o755))
	}
	w.pusher = Pusher{When: Always, CompressAbove: 1 << 20, Environ: []string{
		"PATH=" + bin + ":" + os.Getenv("PATH"), "HOME=/home/agent", "SEMAPHORE_AGENT_TOKEN=secret", "LANG=C",
	}}
	w.log = Log{
		Events: filepath.Join(w.dir, "events.jsonl"), Text: filepath.Join(w.dir, "log.txt"),
		Env: []protocol.EnvVar{
			{Name: tokenVariable, Value: "an older one"}, {Name: "SEMAPHORE_JOB_ID", Value: "job-1"}, {Name: "OTHER", Value: "x"},
			{Name: tokenVariable, Value: token}, {Name: "SEMAPHORE_ORGANIZATION_URL", Value: "https://org.example"},
		},
	}
	w.write("echo hello", "hello\n")
	return w
}

// write makes the event log: one command and its output.
func (w *world) write(directive string, output ...string) {
	w.t.Helper()
	require.NoError(w.t, os.RemoveAll(w.log.Events))
	now := time.Now()
	events := []eventlog.Event{eventlog.JobStarted(now), eventlog.CmdStarted(now, directive)}
	for _, text := range output {
		events = append(events, eventlog.CmdOutput(now, text))
	}
	log, err := eventlog.OpenWriter(w.log.Events, eventlog.Options{})
	require.NoError(w.t, err)
	require.NoError(w.t, log.Append(append(events, eventlog.CmdFinished(now, directive, 0, now, now), eventlog.JobFinished(now, "passed"))...))
	require.NoError(w.t, log.Close())
}

func (w *world) read(name string) string {
	raw, _ := os.ReadFile(filepath.Join(w.dir, name))
	return string(raw)
}

func (w *world) push() error { return w.pusher.Push(w.t.Context(), w.log) }

// nothingLeft checks that no text stays on disk.
func (w *world) nothingLeft() {
	w.t.Helper()
	assert.NoFileExists(w.t, w.log.Text)
	assert.NoFileExists(w.t, w.log.Text+compressedSuffix)
}

const keep = `echo "$@" >"$dir/args"; env >"$dir/env"; cp "$3" "$dir/pushed"; stat -c %a "$3" >"$dir/mode"`

func TestPush(t *testing.T) {
	w := newWorld(t, keep)
	require.NoError(t, w.push())
	assert.Equal(t, "push job "+w.log.Text+" -d agent/job_logs.txt\n", w.read("args"))
	assert.Equal(t, "echo hello\nhello\n", w.read("pushed"))
	if runtime.GOOS == "linux" {
		assert.Equal(t, "600\n", w.read("mode"))
	}
	var names []string
	for line := range strings.Lines(w.read("env")) {
		switch name, _, _ := strings.Cut(line, "="); name {
		case "PWD", "SHLVL", "_", "OLDPWD": // the shell's own
		default:
			names = append(names, name)
		}
	}
	assert.ElementsMatch(t, []string{"PATH", "HOME", "SEMAPHORE_ARTIFACT_TOKEN", "SEMAPHORE_JOB_ID", "SEMAPHORE_ORGANIZATION_URL"}, names)
	assert.Contains(t, w.read("env"), "SEMAPHORE_ARTIFACT_TOKEN="+token+"\n")
	w.nothingLeft()
}

// A text beyond the limit is compressed, whole; one that just fits isn't.
func TestCompression(t *testing.T) {
	for name, test := range map[string]struct {
		limit  int64
		suffix string
	}{"fits": {17, ""}, "a byte too long": {16, ".gz"}, "far too long": {1, ".gz"}} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, keep)
			w.pusher.CompressAbove = test.limit
			// What another supervisor has left is of no account.
			require.NoError(t, os.WriteFile(w.log.Text, []byte("old"), 0o600))
			require.NoError(t, os.WriteFile(w.log.Text+".gz", []byte("old"), 0o600))
			require.NoError(t, w.push())
			assert.Equal(t, fmt.Sprintf("push job %s%s -d agent/job_logs.txt%[2]s\n", w.log.Text, test.suffix), w.read("args"))
			pushed := w.read("pushed")
			if test.suffix != "" {
				r, err := gzip.NewReader(strings.NewReader(pushed))
				require.NoError(t, err)
				raw, err := io.ReadAll(r)
				require.NoError(t, err)
				pushed = string(raw)
			}
			assert.Equal(t, "echo hello\nhello\n", pushed)
			w.nothingLeft()
		})
	}
}

func TestFailures(t *testing.T) {
	for name, test := range map[string]struct {
		script string
		change func(*world)
		want   string
	}{
		"no command": {want: ErrNoCommand.Error()},
		"no token": {script: keep, change: func(w *world) { w.log.Env = w.log.Env[1:2] },
			want: "the job has no SEMAPHORE_ARTIFACT_TOKEN"},
		"says why, with the token": {script: `echo first; echo "no: $SEMAPHORE_ARTIFACT_TOKEN"; printf "$SEMAPHORE_ARTIFACT_TOKEN" | base64; echo "bad $(printf '\007')token $SEMAPHORE_ARTIFACT_TOKEN" >&2; exit 3`,
			want: "artifact push: exit status 3: bad token ***"},
		"one long line with the token": {script: `head -c 5000 /dev/zero | tr '\0' x; echo "$SEMAPHORE_ARTIFACT_TOKEN"; exit 3`,
			want: "artifact push: exit status 3"},
		"killed": {script: `kill -9 $$`, want: "artifact push: signal: killed"},
		"no log": {script: keep, change: func(w *world) { w.log.Events += "-not" }, want: "cannot write it as text: open "},
		"hangs, and its child": {script: `sleep 1000 & sleep 1000`, change: func(w *world) { w.pusher.Limit = 200 * time.Millisecond },
			want: "it took longer than 200ms and was ended"},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, test.script)
			if test.change != nil {
				test.change(w)
			}
			err := w.push()
			require.ErrorContains(t, err, test.want)
			assert.NotContains(t, err.Error(), token)
			assert.NotContains(t, err.Error(), "\n")
			w.nothingLeft()
		})
	}
}

// A child in the background, with the command's output open, holds nothing up.
func TestChildInTheBackground(t *testing.T) {
	w := newWorld(t, `(until [ -e "$dir/gone" ]; do sleep 0.1; done; sleep 1) & `)
	require.NoError(t, w.push()) // or the test would never end
	require.NoError(t, os.WriteFile(filepath.Join(w.dir, "gone"), nil, 0o600))
}

func TestPushIsCutOff(t *testing.T) {
	w := newWorld(t, `: >"$dir/began"; sleep 1000`)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- w.pusher.Push(ctx, w.log) }()
	require.Eventually(t, func() bool { _, err := os.Stat(filepath.Join(w.dir, "began")); return err == nil }, time.Minute, time.Millisecond)
	cancel()
	require.Error(t, <-done)
	w.nothingLeft()
}

func TestWanted(t *testing.T) {
	w := newWorld(t, "")
	capped := newWorld(t, "")
	require.NoError(t, os.Remove(capped.log.Events))
	log, err := eventlog.OpenWriter(capped.log.Events, eventlog.Options{MaxBytes: 100_000})
	require.NoError(t, err)
	for range 100 {
		require.NoError(t, log.Append(eventlog.CmdOutput(time.Now(), strings.Repeat("x", 5000))))
	}
	require.NoError(t, log.Close())
	imitated := newWorld(t, "")
	imitated.write("echo bytes of output were left out here: the log is limited to", "2 bytes of output were left out here: the log is limited to 1 bytes\n")
	for _, test := range []struct {
		when When
		log  Log
		full bool
		want bool
	}{
		{Never, w.log, true, false}, {"", w.log, true, false}, {Always, w.log, false, true},
		{WhenTrimmed, w.log, false, false}, {WhenTrimmed, w.log, true, true}, {WhenTrimmed, capped.log, false, true},
		{WhenTrimmed, imitated.log, false, false}, {WhenTrimmed, Log{Events: "/nowhere"}, false, false},
	} {
		test.log.Full = test.full
		wanted, err := Pusher{When: test.when}.Wanted(test.log)
		require.NoError(t, err)
		assert.Equal(t, test.want, wanted, "%+v", test)
	}
}

// The memory for a long log doesn't grow with it. With SIGNALMAN_LARGE_LOG it is one of 2 GiB.
func TestMemoryIsFlat(t *testing.T) {
	size := int64(128 << 20)
	if os.Getenv("SIGNALMAN_LARGE_LOG") != "" {
		size = 2 << 30
	}
	w := newWorld(t, `stat -c %s "$3" >"$dir/size"`)
	file, err := os.Create(w.log.Events)
	require.NoError(t, err)
	line := eventlog.CmdOutput(time.Now(), strings.Repeat("a line of output, as commands print it 0123456789\n", 80)).AppendJSON(nil)
	lines := bytes.Repeat(append(line, 10), 256)
	for n := int64(0); n < size; n += int64(len(lines)) {
		_, err := file.Write(lines)
		require.NoError(t, err)
	}
	require.NoError(t, file.Close())
	for name, limit := range map[string]int64{"compressed": 1 << 20, "plain": 1 << 40} {
		w.pusher.CompressAbove = limit
		begin, most := time.Now(), uint64(0)
		done, watched := make(chan struct{}), make(chan struct{})
		runtime.GC()
		go func() {
			defer close(watched)
			tick := time.NewTicker(10 * time.Millisecond)
			defer tick.Stop()
			for {
				select {
				case <-done:
					return
				case <-tick.C:
					var m runtime.MemStats
					runtime.ReadMemStats(&m)
					most = max(most, m.HeapInuse)
				}
			}
		}()
		err := w.push()
		close(done)
		<-watched
		require.NoError(t, err)
		assert.Less(t, most, uint64(96<<20), name)
		t.Logf("%s: log of %d MiB, heap at most %.1f MiB, %v, pushed %s bytes", name, size>>20, float64(most)/(1<<20), time.Since(begin).Round(time.Millisecond), strings.TrimSpace(w.read("size")))
	}
}
