package eventlog

import (
	"bytes"
	"fmt"
	"os"
	"strings"
	"sync"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestWriterAppends(t *testing.T) {
	path := tempLog(t)
	w := openWriter(t, path, Options{})
	info, err := os.Stat(path)
	require.NoError(t, err)
	assert.EqualValues(t, 0o600, info.Mode().Perm())
	require.NoError(t, w.Append(JobStarted(noon), CmdStarted(noon, "ls")))
	require.NoError(t, w.Append())
	require.NoError(t, w.Append(CmdOutput(noon, "x")))
	assert.EqualValues(t, 3, w.Count())
	require.NoError(t, w.Close())
	require.NoError(t, w.Close())
	assert.ErrorIs(t, w.Append(JobStarted(noon)), os.ErrClosed)
	requireOnly(t, path)

	w = openWriter(t, path, Options{})
	assert.EqualValues(t, 3, w.Count())
	require.NoError(t, w.Append(JobFinished(noon, "passed")))
	require.NoError(t, w.Close())
	assert.Equal(t, []Kind{KindJobStarted, KindCmdStarted, KindCmdOutput, KindJobFinished}, kinds(readEvents(t, path)))
}

func TestWriterConcurrently(t *testing.T) {
	path := tempLog(t)
	w := openWriter(t, path, Options{MaxBytes: 200_000})
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for range 500 {
				assert.NoError(t, w.Append(CmdOutput(noon, "some output"), CmdStarted(noon, "x")))
				_ = w.Count()
			}
		})
	}
	wg.Wait()
	require.NoError(t, w.Close())
	started := 0
	for _, e := range readEvents(t, path) {
		if e.Kind == KindCmdStarted {
			started++
		}
	}
	assert.Equal(t, 8*500, started)
}

func TestOpenWriterRecovers(t *testing.T) {
	good := string(JobStarted(noon).AppendJSON(nil)) + "\n"
	for name, rest := range map[string]string{
		"torn line": `{"event":"cmd_out`, "NULs": strings.Repeat("\x00", 5000), "NULs within a line": "\x00\x00\"}\n", "nothing": "",
		"NULs, torn": "{\x00\n\x00",
	} {
		t.Run(name, func(t *testing.T) {
			path := tempLog(t)
			require.NoError(t, os.WriteFile(path, []byte(good+rest), 0o600))
			w := openWriter(t, path, Options{})
			assert.EqualValues(t, 1, w.Count())
			require.NoError(t, w.Append(JobFinished(noon, "failed")))
			require.NoError(t, w.Close())
			assert.Equal(t, []Kind{KindJobStarted, KindJobFinished}, kinds(readEvents(t, path)))
		})
	}
}

// flood writes commands whose output is far beyond a limit of 100,000 bytes.
func flood(t *testing.T, w *Writer, from, to int) {
	for i := from; i < to; i++ {
		directive := fmt.Sprintf("command %d", i)
		require.NoError(t, w.Append(CmdStarted(noon, directive)))
		for range 50 {
			require.NoError(t, w.Append(CmdOutput(noon, strings.Repeat("x\n", 250))))
		}
		require.NoError(t, w.Append(CmdFinished(noon, directive, 0, noon, noon)))
	}
}

// checkFlood checks that a log holds all commands in order, and all output or a word on it.
func checkFlood(t *testing.T, path string, commands int) {
	t.Helper()
	var directives []string
	var output, told int64
	notices := 0
	for _, e := range readEvents(t, path) {
		switch {
		case e.Kind == KindCmdStarted:
			directives = append(directives, e.Directive)
		case e.Kind == KindCmdFinished:
			require.Equal(t, directives[len(directives)-1], e.Directive)
		case strings.Contains(e.Output, "[signalman]"):
			notices++
			_, err := fmt.Sscanf(e.Output, "\n[signalman] %d bytes of output were left out here: the log is limited to 100000 bytes (log.max-disk)\n", &told)
			require.NoError(t, err)
		default:
			output += int64(len(e.Output))
		}
	}
	require.Len(t, directives, commands)
	for i, d := range directives {
		require.Equal(t, fmt.Sprintf("command %d", i), d)
	}
	require.LessOrEqual(t, notices, 1)
	require.EqualValues(t, commands*50*500, output+told)
}

func TestWriterLimit(t *testing.T) {
	path := tempLog(t)
	w := openWriter(t, path, Options{MaxBytes: 100_000})
	flood(t, w, 0, 1)
	assert.Less(t, w.Count(), int64(100))
	flood(t, w, 1, 20)
	head, err := os.ReadFile(path)
	require.NoError(t, err)
	e, ok, err := Last(path)
	require.NoError(t, err)
	assert.True(t, ok)
	assert.Equal(t, "command 19", e.Directive)
	state, err := Inspect(path)
	require.NoError(t, err)
	assert.Equal(t, State{}, state)

	require.NoError(t, w.Append(JobFinished(noon, "passed")))
	all, err := os.ReadFile(path)
	require.NoError(t, err)
	assert.True(t, bytes.HasPrefix(all, head), "the log only grows")
	assert.Less(t, len(all), 110_000)
	assert.EqualValues(t, bytes.Count(all, []byte("\n")), w.Count())
	require.NoError(t, w.Close())
	checkFlood(t, path, 20)
	requireOnly(t, path)
	e, _, err = Last(path)
	require.NoError(t, err)
	assert.Equal(t, KindJobFinished, e.Kind)
}

func TestWriterLimitWithoutLoss(t *testing.T) {
	path := tempLog(t)
	w := openWriter(t, path, Options{MaxBytes: 100_000})
	flood(t, w, 0, 2)
	require.NoError(t, w.Close())
	assert.EqualValues(t, 2*52, w.Count(), "there is no notice")
	checkFlood(t, path, 2)
}

// TestTailOfADeadWriter lets a writer die in the middle of each step in turn.
func TestTailOfADeadWriter(t *testing.T) {
	for _, commands := range []int{3, 4, 20} {
		path := tempLog(t)
		w := openWriter(t, path, Options{MaxBytes: 100_000})
		flood(t, w, 0, commands)
		// What follows is what the writer does itself, stopped after so many bytes.
		older, err := os.ReadFile(path + olderSuffix)
		require.NoError(t, err)
		newer, err := os.ReadFile(path + newerSuffix)
		require.NoError(t, err)
		head, err := os.ReadFile(path)
		require.NoError(t, err)
		h, err := w.readHead(path + olderSuffix)
		require.NoError(t, err)
		require.NoError(t, w.Close())
		merged, err := os.ReadFile(path)
		require.NoError(t, err)
		var dropped []byte
		_, lines, _ := bytes.Cut(older, []byte("\n"))
		for line := range bytes.Lines(lines) {
			if !isOutput(line) {
				dropped = append(dropped, line...)
			}
		}
		require.EqualValues(t, len(head), h.MainSize)

		restart := func(files map[string][]byte) {
			t.Helper()
			path := tempLog(t)
			for suffix, content := range files {
				require.NoError(t, os.WriteFile(path+suffix, content, 0o600))
			}
			w := openWriter(t, path, Options{})
			now, err := os.ReadFile(path)
			require.NoError(t, err)
			require.True(t, bytes.HasPrefix(now, bytes.TrimSuffix(files[""], []byte("{"))), "the log only grows")
			require.NoError(t, w.Close())
			checkFlood(t, path, commands)
			requireOnly(t, path)
		}
		for _, n := range []int{0, 1, 200, 10_000, len(merged) - len(head) - 300, len(merged) - len(head)} {
			part := merged[:len(head)+n]
			part = part[:bytes.LastIndexByte(part, '\n')+1]
			restart(map[string][]byte{"": append(bytes.Clone(part), '{'), olderSuffix: older, newerSuffix: newer})
		}
		restart(map[string][]byte{"": merged, olderSuffix: older})
		restart(map[string][]byte{"": merged})
		for n := range 3 {
			part := bytes.Join(bytes.SplitAfter(dropped, []byte("\n"))[:min(n, bytes.Count(dropped, []byte("\n")))], nil)
			restart(map[string][]byte{"": append(bytes.Clone(head), part...), dropSuffix: older, newerSuffix: newer})
		}
		restart(map[string][]byte{"": append(bytes.Clone(head), dropped...), dropSuffix: older, newerSuffix: newer})
		restart(map[string][]byte{"": append(bytes.Clone(head), dropped...), dropSuffix: older, olderSuffix: newer})
	}
}

func FuzzOpenWriter(f *testing.F) {
	line := string(CmdOutput(noon, "x").AppendJSON(nil)) + "\n"
	f.Add([]byte(line+line+"{"), []byte(strings.Repeat("\n", 16)), []byte(`{"left_out":5,"main_size":30}`+"\n"+line), []byte("\x00"), int64(1))
	f.Add([]byte(strings.Repeat("\n", 300)), []byte("\x80\x00\x00\x00\x00\x00\x00\x00\x80\x00\x00\x00\x00\x00\x00\x00"), []byte("\n"), []byte{}, int64(200))
	f.Fuzz(func(t *testing.T, log, index, older, drop []byte, at int64) {
		path := tempLog(t)
		for suffix, content := range map[string][]byte{"": log, indexSuffix: index, olderSuffix: older, dropSuffix: drop} {
			require.NoError(t, os.WriteFile(path+suffix, content, 0o600))
		}
		_, _, err := Last(path)
		require.NoError(t, err)
		_, err = Inspect(path)
		require.NoError(t, err)
		r := openReader(t, path)
		_, err = r.SeekIndex(at)
		require.NoError(t, err)
		_, err = r.SeekOffset(at, at)
		require.NoError(t, err)
		_, err = r.Next(10, 10)
		require.NoError(t, err)

		w := openWriter(t, path, Options{Reserve: -1})
		require.NoError(t, w.Append(JobFinished(noon, "failed")))
		require.NoError(t, w.Close())
		content, err := os.ReadFile(path)
		require.NoError(t, err)
		require.EqualValues(t, w.Count(), bytes.Count(content, []byte("\n")))
		require.True(t, bytes.HasSuffix(content, []byte("\n")))

		r = openReader(t, path)
		var read []byte
		for {
			b, err := r.Next(3, 100)
			require.NoError(t, err)
			if b.Count == 0 {
				break
			}
			require.Equal(t, bytes.Count(b.Data, []byte("\n")), b.Count)
			read = append(read, b.Data...)
		}
		require.True(t, bytes.Equal(content, read))
		if at >= 0 && at < w.Count() {
			exact, err := r.SeekIndex(at)
			require.NoError(t, err)
			require.True(t, exact)
			_, offset := r.Position()
			require.EqualValues(t, at, bytes.Count(content[:offset], []byte("\n")))
		}
	})
}

func BenchmarkAppend(b *testing.B) {
	e := CmdOutput(noon, strings.Repeat("2026-01-01 some \"quoted\" words of a build's output, é\n", 300)[:MaxOutput])
	for name, opts := range map[string]Options{"unlimited": {}, "limited": {MaxBytes: 64 << 20}} {
		b.Run(name, func(b *testing.B) {
			w := openWriter(b, tempLog(b), opts)
			b.SetBytes(MaxOutput)
			b.ReportAllocs()
			for b.Loop() {
				if err := w.Append(e); err != nil {
					b.Fatal(err)
				}
			}
			require.NoError(b, w.Close())
		})
	}
}
