// Package serve lets a hub that knows this host hand it jobs: an HTTPS API that takes one job at a time, gives its log by index and calls
// back at its end (hosted mode). Jobs run as those of a slot do: in workers, with a folder each, and a serve that was killed goes on
// with its job when it is started again.
package serve

import (
	"cmp"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"sync"
	"time"

	"github.com/hashicorp/go-hclog"
	"golang.org/x/net/netutil"

	"github.com/signalman-ci/signalman/internal/agent"
	"github.com/signalman-ci/signalman/internal/agent/state"
	"github.com/signalman-ci/signalman/internal/artifact"
	"github.com/signalman-ci/signalman/internal/history"
	"github.com/signalman-ci/signalman/internal/job"
	"github.com/signalman-ci/signalman/internal/jobdir"
)

const (
	// headerLimit, readLimit, writeLimit and idleLimit bound what a connection may take; a long answer may take stallLimit for each piece.
	headerLimit = 10 * time.Second
	readLimit   = time.Minute
	writeLimit  = 30 * time.Second
	idleLimit   = time.Minute
	stallLimit  = 30 * time.Second
	// maxHeader bounds a request's header, in bytes, maxRequest a job request by default, and maxConns the connections.
	maxHeader  = 16 << 10
	maxRequest = 64 << 20
	maxConns   = 128
	// closeLimit is how long answers that are under way may take when the server closes.
	closeLimit = 5 * time.Second
	// archiveLimit is how long a job that has ended waits for its log to be read for good, by default; farewellLimit is the same once the
	// agent was interrupted.
	archiveLimit  = time.Hour
	farewellLimit = time.Minute

	// DefaultCallbackAttempts is how often a callback is tried.
	DefaultCallbackAttempts = 300
)

// Settings are what a server is given.
type Settings struct {
	// Address is where to listen: host:port.
	Address string
	// Secret is what the tokens of callers are signed with (HS256).
	Secret      string
	Certificate tls.Certificate
	// Version is told to callers, UserAgent to those who are called back.
	Version, UserAgent string
	// AgentLog is the file with the agent's own log.
	AgentLog string
	JobsDir  string
	Job      job.Settings
	// Admit tells why the host has no room for another job; nil if it has, and if Admit itself is nil.
	Admit func(context.Context) error
	// LogPusher pushes a job's log to the job's artifacts; a job's own variable may say otherwise when.
	LogPusher artifact.Pusher
	// HTTP makes the callbacks; nil: a client of its own.
	HTTP *http.Client
	// CallbackAttempts is how often a callback is tried, CallbackEvery the pause in between; 0 means 300, and a second.
	CallbackAttempts int
	CallbackEvery    time.Duration
	// ArchiveLimit is how long a job that has ended waits for its log to be read for good; 0 means an hour.
	ArchiveLimit time.Duration
	// MaxRequest bounds a job request, in bytes; 0 means 64 MiB.
	MaxRequest int64
	// SSH lets the holders of a job's keys in.
	SSH SSH
	// Observer and Tracer, if set, hear of jobs that are over.
	Observer interface{ JobEnded(agent.End) }
	Tracer   agent.Tracer
	// Changed, if set, is called when the status is another; it must not wait for anything.
	Changed func()
	Logger  hclog.Logger
}

// Server takes jobs. Run is called once; the other methods are safe for concurrent use.
type Server struct {
	Settings
	listener net.Listener
	jobs     sync.WaitGroup // the goroutine of the job
	// accepting is held while a job is taken, so that there is one only.
	accepting sync.Mutex

	mu          sync.Mutex
	running     context.Context // Run's; nil before
	current     *served         // the job that is held, or nil
	before      *served         // the last one that was, for its log
	since       time.Time
	interrupted bool
	gone        chan struct{} // closed when it was interrupted, and holds no job
}

// New opens the port. unfinished is the folder of a job that was under way when the last server ended, or nil.
func New(s Settings, unfinished *jobdir.Folder) (*Server, error) {
	if s.Secret == "" {
		return nil, errors.New("there is no secret that callers could prove themselves by (auth-token-secret)")
	}
	s.CallbackAttempts = cmp.Or(s.CallbackAttempts, DefaultCallbackAttempts)
	s.CallbackEvery, s.ArchiveLimit = cmp.Or(s.CallbackEvery, time.Second), cmp.Or(s.ArchiveLimit, archiveLimit)
	s.MaxRequest = cmp.Or(s.MaxRequest, maxRequest)
	if s.HTTP == nil {
		s.HTTP = &http.Client{}
	}
	client := *s.HTTP // a redirect would carry a token to wherever the answer points
	client.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	s.HTTP = &client
	if s.Changed == nil {
		s.Changed = func() {}
	}
	srv := &Server{Settings: s, since: time.Now(), gone: make(chan struct{})}
	if err := srv.find(unfinished); err != nil {
		return nil, err
	}
	if srv.current == nil { // of a job that ended otherwise
		if err := s.SSH.clear(); err != nil {
			s.Logger.Error("cannot take back what was made for a job's SSH keys", "error", err)
		}
	}
	l, err := net.Listen("tcp", s.Address)
	if err != nil {
		return nil, fmt.Errorf("cannot listen at %s (host, port): %w", s.Address, err)
	}
	srv.listener = l
	return srv, nil
}

// find takes up what earlier servers have left.
func (s *Server) find(unfinished *jobdir.Folder) error {
	if unfinished != nil {
		if st := unfinished.State(); st.Worker == nil && st.Outcome == "" {
			if _, err := unfinished.Request(); err != nil { // nobody was told that it is here
				return unfinished.Remove()
			}
		}
		s.current = newServed(unfinished)
		return nil
	}
	list, err := history.List(s.JobsDir, 1)
	if err != nil || len(list) == 0 {
		return err
	}
	if folder, err := jobdir.Open(jobdir.Path(s.JobsDir, list[0].ID)); err == nil {
		s.before = newServed(folder)
	}
	return nil
}

// Addr is where the server listens.
func (s *Server) Addr() string { return s.listener.Addr().String() }

// Run answers and runs jobs until it was interrupted and holds no job any more, or ctx ends; then the job is left as it is, for the
// next server.
func (s *Server) Run(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	server := &http.Server{
		Handler: s.routes(), ReadHeaderTimeout: headerLimit, ReadTimeout: readLimit, WriteTimeout: writeLimit, IdleTimeout: idleLimit,
		MaxHeaderBytes: maxHeader, ErrorLog: log.New(io.Discard, "", 0), // what strangers send is not worth a line
		TLSConfig:    &tls.Config{Certificates: []tls.Certificate{s.Certificate}, MinVersion: tls.VersionTLS12},
		TLSNextProto: map[string]func(*http.Server, *tls.Conn, http.Handler){}, // HTTP/1.1: the limits hold for each request
		BaseContext:  func(net.Listener) context.Context { return ctx },
	}
	s.begin(ctx)
	s.Logger.Info("waiting for jobs", "listen", s.Addr())
	ended := make(chan struct{})
	var failure error // once it has ended
	go func() {
		defer close(ended)
		failure = server.ServeTLS(netutil.LimitListener(s.listener, maxConns), "", "")
	}()
	select {
	case <-ended:
	case <-s.gone:
	case <-ctx.Done():
	}
	cancel()
	closing, cancelClosing := context.WithTimeout(context.WithoutCancel(ctx), closeLimit)
	defer cancelClosing()
	if server.Shutdown(closing) != nil {
		_ = server.Close()
	}
	<-ended
	s.mu.Lock()
	s.running = nil // no job begins any more
	s.mu.Unlock()
	s.jobs.Wait()
	if !errors.Is(failure, http.ErrServerClosed) {
		return fmt.Errorf("cannot serve: %w", failure)
	}
	return nil
}

// begin goes on with the job that there is.
func (s *Server) begin(ctx context.Context) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.running = ctx
	if s.current != nil {
		s.jobs.Go(func() { s.run(ctx, s.current) })
	}
}

// Interrupt stops the job that there may be, and takes no more.
func (s *Server) Interrupt() {
	s.mu.Lock()
	first := !s.interrupted
	s.interrupted = true
	current := s.current
	if first && current == nil {
		close(s.gone)
	}
	s.mu.Unlock()
	if current == nil || !first {
		return
	}
	current.interrupt()
	if err := current.requestStop("The agent was interrupted."); err != nil {
		s.Logger.Error("cannot note that the job is to stop", "error", err)
	}
}

// Status tells what it does, as that of a slot.
func (s *Server) Status() agent.Status {
	s.mu.Lock()
	defer s.mu.Unlock()
	st := agent.Status{Slot: 1, State: string(state.Waiting), Since: s.since}
	if s.current == nil {
		return st
	}
	st.JobID, st.State = s.current.folder.ID(), string(state.Running)
	switch held := s.current.folder.State(); {
	case closed(s.current.ended):
		st.State = string(state.Finished)
	case held.StopRequested:
		st.State = string(state.Stopping)
	}
	return st
}

// StopJob stops the job as an operator of this host; agent.ErrNotHeld says that it isn't here, and agent.ErrOver that it is over.
func (s *Server) StopJob(_ context.Context, id string) error {
	current := s.held()
	switch {
	case current == nil || current.folder.ID() != id:
		return agent.ErrNotHeld
	case closed(current.ended):
		return agent.ErrOver
	}
	return current.requestStop(agent.OperatorStop)
}

// held is the job that is here, or nil.
func (s *Server) held() *served {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.current
}

// last is the job that is here or was here last, or nil.
func (s *Server) last() *served {
	s.mu.Lock()
	defer s.mu.Unlock()
	return cmp.Or(s.current, s.before)
}

// knows tells whether a job was taken before.
func (s *Server) knows(id string) bool {
	if jobdir.CheckID(id) != nil {
		return false
	}
	if last := s.last(); last != nil && last.folder.ID() == id {
		return true
	}
	_, err := jobdir.Open(jobdir.Path(s.JobsDir, id))
	return err == nil
}

// release makes room for the next job.
func (s *Server) release(j *served) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.before, s.current, s.since = j, nil, time.Now()
	s.Changed()
	if s.interrupted {
		close(s.gone)
	}
}

func closed(c <-chan struct{}) bool {
	select {
	case <-c:
		return true
	default:
		return false
	}
}
