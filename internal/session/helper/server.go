//go:build linux

package helper

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"sync"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/signalman-ci/signalman/internal/session"
)

// Server owns a shell in a container. Serve may be called by several goroutines.
type Server struct {
	folder  string
	journal *journal
	quit    chan struct{} // closed by a frameQuit

	mu      sync.Mutex
	seq     int64              // the last request taken
	detach  context.CancelFunc // ends the connection that gets the journal
	abandon context.CancelFunc // ends the wait for the running command

	requests chan func() // taken by the one goroutine that Run runs
	shell    *session.Shell

	processes sync.Mutex // held while a process starts or orphans are reaped
	shellPid  int
}

// NewServer makes a server whose files go into folder, which exists and is the server's alone. It handles requests
// while Run runs.
func NewServer(folder string) (*Server, error) {
	j, err := newJournal(filepath.Join(folder, "journal"))
	if err != nil {
		return nil, err
	}
	if err := os.MkdirAll(filepath.Join(folder, "scripts"), 0o700); err != nil {
		return nil, errors.Join(fmt.Errorf("cannot make the folder of scripts: %w", err), j.file.Close())
	}
	nothing := func() {}
	return &Server{folder: folder, journal: j, quit: make(chan struct{}), detach: nothing, abandon: nothing,
		requests: make(chan func(), 16)}, nil
}

// Run handles requests until the client asks the server to quit or ctx ends. The process adopts and reaps whatever the
// shell's children leave behind. At the end the shell is closed.
func (s *Server) Run(ctx context.Context) error {
	if err := unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0); err != nil {
		return fmt.Errorf("cannot become the parent of orphans: %w", err)
	}
	children := make(chan os.Signal, 1)
	signal.Notify(children, syscall.SIGCHLD)
	defer signal.Stop(children)

	var worker sync.WaitGroup
	worker.Go(func() {
		for {
			select {
			case handle := <-s.requests:
				handle()
			case <-s.quit:
				return
			case <-ctx.Done():
				return
			}
		}
	})
	for {
		select {
		case <-children:
			s.reap()
			continue
		case <-s.quit:
		case <-ctx.Done():
		}
		s.stopWaiting()
		worker.Wait()
		return s.closeShell()
	}
}

// Close closes the server's files, after Run and all calls of Serve have returned.
func (s *Server) Close() error { return s.journal.file.Close() }

// Serve talks to one client until its connection ends, which it closes. A nil error means that the client hung up.
func (s *Server) Serve(ctx context.Context, conn io.ReadWriteCloser) error {
	ctx, cancel := context.WithCancel(ctx)
	closed := make(chan struct{})
	defer func() { <-closed }()
	defer cancel()
	context.AfterFunc(ctx, func() {
		defer close(closed)
		_ = conn.Close()
	})

	in := bufio.NewReader(conn)
	first, err := readFrame(in)
	if err != nil {
		return endOfConnection(ctx, err)
	}
	switch first.kind {
	case frameSignal:
		var req signalRequest
		if err := first.decode(&req); err != nil {
			return err
		}
		return encode(frameDone, done{Code: s.signal(syscall.Signal(req.Signal))}).writeTo(conn)
	case frameHello:
		var h hello
		if err := first.decode(&h); err != nil {
			return err
		}
		s.attach(cancel)
		var sending sync.WaitGroup
		defer sending.Wait()
		defer cancel()
		sending.Go(func() {
			defer cancel()
			s.send(ctx, conn, h.Offset)
		})
		return endOfConnection(ctx, s.receive(in))
	default:
		return fmt.Errorf("a connection begins with a frame of type %q", first.kind)
	}
}

func endOfConnection(ctx context.Context, err error) error {
	if ctx.Err() != nil || errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return nil //nolint:nilerr // connections come and go
	}
	return err
}

// attach makes a connection the one that gets the journal, in place of an older one.
func (s *Server) attach(detach context.CancelFunc) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.detach()
	s.detach = detach
}

// send copies the journal to a client until one of them ends.
func (s *Server) send(ctx context.Context, conn io.Writer, offset int64) {
	buf := make([]byte, outputChunk+headerSize)
	for {
		n, err := s.journal.readAt(ctx, buf, offset)
		if err != nil {
			return
		}
		if _, err := conn.Write(buf[:n]); err != nil {
			return
		}
		offset += int64(n)
	}
}

func (s *Server) receive(in io.Reader) error {
	for {
		f, err := readFrame(in)
		if err != nil {
			return err
		}
		var req request
		if err := f.decode(&req); err != nil {
			return err
		}
		if s.isNew(req) {
			if f.kind != frameRun {
				s.stopWaiting() // for a command that the client has given up
			}
			select {
			case s.requests <- func() { s.handle(f.kind, req) }:
			case <-s.quit:
			}
		}
	}
}

func (s *Server) isNew(req request) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if req.Seq <= s.seq {
		return false
	}
	s.seq = req.Seq
	return true
}

func (s *Server) stopWaiting() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.abandon()
}

func (s *Server) handle(kind frameType, req request) {
	d := done{Seq: req.Seq}
	err := s.journal.forget(req.Read)
	if err == nil {
		err = s.do(kind, req, &d)
	}
	if err != nil {
		d.NotRun = errors.Is(err, session.ErrEnded)
		d.Error = err.Error()
	}
	_ = s.journal.append(encode(frameDone, d)) // a failed journal ends the connection, which the client sees
	if kind == frameQuit {
		close(s.quit)
	}
}

func (s *Server) do(kind frameType, req request, d *done) error {
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	s.mu.Lock()
	s.abandon = cancel
	s.mu.Unlock()

	switch kind {
	case frameOpen:
		return errors.Join(s.closeShell(), s.openShell(ctx, req.Open))
	case frameRun:
		if s.shell == nil {
			return errors.New("no shell is open")
		}
		exit, err := s.shell.Run(ctx, string(req.Script), s.journal)
		d.Code, d.Ended = exit.Code, exit.ShellEnded
		return err
	case frameClose:
		return s.closeShell()
	case frameQuit: // the files still open serve until the client has read the answer
		return errors.Join(s.closeShell(), os.RemoveAll(s.folder))
	default:
		return fmt.Errorf("a request of unknown type %q", kind)
	}
}

func (s *Server) openShell(ctx context.Context, o ShellOptions) (err error) {
	env := os.Environ() // of the container and the exec
	for _, v := range o.Env {
		env = append(env, string(v))
	}
	s.shell, err = session.Open(ctx, session.Options{
		Dir:          o.Dir,
		Env:          env,
		Login:        o.Login,
		ScriptDir:    filepath.Join(s.folder, "scripts"),
		StartTimeout: o.StartTimeout,
		Start:        s.start,
	})
	return err
}

func (s *Server) closeShell() error {
	if s.shell == nil {
		return nil
	}
	err := s.shell.Close()
	s.shell = nil
	return err
}

func (s *Server) start(cmd *exec.Cmd) error {
	s.processes.Lock()
	defer s.processes.Unlock()
	err := cmd.Start()
	if err == nil {
		s.shellPid = cmd.Process.Pid
	}
	return err
}
