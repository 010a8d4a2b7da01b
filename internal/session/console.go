//go:build linux || darwin

package session

import (
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/creack/pty"
)

// A console is what a shell has in place of a person at a terminal. Its standard input is a terminal of its own, apart
// from the one that is its output, its error output and its controlling terminal (/dev/tty). For the kernel stops
// background processes that read the controlling terminal or change its modes; job control is off, so whatever makes a
// process group of its own (timeout, for one) is in the background for good, and ssh under it would hang.
//
// Output stays on one terminal, with /dev/tty, so that it keeps its order. What programs write to their standard input,
// or to the name that tty prints, is passed on to it.
type console struct {
	in, out *terminal
	size    pty.Winsize // of both, when it was looked at last
}

func openConsole() (*console, error) {
	out, err := openTerminal(nil)
	if err != nil {
		return nil, err
	}
	in, err := openTerminal(out.tty)
	if err != nil {
		return nil, errors.Join(err, out.close())
	}
	c := &console{in: in, out: out, size: pty.Winsize{Rows: windowRows, Cols: windowColumns}}
	if err := c.setSize(c.size); err != nil {
		return nil, errors.Join(err, c.close())
	}
	return c, nil
}

// reset undoes what commands such as "stty sane" have done. A new window size ("stty cols 200" sets that of standard
// input) is kept and made that of both terminals.
func (c *console) reset() error {
	if err := errors.Join(c.in.resetModes(), c.out.resetModes()); err != nil {
		return err
	}
	for _, t := range []*terminal{c.in, c.out} {
		size, err := pty.GetsizeFull(t.tty)
		if err != nil {
			return fmt.Errorf("cannot learn the terminal's size: %w", err)
		}
		if *size != c.size {
			return c.setSize(*size)
		}
	}
	return nil
}

func (c *console) setSize(size pty.Winsize) error {
	c.size = size
	if err := errors.Join(pty.Setsize(c.in.tty, &size), pty.Setsize(c.out.tty, &size)); err != nil {
		return fmt.Errorf("cannot set the terminal's size: %w", err)
	}
	return nil
}

// swap is terminal.swap of the output, after all that was written to the other terminal has been passed on to it.
func (c *console) swap(out io.Writer) error {
	if err := c.in.swap(c.out.tty); err != nil {
		return err
	}
	return c.out.swap(out)
}

// give lets a user open the terminals by their names.
func (c *console) give(uid int) error {
	for _, tty := range []*os.File{c.in.tty, c.out.tty} {
		if err := tty.Chown(uid, -1); err != nil {
			return fmt.Errorf("cannot give the terminal to user %d: %w", uid, err)
		}
	}
	return nil
}

// close hangs up: programs that still have a terminal open can neither read nor write any more.
func (c *console) close() error {
	// In this order a write to the output on behalf of the other terminal fails, and doesn't hold that one up.
	return errors.Join(c.out.close(), c.in.close())
}
