package engine

import (
	"context"
	"io"
	"net"

	"github.com/docker/docker/api/types"
	"github.com/docker/docker/api/types/container"
	"github.com/docker/docker/pkg/stdcopy"
)

// Session is a command to be run in a container for somebody at this end.
type Session struct {
	Command []string
	// Env are variables (NAME=value) besides the container's own.
	Env []string
	// Terminal gives the command a terminal of its own, of Width and Height in characters; 0 is the engine's default.
	Terminal      bool
	Width, Height uint
}

// Attached is a Session that runs. Its methods are for one goroutine, but for Resize.
type Attached struct {
	engine   *Engine
	id       string
	terminal bool
	streams  types.HijackedResponse
}

// Attach starts a session in a container.
func (e *Engine) Attach(ctx context.Context, id string, s Session) (*Attached, error) {
	options := container.ExecOptions{Cmd: s.Command, Env: s.Env, Tty: s.Terminal, AttachStdin: true, AttachStdout: true, AttachStderr: true}
	attach := container.ExecAttachOptions{Tty: s.Terminal}
	if s.Terminal && s.Width > 0 && s.Height > 0 {
		options.ConsoleSize = &[2]uint{s.Height, s.Width}
		attach.ConsoleSize = options.ConsoleSize
	}
	made, err := e.api.ContainerExecCreate(ctx, id, options)
	if err != nil {
		return nil, e.wrap(ctx, err)
	}
	streams, err := e.api.ContainerExecAttach(ctx, made.ID, attach)
	if err != nil {
		return nil, e.wrap(ctx, err)
	}
	return &Attached{engine: e, id: made.ID, terminal: s.Terminal, streams: streams}, nil
}

// Resize gives the command's terminal another size.
func (a *Attached) Resize(ctx context.Context, width, height uint) error {
	return a.engine.wrap(ctx, a.engine.api.ContainerExecResize(ctx, a.id, container.ResizeOptions{Width: width, Height: height}))
}

// Run carries the streams until the command ends, and gives its exit code. The goroutine that reads in ends with in, or this process.
func (a *Attached) Run(ctx context.Context, in io.Reader, out, errOut io.Writer) (int, error) {
	defer a.streams.Close()
	go func() {
		_, _ = io.Copy(a.streams.Conn, in) // the command has ended: its exit code tells
		if half, ok := a.streams.Conn.(interface{ CloseWrite() error }); ok {
			_ = half.CloseWrite()
		}
	}()
	var err error
	if a.terminal {
		_, err = io.Copy(out, a.streams.Reader)
	} else {
		_, err = stdcopy.StdCopy(out, errOut, a.streams.Reader)
	}
	if err != nil && !isReset(err) {
		return 0, a.engine.wrap(ctx, err)
	}
	info, err := a.engine.api.ContainerExecInspect(ctx, a.id)
	if err != nil {
		return 0, a.engine.wrap(ctx, err)
	}
	return info.ExitCode, nil
}

// isReset tells that the engine has dropped the connection, as some do at a command's end.
func isReset(err error) bool {
	_, ok := err.(*net.OpError) //nolint:errorlint // as it comes from the connection
	return ok
}
