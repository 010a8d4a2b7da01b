// Package told puts lines of an executor's own between the lines of what a job's command prints: that a service has ended, say.
package told

import (
	"io"
	"strings"
	"sync"
)

// Board is where an executor's goroutines leave lines for the job's log. Its methods may be called concurrently.
type Board struct {
	mu      sync.Mutex
	pending []string
	changed chan struct{} // closed and made anew when there may be more
}

// NewBoard makes an empty Board.
func NewBoard() *Board { return &Board{changed: make(chan struct{})} }

// Tell leaves a text of whole lines.
func (b *Board) Tell(text string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.pending = append(b.pending, text)
	close(b.changed)
	b.changed = make(chan struct{})
}

// Take gives what is to be told by now, which is then told; more is closed when there is more.
func (b *Board) Take() (texts []string, more <-chan struct{}) {
	b.mu.Lock()
	defer b.mu.Unlock()
	texts, b.pending = b.pending, nil
	return texts, b.changed
}

// Output is a command's output with lines of ours in between. Its methods may be called concurrently.
type Output struct {
	board *Board

	mu      sync.Mutex
	out     io.Writer
	midLine bool
	waiting []string // for the end of a line
}

// Over makes an Output that writes to out.
func Over(out io.Writer, board *Board) *Output { return &Output{out: out, board: board} }

// Write writes output of the command.
func (t *Output) Write(p []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	n, err := t.out.Write(p)
	if n > 0 {
		t.midLine = p[n-1] != '\n'
		t.flush(false)
	}
	return n, err
}

// flush writes what waits, with a line break before it if it can't wait for the output's own.
func (t *Output) flush(force bool) {
	if len(t.waiting) == 0 || (t.midLine && !force) {
		return
	}
	text := strings.Join(t.waiting, "")
	if t.midLine {
		text = "\n" + text
	}
	_, _ = io.WriteString(t.out, text) // the command's own output tells of a log that can't be written
	t.waiting, t.midLine = nil, false
}

// Line writes a line, which ends with a line break, now.
func (t *Output) Line(text string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.waiting = append(t.waiting, text)
	t.flush(true)
}

// Follow passes on what is left at the board until the returned function is called, after which nothing is written for it any more.
func (t *Output) Follow() (stop func()) {
	stopped := make(chan struct{})
	var done sync.WaitGroup
	done.Go(func() {
		for {
			texts, more := t.board.Take()
			if len(texts) > 0 {
				t.mu.Lock()
				t.waiting = append(t.waiting, texts...)
				t.flush(false)
				t.mu.Unlock()
			}
			select {
			case <-more:
			case <-stopped:
				return
			}
		}
	})
	return func() {
		close(stopped)
		done.Wait()
		texts, _ := t.board.Take()
		t.mu.Lock()
		defer t.mu.Unlock()
		t.waiting = append(t.waiting, texts...)
		t.flush(true)
	}
}
