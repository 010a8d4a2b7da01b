// Package engine is the Docker Engine as worker-compose needs it: networks, containers, images, execs and events. It alone knows the
// client library, of which nothing shows outside, so that a change to another one touches this package only.
//
// All that is made carries the labels that its caller gives; List and Remove find it by them.
package engine

import (
	"context"
	"errors"
	"fmt"
	"strings"

	cerrdefs "github.com/containerd/errdefs"
	"github.com/docker/docker/api/types/versions"
	"github.com/docker/docker/client"
)

// oldestAPI is the oldest version of the engine's API that is tested: that of engine 20.10.
const oldestAPI = "1.41"

// ErrNotFound is what errors about something that the engine doesn't have wrap.
var ErrNotFound = errors.New("the Docker engine doesn't have it")

// ErrUnreachable is what errors of an engine that doesn't answer wrap.
var ErrUnreachable = errors.New("cannot reach the Docker engine")

// Engine is a connection to an engine. It is safe for concurrent use.
type Engine struct {
	api *client.Client
}

// Info tells about an engine.
type Info struct {
	Version    string
	APIVersion string
	Arch       string
}

// Connect finds the engine that DOCKER_HOST and its like in the environment name, else the local one, and agrees with it on a
// version of its API.
func Connect(ctx context.Context) (*Engine, error) {
	api, err := client.NewClientWithOpts(client.FromEnv, client.WithAPIVersionNegotiation())
	if err != nil {
		return nil, fmt.Errorf("cannot use the settings for the Docker engine in the environment (DOCKER_HOST and others): %w", err)
	}
	e := &Engine{api: api}
	ping, err := api.Ping(ctx)
	if err != nil {
		return nil, errors.Join(e.wrap(ctx, err), e.Close())
	}
	api.NegotiateAPIVersionPing(ping)
	if v := api.ClientVersion(); versions.LessThan(v, oldestAPI) {
		return nil, errors.Join(fmt.Errorf("the Docker engine at %s speaks version %s of its API, and %s is needed: update it to 20.10 or later",
			api.DaemonHost(), v, oldestAPI), e.Close())
	}
	return e, nil
}

// Close closes the connections.
func (e *Engine) Close() error { return e.api.Close() }

// Host is the address of the engine.
func (e *Engine) Host() string { return e.api.DaemonHost() }

// Info asks the engine who it is.
func (e *Engine) Info(ctx context.Context) (Info, error) {
	v, err := e.api.ServerVersion(ctx)
	if err != nil {
		return Info{}, e.wrap(ctx, err)
	}
	return Info{Version: v.Version, APIVersion: e.api.ClientVersion(), Arch: v.Arch}, nil
}

// wrap makes errors of the engine readable and lets callers tell them apart.
func (e *Engine) wrap(ctx context.Context, err error) error {
	switch {
	case err == nil:
		return nil
	case ctx.Err() != nil:
		return ctx.Err()
	case client.IsErrConnectionFailed(err):
		hint := "is it running, and may this user use it?"
		switch text := err.Error(); {
		case strings.Contains(text, "permission denied"):
			hint = "this user may not use it: add it to the group docker"
		case !strings.HasPrefix(text, "Cannot connect to the Docker daemon"): // which says no more than we do
			hint += " (" + said(err) + ")"
		}
		return fmt.Errorf("%w at %s: %s", ErrUnreachable, e.api.DaemonHost(), hint)
	case cerrdefs.IsNotFound(err):
		return fmt.Errorf("%w (%s)", ErrNotFound, said(err))
	default:
		return errors.New(said(err))
	}
}

// said is what the engine has said, as one line.
func said(err error) string {
	text := strings.TrimPrefix(err.Error(), "Error response from daemon: ")
	return strings.Join(strings.Fields(text), " ")
}
