package eventlog

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"os"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
	"unicode/utf8"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/signalman-ci/signalman/shared/mask"
)

func TestOutputDecoder(t *testing.T) {
	for in, want := range map[string]string{
		"a\r\nb\r\n": "a\nb\n", "a\rb\r\r\n\r": "a\rb\r\n\r", "é€𝄞": "é€𝄞",
		"\xe2\x82": "\ufffd\ufffd", "\xe2\x82x": "\ufffd\ufffdx", "\xe2\x82\r\n": "\ufffd\ufffd\n", "\xff\xf0\x80": "\ufffd\ufffd\ufffd",
	} {
		for cut := range len(in) + 1 {
			var d OutputDecoder
			got := d.Decode(nil, []byte(in[:cut]))
			assert.True(t, utf8.Valid(got))
			got = d.Flush(d.Decode(got, []byte(in[cut:])))
			assert.Equal(t, want, string(got), "%q cut at %d", in, cut)
		}
	}
}

func FuzzOutputDecoder(f *testing.F) {
	f.Add([]byte("a\r\n\xe2\x82\xac\r\xff\xf0\x9d\x84"), []byte{1, 0, 3, 1})
	f.Fuzz(func(t *testing.T, in, cuts []byte) {
		want := strings.ReplaceAll(string(in), "\r\n", "\n")
		want = string([]rune(want))
		var d OutputDecoder
		var got []byte
		rest := in
		for _, cut := range cuts {
			n := min(int(cut), len(rest))
			part := d.Decode(nil, rest[:n])
			require.True(t, utf8.Valid(part))
			got, rest = append(got, part...), rest[n:]
		}
		got = d.Flush(d.Decode(got, rest))
		require.Equal(t, want, string(got))
		var joined []byte
		for chunk := range Chunks(got, 5) {
			require.True(t, utf8.Valid(chunk) && len(chunk) <= 5 && len(chunk) > 0)
			joined = append(joined, chunk...)
		}
		require.True(t, bytes.Equal(got, joined))
	})
}

// recorder is an Appender in memory.
type recorder struct {
	mu     sync.Mutex
	events []Event
	err    error
}

func (r *recorder) Append(events ...Event) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.events = append(r.events, events...)
	return r.err
}

func (r *recorder) outputs() []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	var out []string
	for _, e := range r.events {
		out = append(out, e.Output)
	}
	return out
}

func TestOutputWriterTiming(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		log := &recorder{}
		o := NewOutputWriter(log, nil)
		write := func(s string) {
			n, err := o.Write([]byte(s))
			require.NoError(t, err)
			require.Equal(t, len(s), n)
		}
		pass := func(d time.Duration) { // on the bubble's clock
			time.Sleep(d) //nolint:forbidigo // no time passes: the bubble's clock jumps
			synctest.Wait()
		}
		write("alone\n")
		assert.Equal(t, []string{"alone\n"}, log.outputs(), "a line that comes alone leaves at once")
		write("b")
		write("c\r\n\xe2\x82")
		pass(outputDelay - 1)
		assert.Len(t, log.outputs(), 1)
		pass(1)
		assert.Equal(t, []string{"alone\n", "bc\n"}, log.outputs())
		write("\xac") // 20 ms after the last, but no whole line
		assert.Len(t, log.outputs(), 2)
		pass(outputDelay)
		assert.Equal(t, "€", log.outputs()[2])
		write("\xe2")
		require.NoError(t, o.Flush())
		assert.Equal(t, "\ufffd", log.outputs()[3])
		write("end\r")
		require.NoError(t, o.Close())
		require.NoError(t, o.Close())
		assert.Equal(t, "end\r", log.outputs()[4])
		_, err := o.Write([]byte("late"))
		assert.ErrorIs(t, err, os.ErrClosed)
	})
}

func TestOutputWriterCutsAFlood(t *testing.T) {
	log := &recorder{}
	o := NewOutputWriter(log, nil)
	text := strings.Repeat("€", 100_000)
	_, err := o.Write([]byte(text))
	require.NoError(t, err)
	require.NoError(t, o.Close())
	assert.Equal(t, text, strings.Join(log.outputs(), ""))
	for _, out := range log.outputs() {
		assert.LessOrEqual(t, len(out), MaxOutput)
	}
	assert.LessOrEqual(t, len(log.events), 24)
}

func TestOutputWriterKeepsErrors(t *testing.T) {
	log := &recorder{err: errors.New("full")}
	o := NewOutputWriter(log, nil)
	_, err := o.Write([]byte("x\n"))
	require.NoError(t, err)
	assert.EqualError(t, o.Flush(), "full")
	log.err = nil
	_, err = o.Write([]byte("y\n"))
	require.NoError(t, err)
	assert.EqualError(t, o.Close(), "full")
}

func TestOutputWriterConcurrently(t *testing.T) {
	log := &recorder{}
	o := NewOutputWriter(log, nil)
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for range 2000 {
				_, _ = o.Write([]byte("some text, not a line "))
			}
		})
	}
	wg.Wait()
	require.NoError(t, o.Close())
	assert.Len(t, strings.Join(log.outputs(), ""), 8*2000*len("some text, not a line "))
}

// secretsOf makes a masker of variables.
func secretsOf(values ...string) *mask.Masker {
	var secrets []mask.Secret
	for _, v := range values {
		secrets = append(secrets, mask.Secret{Value: v})
	}
	return mask.New(secrets)
}

// What may be the beginning of a secret waits, and nothing else does.
func TestOutputWriterHoldsBackLittle(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		log := &recorder{}
		o := NewOutputWriter(log, secretsOf("first\r\nsecond", "hunter2"))
		write := func(s string) {
			_, err := o.Write([]byte(s))
			require.NoError(t, err)
			time.Sleep(outputDelay) //nolint:forbidigo // no time passes: the bubble's clock jumps
			synctest.Wait()
		}
		write("a line\n")
		assert.Equal(t, []string{"a line\n"}, log.outputs())
		write("the password is hun")
		assert.Equal(t, []string{"a line\n", "the password is "}, log.outputs())
		require.NoError(t, o.Flush())
		write("t")
		assert.Len(t, log.outputs(), 2)
		write("er2")
		write("hun")
		assert.Equal(t, []string{"a line\n", "the password is ", "***"}, log.outputs())
		write("gry")
		assert.Equal(t, "hungry", log.outputs()[3])
		write("\nfir")
		assert.Equal(t, "\n", log.outputs()[4])
		write("st\r")
		write("\nsec")
		write("ond\nfirst\nsec")
		assert.Equal(t, []string{"***\n"}, log.outputs()[5:])
		require.NoError(t, o.Close())
		assert.Equal(t, []string{"***\n", "first\nsec"}, log.outputs()[5:], "it was no secret after all")
	})
}

func FuzzOutputWriterMasks(f *testing.F) {
	f.Add("hunter2\xe2\x82\r\nx", []byte("a hunter2\xe2\x82\r\nx, hunter2\xe2\x82\nx hunter\r\n"), []byte{1, 2, 3, 4, 5, 6, 7})
	f.Add("line one\nline two", []byte("line one\r\nline two\xff"), []byte{9, 1, 1})
	f.Fuzz(func(t *testing.T, secret string, in, cuts []byte) {
		var d OutputDecoder
		m := secretsOf(secret)
		want := m.String(string(d.Flush(d.Decode(nil, in))))
		log := &recorder{}
		o := NewOutputWriter(log, m)
		rest := in
		for _, cut := range cuts {
			n := min(int(cut), len(rest))
			_, _ = o.Write(rest[:n])
			rest = rest[n:]
		}
		_, _ = o.Write(rest)
		require.NoError(t, o.Close())
		for _, out := range log.outputs() {
			require.True(t, utf8.ValidString(out))
		}
		require.Equal(t, want, strings.Join(log.outputs(), ""))
	})
}

func BenchmarkOutputWriter(b *testing.B) {
	line := []byte(strings.Repeat("2026-01-01 some \"quoted\" words of a build's output, é\r\n", 76)[:4096])
	for _, secrets := range []int{0, 10} {
		b.Run(fmt.Sprintf("%d secrets", secrets), func(b *testing.B) {
			var values []string
			for i := range secrets {
				values = append(values, fmt.Sprintf("ghp_%x", sha256.Sum256([]byte{byte(i)})))
			}
			w := openWriter(b, tempLog(b), Options{})
			o := NewOutputWriter(w, secretsOf(values...))
			b.SetBytes(int64(len(line)))
			b.ReportAllocs()
			for b.Loop() {
				_, _ = o.Write(line)
			}
			require.NoError(b, o.Close())
		})
	}
}
