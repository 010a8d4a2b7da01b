package eventlog

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math"
	"os"
	"path/filepath"
	"runtime"
	"time"

	"github.com/fsnotify/fsnotify"
)

const (
	// readSize is how much a Reader reads at a time, in bytes.
	readSize = 64 << 10

	// recheck is how long Wait trusts the operating system to tell of changes. blindRecheck is for when it doesn't: without
	// a watch, or on Windows, which tells of a file's growth only once it is closed.
	recheck      = 30 * time.Second
	blindRecheck = time.Second
)

// ErrLineTooLong says that the log holds a line larger than any event can be.
var ErrLineTooLong = errors.New("a line of the event log is too long")

// Batch is a run of events as they stand in the log.
type Batch struct {
	// First is the index of the first event.
	First int64
	// Count is the number of events; 0 if there is nothing new.
	Count int
	// Data holds the events' lines, each with its newline. It is valid until the Reader is used again.
	Data []byte
	// Offset and End are where in the log, in bytes, Data begins and ends.
	Offset, End int64
}

// Reader hands out a log's events as raw lines, while it is written. It is for one goroutine.
type Reader struct {
	path    string
	file    *os.File // nil until the log exists
	index   int64    // of the next event
	offset  int64    // of the next event, in bytes
	seen    int64    // how far into the file the last Next has looked, in bytes
	buf     []byte
	ahead   []byte            // of buf: whole lines from offset on, which were read with the ones before
	watcher *fsnotify.Watcher // nil until a Wait could set it up
}

// OpenReader opens a log at its first event. The log need not exist yet.
func OpenReader(path string) (*Reader, error) {
	r := &Reader{path: path}
	if err := r.open(); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	return r, nil
}

func (r *Reader) open() error {
	if r.file != nil {
		return nil
	}
	file, err := os.Open(r.path)
	if err != nil {
		return fmt.Errorf("cannot open the event log: %w", err)
	}
	r.file = file
	return nil
}

// size is that of the file, 0 if there is none.
func (r *Reader) size() (int64, error) {
	if err := r.open(); errors.Is(err, fs.ErrNotExist) {
		return 0, nil
	} else if err != nil {
		return 0, err
	}
	info, err := r.file.Stat()
	if err != nil {
		return 0, fmt.Errorf("cannot read the event log: %w", err)
	}
	return info.Size(), nil
}

// Position is the index and the offset of the next event.
func (r *Reader) Position() (index, offset int64) { return r.index, r.offset }

// SeekOffset goes to an index whose offset is known, which costs the same for any length of the log. If no line begins at the
// offset, since a power loss took what had been there, exact is false and reading goes on where the last line up to the
// offset begins or would begin, numbered on from index. After a crash seek before the log is closed, lest the closing
// events fill what is missing.
func (r *Reader) SeekOffset(index, offset int64) (exact bool, err error) {
	size, err := r.size()
	if err != nil {
		return false, err
	}
	var start int64
	if end := min(offset, size); end > 0 {
		if start, err = lineStart(r.file, end); err != nil {
			return false, fmt.Errorf("cannot read the event log: %w", err)
		}
	}
	r.index, r.offset, r.seen, r.ahead = index, start, start, nil
	return start == offset, nil
}

// SeekIndex goes to an index whose offset isn't known, by the sparse index as far as there is one. If the log is shorter,
// exact is false and reading goes on at its end, numbered on from index.
func (r *Reader) SeekIndex(index int64) (exact bool, err error) {
	size, err := r.size()
	if err != nil {
		return false, err
	}
	r.index, r.offset = r.hint(index, size)
	r.ahead = nil
	for r.index < index {
		batch, err := r.Next(int(min(index-r.index, 1<<16)), 1<<20)
		if err != nil {
			return false, err
		}
		if batch.Count == 0 {
			break
		}
	}
	exact = r.index == index
	r.index, r.seen = index, r.offset
	return exact, nil
}

// SeekEnd goes behind the last whole line, by the sparse index as far as there is one. Position then tells how many events the log has,
// and their bytes.
func (r *Reader) SeekEnd() error {
	size, err := r.size()
	if err != nil {
		return err
	}
	r.index, r.offset = r.hint(math.MaxInt64, size)
	r.seen, r.ahead = r.offset, nil
	for {
		batch, err := r.Next(1<<16, 1<<20)
		if err != nil || batch.Count == 0 {
			return err
		}
	}
}

// hint is the last position up to an index that the sparse index knows and the log confirms.
func (r *Reader) hint(index, size int64) (at, offset int64) {
	file, err := os.Open(r.path + indexSuffix)
	if err != nil {
		return 0, 0
	}
	defer file.Close()
	info, err := file.Stat()
	if err != nil {
		return 0, 0
	}
	for k := min(index/indexEvery, info.Size()/indexEntry-1); k > 0; k-- {
		var entry [indexEntry]byte
		if _, err := file.ReadAt(entry[:], k*indexEntry); err != nil {
			continue
		}
		offset := binary.LittleEndian.Uint64(entry[:])
		if offset == 0 || offset > uint64(size) {
			continue
		}
		var before [1]byte
		if _, err := r.file.ReadAt(before[:], int64(offset)-1); err == nil && before[0] == '\n' {
			return k * indexEvery, int64(offset)
		}
	}
	return 0, 0
}

// Next returns the next events: at most maxEvents in at most maxBytes, but at least one if there is one. A line that isn't
// complete yet is left for later. The only error that is sure to come again is ErrLineTooLong.
func (r *Reader) Next(maxEvents, maxBytes int) (Batch, error) {
	batch := Batch{First: r.index, Offset: r.offset, End: r.offset}
	if err := r.open(); errors.Is(err, fs.ErrNotExist) {
		return batch, nil
	} else if err != nil {
		return batch, err
	}
	if cap(r.buf) > 2*max(maxBytes, readSize) {
		r.buf = nil // it had grown for one long line
	}
	r.buf = append(r.buf[:0], r.ahead...)
	buf := r.buf
	r.ahead = nil
	whole, scanned := 0, 0 // lines end at whole; no other ends before scanned
	for full := false; ; {
		for !full {
			i := bytes.IndexByte(buf[scanned:], '\n')
			if i < 0 {
				scanned = len(buf)
				break
			}
			end := scanned + i + 1
			if full = batch.Count > 0 && end > maxBytes; full {
				break
			}
			whole, scanned = end, end
			batch.Count++
			full = batch.Count >= maxEvents || end >= maxBytes
		}
		if full || batch.Count > 0 && len(buf) >= maxBytes {
			r.seen = r.offset + int64(whole)
			break
		}
		if len(buf)-whole > maxLine {
			return batch, ErrLineTooLong
		}
		n, err := r.file.ReadAt(grown(&buf), r.offset+int64(len(buf)))
		buf = buf[:len(buf)+n]
		if err != nil && !errors.Is(err, io.EOF) {
			return batch, fmt.Errorf("cannot read the event log: %w", err)
		}
		if n == 0 {
			r.seen = r.offset + int64(len(buf))
			break
		}
	}
	r.buf = buf
	batch.Data = buf[:whole:whole]
	// The beginning of a line isn't kept: it may be torn, and be written anew.
	r.ahead = buf[whole:max(whole, bytes.LastIndexByte(buf, '\n')+1)]
	batch.End = r.offset + int64(whole)
	r.index += int64(batch.Count)
	r.offset = batch.End
	return batch, nil
}

// grown makes sure that there is space behind buf, more of it the longer buf is, and returns that.
func grown(buf *[]byte) []byte {
	b := *buf
	want := max(readSize, len(b)/2)
	if cap(b)-len(b) < want {
		b = append(make([]byte, 0, 2*len(b)+want), b...)
		*buf = b
	}
	return b[len(b) : len(b)+want]
}

// Wait returns when there is more in the file than the last Next has looked at, or the file was cut; now and then also
// without a reason. It returns the context's error when that is done first.
func (r *Reader) Wait(ctx context.Context) error {
	events, failures, limit := r.watch() // before looking, so that no change goes unseen
	timer := time.NewTimer(limit)
	defer timer.Stop()
	for {
		size, err := r.size()
		if err != nil || size != r.seen {
			return err
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-timer.C:
			return nil
		case <-events:
		case <-failures: //nolint:errcheck // changes may have been dropped: look
		}
	}
}

// watch has the log's folder watched, which works before the log exists. Without a watch, for want of inotify instances
// for one, the caller looks often instead.
func (r *Reader) watch() (<-chan fsnotify.Event, <-chan error, time.Duration) {
	if r.watcher == nil {
		watcher, err := fsnotify.NewWatcher()
		if err != nil {
			return nil, nil, blindRecheck
		}
		if err := watcher.Add(filepath.Dir(r.path)); err != nil {
			_ = watcher.Close()
			return nil, nil, blindRecheck
		}
		r.watcher = watcher
	}
	if runtime.GOOS == "windows" {
		return r.watcher.Events, r.watcher.Errors, blindRecheck
	}
	return r.watcher.Events, r.watcher.Errors, recheck
}

// Close ends the Reader. No Wait may be under way.
func (r *Reader) Close() error {
	var err error
	if r.watcher != nil {
		err = r.watcher.Close()
	}
	if r.file != nil {
		err = errors.Join(err, r.file.Close())
	}
	if err != nil {
		return fmt.Errorf("cannot close the event log: %w", err)
	}
	return nil
}
