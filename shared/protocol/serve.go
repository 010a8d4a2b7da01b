package protocol

import (
	"os"
	"os/signal"
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
	// farewellLimit bounds the wait for watchers that don't take the job's last status.
	farewellLimit = 5 * time.Second
)

// Serve makes this process a worker with the given executor. It is all that a worker's main needs to call, and returns when the
// worker's job is over, when no job came for two minutes, or when the supervisor ends the worker. Started by hand
// instead of by a supervisor, the process says so and exits with status 1.
//
// SIGTERM and SIGINT stop the job in good order. The loss of the supervisor, of its end of stderr or of a terminal does nothing.
func Serve(executor Executor) {
	logger := hclog.New(&hclog.LoggerOptions{
		Name: "worker-" + executor.Describe().Name, Output: os.Stderr, Level: hclog.Info,
	})
	srv := newServer(executor, logger)

	signal.Ignore(syscall.SIGPIPE, syscall.SIGHUP)
	stop := make(chan os.Signal, 1)
	signal.Notify(stop, syscall.SIGTERM, syscall.SIGINT)
	defer signal.Stop(stop)
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		plugin.Serve(&plugin.ServeConfig{
			HandshakeConfig:  Handshake,
			VersionedPlugins: map[int]plugin.PluginSet{Version: {PluginName: &grpcPlugin{srv: srv}}},
			GRPCServer: func(opts []grpc.ServerOption) *grpc.Server {
				return grpc.NewServer(append(opts, grpc.MaxRecvMsgSize(MaxMessageBytes))...)
			},
			Logger: logger,
		})
	}()

	started := srv.started
	idle := time.NewTimer(idleLimit)
	defer idle.Stop()
	for {
		select {
		case <-stop:
			srv.stopJob()
		case <-started:
			idle.Stop()
			started = nil
		case <-idle.C:
			return
		case <-ended:
			return
		case <-srv.over:
			srv.farewell()
			return
		}
	}
}

// farewell waits until the watchers have the job's last status.
func (s *server) farewell() {
	told := make(chan struct{})
	go func() {
		s.watchers.Wait()
		close(told)
	}()
	select {
	case <-told:
	case <-time.After(farewellLimit):
	}
}
