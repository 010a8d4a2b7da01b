package protocol

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/test/bufconn"

	"github.com/signalman-ci/signalman/shared/eventlog"
	pb "github.com/signalman-ci/signalman/shared/protocol/internal/executorv1"
)

func TestMain(m *testing.M) {
	if os.Getenv(Handshake.MagicCookieKey) == Handshake.MagicCookieValue { // a test has started this binary as a worker
		serveAsWorker()
		return
	}
	goleak.VerifyTestMain(m)
}

// patience is how long a test waits for anything.
const patience = time.Minute

// worker is a server with a fake executor, and a client that is connected to it.
type worker struct {
	t        *testing.T
	client   *Client
	server   *server
	executor *fakeExecutor
	settings *Settings
}

func newWorker(t *testing.T) *worker {
	t.Helper()
	e := &fakeExecutor{reached: make(chan string, 100), released: make(chan struct{}), scripts: map[string]scriptFunc{}}
	srv := newServer(e, hclog.NewNullLogger())
	listener := bufconn.Listen(1 << 20)
	host := grpc.NewServer(grpc.MaxRecvMsgSize(MaxMessageBytes))
	pb.RegisterExecutorServer(host, srv)
	served := make(chan error, 1)
	go func() { served <- host.Serve(listener) }()
	conn, err := grpc.NewClient("passthrough:///worker",
		grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) { return listener.DialContext(ctx) }),
		grpc.WithTransportCredentials(insecure.NewCredentials()))
	require.NoError(t, err)
	t.Cleanup(func() {
		require.NoError(t, conn.Close())
		host.Stop()
		require.NoError(t, <-served)
	})
	return &worker{
		t: t, client: &Client{rpc: pb.NewExecutorClient(conn)}, server: srv, executor: e,
		settings: &Settings{LogPath: filepath.Join(t.TempDir(), "events.jsonl")},
	}
}

func (w *worker) ctx() context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	w.t.Cleanup(cancel)
	return ctx
}

func (w *worker) start(job *Job) {
	w.t.Helper()
	job.ID = cmp.Or(job.ID, "job")
	require.NoError(w.t, w.client.Start(w.ctx(), job, w.settings))
}

// finish watches the job to its end and gives its log, an event a line.
func (w *worker) finish() string {
	w.t.Helper()
	var last Status
	require.NoError(w.t, w.client.Watch(w.ctx(), func(s Status) { last = s }))
	require.Equal(w.t, Finished, last.Phase)
	log := w.log()
	require.Contains(w.t, log, "job "+string(last.Result)+"\n", "Watch says otherwise than the log")
	require.Equal(w.t, 1, w.executor.prepared)
	return log
}

func (w *worker) run(job *Job) string {
	w.t.Helper()
	w.start(job)
	return w.finish()
}

// stopAt stops the job once it has reached a place.
func (w *worker) stopAt(place string) {
	w.t.Helper()
	w.await(place)
	require.NoError(w.t, w.client.Stop(w.ctx(), ""))
}

func (w *worker) await(place string) {
	w.t.Helper()
	select {
	case at := <-w.executor.reached:
		require.Equal(w.t, place, at)
	case <-time.After(patience):
		w.t.Fatalf("%s is not reached; log:\n%s", place, w.log())
	}
}

// log writes the events short: "> directive", its output, "< exit code", the end.
func (w *worker) log() string {
	w.t.Helper()
	raw, err := os.ReadFile(w.settings.LogPath)
	require.NoError(w.t, err)
	var b, output strings.Builder
	flush := func() {
		for line := range strings.Lines(output.String()) {
			b.WriteString("  " + strings.TrimSuffix(line, "\n") + "\n")
		}
		output.Reset()
	}
	for line := range bytes.Lines(raw) {
		e, err := eventlog.Parse(line)
		require.NoError(w.t, err)
		switch e.Kind {
		case eventlog.KindJobStarted:
			b.WriteString("job\n")
		case eventlog.KindCmdStarted:
			fmt.Fprintf(&b, "> %s\n", e.Directive)
		case eventlog.KindCmdOutput:
			output.WriteString(e.Output)
		case eventlog.KindCmdFinished:
			flush()
			fmt.Fprintf(&b, "< %s: %d\n", e.Directive, e.ExitCode)
		case eventlog.KindJobFinished:
			flush()
			fmt.Fprintf(&b, "job %s\n", e.Result)
		}
	}
	return b.String()
}

func commands(directives ...string) []Command {
	var out []Command
	for _, d := range directives {
		out = append(out, Command{Directive: d})
	}
	return out
}

// fakeExecutor runs scripts that are Go functions, in shells that hold variables only. It is its own Environment.
type fakeExecutor struct {
	scripts map[string]scriptFunc
	// What goes wrong.
	prepareErr, openErr, injectErr, exportErr error
	// inPrepare runs in Prepare.
	inPrepare func(ctx context.Context, log SectionLog) error
	// stuck makes Stop end no script, so that its context has to.
	stuck bool

	reached  chan string   // places where a test waits
	released chan struct{} // closed by Stop: the scripts' processes are ended

	mu       sync.Mutex
	prepared int
	closed   int
	stops    int
	opened   []*fakeShell
	injected []File
	settings *Settings
}

type scriptFunc func(ctx context.Context, s *fakeShell, out io.Writer) (Exit, error)

func (*fakeExecutor) Describe() Description { return Description{Name: "fake", Version: "1"} }

func (*fakeExecutor) Check(context.Context) []CheckResult {
	return []CheckResult{{Name: "a"}, {Name: "b", Status: CheckWarning, Message: "m"}, {Name: "c", Status: CheckFailed, Message: "n"}}
}

func (*fakeExecutor) List(_ context.Context, instance string) ([]Leftover, error) {
	if instance == "broken" {
		return nil, errors.New("cannot look")
	}
	return []Leftover{{JobID: "job-of-" + instance, What: "2 processes"}}, nil
}

func (*fakeExecutor) Cleanup(_ context.Context, j *Job, s *Settings) error {
	instance, job := s.InstanceID, j.ID
	if instance == "broken" {
		return errors.New("cannot remove " + job)
	}
	return nil
}

func (e *fakeExecutor) Prepare(ctx context.Context, _ *Job, settings *Settings, log SectionLog) (Environment, error) {
	e.prepared++
	e.settings = settings
	if e.inPrepare != nil {
		if err := e.inPrepare(ctx, log); err != nil {
			return nil, err
		}
	}
	return e, e.prepareErr
}

func (e *fakeExecutor) OpenShell(context.Context) (Shell, error) {
	if e.openErr != nil {
		return nil, e.openErr
	}
	s := &fakeShell{executor: e, vars: map[string]string{}}
	e.mu.Lock()
	e.opened = append(e.opened, s)
	e.mu.Unlock()
	return s, nil
}

func (*fakeExecutor) ResolvePath(path string) string { return "/home/" + path }

func (e *fakeExecutor) Inject(_ context.Context, f File) error {
	e.injected = append(e.injected, f)
	return e.injectErr
}

func (e *fakeExecutor) Stop(context.Context) error {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.stops++; e.stops == 1 && !e.stuck {
		close(e.released)
	}
	return nil
}

func (e *fakeExecutor) Close(context.Context) error {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.closed++
	return nil
}

// block is a script that runs until it is stopped.
func block(ctx context.Context, s *fakeShell, out io.Writer) (Exit, error) {
	fmt.Fprint(out, "begun\n")
	s.executor.reached <- "block"
	select {
	case <-s.executor.released:
		return Exit{Code: 143}, nil
	case <-ctx.Done():
		return Exit{}, ctx.Err()
	}
}

// exits is a script that ends with a code.
func exits(code int) scriptFunc {
	return func(context.Context, *fakeShell, io.Writer) (Exit, error) { return Exit{Code: code}, nil }
}

// ends is a script that takes its shell along.
func ends(code int) scriptFunc {
	return func(context.Context, *fakeShell, io.Writer) (Exit, error) {
		return Exit{Code: code, ShellEnded: true}, nil
	}
}

// set is a script that sets a variable.
func set(name, value string, code int) scriptFunc {
	return func(_ context.Context, s *fakeShell, _ io.Writer) (Exit, error) {
		s.vars[name] = value
		return Exit{Code: code}, nil
	}
}

type fakeShell struct {
	executor *fakeExecutor
	vars     map[string]string
	closed   int
	gone     bool
}

// Run prints the script's variables where no function stands for it.
func (s *fakeShell) Run(ctx context.Context, script string, out io.Writer) (Exit, error) {
	if s.gone || s.closed > 0 {
		return Exit{}, errors.New("a shell that is gone was used")
	}
	if f := s.executor.scripts[script]; f != nil {
		exit, err := f(ctx, s, out)
		s.gone = exit.ShellEnded
		return exit, err
	}
	if strings.Contains(script, "printf") { // the runner asks for the result
		fmt.Fprint(out, s.vars[resultVariable])
		return Exit{}, nil
	}
	for _, v := range sortedEnv(s.vars) {
		fmt.Fprintf(out, "%s=%s\n", v.Name, v.Value)
	}
	return Exit{}, nil
}

func (s *fakeShell) Export(_ context.Context, env []EnvVar) error {
	if s.executor.exportErr != nil {
		return s.executor.exportErr
	}
	for _, v := range env {
		s.vars[v.Name] = v.Value
	}
	return nil
}

func (s *fakeShell) Close() error {
	s.closed++
	return nil
}
