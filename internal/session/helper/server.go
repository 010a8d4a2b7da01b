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
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/signalman-ci/signalman/internal/process"
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

	// tree is all that the shell starts, leader the shell's pid, 0 before the first.
	tree   *process.Tree
	leader atomic.Int64
	ending sync.Mutex
}

// NewServer makes a server whose files go into folder, which exists and is the server's alone. It handles requests
// while Run runs, and makes this process the reaper of its descendants until then.
func NewServer(folder string) (*Server, error) {
	if err := os.MkdirAll(scripts(folder), 0o700); err != nil {
		return nil, fmt.Errorf("cannot make the folder of scripts: %w", err)
	}
	tree, err := process.NewTree()
	if err != nil {
		return nil, err
	}
	nothing := func() {}
	return &Server{folder: folder, journal: newJournal(), quit: make(chan struct{}), detach: nothing, abandon: nothing,
		requests: make(chan func(), 16), tree: tree}, nil
}

func scripts(folder string) string { return filepath.Join(folder, "scripts") }

// Run handles requests until the client asks the server to quit or ctx ends. The process adopts and reaps whatever the
// shell's children leave behind. At the end the shell is closed.
func (s *Server) Run(ctx context.Context) error {
	defer s.tree.Close()
	defer s.journal.close()
	ended := make(chan struct{})
	defer func() { <-ended }()
	stop := context.AfterFunc(ctx, func() {
		defer close(ended)
		s.stopWaiting()
		s.journal.close() // nothing waits for room in it
	})
	defer func() {
		if stop() {
			close(ended)
		}
	}()
	for {
		select {
		case handle := <-s.requests:
			handle()
		case <-s.quit:
			return s.closeShell()
		case <-ctx.Done():
			return errors.Join(s.endAll(), s.closeShell())
		}
	}
}

// endAll is Client.End in haste.
func (s *Server) endAll() error {
	ctx, cancel := context.WithTimeout(context.Background(), lastLimit)
	defer cancel()
	return s.end(ctx, lastGrace)
}

// end ends all that shells have started. One end waits for another, which could take a shell opened after the first for left.
func (s *Server) end(ctx context.Context, grace time.Duration) error {
	s.ending.Lock()
	defer s.ending.Unlock()
	return s.tree.End(ctx, grace, int(s.leader.Load()))
}

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
	case frameEnd:
		var req endRequest
		if err := first.decode(&req); err != nil {
			return err
		}
		d := done{}
		if err := s.end(ctx, req.Grace); err != nil {
			d.Error = err.Error()
		}
		return encode(frameDone, d).writeTo(conn)
	case frameHello:
		var h hello
		if err := first.decode(&h); err != nil {
			return err
		}
		s.attach(cancel)
		s.journal.confirm(h.Offset)
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
		if f.kind == frameRead {
			var h hello
			if err := f.decode(&h); err != nil {
				return err
			}
			s.journal.confirm(h.Offset)
			continue
		}
		var req request
		if err := f.decode(&req); err != nil {
			return err
		}
		s.journal.confirm(req.Read)
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
	if err := s.do(kind, req, &d); err != nil {
		d.NotRun = errors.Is(err, session.ErrEnded)
		d.Error = err.Error()
	}
	_ = s.journal.append(encode(frameDone, d)) // a closed journal ends the connection, which the client sees
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
		before := kernelEvents()
		exit, err := s.shell.Run(ctx, string(req.Script), s.journal)
		d.Code, d.Ended, d.Kernel = exit.Code, exit.ShellEnded, kernelEvents().since(before)
		return err
	case framePut:
		return put(req.Put)
	case frameClose:
		return s.closeShell()
	case frameQuit: // the files still open serve until the client has read the answer
		return errors.Join(s.closeShell(), os.RemoveAll(s.folder))
	default:
		return fmt.Errorf("a request of unknown type %q", kind)
	}
}

func (s *Server) openShell(ctx context.Context, o ShellOptions) (err error) {
	env := os.Environ() // of the container
	for _, v := range o.Env {
		env = append(env, string(v))
	}
	if o.Dir == "~" {
		if o.Dir, err = home(); err != nil {
			return err
		}
		if _, err := os.Stat(o.Dir); err != nil { // users of containers often have none
			o.Dir = "/"
		}
	}
	s.shell, err = session.Open(ctx, session.Options{
		Dir:          o.Dir,
		Env:          env,
		Login:        o.Login,
		ScriptDir:    scripts(s.folder),
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
	err := s.tree.Start(cmd)
	if err == nil {
		s.leader.Store(int64(cmd.Process.Pid))
	}
	return err
}

// home is that of the container's user, which the engine looks up in the container.
func home() (string, error) {
	dir, err := os.UserHomeDir()
	if err != nil {
		return "", errors.New("the container's user has no home: set HOME in the container's variables")
	}
	return dir, nil
}

// put writes a file with a place in the home, or an absolute one.
func put(file File) error {
	path := file.Path
	if rest, ok := strings.CutPrefix(path, "~/"); ok || !filepath.IsAbs(path) {
		dir, err := home()
		if err != nil {
			return err
		}
		path = filepath.Join(dir, rest)
	}
	return session.PlaceFile(path, ".signalman-", file.Mode, file.Content)
}
