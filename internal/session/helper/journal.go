package helper

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"sync"
)

// A journal is a stream of frames in a file, written at its end and read from any offset that hasn't been forgotten.
// Offsets count from the first byte ever written. Its methods may be called concurrently.
type journal struct {
	mu     sync.Mutex
	file   *os.File
	begin  int64         // offset of the file's first byte
	end    int64         // offset after its last
	grown  chan struct{} // closed and made anew when end grows
	failed error         // the first error of a write, such as a full disk
}

func newJournal(path string) (*journal, error) {
	file, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return nil, fmt.Errorf("cannot make the journal: %w", err)
	}
	return &journal{file: file, grown: make(chan struct{})}, nil
}

func (j *journal) append(f frame) error {
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.failed != nil {
		return j.failed
	}
	if err := f.writeTo(io.NewOffsetWriter(j.file, j.end-j.begin)); err != nil {
		j.failed = fmt.Errorf("cannot write the journal: %w", err)
	} else {
		j.end += f.size()
	}
	close(j.grown)
	j.grown = make(chan struct{})
	return j.failed
}

// forget frees the disk if all that was written has been read, as it has between two requests.
func (j *journal) forget(read int64) error {
	j.mu.Lock()
	defer j.mu.Unlock()
	if read != j.end {
		return nil
	}
	j.begin = j.end
	return j.file.Truncate(0)
}

// readAt reads what there is at an offset and waits for it if that is the end.
func (j *journal) readAt(ctx context.Context, p []byte, offset int64) (int, error) {
	for {
		n, grown, err := j.tryReadAt(p, offset)
		if n > 0 || err != nil {
			return n, err
		}
		select {
		case <-grown:
		case <-ctx.Done():
			return 0, ctx.Err()
		}
	}
}

func (j *journal) tryReadAt(p []byte, offset int64) (int, <-chan struct{}, error) {
	j.mu.Lock()
	defer j.mu.Unlock()
	if offset < j.begin || offset > j.end {
		return 0, nil, fmt.Errorf("the journal has bytes %d to %d, and %d was asked for", j.begin, j.end, offset)
	}
	if offset == j.end {
		return 0, j.grown, j.failed
	}
	n, err := j.file.ReadAt(p[:min(int64(len(p)), j.end-offset)], offset-j.begin)
	if errors.Is(err, io.EOF) {
		err = nil
	}
	return n, j.grown, err
}

// Write appends a command's output.
func (j *journal) Write(p []byte) (int, error) {
	for written := 0; written < len(p); {
		chunk := p[written:min(len(p), written+outputChunk)]
		if err := j.append(frame{kind: frameOutput, payload: chunk}); err != nil {
			return written, err
		}
		written += len(chunk)
	}
	return len(p), nil
}
