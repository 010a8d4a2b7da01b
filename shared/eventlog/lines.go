package eventlog

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
)

const (
	indexSuffix = ".idx"
	// indexEvery is how many events lie between two entries of the sparse index, indexEntry the bytes of one.
	indexEvery = 128
	indexEntry = 8

	// maxLine bounds the memory for one line, in bytes; nothing that belongs into a log comes near.
	maxLine = 16 << 20
)

// lineFile is a file of whole lines that only grows.
type lineFile struct {
	file  *os.File
	index *os.File // nil: none is kept
	size  int64    // bytes in whole lines
	count int64    // whole lines
	torn  bool     // the beginning of a line lies beyond size
}

// openLineFile opens or creates a file and cuts off what a crash has left of its last line. Without an index, which is a
// hint only, all goes on.
func openLineFile(path, indexPath string) (*lineFile, error) {
	file, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|os.O_APPEND, 0o600)
	if err != nil {
		return nil, err
	}
	l := &lineFile{file: file}
	if index, err := os.OpenFile(indexPath, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600); err == nil {
		l.index = index
	}
	if err := l.recover(); err != nil {
		return nil, errors.Join(err, l.close())
	}
	return l, nil
}

// recover counts the lines and writes their index. Lines with NULs at the end, which a power loss leaves, go too.
func (l *lineFile) recover() error {
	var (
		r             = bufio.NewReaderSize(l.file, 256<<10)
		length        int64 // of the line so far
		zeros         bool  // are in it
		size, count   int64 // up to the last good line
		read          int64
		part, readErr = r.ReadSlice('\n')
	)
	for ; readErr == nil || errors.Is(readErr, bufio.ErrBufferFull); part, readErr = r.ReadSlice('\n') {
		read += int64(len(part))
		length += int64(len(part))
		zeros = zeros || bytes.IndexByte(part, 0) >= 0
		if readErr != nil {
			continue
		}
		l.added(length)
		if !zeros {
			size, count = l.size, l.count
		}
		length, zeros = 0, false
	}
	if !errors.Is(readErr, io.EOF) {
		return readErr
	}
	read += int64(len(part))
	l.size, l.count = size, count
	if l.index != nil {
		_ = l.index.Truncate((count + indexEvery - 1) / indexEvery * indexEntry)
	}
	if read > size {
		return l.cut()
	}
	return nil
}

// added counts a line that is in the file now, and its place in the index.
func (l *lineFile) added(length int64) {
	if l.index != nil && l.count%indexEvery == 0 {
		var entry [indexEntry]byte
		binary.LittleEndian.PutUint64(entry[:], uint64(l.size))
		_, _ = l.index.WriteAt(entry[:], l.count/indexEvery*indexEntry) // readers do without it
	}
	l.size += length
	l.count++
}

// append writes whole lines with one call. When it fails, the lines that went in as a whole stay, since a reader may have
// them already; n is their length.
func (l *lineFile) append(lines []byte) (n int, err error) {
	if l.torn {
		if err := l.cut(); err != nil {
			return 0, err
		}
	}
	n, err = l.file.Write(lines)
	if err != nil {
		whole := bytes.LastIndexByte(lines[:n], '\n') + 1
		l.torn = whole < n
		n = whole
	}
	for line := range bytes.Lines(lines[:n]) {
		l.added(int64(len(line)))
	}
	if l.torn {
		err = errors.Join(err, l.cut())
	}
	return n, err
}

// cut removes what lies beyond the last whole line. It goes by the file's name because Windows refuses it to a handle
// that may only append.
func (l *lineFile) cut() error {
	if err := os.Truncate(l.file.Name(), l.size); err != nil {
		l.torn = true
		return fmt.Errorf("cannot cut off a torn line: %w", err)
	}
	l.torn = false
	return nil
}

func (l *lineFile) close() error {
	if l.index != nil {
		_ = l.index.Close()
	}
	return l.file.Close()
}

// scanLines goes through the complete lines of r, without their newlines; a torn last line is left out.
func scanLines(r io.Reader) *bufio.Scanner {
	s := bufio.NewScanner(r)
	s.Buffer(make([]byte, 0, 64<<10), maxLine)
	s.Split(func(data []byte, _ bool) (int, []byte, error) {
		if i := bytes.IndexByte(data, '\n'); i >= 0 {
			return i + 1, data[:i], nil
		}
		return 0, nil, nil
	})
	return s
}

// lineStart is the last offset up to end at which a line begins.
func lineStart(r io.ReaderAt, end int64) (int64, error) {
	buf := make([]byte, 4<<10)
	for end > 0 {
		part := buf[:min(end, int64(len(buf)))]
		end -= int64(len(part))
		if n, err := r.ReadAt(part, end); n < len(part) {
			return 0, err
		}
		if i := bytes.LastIndexByte(part, '\n'); i >= 0 {
			return end + int64(i) + 1, nil
		}
	}
	return 0, nil
}
