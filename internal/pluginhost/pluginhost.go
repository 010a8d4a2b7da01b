// Package pluginhost starts worker processes and finds them again. It alone knows go-plugin on the supervisor's side.
package pluginhost

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/go-plugin"
	"github.com/hashicorp/go-plugin/runner"

	"github.com/signalman-ci/signalman/internal/process"
	"github.com/signalman-ci/signalman/shared/protocol"
)

// handshakeLimit is how long a worker may take from its start to its handshake.
const handshakeLimit = 30 * time.Second

// closingLimit is how long a worker may take to end that has closed its standard output without a handshake: one that dies does
// so just before.
const closingLimit = 2 * time.Second

// dialLimit is how long a worker on this host may take to accept a connection.
const dialLimit = 10 * time.Second

// endLimit is how long a worker's process may take to end once it was killed. One that waits for a disk or a network file system
// that doesn't answer ends when that does; nothing of its program runs any more.
const endLimit = 10 * time.Second

// Launch says how to start a worker.
type Launch struct {
	// Path of the worker's binary, which it gets as its name.
	Path string
	// Executable, if set, is what is executed in the place of Path: another name of the same file.
	Executable string
	// Confirm, if set, is asked once the worker has shown its handshake whether it may be used. After an error it is killed.
	Confirm func() error
	// Env is its whole environment.
	Env []string
	// StderrPath is the file its standard error is appended to: a worker that outlives its supervisor must not die of a
	// broken pipe. If it is larger than LogLimit it is trimmed before.
	StderrPath string
	// RunDir is the folder for the worker's socket; its path must be short (the kernel takes 107 bytes for a socket's).
	RunDir string
	// HandshakeLimit is how long the worker may take from its start to its handshake; 0 means 30 s.
	HandshakeLimit time.Duration
	Logger         hclog.Logger
}

// Address is how to find a worker again.
type Address struct {
	Process  process.Identity
	Network  string
	Socket   string
	Protocol int
}

// Worker is a worker process that this supervisor talks to. It is safe for concurrent use.
type Worker struct {
	*protocol.Client
	addr   Address
	plugin *plugin.Client
	conn   io.Closer
	proc   *proc
	killer killer
	logger hclog.Logger
}

// Start launches a worker and waits for its handshake. When ctx ends first, the worker is killed.
func Start(ctx context.Context, l Launch) (*Worker, error) {
	stderr, err := os.OpenFile(l.StderrPath, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return nil, fmt.Errorf("cannot open the worker's log: %w", err)
	}
	defer stderr.Close()
	if err := TrimLog(l.StderrPath, LogLimit); err != nil {
		return nil, err
	}
	p := &proc{ended: make(chan struct{})}
	run := &launched{proc: p, started: make(chan struct{})}
	defer run.killedWith(ctx)()
	client := plugin.NewClient(&plugin.ClientConfig{
		HandshakeConfig:  protocol.Handshake,
		VersionedPlugins: protocol.HostPlugins(),
		AllowedProtocols: []plugin.Protocol{plugin.ProtocolGRPC},
		StartTimeout:     cmp.Or(l.HandshakeLimit, handshakeLimit),
		SkipHostEnv:      true,
		UnixSocketConfig: &plugin.UnixSocketConfig{TempDir: l.RunDir},
		Logger:           quiet(l.Logger),
		RunnerFunc: func(_ hclog.Logger, cmd *exec.Cmd, socketDir string) (runner.Runner, error) {
			p.socketDir = socketDir
			cmd.Path, cmd.Args = cmp.Or(l.Executable, l.Path), []string{l.Path}
			cmd.Env = append(cmd.Env, l.Env...)
			cmd.Stdin, cmd.Stderr = nil, stderr // go-plugin would hand on the supervisor's own standard input
			cmd.SysProcAttr = ownSession()
			run.cmd = cmd
			return run, nil
		},
	})
	w, err := connect(client, p, run, l.Logger)
	if err != nil && ctx.Err() != nil {
		return nil, fmt.Errorf("cannot start worker %s: %w", l.Path, ctx.Err())
	}
	if err != nil {
		return nil, fmt.Errorf("cannot start worker %s: %w", l.Path, explain(err, run, l.StderrPath))
	}
	id, err := process.Identify(p.pid)
	if err != nil {
		w.Kill()
		if errors.Is(err, os.ErrProcessDone) || errors.Is(err, os.ErrNotExist) {
			return nil, fmt.Errorf("cannot start worker %s: it ended right after its handshake", l.Path)
		}
		return nil, fmt.Errorf("cannot start worker %s: its process can't be identified: %w", l.Path, err)
	}
	if l.Confirm != nil {
		if err := l.Confirm(); err != nil {
			w.Kill()
			return nil, fmt.Errorf("cannot start worker %s: %w", l.Path, err)
		}
	}
	at := client.ReattachConfig()
	w.addr = Address{Process: id, Network: at.Addr.Network(), Socket: at.Addr.String(), Protocol: client.NegotiatedVersion()}
	return w, nil
}

// GoneError says that a worker to attach to doesn't run any more, and how it ended, if that can be known.
type GoneError struct{ Status process.Status }

func (e *GoneError) Error() string { return "the worker doesn't run any more" }

// Attach connects to a worker that an earlier supervisor started. Its error is a *GoneError if that very process has ended.
func Attach(addr Address, logger hclog.Logger) (*Worker, error) {
	if !addr.Process.Alive() {
		addr.removeSocket()
		// Only after an upgrade in place it is a child that waits to be collected.
		ctx, cancel := context.WithTimeout(context.Background(), dialLimit)
		defer cancel()
		status, _ := process.Wait(ctx, addr.Process)
		return nil, &GoneError{status}
	}
	sock, err := netAddr(addr.Network, addr.Socket)
	if err != nil {
		return nil, err
	}
	// gRPC dials when it is first used, and again and again: whether anybody listens is better known now.
	probe, err := net.DialTimeout(addr.Network, addr.Socket, dialLimit)
	if err != nil {
		return nil, fmt.Errorf("cannot attach to worker %d: %w", addr.Process.PID, err)
	}
	_ = probe.Close()
	p := &proc{ended: make(chan struct{}), pid: addr.Process.PID, id: addr.Process}
	run := &attached{proc: p}
	client := plugin.NewClient(&plugin.ClientConfig{
		HandshakeConfig:  protocol.Handshake,
		Plugins:          protocol.HostPlugins()[addr.Protocol],
		AllowedProtocols: []plugin.Protocol{plugin.ProtocolGRPC},
		Logger:           quiet(logger),
		Reattach: &plugin.ReattachConfig{
			Protocol:        plugin.ProtocolGRPC,
			ProtocolVersion: addr.Protocol,
			Addr:            sock,
			ReattachFunc:    func() (runner.AttachedRunner, error) { return run, nil },
		},
	})
	w, err := connect(client, p, run, logger)
	if err != nil {
		return nil, fmt.Errorf("cannot attach to worker %d: %w", p.pid, err)
	}
	w.addr = addr
	return w, nil
}

// killer ends a worker's process at once.
type killer interface {
	Kill(context.Context) error
}

// connect makes a client a worker; one that can't be talked to is killed.
func connect(client *plugin.Client, p *proc, k killer, logger hclog.Logger) (*Worker, error) {
	w := &Worker{plugin: client, proc: p, killer: k, logger: logger}
	rpc, err := client.Client()
	if err != nil {
		w.Kill()
		return nil, err
	}
	if c, ok := rpc.(*plugin.GRPCClient); ok {
		w.conn = c.Conn
	}
	raw, err := rpc.Dispense(protocol.PluginName)
	if err != nil {
		w.Kill()
		return nil, err
	}
	w.Client = raw.(*protocol.Client)
	return w, nil
}

// Address tells how to find the worker again.
func (w *Worker) Address() Address { return w.addr }

// Ended is closed when the worker's process has ended.
func (w *Worker) Ended() <-chan struct{} { return w.proc.ended }

// Status tells how the process ended, once Ended is closed.
func (w *Worker) Status() process.Status { return w.proc.status }

// Kill ends the worker's process at once if it hasn't ended yet, and removes its socket. It says nothing about the job's. A
// process that doesn't end in 10 s is left to the kernel, and the log says so.
func (w *Worker) Kill() { w.kill(endLimit) }

func (w *Worker) kill(limit time.Duration) {
	// go-plugin would first ask the process to leave, and wait for the answer of one that is frozen for ever.
	if err := w.end(limit); err != nil && !errors.Is(err, errNotStarted) {
		unending(w.logger, w.proc.pid, err)
		w.Detach() // go-plugin would wait for its end without a limit, and then remove its folder
		if w.proc.socketDir != "" {
			_ = os.RemoveAll(w.proc.socketDir)
		}
	} else {
		w.plugin.Kill()
	}
	w.addr.removeSocket()
}

// end kills the worker's process and waits for its end.
func (w *Worker) end(limit time.Duration) error {
	ctx, cancel := context.WithTimeout(context.Background(), limit)
	defer cancel()
	if err := w.killer.Kill(ctx); err != nil {
		return err
	}
	select {
	case <-w.proc.ended:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func unending(logger hclog.Logger, pid int, err error) {
	logger.Error("a worker's process doesn't end; going on without it (if its state is D it waits for a disk or a network file system)",
		"pid", pid, "error", err)
}

// removeSocket removes what a worker that has ended leaves in the run folder.
func (a Address) removeSocket() {
	if a.Network == "unix" && a.Socket != "" {
		_ = os.Remove(a.Socket)
		_ = os.Remove(filepath.Dir(a.Socket)) // go-plugin's own folder for this socket
	}
}

// Detach gives up the connection and leaves the worker at its work. Nothing but Ended and Status can be used afterwards.
func (w *Worker) Detach() {
	if w.conn != nil {
		_ = w.conn.Close() // broken already: as good
	}
}

// proc is what is known of a worker's process.
type proc struct {
	pid       int
	id        process.Identity // of an attached one
	socketDir string           // go-plugin's own folder for the socket of a launched one
	ended     chan struct{}
	once      sync.Once
	status    process.Status // once ended is closed
}

func (p *proc) finish(status process.Status) {
	p.once.Do(func() {
		p.status = status
		close(p.ended)
	})
}

func (p *proc) ID() string { return strconv.Itoa(p.pid) }

func (p *proc) PluginToHost(network, addr string) (string, string, error) { return network, addr, nil }

func (p *proc) HostToPlugin(network, addr string) (string, string, error) { return network, addr, nil }

// launched runs a worker that this supervisor starts (go-plugin's runner).
type launched struct {
	*proc
	cmd    *exec.Cmd
	stdout *stdout
	killed atomic.Bool // by us, while it ran
	mute   atomic.Bool // it was killed when it had closed its standard output without a line
	// started is closed when there is a process to kill.
	started chan struct{}
}

// killedWith kills the process when ctx ends, until the returned stop is called.
func (r *launched) killedWith(ctx context.Context) (stop func()) {
	stopped := make(chan struct{})
	go func() {
		select {
		case <-ctx.Done():
		case <-stopped:
			return
		}
		select {
		case <-r.started:
			_ = r.Kill(ctx)
		case <-stopped:
		}
	}()
	return sync.OnceFunc(func() { close(stopped) })
}

func (r *launched) Start(context.Context) error {
	pipe, err := r.cmd.StdoutPipe()
	if err != nil {
		return err
	}
	r.stdout = &stdout{ReadCloser: pipe}
	if err := r.cmd.Start(); err != nil {
		return err
	}
	r.pid = r.cmd.Process.Pid
	close(r.started)
	return nil
}

func (r *launched) Wait(context.Context) error {
	err := r.cmd.Wait()
	r.finish(process.StatusOf(r.cmd.ProcessState))
	return err
}

var errNotStarted = errors.New("the process was never started")

func (r *launched) Kill(context.Context) error {
	if r.cmd == nil || r.cmd.Process == nil { // it could not be started
		return errNotStarted
	}
	if !r.killed.Load() && r.stdout.closed.Load() && !r.stdout.line.Load() {
		t := time.NewTimer(closingLimit) // how it ends by itself is what is to be told
		defer t.Stop()
		select {
		case <-r.ended:
		case <-t.C:
			r.mute.Store(true)
		}
	}
	select {
	case <-r.ended:
		return nil
	default:
	}
	r.killed.Store(true)
	if err := r.cmd.Process.Kill(); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return err
	}
	return nil
}

func (r *launched) Stdout() io.ReadCloser { return r.stdout }

func (r *launched) Stderr() io.ReadCloser { return io.NopCloser(eof{}) } // it goes to a file

func (r *launched) Name() string { return r.cmd.Path }

func (r *launched) Diagnose(context.Context) string { return "" }

// stdout notes what a worker says for go-plugin to read.
type stdout struct {
	io.ReadCloser
	line   atomic.Bool // a whole line has come
	closed atomic.Bool // nothing will come any more
}

func (s *stdout) Read(b []byte) (int, error) {
	n, err := s.ReadCloser.Read(b)
	if bytes.IndexByte(b[:n], '\n') >= 0 {
		s.line.Store(true)
	}
	if err != nil {
		s.closed.Store(true)
	}
	return n, err
}

type eof struct{}

func (eof) Read([]byte) (int, error) { return 0, io.EOF }

// attached watches a worker that another supervisor has started.
type attached struct{ *proc }

func (r *attached) Wait(ctx context.Context) error {
	status, err := process.Wait(ctx, r.id)
	if err == nil { // else only the wait has ended
		r.finish(status)
	}
	return err
}

func (r *attached) Kill(ctx context.Context) error {
	select {
	case <-r.ended:
		return nil
	default:
		return process.Kill(ctx, r.id)
	}
}

func netAddr(network, addr string) (net.Addr, error) {
	switch network {
	case "unix":
		return net.ResolveUnixAddr(network, addr)
	case "tcp":
		return net.ResolveTCPAddr(network, addr)
	default:
		return nil, fmt.Errorf("cannot attach to a worker at network %q", network)
	}
}

// quiet keeps go-plugin's own talk out of the supervisor's log unless that is at debug.
func quiet(l hclog.Logger) hclog.Logger {
	if l.IsDebug() {
		return l.Named("go-plugin")
	}
	return hclog.NewNullLogger()
}

// explain puts into one line why a worker didn't come up.
func explain(err error, run *launched, stderrPath string) error {
	select {
	case <-run.ended:
		// go-plugin kills a worker that it doesn't understand: then its own error is the reason.
		if !run.killed.Load() || !wasKilled(run.status) {
			return fmt.Errorf("it ended before its handshake (%s); see %s%s", run.status, stderrPath, lastLine(stderrPath))
		}
	default:
	}
	if run.mute.Load() {
		return fmt.Errorf("it closed its standard output instead of a handshake; see %s%s", stderrPath, lastLine(stderrPath))
	}
	return errors.New(firstLine(err.Error()))
}

// End kills a worker's process that can't be talked to, if that very process still runs, and waits for its end, for at most 10 s:
// of one that takes longer the log says so.
func End(addr Address, logger hclog.Logger) { end(addr, endLimit, logger) }

func end(addr Address, limit time.Duration, logger hclog.Logger) {
	ctx, cancel := context.WithTimeout(context.Background(), limit)
	defer cancel()
	err := process.Kill(ctx, addr.Process)
	if err == nil {
		_, err = process.Wait(ctx, addr.Process)
	}
	if err != nil {
		unending(logger, addr.Process.PID, err)
	}
	addr.removeSocket()
}
