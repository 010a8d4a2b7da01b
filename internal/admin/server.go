package admin

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"os"
	"sync"
	"time"

	"github.com/hashicorp/go-hclog"

	"github.com/signalman-ci/signalman/internal/loopback"
)

const (
	// closeLimit is how long answers that are under way may take when the server closes.
	closeLimit = 2 * time.Second
	// headerLimit, readLimit, writeLimit and idleLimit bound what a connection may take; answers that take longer say so
	// (unbounded).
	headerLimit = 10 * time.Second
	readLimit   = 30 * time.Second
	writeLimit  = 30 * time.Second
	idleLimit   = time.Minute
	// maxHeader and maxBody bound a request, in bytes; maxConns the connections by TCP, which other users of the host can open.
	maxHeader = 16 << 10
	maxBody   = 64 << 10
	maxConns  = 128
	// listenAgain is how often a port that can't be had is tried again.
	listenAgain = 5 * time.Second
)

// Settings are what a server is given.
type Settings struct {
	// Socket is the unix socket's path.
	Socket string
	// Address is a loopback host:port to listen at as well (package loopback); "": none.
	Address string
	// Token is what those who come by Address have to know.
	Token      string
	Supervisor Supervisor
	// Jobs is the folder of the job folders.
	Jobs string
	// Sessions is a file to keep the sessions in, so that they outlive an upgrade; "": they don't.
	Sessions string
	// Mounts are served besides the API.
	Mounts []Mount
	Logger hclog.Logger
}

// Mount is a handler behind the server's guard.
type Mount struct {
	// Pattern is one of http.ServeMux, with its method; "GET /{$}" rather than "GET /", so that what isn't there is a 404.
	Pattern string
	Handler http.Handler
	// Public handlers are served by TCP without token or session: the page itself, which asks for the token, and holds no data.
	Public bool
}

// Server answers until Close.
type Server struct {
	Settings
	mux    *http.ServeMux
	socket *http.Server
	tcp    *http.Server
	// ending ends what would go on for as long as its caller wants.
	ending    context.Context
	end       context.CancelFunc
	owned     sync.WaitGroup
	followers chan struct{}
	listening chan struct{} // closed once it listens by TCP

	mu      sync.Mutex
	address string // where it listens by TCP; "" if it doesn't
}

// Listen opens the socket, and the address if there is one. The caller owns the state folder: a socket that is there is a dead
// supervisor's. An address that can't be had is no reason not to run jobs: it is logged, and tried again until Close.
func Listen(s Settings) (*Server, error) {
	if s.Address != "" {
		if err := loopback.Check(s.Address); err != nil {
			return nil, err
		}
		if len(s.Token) < leastToken {
			return nil, errors.New("cannot listen for the admin API without a token")
		}
	}
	_ = os.Remove(s.Socket)
	l, err := net.Listen("unix", s.Socket)
	if err == nil {
		err = os.Chmod(s.Socket, 0o600)
	}
	if err != nil {
		return nil, fmt.Errorf("cannot open the admin socket: %w", err)
	}
	srv := &Server{Settings: s, followers: make(chan struct{}, maxFollowers), listening: make(chan struct{})}
	srv.ending, srv.end = context.WithCancel(context.Background())
	public := srv.routes()
	// Who can open the socket may do all; but a browser can get there, too, by a tunnel that ends at the socket.
	srv.socket = newServer(&guard{next: srv.mux, open: true})
	srv.owned.Go(func() { _ = srv.socket.Serve(l) }) // ends with Close
	if s.Address != "" {
		srv.owned.Go(func() { srv.serveTCP(public) })
	}
	return srv, nil
}

func newServer(h http.Handler) *http.Server {
	return &http.Server{
		Handler: h, ReadHeaderTimeout: headerLimit, ReadTimeout: readLimit, WriteTimeout: writeLimit, IdleTimeout: idleLimit,
		MaxHeaderBytes: maxHeader, ErrorLog: log.New(io.Discard, "", 0), // what strangers send is not worth a line
	}
}

// serveTCP serves at the address, as soon as it can be had.
func (s *Server) serveTCP(public func(*http.Request) bool) {
	var l net.Listener
	for said := false; ; said = true {
		var err error
		if l, err = loopback.Listen(s.ending, s.Address); err == nil {
			break
		}
		if !said {
			s.Logger.Error("cannot listen for the admin API; trying again", "listen", s.Address, "error", err)
		}
		select {
		case <-time.After(listenAgain):
		case <-s.ending.Done():
			return
		}
	}
	addr := l.Addr().(*net.TCPAddr)
	g := &guard{next: s.mux, port: addr.Port, auth: newAuth(s.Token, s.Sessions), public: public}
	server := newServer(g)
	s.mu.Lock()
	closed := s.ending.Err() != nil
	if !closed {
		s.address, s.tcp = addr.String(), server
		close(s.listening)
	}
	s.mu.Unlock()
	if closed {
		_ = l.Close()
		return
	}
	s.Logger.Info("the admin API is at a port as well; its token: supervisor admin-token", "listen", addr.String())
	_ = server.Serve(limit(l, maxConns)) // ends with Close
}

// ListensAt is where the server listens by TCP; "" if it doesn't.
func (s *Server) ListensAt() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.address
}

// AwaitListening gives what ListensAt gives once the server listens by TCP.
func (s *Server) AwaitListening(ctx context.Context) (string, error) {
	select {
	case <-s.listening:
		return s.ListensAt(), nil
	case <-s.ending.Done():
		return "", errors.New("the admin API is closed")
	case <-ctx.Done():
		return "", fmt.Errorf("cannot listen for the admin API at %s: %w", s.Address, ctx.Err())
	}
}

// Close closes socket and port, after the answers that are under way.
func (s *Server) Close() error {
	s.mu.Lock()
	s.end() // no port is opened from now on
	servers := []*http.Server{s.socket}
	if s.tcp != nil {
		servers = append(servers, s.tcp)
	}
	s.mu.Unlock()
	ctx, cancel := context.WithTimeout(context.Background(), closeLimit)
	defer cancel()
	var errs []error
	for _, server := range servers {
		err := server.Shutdown(ctx)
		if err != nil {
			err = server.Close()
		}
		errs = append(errs, err)
	}
	s.owned.Wait()
	return errors.Join(errs...)
}

// unbounded lets an answer take as long as it takes. The limit for reading has to go with the other: when it is over the server
// takes the caller for gone.
func unbounded(w http.ResponseWriter) {
	rc := http.NewResponseController(w)
	_ = rc.SetReadDeadline(time.Time{}) // a writer without limits has none to lift
	_ = rc.SetWriteDeadline(time.Time{})
}

// problem is the answer to what can't be done.
type problem struct {
	Error string `json:"error"`
}

func refuse(w http.ResponseWriter, status int, format string, args ...any) {
	answer(w, status, problem{Error: fmt.Sprintf(format, args...)})
}

func answer(w http.ResponseWriter, status int, body any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(body) // the caller has gone
}
