package eventlog

import (
	"bytes"
	"fmt"
	"iter"
	"os"
	"slices"
	"sync"
	"time"
	"unicode/utf8"

	"github.com/signalman-ci/signalman/shared/mask"
)

const (
	// MaxOutput is the largest text an OutputWriter puts into one event, in bytes.
	MaxOutput = 16 << 10

	// enoughOutput is the size at which text needn't wait for more to come, in bytes. Terminals are read in pieces of 4 KiB: four of
	// them are to be one event also where a few bytes of the last are held back.
	enoughOutput = MaxOutput - 1<<10

	// outputDelay is how long output waits for more to come.
	outputDelay = 20 * time.Millisecond
	// writeChunk bounds what an OutputWriter has in memory, in bytes.
	writeChunk = 64 << 10
)

// OutputDecoder turns a stream of bytes into the text of output events: "\r\n" becomes "\n", each byte that isn't part of
// valid UTF-8 becomes U+FFFD. How the stream is cut makes no difference. The zero value is ready for use.
type OutputDecoder struct {
	held []byte // the beginning of a UTF-8 sequence, or a "\r"
}

// Decode appends the text of src to dst, but for an end that depends on what follows.
func (d *OutputDecoder) Decode(dst, src []byte) []byte {
	for len(d.held) > 0 && len(src) > 0 {
		d.held = append(d.held, src[0])
		src = src[1:]
		var rest []byte
		dst, rest = decode(dst, d.held)
		d.held = append(d.held[:0], rest...)
	}
	if len(src) > 0 {
		var rest []byte
		dst, rest = decode(dst, src)
		d.held = append(d.held[:0], rest...)
	}
	return dst
}

// Flush appends what Decode has held back. The stream may go on afterwards.
func (d *OutputDecoder) Flush(dst []byte) []byte {
	dst = appendValid(dst, d.held)
	d.held = d.held[:0]
	return dst
}

// decode returns dst with the text of src, and the end of src that depends on what follows.
func decode(dst, src []byte) (text, rest []byte) {
	for {
		i := bytes.IndexByte(src, '\r')
		if i < 0 {
			whole := len(src) - partialRune(src)
			return appendValid(dst, src[:whole]), src[whole:]
		}
		dst = appendValid(dst, src[:i])
		src = src[i:]
		if len(src) == 1 {
			return dst, src
		}
		if src[1] != '\n' {
			dst = append(dst, '\r')
		}
		src = src[1:]
	}
}

// partialRune is the length of the UTF-8 sequence at the end of b that more bytes could complete, 0 if there is none.
func partialRune(b []byte) int {
	for n := 1; n < utf8.UTFMax && n <= len(b); n++ {
		if end := b[len(b)-n:]; utf8.RuneStart(end[0]) {
			if utf8.FullRune(end) {
				return 0
			}
			return n
		}
	}
	return 0
}

func appendValid(dst, b []byte) []byte {
	if utf8.Valid(b) {
		return append(dst, b...)
	}
	for len(b) > 0 {
		r, size := utf8.DecodeRune(b)
		dst = utf8.AppendRune(dst, r)
		b = b[size:]
	}
	return dst
}

// Chunks cuts valid UTF-8 into pieces of at most size bytes, at least utf8.UTFMax, between characters.
func Chunks(text []byte, size int) iter.Seq[[]byte] {
	return func(yield func([]byte) bool) {
		for len(text) > size {
			cut := size
			for !utf8.RuneStart(text[cut]) {
				cut--
			}
			if !yield(text[:cut]) {
				return
			}
			text = text[cut:]
		}
		if len(text) > 0 {
			yield(text)
		}
	}
}

// Appender takes events; a Writer is one.
type Appender interface {
	Append(events ...Event) error
}

// OutputWriter turns what a command prints into cmd_output events, without the secrets in it. A line that comes alone is appended
// at once, a flood in events of MaxOutput, all the rest after 20 ms at most; but for an end that may be the beginning of a
// secret, which waits for what follows. It may be used concurrently.
type OutputWriter struct {
	log Appender

	mu      sync.Mutex
	decoder OutputDecoder
	decoded []byte
	masked  *mask.Stream
	text    []byte // decoded and masked
	events  []Event
	flushed time.Time   // when events were last appended
	timer   *time.Timer // nil unless text waits
	timers  sync.WaitGroup
	err     error
	closed  bool
}

// NewOutputWriter makes a writer of output to log, which masks secrets; nil masks nothing. It has to be closed.
func NewOutputWriter(log Appender, secrets *mask.Masker) *OutputWriter {
	return &OutputWriter{log: log, masked: secrets.NewStream()}
}

// Write takes output. An error of the log doesn't concern the command that prints: Flush and Close return it. Write itself
// fails only after Close.
func (o *OutputWriter) Write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.closed {
		return 0, fmt.Errorf("cannot write output: %w", os.ErrClosed)
	}
	for chunk := range slices.Chunk(p, writeChunk) {
		o.decoded = o.decoder.Decode(o.decoded[:0], chunk)
		o.text = o.masked.Append(o.text, o.decoded)
		if len(o.text) >= enoughOutput || bytes.HasSuffix(o.text, []byte("\n")) && time.Since(o.flushed) >= outputDelay {
			o.appendText()
		}
	}
	if len(o.text) > 0 && o.timer == nil {
		o.timers.Add(1)
		o.timer = time.AfterFunc(outputDelay, o.expired)
	}
	return len(p), nil
}

func (o *OutputWriter) expired() {
	defer o.timers.Done()
	o.mu.Lock()
	defer o.mu.Unlock()
	o.appendText()
}

// appendText appends the decoded text to the log.
func (o *OutputWriter) appendText() {
	if o.timer != nil && o.timer.Stop() {
		o.timers.Done()
	}
	o.timer = nil
	if len(o.text) == 0 {
		return
	}
	o.flushed = time.Now()
	for chunk := range Chunks(o.text, MaxOutput) {
		o.events = append(o.events, CmdOutput(o.flushed, string(chunk)))
	}
	if err := o.log.Append(o.events...); err != nil && o.err == nil {
		o.err = err
	}
	clear(o.events)
	o.events, o.text = o.events[:0], o.text[:0]
}

// Flush appends all that was written, also the beginning of a character that isn't complete, but not what may be that of a
// secret. It returns the first error of the log so far.
func (o *OutputWriter) Flush() error {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.flush(false)
	return o.err
}

func (o *OutputWriter) flush(end bool) {
	o.decoded = o.decoder.Flush(o.decoded[:0])
	o.text = o.masked.Append(o.text, o.decoded)
	if end {
		o.text = o.masked.Flush(o.text)
	}
	o.appendText()
}

// Close flushes, ends the writer and returns the first error of the log.
func (o *OutputWriter) Close() error {
	o.mu.Lock()
	if !o.closed {
		o.closed = true
		o.flush(true)
	}
	err := o.err
	o.mu.Unlock()
	o.timers.Wait()
	return err
}
