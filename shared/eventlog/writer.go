package eventlog

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"sync"
	"time"
)

// DefaultReserve is the disk space that is held back unless Options say otherwise, in bytes.
const DefaultReserve = 256 << 10

// keepBuffer is the size up to which a Writer keeps its buffer between two calls of Append, in bytes.
const keepBuffer = 1 << 20

// Options of a Writer.
type Options struct {
	// MaxBytes limits the log on disk; 0 is no limit. The first half is kept as it comes; of what follows only the newest
	// part stays, up to the other half, and is appended when the job ends (for that moment the disk holds half as much again).
	// An event says how much output was left out; all other events stay.
	MaxBytes int64
	// Reserve is the disk space held back so that closing events fit on a full disk, in bytes. 0 means DefaultReserve; a
	// negative number, none.
	Reserve int64
}

// Writer appends events to a log. It may be used concurrently.
//
// On a full disk, or when writing fails for another reason, output is counted and dropped, and an event says so as soon as
// there is room again; all other events are kept and tried again with every Append and with Close, also at the price of
// the reserve.
type Writer struct {
	mu      sync.Mutex
	path    string
	limit   int64 // 0: none, or none any more
	main    *lineFile
	tail    *tail // nil while events go to main
	reserve reserve
	pending []byte // lines other than output that couldn't be written yet
	lost    int64  // bytes of output that couldn't be written and that no event has told yet
	lostBy  error  // why
	broken  error  // what went wrong while an old tail was taken over
	buf     []byte
	closed  bool
}

// lineSink is a place for whole lines; n tells how many bytes went in.
type lineSink func(lines []byte) (n int, err error)

// OpenWriter opens a log or creates it with mode 0600. It removes a torn last line and completes what a writer that died
// has left beside the log. The caller makes sure that no other writer is at work.
func OpenWriter(path string, opts Options) (*Writer, error) {
	main, err := openLineFile(path, path+indexSuffix)
	if err != nil {
		return nil, fmt.Errorf("cannot open the event log: %w", err)
	}
	w := &Writer{path: path, limit: max(opts.MaxBytes, 0), main: main}
	w.reserve = openReserve(path+reserveSuffix, opts.Reserve)
	w.broken = w.mergeTail()
	return w, nil
}

// Count is the number of events in the log, which is the index of the next one. Those that wait beside the log because of
// Options.MaxBytes don't count yet.
func (w *Writer) Count() int64 {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.main.count
}

// Append writes events in order, as whole lines in one write; nothing is synced to the disk before Close. An error says
// that output was lost, or that other events wait for their next chance.
func (w *Writer) Append(events ...Event) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.closed {
		return fmt.Errorf("cannot write to the event log: %w", os.ErrClosed)
	}
	var merged error
	w.buf = w.buf[:0]
	for _, e := range events {
		if e.Kind == KindJobFinished && w.limit > 0 {
			merged = errors.Join(w.store(w.buf, w.write), w.endTail())
			w.buf = w.buf[:0]
		}
		w.buf = append(e.AppendJSON(w.buf), '\n')
	}
	err := errors.Join(merged, w.store(w.buf, w.write))
	if cap(w.buf) > keepBuffer {
		w.buf = nil
	}
	if err != nil {
		return fmt.Errorf("cannot write to the event log: %w", err)
	}
	return nil
}

// Close completes the log, syncs it to the disk and removes what the Writer kept beside it, except the index. A second
// Close does nothing.
func (w *Writer) Close() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.closed {
		return nil
	}
	w.closed = true
	err := w.broken
	if w.tail != nil {
		err = errors.Join(err, w.endTail())
	}
	w.reserve.release()
	err = errors.Join(err, w.catchUp(w.main.append), w.main.file.Sync(), w.main.close())
	if err != nil {
		return fmt.Errorf("cannot close the event log: %w", err)
	}
	return nil
}

// write puts lines where the limit wants them.
func (w *Writer) write(lines []byte) (int, error) {
	if w.tail == nil && (w.limit == 0 || w.main.size+int64(len(lines)) <= w.limit/2) {
		return w.main.append(lines)
	}
	return w.appendTail(lines)
}

// store writes lines, or else does what can be done for each of them.
func (w *Writer) store(lines []byte, write lineSink) error {
	if len(lines) == 0 {
		return nil
	}
	if w.reserve.held && w.lost == 0 && len(w.pending) == 0 {
		n, err := write(lines)
		if err == nil {
			return nil
		}
		lines = lines[n:]
	}
	var failed error
	for line := range bytes.Lines(lines) {
		if err := w.storeLine(line, write); err != nil {
			failed = err
		}
	}
	return failed
}

// storeLine writes output only while a reserve is held beside it, and after a loss only if there is room for another one,
// so that output neither eats what closing events need nor comes and goes around the brim.
func (w *Writer) storeLine(line []byte, write lineSink) error {
	if !isOutput(line) {
		w.pending = append(w.pending, line...)
		err := w.catchUp(write)
		if err != nil && w.reserve.release() {
			err = w.catchUp(write)
		}
		return err
	}
	var err error
	if !w.reserve.held || w.lost > 0 {
		err = w.reserve.hold()
	}
	if err == nil {
		err = w.catchUp(write)
	}
	if err == nil {
		_, err = write(line)
	}
	if err != nil {
		w.lost += outputLen(line)
		w.lostBy = err
	}
	return err
}

// catchUp tells what was lost and writes what waits.
func (w *Writer) catchUp(write lineSink) error {
	var lines []byte
	if w.lost > 0 {
		text := fmt.Sprintf("\n[signalman] %d bytes of output were lost: %v\n", w.lost, cause(w.lostBy))
		lines = append(CmdOutput(time.Now(), text).AppendJSON(lines), '\n')
	}
	notice := len(lines)
	lines = append(lines, w.pending...)
	if len(lines) == 0 {
		return nil
	}
	n, err := write(lines)
	if n >= notice {
		w.lost = 0
		w.pending = w.pending[n-notice:]
	}
	return err
}

// cause is an error as the operating system words it, without the file's path, which is nothing to a job's log.
func cause(err error) error {
	var pathErr *fs.PathError
	if errors.As(err, &pathErr) {
		return pathErr.Err
	}
	return err
}

// eventPrefix begins each line that a Writer writes, outputPrefix each cmd_output, outputField its text.
var (
	eventPrefix  = []byte(`{"event":"`)
	outputPrefix = []byte(`{"event":"cmd_output",`)
	outputField  = []byte(`"output":"`)
)

func isOutput(line []byte) bool { return bytes.HasPrefix(line, outputPrefix) }

// outputLen is the length of the text in a cmd_output that a Writer has encoded, in bytes.
func outputLen(line []byte) int64 {
	_, text, _ := bytes.Cut(line, outputField)
	text = bytes.TrimSuffix(text, []byte("\"}\n"))
	length := len(text)
	for {
		i := bytes.IndexByte(text, '\\')
		if i < 0 || i+1 >= len(text) {
			return int64(length)
		}
		escape := 2
		if text[i+1] == 'u' {
			escape = 6
		}
		length -= escape - 1
		text = text[min(i+escape, len(text)):]
	}
}
