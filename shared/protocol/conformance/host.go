package conformance

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/go-plugin"
	"github.com/hashicorp/go-plugin/runner"
	"google.golang.org/grpc"

	"github.com/signalman-ci/signalman/shared/protocol"
	pb "github.com/signalman-ci/signalman/shared/protocol/internal/executorv1"
)

// handshakeLimit is how long a worker may take from its start to its handshake.
const handshakeLimit = 30 * time.Second

// peer is one connection to a worker process, through go-plugin as a supervisor has it.
type peer struct {
	*protocol.Client
	rpc    pb.ExecutorClient // for the status codes of refusals, which Client doesn't show
	conn   *grpc.ClientConn
	client *plugin.Client
	proc   *proc
	job    string // the job it has accepted
}

// launch starts a worker process and waits for its handshake.
func launch(path string, env []string, stderr *os.File) (*peer, error) {
	p := &proc{ended: make(chan struct{})}
	client := plugin.NewClient(&plugin.ClientConfig{
		HandshakeConfig:  protocol.Handshake,
		VersionedPlugins: map[int]plugin.PluginSet{protocol.Version: plugins()},
		AllowedProtocols: []plugin.Protocol{plugin.ProtocolGRPC},
		StartTimeout:     handshakeLimit,
		SkipHostEnv:      true,
		Logger:           hclog.NewNullLogger(),
		RunnerFunc: func(_ hclog.Logger, cmd *exec.Cmd, _ string) (runner.Runner, error) {
			cmd.Path, cmd.Args, cmd.Stderr = path, []string{path}, stderr
			cmd.Env = append(cmd.Env, env...)
			p.cmd = cmd
			return p, nil
		},
	})
	peer, err := connect(client, p)
	if err != nil {
		first, _, _ := strings.Cut(err.Error(), "\n")
		return nil, fmt.Errorf("the worker did not start as a go-plugin plugin: %s", first)
	}
	return peer, nil
}

// reattach opens a connection to the same process, as a supervisor does that was started anew.
func (p *peer) reattach() (*peer, error) {
	at := p.client.ReattachConfig()
	if at == nil {
		return nil, errors.New("cannot attach again: the worker has ended")
	}
	client := plugin.NewClient(&plugin.ClientConfig{
		HandshakeConfig:  protocol.Handshake,
		Plugins:          plugins(),
		AllowedProtocols: []plugin.Protocol{plugin.ProtocolGRPC},
		Logger:           hclog.NewNullLogger(),
		Reattach: &plugin.ReattachConfig{
			Protocol: plugin.ProtocolGRPC, ProtocolVersion: protocol.Version, Addr: at.Addr,
			ReattachFunc: func() (runner.AttachedRunner, error) { return attached{p.proc}, nil },
		},
	})
	again, err := connect(client, p.proc)
	if err != nil {
		return nil, fmt.Errorf("cannot attach to the worker again: %w", err)
	}
	again.job = p.job
	return again, nil
}

func connect(client *plugin.Client, p *proc) (*peer, error) {
	rpc, err := client.Client()
	if err == nil {
		err = rpc.Ping()
	}
	var raw any
	if err == nil {
		raw, err = rpc.Dispense(protocol.PluginName)
	}
	if err != nil {
		client.Kill()
		return nil, err
	}
	peer := raw.(*peer)
	peer.client, peer.proc = client, p
	return peer, nil
}

// hangUp is how a supervisor's sudden end looks to its worker.
func (p *peer) hangUp() error {
	_ = p.proc.stdout.Close()
	return p.conn.Close()
}

// exited waits for the end of the worker's process.
func (p *peer) exited(ctx context.Context) error {
	select {
	case <-p.proc.ended:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("the worker's process does not end: %w", ctx.Err())
	}
}

// plugins are those of package protocol, and keep the connection.
func plugins() plugin.PluginSet {
	return plugin.PluginSet{protocol.PluginName: &kitPlugin{}}
}

type kitPlugin struct{ plugin.NetRPCUnsupportedPlugin }

func (*kitPlugin) GRPCServer(*plugin.GRPCBroker, *grpc.Server) error {
	return errors.New("this side of the plugin is a client")
}

func (*kitPlugin) GRPCClient(ctx context.Context, broker *plugin.GRPCBroker, conn *grpc.ClientConn) (any, error) {
	raw, err := protocol.HostPlugins()[protocol.Version][protocol.PluginName].(plugin.GRPCPlugin).GRPCClient(ctx, broker, conn)
	if err != nil {
		return nil, err
	}
	return &peer{Client: raw.(*protocol.Client), rpc: pb.NewExecutorClient(conn), conn: conn}, nil
}

// proc is a worker's process, as go-plugin takes one.
type proc struct {
	cmd    *exec.Cmd
	stdout io.ReadCloser
	ended  chan struct{}
}

func (p *proc) Start(context.Context) error {
	var err error
	if p.stdout, err = p.cmd.StdoutPipe(); err != nil {
		return err
	}
	return p.cmd.Start()
}

func (p *proc) Wait(context.Context) error {
	defer close(p.ended)
	return p.cmd.Wait()
}

// attached is the process for a later connection, whose go-plugin must not wait for it as for its own child.
type attached struct{ *proc }

func (a attached) Wait(context.Context) error {
	<-a.ended
	return nil
}

func (p *proc) Kill(context.Context) error {
	if err := p.cmd.Process.Kill(); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return err
	}
	return nil
}

func (p *proc) ID() string {
	if p.cmd.Process == nil {
		return ""
	}
	return strconv.Itoa(p.cmd.Process.Pid)
}

func (p *proc) Stdout() io.ReadCloser { return p.stdout }

func (p *proc) Stderr() io.ReadCloser { return io.NopCloser(strings.NewReader("")) } // it goes to a file

func (p *proc) Name() string { return p.cmd.Path }

func (p *proc) Diagnose(context.Context) string { return "" }

func (p *proc) PluginToHost(network, addr string) (string, string, error) { return network, addr, nil }

func (p *proc) HostToPlugin(network, addr string) (string, string, error) { return network, addr, nil }
