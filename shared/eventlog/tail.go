package eventlog

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"time"
)

// The names of a tail's segments: the older, the newer, and one that is being dropped.
const (
	olderSuffix = ".tail.0"
	newerSuffix = ".tail.1"
	dropSuffix  = ".tail.drop"
)

// mergeChunk is how much of a tail is written to the log at a time, in bytes.
const mergeChunk = 256 << 10

// tail is the newest part of a log that has reached half of its limit. It lies in two segments, each a file of events
// behind a line with its tailHead. When the newer is full, the events of the older other than output go to the log and it
// is dropped; the newer takes its name. Each step can be repeated, so that the next writer finishes what a dead one began.
type tail struct {
	newest     *lineFile // nil while a new one couldn't be made
	older      bool      // there is another segment before the newest
	head       tailHead  // of the newest
	output     int64     // bytes of text in the newest
	structural int64     // bytes of its lines other than output
}

// tailHead tells how the log stands once its segment is the oldest one left.
type tailHead struct {
	LeftOut   int64 `json:"left_out"`  // bytes of output dropped between the log and this segment
	MainSize  int64 `json:"main_size"` // the log's size in bytes
	Limit     int64 `json:"limit"`     // Options.MaxBytes
	Timestamp int64 `json:"timestamp"` // when the segment was begun, in Unix seconds
}

// next is the head of the segment that follows the newest.
func (t *tail) next() tailHead {
	head := t.head
	head.LeftOut += t.output
	head.MainSize += t.structural
	head.Timestamp = time.Now().Unix()
	return head
}

// leftOut is what Trimmed knows the notice by.
const leftOut = " bytes of output were left out here: the log is limited to "

// notice is the line that tells what was left out. It is always the same for one segment.
func (h tailHead) notice() []byte {
	text := fmt.Sprintf("\n[signalman] %d"+leftOut+"%d bytes (log.max-disk)\n", h.LeftOut, h.Limit)
	return CmdOutput(time.Unix(h.Timestamp, 0), text).AppendJSON(nil)
}

// appendTail is the lineSink of the tail.
func (w *Writer) appendTail(lines []byte) (int, error) {
	if err := w.makeRoom(int64(len(lines))); err != nil {
		return 0, err
	}
	t := w.tail
	n, err := t.newest.append(lines)
	for line := range bytes.Lines(lines[:n]) {
		if isOutput(line) {
			t.output += outputLen(line)
		} else {
			t.structural += int64(len(line))
		}
	}
	return n, err
}

// makeRoom sees to it that the newest segment takes size bytes more. A segment takes one write in any case.
func (w *Writer) makeRoom(size int64) error {
	if w.tail == nil {
		head := tailHead{MainSize: w.main.size, Limit: w.limit, Timestamp: time.Now().Unix()}
		newest, err := createSegment(w.path+olderSuffix, head)
		if err != nil {
			return err
		}
		w.tail = &tail{newest: newest, head: head}
		return nil
	}
	t := w.tail
	if t.newest != nil {
		if t.newest.count == 1 || t.newest.size+size <= w.limit/4 {
			return nil
		}
		err := t.newest.close()
		t.newest = nil
		if err != nil {
			return err
		}
	}
	if t.older {
		if err := os.Rename(w.path+olderSuffix, w.path+dropSuffix); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		if err := w.finishDrop(); err != nil {
			return err
		}
		t.older = false
	}
	head := t.next()
	newest, err := createSegment(w.path+newerSuffix, head)
	if err != nil {
		return err
	}
	*t = tail{newest: newest, older: true, head: head}
	return nil
}

func createSegment(path string, head tailHead) (*lineFile, error) {
	file, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_TRUNC|os.O_APPEND, 0o600)
	if err != nil {
		return nil, err
	}
	segment := &lineFile{file: file}
	line, err := json.Marshal(head)
	if err == nil {
		_, err = segment.append(append(line, '\n'))
	}
	if err != nil {
		return nil, errors.Join(err, segment.close(), os.Remove(path))
	}
	return segment, nil
}

// finishDrop drops the segment that is on its way out, if there is one.
func (w *Writer) finishDrop() error {
	path := w.path + dropSuffix
	head, err := w.readHead(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	if _, err := os.Stat(w.path + olderSuffix); errors.Is(err, fs.ErrNotExist) {
		m := w.newMerger(head, func(lines []byte) error {
			_, err := w.main.append(lines)
			return err
		})
		if err := m.addSegment(path, func(line []byte) bool { return !isOutput(line) }); err != nil {
			return err
		}
		if err := m.flush(); err != nil {
			return err
		}
		if err := os.Rename(w.path+newerSuffix, w.path+olderSuffix); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	_ = os.Remove(path) // the next one to be dropped replaces it
	return nil
}

// endTail appends the tail to the log, for good: what comes now goes to the log itself.
func (w *Writer) endTail() error {
	w.limit = 0
	var err error
	if w.tail != nil && w.tail.newest != nil {
		err = w.tail.newest.close()
	}
	w.tail = nil
	return errors.Join(err, w.mergeTail())
}

// mergeTail appends the segments that lie beside the log, this writer's or a dead one's, to the log and removes them.
func (w *Writer) mergeTail() error {
	if err := w.finishDrop(); err != nil {
		return err
	}
	older, newer := w.path+olderSuffix, w.path+newerSuffix
	head, err := w.readHead(older)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	var lost error
	m := w.newMerger(head, func(lines []byte) error {
		if err := w.store(lines, w.main.append); err != nil {
			lost = err // and accounted for; the rest may fit
		}
		return nil
	})
	if head.LeftOut > 0 {
		if err := m.add(head.notice()); err != nil {
			return err
		}
	}
	all := func([]byte) bool { return true }
	for _, path := range []string{older, newer} {
		if err := m.addSegment(path, all); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return errors.Join(err, m.flush())
		}
	}
	// The older one goes last: alone, it is found to be in the log already.
	return errors.Join(m.flush(), lost, removeIfThere(newer), removeIfThere(older))
}

func removeIfThere(path string) error {
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

// readHead reads a segment's head; one that a power loss has spoilt counts as that of a segment that goes right behind
// the log.
func (w *Writer) readHead(path string) (tailHead, error) {
	file, err := os.Open(path)
	if err != nil {
		return tailHead{}, err
	}
	defer file.Close()
	head := tailHead{}
	if s := scanLines(file); s.Scan() && json.Unmarshal(s.Bytes(), &head) == nil {
		return head, nil
	}
	return tailHead{MainSize: w.main.size}, nil
}

// merger appends lines to the log, less those that an attempt cut short by its writer's death has appended already.
type merger struct {
	have  *bufio.Scanner // nil once the log has nothing more in common with what is added
	write func(lines []byte) error
	chunk []byte
}

func (w *Writer) newMerger(head tailHead, write func(lines []byte) error) *merger {
	done := io.NewSectionReader(w.main.file, head.MainSize, w.main.size-head.MainSize)
	return &merger{have: scanLines(done), write: write}
}

// add takes a line without its newline.
func (m *merger) add(line []byte) error {
	if m.have != nil && m.have.Scan() && bytes.Equal(m.have.Bytes(), line) {
		return nil
	}
	m.have = nil
	m.chunk = append(append(m.chunk, line...), '\n')
	if len(m.chunk) < mergeChunk {
		return nil
	}
	return m.flush()
}

func (m *merger) flush() error {
	err := m.write(m.chunk)
	m.chunk = m.chunk[:0]
	return err
}

// addSegment adds those of a segment's events that keep wants; what a power loss has spoilt is none.
func (m *merger) addSegment(path string, keep func(line []byte) bool) error {
	file, err := os.Open(path)
	if err != nil {
		return err
	}
	defer file.Close()
	lines := scanLines(file)
	lines.Scan() // the head
	for lines.Scan() {
		line := lines.Bytes()
		if !bytes.HasPrefix(line, eventPrefix) || bytes.IndexByte(line, 0) >= 0 || !keep(line) {
			continue
		}
		if err := m.add(line); err != nil {
			return err
		}
	}
	return lines.Err()
}
