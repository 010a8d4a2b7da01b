package helper

import (
	"bufio"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"sync"
	"time"

	"github.com/signalman-ci/signalman/internal/session"
	"github.com/signalman-ci/signalman/shared/jobshell"
)

const (
	// DefaultResumeTimeout is ClientOptions.ResumeTimeout where that is 0. The pause between two tries grows.
	DefaultResumeTimeout          = 30 * time.Second
	firstResumePause, resumePause = 50 * time.Millisecond, time.Second
	// How long closing may take, as jobshell.Shell's Close has no context.
	closeTimeout = 10 * time.Second
)

// ErrGone is returned (wrapped) by a Dialer that knows that trying again won't help, as the container is gone.
var ErrGone = errors.New("the container is gone")

// Dialer makes a connection: an exec of the relay in the container, of which it gives the standard streams. It may be
// called concurrently.
type Dialer func(ctx context.Context) (io.ReadWriteCloser, error)

// ShellOptions say how to open a shell in the container.
type ShellOptions struct {
	// Dir is the folder that the shell starts in: the container's where empty, the home of its user where "~".
	Dir string
	// Env is added to the container's environment, as "NAME=value".
	Env [][]byte
	// Login and StartTimeout are as in session.Options.
	Login        bool
	StartTimeout time.Duration
}

// Client talks to a server in a container. Its methods and those of its shells are called by one goroutine at a time,
// but for End, which may be called at any time.
type Client struct {
	dial    Dialer
	options ClientOptions

	conn     io.ReadWriteCloser // nil while there is none
	in       *bufio.Reader
	offset   int64 // how far the journal has been read, in whole frames
	seq      int64 // the last request
	finished int64 // the last request whose end has been read
}

// ClientOptions say how a client deals with its server; the zero ClientOptions are fine.
type ClientOptions struct {
	// ResumeTimeout is how long a client tries to reach its server again when a stream broke.
	ResumeTimeout time.Duration
}

// Attach gives a client of the server that dial reaches. Nothing is dialled before the first request.
func Attach(dial Dialer, options ClientOptions) *Client {
	options.ResumeTimeout = cmp.Or(options.ResumeTimeout, DefaultResumeTimeout)
	return &Client{dial: dial, options: options}
}

// Open opens a shell. One that is open already is closed, killed if a command is running in it.
func (c *Client) Open(ctx context.Context, options ShellOptions) (*Shell, error) {
	if _, err := c.request(ctx, frameOpen, request{Open: options}, io.Discard); err != nil {
		return nil, err
	}
	return &Shell{client: c}, nil
}

// End ends every process that shells of this server have started, daemons too, and the shell: INT, after grace TERM, after grace
// again KILL. It returns when none is left; a shell can be opened afterwards.
func (c *Client) End(ctx context.Context, grace time.Duration) error {
	d, err := c.ask(ctx, encode(frameEnd, endRequest{Grace: grace}))
	if err == nil && d.Error != "" {
		err = errors.New(d.Error)
	}
	if err != nil {
		return fmt.Errorf("cannot end the container's processes: %w", orCause(ctx, err))
	}
	return nil
}

// ask uses a connection of its own.
func (c *Client) ask(ctx context.Context, f frame) (d done, err error) {
	conn, err := c.dial(ctx)
	if err != nil {
		return d, err
	}
	defer closeOnce(ctx, conn)()
	if err := f.writeTo(conn); err != nil {
		return d, err
	}
	answer, err := readFrame(bufio.NewReader(conn))
	if err != nil {
		return d, err
	}
	return d, answer.decode(&d)
}

// Put writes a file with the rights of the container's user, beside its place first.
func (c *Client) Put(ctx context.Context, file File) error {
	_, err := c.request(ctx, framePut, request{Put: file}, io.Discard)
	return err
}

// Close closes the shell, ends the server and removes its files.
func (c *Client) Close(ctx context.Context) error {
	_, err := c.request(ctx, frameQuit, request{}, io.Discard)
	c.hangUp()
	return err
}

// HangUp ends the connection. The server and what runs in its shell go on.
func (c *Client) HangUp() { c.hangUp() }

// request sends a request and reads the journal up to its end. When the connection breaks it makes a new one and goes on.
func (c *Client) request(ctx context.Context, kind frameType, req request, out io.Writer) (done, error) {
	c.seq++
	req.Seq, req.Read = c.seq, c.offset
	f := encode(kind, req)
	if len(f.payload) > maxPayload {
		return done{}, fmt.Errorf("%d bytes are too much for the container's shell", len(req.Script)+len(req.Put.Content))
	}
	broken, pause := time.Now(), firstResumePause
	for {
		before := c.offset
		d, err := c.attempt(ctx, f, out)
		switch {
		case err == nil && d.NotRun:
			return d, fmt.Errorf("%w (%s)", session.ErrEnded, d.Error)
		case err == nil && d.Error != "":
			return d, errors.New(d.Error)
		case err == nil:
			return d, nil
		}
		c.hangUp()
		if c.offset > before {
			broken, pause = time.Now(), firstResumePause
		}
		if ctx.Err() != nil {
			return done{}, fmt.Errorf("the container's shell may be busy still: %w", ctx.Err())
		}
		if errors.Is(err, ErrGone) {
			return done{}, err
		}
		if time.Since(broken) > c.options.ResumeTimeout {
			return done{}, fmt.Errorf("cannot reach the container's shell: %w", err)
		}
		select {
		case <-time.After(pause):
			pause = min(2*pause, resumePause)
		case <-ctx.Done():
		}
	}
}

// attempt goes on with a request over the connection there is, or over a new one.
func (c *Client) attempt(ctx context.Context, f frame, out io.Writer) (done, error) {
	if c.conn == nil {
		conn, err := c.dial(ctx)
		if err != nil {
			return done{}, err
		}
		c.conn, c.in = conn, bufio.NewReaderSize(conn, 2*outputChunk)
		if err := encode(frameHello, hello{Offset: c.offset}).writeTo(conn); err != nil {
			return done{}, err
		}
	}
	conn := c.conn
	defer context.AfterFunc(ctx, func() { _ = conn.Close() })()
	if err := f.writeTo(conn); err != nil {
		return done{}, err
	}
	confirmed := c.offset
	for {
		f, err := readFrame(c.in)
		if err != nil {
			return done{}, err
		}
		if f.kind == frameOutput {
			if c.finished == c.seq-1 { // else of a command that was given up
				_, _ = out.Write(f.payload)
			}
			c.offset += f.size()
			if c.offset-confirmed >= maxUnread/8 {
				confirmed = c.offset
				if err := encode(frameRead, hello{Offset: confirmed}).writeTo(conn); err != nil {
					return done{}, err
				}
			}
			continue
		}
		var d done
		if err := f.decode(&d); err != nil {
			return done{}, err
		}
		c.offset += f.size()
		c.finished = d.Seq
		if d.Seq == c.seq {
			return d, nil
		}
	}
}

func (c *Client) hangUp() {
	if c.conn != nil {
		_ = c.conn.Close()
	}
	c.conn, c.in = nil, nil
}

// Shell is the shell of a Client. It implements jobshell.Shell.
type Shell struct {
	client *Client
	closed bool
	// kernel is what the kernel did to the container's processes during the last command.
	kernel Kernel
}

// Kernel tells what the kernel did to the container's processes while the last command ran.
func (s *Shell) Kernel() Kernel { return s.kernel }

var _ jobshell.Shell = (*Shell)(nil)

// Run is as jobshell.Shell and session.Shell say. When ctx ends the command goes on in the container: end it by
// Client.End, and open another shell.
func (s *Shell) Run(ctx context.Context, script string, out io.Writer) (jobshell.Exit, error) {
	w := &firstError{out: out}
	d, err := s.client.request(ctx, frameRun, request{Script: []byte(script)}, w)
	s.kernel = d.Kernel
	return jobshell.Exit{Code: d.Code, ShellEnded: d.Ended}, errors.Join(err, w.err)
}

// Export is as session.Shell says.
func (s *Shell) Export(ctx context.Context, env []jobshell.EnvVar) error {
	return session.Export(ctx, s, env)
}

// Close ends the shell; the server lives on. Calling it again does nothing.
func (s *Shell) Close() error {
	if s.closed {
		return nil
	}
	s.closed = true
	ctx, cancel := context.WithTimeout(context.Background(), closeTimeout)
	defer cancel()
	_, err := s.client.request(ctx, frameClose, request{}, io.Discard)
	return err
}

// firstError throws output away once its writer has failed.
type firstError struct {
	out io.Writer
	err error
}

func (w *firstError) Write(p []byte) (int, error) {
	if w.err == nil {
		_, w.err = w.out.Write(p)
	}
	return len(p), nil
}

// closeOnce closes conn when ctx ends or the returned function is called.
func closeOnce(ctx context.Context, conn io.Closer) func() {
	once := sync.OnceFunc(func() { _ = conn.Close() })
	stop := context.AfterFunc(ctx, once)
	return func() {
		stop()
		once()
	}
}

// orCause prefers the reason why ctx ended to the error that this led to.
func orCause(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return ctx.Err()
	}
	return err
}
