package protocol

import (
	"context"
	"errors"

	"github.com/hashicorp/go-plugin"
	"google.golang.org/grpc"

	pb "github.com/signalman-ci/signalman/shared/protocol/internal/executorv1"
)

// Version is the contract's version, negotiated by go-plugin's handshake. A supervisor works with workers of this version
// and of the one before it.
const Version = 1

// PluginName is the name under which go-plugin dispenses the executor.
const PluginName = "executor"

// MaxMessageBytes is the size of a request that a worker must take: a job with its files.
const MaxMessageBytes = 64 << 20

// Handshake is what supervisor and worker show each other before they talk. It is no secret: it only keeps a worker that is
// started by hand from waiting for a supervisor for ever.
var Handshake = plugin.HandshakeConfig{
	MagicCookieKey:   "SIGNALMAN_WORKER",
	MagicCookieValue: "5f1d3c0e-executor",
}

// HostPlugins are the contract's versions as a supervisor's go-plugin client takes them.
func HostPlugins() map[int]plugin.PluginSet {
	return map[int]plugin.PluginSet{Version: {PluginName: &grpcPlugin{}}}
}

// grpcPlugin ties the contract to go-plugin: the server's side has srv, the client's side needs nothing.
type grpcPlugin struct {
	plugin.NetRPCUnsupportedPlugin
	srv *server
}

var _ plugin.GRPCPlugin = (*grpcPlugin)(nil)

func (p *grpcPlugin) GRPCServer(_ *plugin.GRPCBroker, s *grpc.Server) error {
	if p.srv == nil {
		return errors.New("this side of the plugin is a client")
	}
	pb.RegisterExecutorServer(s, p.srv)
	return nil
}

func (p *grpcPlugin) GRPCClient(_ context.Context, _ *plugin.GRPCBroker, conn *grpc.ClientConn) (any, error) {
	return &Client{rpc: pb.NewExecutorClient(conn)}, nil
}
