package helper

import (
	"context"
	"errors"
	"fmt"
	"sync"
)

// maxUnread is how much of a journal its client may be behind; then what writes to it waits, and with it the command whose output
// that is, as at a full pipe. In bytes. It counts as memory of the container.
const maxUnread = 4 << 20

// errClosed is the error of a journal that takes nothing more.
var errClosed = errors.New("the journal is closed")

// A journal is a stream of frames, written at its end and read from any offset that its client hasn't confirmed. Offsets
// count from the first byte ever written. Its methods may be called concurrently.
type journal struct {
	mu     sync.Mutex
	unread []byte        // from offset begin on
	begin  int64         // what the client has confirmed
	moved  chan struct{} // closed and made anew when the journal grows, when more of it is confirmed, and at its end
	closed bool
}

func newJournal() *journal { return &journal{moved: make(chan struct{})} }

// append waits until there is room.
func (j *journal) append(f frame) error {
	for {
		j.mu.Lock()
		if j.closed {
			j.mu.Unlock()
			return errClosed
		}
		if len(j.unread) == 0 || len(j.unread)+int(f.size()) <= maxUnread {
			j.unread = f.appendTo(j.unread)
			j.wake()
			j.mu.Unlock()
			return nil
		}
		moved := j.moved
		j.mu.Unlock()
		<-moved
	}
}

func (j *journal) wake() {
	close(j.moved)
	j.moved = make(chan struct{})
}

// confirm frees what the client has read.
func (j *journal) confirm(read int64) {
	j.mu.Lock()
	defer j.mu.Unlock()
	if read <= j.begin || read > j.begin+int64(len(j.unread)) {
		return
	}
	left := copy(j.unread, j.unread[read-j.begin:])
	j.unread, j.begin = j.unread[:left], read
	j.wake()
}

// close makes append fail, and ends readers at the end of what there is.
func (j *journal) close() {
	j.mu.Lock()
	defer j.mu.Unlock()
	if !j.closed {
		j.closed = true
		j.wake()
	}
}

// readAt reads what there is at an offset and waits for it if that is the end.
func (j *journal) readAt(ctx context.Context, p []byte, offset int64) (int, error) {
	for {
		n, moved, err := j.tryReadAt(p, offset)
		if n > 0 || err != nil {
			return n, err
		}
		select {
		case <-moved:
		case <-ctx.Done():
			return 0, ctx.Err()
		}
	}
}

func (j *journal) tryReadAt(p []byte, offset int64) (int, <-chan struct{}, error) {
	j.mu.Lock()
	defer j.mu.Unlock()
	end := j.begin + int64(len(j.unread))
	switch {
	case offset < j.begin || offset > end:
		return 0, nil, fmt.Errorf("the journal has bytes %d to %d, and %d was asked for", j.begin, end, offset)
	case offset == end && j.closed:
		return 0, nil, errClosed
	default:
		return copy(p, j.unread[offset-j.begin:]), j.moved, nil
	}
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
