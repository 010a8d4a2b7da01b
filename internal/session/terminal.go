//go:build linux || darwin

package session

import (
	"errors"
	"fmt"
	"io"
	"os"
	"syscall"
	"time"

	"github.com/creack/pty"
	"golang.org/x/sys/unix"
)

const (
	// The window's size in characters: what programs fall back to where they are told none.
	windowRows, windowColumns = 24, 80
	// Reads of a terminal give 4 KiB at most; as many as are at hand go to a writer at once, up to this size.
	readSize = 64 << 10
	// No more is held of what appears while no command runs; the newest is kept.
	heldSize = 64 << 10
	// Draining ends after so much. A terminal holds less, so all that was there when it began has been read.
	drainSize = 1 << 20
)

// A terminal is a pseudo-terminal and the goroutine that reads what programs write to it. Reading never stops while the
// terminal is open, so that no program is held up; swap tells where output goes from then on.
type terminal struct {
	tty    *os.File // the programs' side; held open, or reading fails while no program has it open
	master *os.File // our side; non-blocking and in the runtime's poller
	conn   syscall.RawConn
	modes  *unix.Termios

	swaps chan swap     // taken by the reading goroutine after its deadline has woken it
	done  chan struct{} // closed when the reading goroutine has ended

	// Of the reading goroutine:
	out  io.Writer // nil while no command runs
	err  error     // the first failure of out; what comes after it is thrown away
	held []byte
}

type swap struct {
	out  io.Writer
	done chan error
}

// openTerminal opens a terminal whose output goes to out; with nil it is held.
func openTerminal(out io.Writer) (*terminal, error) {
	blocking, tty, err := pty.Open()
	if err != nil {
		return nil, fmt.Errorf("cannot open a terminal: %w", err)
	}
	master, err := pollable(blocking)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("cannot open a terminal: %w", err), tty.Close())
	}
	t := &terminal{tty: tty, master: master, swaps: make(chan swap, 1), done: make(chan struct{}), out: out}
	if err := t.setUp(); err != nil {
		return nil, errors.Join(fmt.Errorf("cannot set up the terminal: %w", err), master.Close(), tty.Close())
	}
	go t.read()
	return t, nil
}

// pollable gives a file in the runtime's poller for f's descriptor, and closes f.
func pollable(f *os.File) (*os.File, error) {
	defer f.Close()
	fd, err := unix.FcntlInt(f.Fd(), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("cannot duplicate its descriptor: %w", err)
	}
	if err := unix.SetNonblock(fd, true); err != nil {
		return nil, errors.Join(fmt.Errorf("cannot make it non-blocking: %w", err), unix.Close(fd))
	}
	return os.NewFile(uintptr(fd), f.Name()), nil
}

func (t *terminal) setUp() (err error) {
	if t.conn, err = t.master.SyscallConn(); err != nil {
		return err
	}
	// Programs share the descriptor's flags and expect it to block.
	if err := unix.SetNonblock(int(t.tty.Fd()), false); err != nil {
		return err
	}
	if t.modes, err = unix.IoctlGetTermios(int(t.tty.Fd()), getTermios); err != nil {
		return err
	}
	t.modes.Lflag &^= unix.ECHO | unix.ECHONL | unix.ICANON
	t.modes.Oflag &^= unix.OPOST
	t.modes.Cc[unix.VMIN], t.modes.Cc[unix.VTIME] = 0, 0 // a read gives end of file at once
	return t.resetModes()
}

// resetModes undoes what commands such as "stty sane" have done.
func (t *terminal) resetModes() error {
	return unix.IoctlSetTermios(int(t.tty.Fd()), setTermios, t.modes)
}

// swap drains what programs have written so far to the current writer and makes out the next one, which first gets what
// was held while there was none. With nil, output is held. It returns the first error of the writer that it takes away.
func (t *terminal) swap(out io.Writer) error {
	s := swap{out: out, done: make(chan error, 1)}
	t.swaps <- s
	if err := t.master.SetReadDeadline(time.Unix(1, 0)); err != nil {
		return fmt.Errorf("cannot read the terminal: %w", err)
	}
	select {
	case err := <-s.done:
		return err
	case <-t.done:
		return errors.New("cannot read the terminal: it is closed")
	}
}

func (t *terminal) read() {
	defer close(t.done)
	buf := make([]byte, readSize)
	for {
		n, err := t.readSome(buf, true)
		t.write(buf[:n])
		switch {
		case errors.Is(err, os.ErrDeadlineExceeded):
			if err := t.master.SetReadDeadline(time.Time{}); err != nil {
				return
			}
			t.drain(buf)
			t.take(<-t.swaps)
		case err != nil:
			return
		}
	}
}

func (t *terminal) drain(buf []byte) {
	for total := 0; total < drainSize; {
		n, err := t.readSome(buf, false)
		t.write(buf[:n])
		if n == 0 || err != nil {
			return
		}
		total += n
	}
}

// readSome reads what is at hand, up to len(buf); with wait it waits for the first byte.
func (t *terminal) readSome(buf []byte, wait bool) (n int, err error) {
	connErr := t.conn.Read(func(fd uintptr) bool {
		for n < len(buf) {
			var m int
			m, err = unix.Read(int(fd), buf[n:])
			switch {
			case err == unix.EINTR:
			case err == unix.EAGAIN:
				err = nil
				return n > 0 || !wait
			case err != nil:
				return true
			case m == 0:
				err = io.EOF
				return true
			default:
				n += m
			}
		}
		return true
	})
	return n, errors.Join(err, connErr)
}

func (t *terminal) take(s swap) {
	err := t.err
	t.out, t.err = s.out, nil
	if s.out != nil {
		t.write(t.held)
		t.held = nil
	}
	s.done <- err
}

func (t *terminal) write(p []byte) {
	switch {
	case len(p) == 0 || t.err != nil:
	case t.out != nil:
		_, t.err = t.out.Write(p)
	default:
		t.held = append(t.held, p...)
		if extra := len(t.held) - heldSize; extra > 0 {
			t.held = append(t.held[:0], t.held[extra:]...)
		}
	}
}

// close hangs up: programs that still have the terminal open can neither read nor write any more.
func (t *terminal) close() error {
	err := errors.Join(t.master.Close(), t.tty.Close())
	<-t.done
	return err
}
