package eventlog

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func appendFile(t testing.TB, path, text string) {
	t.Helper()
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_APPEND|os.O_CREATE, 0o600)
	require.NoError(t, err)
	_, err = f.WriteString(text)
	require.NoError(t, err)
	require.NoError(t, f.Close())
}

func TestReaderNext(t *testing.T) {
	path := tempLog(t)
	r := openReader(t, path)
	next := func(events, bytes int) Batch {
		t.Helper()
		b, err := r.Next(events, bytes)
		require.NoError(t, err)
		b.Data = append([]byte(nil), b.Data...)
		return b
	}
	assert.Equal(t, Batch{}, next(10, 100), "no log yet")
	appendFile(t, path, "a\nbb\nccc\ntorn")
	assert.Equal(t, Batch{First: 0, Count: 2, Data: []byte("a\nbb\n"), Offset: 0, End: 5}, next(2, 100))
	assert.Equal(t, Batch{First: 2, Count: 1, Data: []byte("ccc\n"), Offset: 5, End: 9}, next(2, 100))
	assert.Equal(t, Batch{First: 3, Offset: 9, End: 9}, next(2, 100))
	appendFile(t, path, " no more\nd\ne\n")
	assert.Equal(t, "torn no more\n", string(next(9, 3).Data), "a line larger than allowed comes alone")
	assert.Equal(t, "d\n", string(next(9, 3).Data))
	assert.Equal(t, "e\n", string(next(9, 3).Data))
	index, offset := r.Position()
	assert.EqualValues(t, 6, index)
	assert.EqualValues(t, 26, offset)

	long := strings.Repeat("x", 5*readSize) + "\n"
	appendFile(t, path, "f\n"+long+"g\n")
	assert.Equal(t, "f\n", string(next(9, 100).Data))
	assert.Equal(t, long, string(next(9, 100).Data))
	assert.Equal(t, "g\n", string(next(9, 100).Data))
	assert.LessOrEqual(t, cap(r.buf), 2*readSize, "what a long line needed is given back")
}

// TestReaderReadsNothingTwice puts other lines in the place of those that were read along with the ones before.
func TestReaderReadsNothingTwice(t *testing.T) {
	path := tempLog(t)
	r := openReader(t, path)
	next := func(events, bytes int) string {
		t.Helper()
		b, err := r.Next(events, bytes)
		require.NoError(t, err)
		return string(b.Data)
	}
	appendFile(t, path, "a\nb\nc\ntorn")
	assert.Equal(t, "a\n", next(1, 100))
	require.NoError(t, os.WriteFile(path, []byte("A\nB\nC\nnew\nend\n"), 0o600))
	assert.Equal(t, "b\n", next(9, 2))
	assert.Equal(t, "c\nnew\n", next(2, 100), "the beginning of a line is read again")
	assert.Equal(t, "end\n", next(9, 100))
	_, err := r.SeekOffset(0, 0)
	require.NoError(t, err)
	assert.Equal(t, "A\nB\n", next(2, 100), "a seek begins afresh")
	_, err = r.SeekIndex(1)
	require.NoError(t, err)
	assert.Equal(t, "B\nC\nnew\nend\n", next(9, 100))
}

func TestReaderRefusesEndlessLine(t *testing.T) {
	path := tempLog(t)
	appendFile(t, path, "a\n")
	require.NoError(t, os.Truncate(path, 2*maxLine))
	r := openReader(t, path)
	b, err := r.Next(1, 1)
	require.NoError(t, err)
	assert.Equal(t, 1, b.Count)
	_, err = r.Next(1, 1)
	assert.ErrorIs(t, err, ErrLineTooLong)
}

func TestSeekOffset(t *testing.T) {
	path := tempLog(t)
	r := openReader(t, path)
	exact, err := r.SeekOffset(5, 100)
	require.NoError(t, err)
	assert.False(t, exact)
	appendFile(t, path, "a\nbb\ntorn")
	for _, c := range []struct {
		offset, want int64
		exact        bool
	}{{0, 0, true}, {2, 2, true}, {5, 5, true}, {4, 2, false}, {7, 5, false}, {9, 5, false}, {1000, 5, false}} {
		exact, err := r.SeekOffset(7, c.offset)
		require.NoError(t, err)
		index, offset := r.Position()
		assert.Equal(t, c.exact, exact, c)
		assert.EqualValues(t, 7, index, c)
		assert.Equal(t, c.want, offset, c)
	}
	appendFile(t, path, "\n")
	b, err := r.Next(9, 99)
	require.NoError(t, err)
	assert.Equal(t, "torn\n", string(b.Data))
	assert.EqualValues(t, 7, b.First)
}

func TestSeekIndex(t *testing.T) {
	path := tempLog(t)
	w := openWriter(t, path, Options{})
	for i := range 1000 {
		require.NoError(t, w.Append(CmdStarted(noon, fmt.Sprint(i))))
	}
	require.NoError(t, w.Close())
	index, err := os.ReadFile(path + indexSuffix)
	require.NoError(t, err)
	require.Len(t, index, 8*indexEntry)
	r := openReader(t, path)
	check := func() {
		t.Helper()
		for _, i := range []int64{0, 1, 127, 128, 129, 500, 999} {
			exact, err := r.SeekIndex(i)
			require.NoError(t, err)
			require.True(t, exact)
			b, err := r.Next(1, 1)
			require.NoError(t, err)
			e, err := Parse(b.Data)
			require.NoError(t, err)
			require.Equal(t, fmt.Sprint(i), e.Directive)
		}
	}
	at, _ := r.hint(999, 1<<40)
	assert.EqualValues(t, 896, at)
	check()
	require.NoError(t, os.WriteFile(path+indexSuffix, append(index[:3*indexEntry+3], 0xff, 0xff, 0xff, 0xff, 0xff, 9, 9, 9), 0o600))
	check()
	require.NoError(t, os.Remove(path+indexSuffix))
	check()
	require.NoError(t, os.Truncate(path, 0))
	require.NoError(t, openWriter(t, path, Options{}).Close())
	exact, err := r.SeekIndex(1)
	require.NoError(t, err)
	assert.False(t, exact)
	i, offset := r.Position()
	assert.EqualValues(t, 1, i)
	assert.Zero(t, offset)
}

// TestWaitMissesNothing tails a log from before it exists to its end, by waiting alone.
func TestWaitMissesNothing(t *testing.T) {
	path := tempLog(t)
	const events = 5000
	done := make(chan error, 1)
	go func() {
		done <- func() error {
			w, err := OpenWriter(path, Options{})
			if err != nil {
				return err
			}
			for range events {
				if err := w.Append(CmdOutput(noon, "x")); err != nil {
					return err
				}
			}
			return w.Close()
		}()
	}()
	r := openReader(t, path)
	for seen := 0; seen < events; {
		b, err := r.Next(100, 1<<20)
		require.NoError(t, err)
		require.EqualValues(t, seen, b.First)
		seen += b.Count
		if b.Count == 0 {
			ctx, cancel := context.WithTimeout(t.Context(), recheck-time.Second) // less than the safety net
			require.NoError(t, r.Wait(ctx))
			cancel()
		}
	}
	require.NoError(t, <-done)
}

func TestWaitBlocks(t *testing.T) {
	path := tempLog(t)
	appendFile(t, path, "a\ntorn")
	r := openReader(t, path)
	require.NoError(t, r.Wait(t.Context()))
	_, err := r.Next(1, 99)
	require.NoError(t, err)
	require.NoError(t, r.Wait(t.Context()), "there may be more than was asked for")
	_, err = r.Next(1, 99)
	require.NoError(t, err)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	require.ErrorIs(t, r.Wait(ctx), context.Canceled, "a torn line is nothing new")

	appendFile(t, filepath.Join(filepath.Dir(path), "other"), "x")
	require.ErrorIs(t, r.Wait(ctx), context.Canceled)
	require.NoError(t, os.Truncate(path, 2))
	require.NoError(t, r.Wait(ctx))
}

func TestInspectAndLast(t *testing.T) {
	path := tempLog(t)
	state, err := Inspect(path)
	require.NoError(t, err)
	assert.Equal(t, State{}, state)
	_, found, err := Last(path)
	require.NoError(t, err)
	assert.False(t, found)

	w := openWriter(t, path, Options{})
	started := CmdStarted(noon, strings.Repeat("long ", 3000))
	require.NoError(t, w.Append(JobStarted(noon), CmdStarted(noon, "a"), CmdFinished(noon, "a", 0, noon, noon), started))
	require.NoError(t, w.Close())
	appendFile(t, path, `{"event":"job_finished"}`)
	state, err = Inspect(path)
	require.NoError(t, err)
	assert.Equal(t, State{Started: true, Open: true, Section: started}, state)
	last, found, err := Last(path)
	require.NoError(t, err)
	assert.True(t, found)
	assert.Equal(t, started, last)

	w = openWriter(t, path, Options{})
	require.NoError(t, w.Append(CmdFinished(noon, "", 1, noon, noon), JobFinished(noon, "failed")))
	require.NoError(t, w.Close())
	appendFile(t, path, "rubbish\n\n")
	state, err = Inspect(path)
	require.NoError(t, err)
	assert.Equal(t, State{Started: true, Finished: true}, state)
	last, _, err = Last(path)
	require.NoError(t, err)
	assert.Equal(t, JobFinished(noon, "failed"), last)
}

func BenchmarkReaderNext(b *testing.B) {
	path := tempLog(b)
	w := openWriter(b, path, Options{})
	for range 20_000 {
		require.NoError(b, w.Append(CmdOutput(noon, strings.Repeat("x", 400))))
	}
	require.NoError(b, w.Close())
	r := openReader(b, path)
	info, err := os.Stat(path)
	require.NoError(b, err)
	b.SetBytes(info.Size())
	b.ReportAllocs()
	for b.Loop() {
		_, err := r.SeekOffset(0, 0)
		require.NoError(b, err)
		for {
			batch, err := r.Next(2000, 1<<20)
			require.NoError(b, err)
			if batch.Count == 0 {
				break
			}
		}
	}
}

// The end of a log is found by the sparse index, and without it.
func TestSeekEnd(t *testing.T) {
	path := filepath.Join(t.TempDir(), "events.jsonl")
	r, err := OpenReader(path)
	require.NoError(t, err)
	defer r.Close()
	require.NoError(t, r.SeekEnd())
	w, err := OpenWriter(path, Options{})
	require.NoError(t, err)
	for want := int64(1); want <= 3*indexEvery; want++ {
		require.NoError(t, w.Append(JobStarted(time.Unix(want, 0))))
		require.NoError(t, r.SeekEnd())
		index, offset := r.Position()
		require.Equal(t, want, index)
		info, err := os.Stat(path)
		require.NoError(t, err)
		require.Equal(t, info.Size(), offset)
	}
	require.NoError(t, os.Remove(path+indexSuffix))
	require.NoError(t, r.SeekEnd())
	index, _ := r.Position()
	assert.Equal(t, int64(3*indexEvery), index)
	require.NoError(t, w.Append(JobStarted(time.Unix(0, 0))))
	batch, err := r.Next(10, 1<<20)
	require.NoError(t, err)
	assert.Equal(t, int64(3*indexEvery), batch.First)
	assert.Equal(t, 1, batch.Count)
	require.NoError(t, w.Close())
}
