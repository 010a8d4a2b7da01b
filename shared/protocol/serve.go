package protocol

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"sync"
	"syscall"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/go-plugin"
	"google.golang.org/grpc"
)

const (
	// idleLimit is how long a worker waits for its job. A supervisor starts it right after the launch; one that died in
	// between leaves a worker that nobody knows, which ends here.
	idleLimit = 2 * time.Minute
	// orphanLimit is how long a job goes on without a supervisor: by then the hub has given it up.
	orphanLimit = 15 * time.Minute
	// farewellLimit bounds the wait for watchers that don't take the job's last status.
	farewellLimit = 5 * time.Second
	// lingerLimit is for what gRPC still has to write when the last watcher's stream has ended; it doesn't say when it has.
	// A supervisor that ends the worker cuts it short.
	lingerLimit = 20 * time.Millisecond
)

// Serve makes this process a worker with the given executor. It is all that a worker's main needs to call, and returns when the
// worker's job is over, when no job came for two minutes, or when the supervisor ends the worker. Started by hand
// instead of by a supervisor, the process says so and exits with status 1.
//
// SIGTERM and SIGINT stop the job in good order, or end a worker that has none; the lack of a supervisor for 15 minutes stops it
// too. The loss of the supervisor, of its end of stderr or of a terminal does nothing. What the executor prints to os.Stdout and
// os.Stderr goes to the process's standard error, which a supervisor makes the file worker.log.
func Serve(executor Executor) {
	logger := hclog.New(&hclog.LoggerOptions{
		Name: "worker-" + executor.Describe().Name, Output: os.Stderr, Level: hclog.Info,
	})
	srv := newServer(executor, logger)

	catch(syscall.SIGPIPE, syscall.SIGHUP)
	stop := make(chan os.Signal, 1)
	signal.Notify(stop, syscall.SIGTERM, syscall.SIGINT)
	defer signal.Stop(stop)
	restore := restoreOutput(os.Stderr)
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		plugin.Serve(&plugin.ServeConfig{
			HandshakeConfig:  Handshake,
			VersionedPlugins: map[int]plugin.PluginSet{Version: {PluginName: &grpcPlugin{srv: srv}}},
			GRPCServer: func(opts []grpc.ServerOption) *grpc.Server {
				return grpc.NewServer(append(append(opts, grpc.MaxRecvMsgSize(MaxMessageBytes)), atFirstCall(restore)...)...)
			},
			Logger: logger,
		})
	}()

	srv.untilOver(stop, ended, limits{idle: idleLimit, orphan: orphanLimit, farewell: farewellLimit, linger: lingerLimit})
}

// catch keeps signals from ending this process, for good. What it starts is born with their usual effect, also where this process was
// started with one of them ignored: a program hands on what it ignores, but not what it catches.
func catch(signals ...os.Signal) {
	signal.Notify(make(chan os.Signal, 1), signals...) // nobody needs to read it
}

// restoreOutput gives what lets Go code print to a file for good. go-plugin puts pipes in the place of os.Stdout and os.Stderr right
// before it serves, and only a host that is connected drains them: who prints more than they hold while there is none would stand still. Standard
// output as it was is no better, a pipe of the host's that has no reader once that has gone.
func restoreOutput(to *os.File) func() {
	return sync.OnceFunc(func() { os.Stdout, os.Stderr = to, to })
}

// atFirstCall are options that make a server do something before it answers the first call of any kind.
func atFirstCall(do func()) []grpc.ServerOption {
	return []grpc.ServerOption{
		grpc.ChainUnaryInterceptor(func(ctx context.Context, req any, _ *grpc.UnaryServerInfo, next grpc.UnaryHandler) (any, error) {
			do()
			return next(ctx, req)
		}),
		grpc.ChainStreamInterceptor(func(srv any, stream grpc.ServerStream, _ *grpc.StreamServerInfo, next grpc.StreamHandler) error {
			do()
			return next(srv, stream)
		}),
	}
}

// limits are how long a worker waits, and for what.
type limits struct{ idle, orphan, farewell, linger time.Duration }

// untilOver returns when the worker has nothing more to do: its job is over, none came, or its host has ended the serving.
func (s *server) untilOver(stop <-chan os.Signal, ended <-chan struct{}, limits limits) {
	started := s.started
	idle := time.NewTimer(limits.idle)
	defer idle.Stop()
	orphan := time.NewTimer(limits.orphan)
	defer orphan.Stop()
	for {
		select {
		case <-stop:
			if !s.hasJob() {
				return
			}
			s.stopJob("The worker was asked to end by a signal.")
		case <-started:
			idle.Stop()
			started = nil
			orphan.Reset(limits.orphan)
		case <-s.left: // a supervisor has come or gone
			orphan.Stop()
			if s.watchersNow() == 0 {
				orphan.Reset(limits.orphan)
			}
		case <-orphan.C:
			s.logger.Warn("no supervisor has come back for the job, which is stopped", "after", limits.orphan)
			s.stopJob(fmt.Sprintf("No supervisor has come back for the job in %v.", limits.orphan))
		case <-idle.C:
			return
		case <-ended:
			return
		case <-s.over:
			s.farewell(limits.farewell)
			select {
			case <-ended:
			case <-time.After(limits.linger):
			}
			return
		}
	}
}

// farewell waits until no watcher is left that doesn't have the job's last status, for at most limit.
func (s *server) farewell(limit time.Duration) {
	deadline := time.NewTimer(limit)
	defer deadline.Stop()
	for {
		if s.watchersNow() == 0 {
			return
		}
		select {
		case <-s.left:
		case <-deadline.C:
			return
		}
	}
}
