package engine

import (
	"archive/tar"
	"bufio"
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math"
	"path"
	"strings"
	"time"

	"github.com/docker/docker/api/types"
	"github.com/docker/docker/api/types/container"
	"github.com/docker/docker/api/types/mount"
	"github.com/docker/docker/api/types/network"
	"github.com/docker/docker/pkg/stdcopy"
)

// Container says how to make a container. What is empty is as the image says.
type Container struct {
	Image      string
	Entrypoint []string
	Command    []string
	User       string
	Env        []string // NAME=value
	Labels     map[string]string
	// Network is the id of the network it is in, under the names Aliases.
	Network    string
	Aliases    []string
	StopSignal string
	// Binds are what it has of the engine's host. A path that isn't there is an error, and isn't made.
	Binds []Bind
	// Volumes are where it has volumes of its own, which go with it. They carry Labels; those that the engine makes by itself, as the
	// image says, would carry none.
	Volumes []string
	// Devices of the host, at the same place in the container.
	Devices []string
	// Memory in bytes, MilliCPUs in thousandths of a CPU, Pids in processes and threads; 0 is no limit.
	Memory, MilliCPUs, Pids int64
}

// Bind is a file or folder of the engine's host, and where a container has it, to read and to write.
type Bind struct {
	Host, Container string
}

// State is how a container is.
type State struct {
	Running  bool
	ExitCode int
	// OOMKilled is set when a process of it was killed for want of memory.
	OOMKilled bool
	// Health is "" for an image without a health check, else "starting", "healthy" or "unhealthy"; HealthOutput what the
	// last check said.
	Health       string
	HealthOutput string
}

// Create makes a container and returns its id.
func (e *Engine) Create(ctx context.Context, c Container) (string, error) {
	host := &container.HostConfig{
		NetworkMode: container.NetworkMode(c.Network),
		Resources:   container.Resources{Memory: c.Memory, MemorySwap: c.Memory, NanoCPUs: c.MilliCPUs * 1e6},
	}
	if c.Pids > 0 {
		host.PidsLimit = &c.Pids
	}
	for _, b := range c.Binds {
		host.Mounts = append(host.Mounts, mount.Mount{Type: mount.TypeBind, Source: b.Host, Target: b.Container})
	}
	for _, target := range c.Volumes {
		host.Mounts = append(host.Mounts, mount.Mount{Type: mount.TypeVolume, Target: target, VolumeOptions: &mount.VolumeOptions{Labels: c.Labels}})
	}
	for _, device := range c.Devices {
		host.Devices = append(host.Devices, container.DeviceMapping{PathOnHost: device, PathInContainer: device, CgroupPermissions: "rwm"})
	}
	var net *network.NetworkingConfig
	if c.Network != "" {
		net = &network.NetworkingConfig{EndpointsConfig: map[string]*network.EndpointSettings{c.Network: {NetworkID: c.Network, Aliases: c.Aliases}}}
	}
	var entrypoint []string
	if len(c.Entrypoint) > 0 { // an empty one that isn't nil would take the image's away
		entrypoint = c.Entrypoint
	}
	made, err := e.api.ContainerCreate(ctx, &container.Config{
		Image: c.Image, Entrypoint: entrypoint, Cmd: c.Command, User: c.User, Env: c.Env, Labels: c.Labels, StopSignal: c.StopSignal,
	}, host, net, nil, "")
	if err != nil {
		return "", e.wrap(ctx, err)
	}
	return made.ID, nil
}

// Start starts a container.
func (e *Engine) Start(ctx context.Context, id string) error {
	return e.wrap(ctx, e.api.ContainerStart(ctx, id, container.StartOptions{}))
}

// Stop sends a container its stop signal, and after grace KILL. It returns when the container has stopped.
func (e *Engine) Stop(ctx context.Context, id string, grace time.Duration) error {
	seconds := int(math.Ceil(grace.Seconds()))
	return e.wrap(ctx, e.api.ContainerStop(ctx, id, container.StopOptions{Timeout: &seconds}))
}

// Signal sends a signal, named as "KILL", to a container's first process.
func (e *Engine) Signal(ctx context.Context, id, signal string) error {
	return e.wrap(ctx, e.api.ContainerKill(ctx, id, signal))
}

// Remove kills and removes a container with its anonymous volumes. One that is gone already is no error.
func (e *Engine) Remove(ctx context.Context, id string) error {
	err := e.wrap(ctx, e.api.ContainerRemove(ctx, id, container.RemoveOptions{Force: true, RemoveVolumes: true}))
	switch {
	case errors.Is(err, ErrNotFound):
		return nil
	case err != nil && strings.Contains(err.Error(), "is already in progress"): // another one does it
		return e.awaitRemoved(ctx, id)
	default:
		return err
	}
}

func (e *Engine) awaitRemoved(ctx context.Context, id string) error {
	gone, failed := e.api.ContainerWait(ctx, id, container.WaitConditionRemoved)
	select {
	case r := <-gone:
		if r.Error != nil && r.Error.Message != "" {
			return errors.New(said(errors.New(r.Error.Message)))
		}
		return nil
	case err := <-failed:
		if err = e.wrap(ctx, err); errors.Is(err, ErrNotFound) {
			return nil
		}
		return err
	}
}

// State looks at a container.
func (e *Engine) State(ctx context.Context, id string) (State, error) {
	c, err := e.api.ContainerInspect(ctx, id)
	if err != nil {
		return State{}, e.wrap(ctx, err)
	}
	s := State{Running: c.State.Running, ExitCode: c.State.ExitCode, OOMKilled: c.State.OOMKilled}
	if h := c.State.Health; h != nil && h.Status != container.NoHealthcheck {
		s.Health = h.Status
		if n := len(h.Log); n > 0 {
			s.HealthOutput = strings.TrimSpace(h.Log[n-1].Output)
		}
	}
	return s, nil
}

// LastLines gives the end of what a container has printed.
func (e *Engine) LastLines(ctx context.Context, id string, lines int) ([]string, error) {
	logs, err := e.api.ContainerLogs(ctx, id, container.LogsOptions{ShowStdout: true, ShowStderr: true, Tail: fmt.Sprint(lines)})
	if err != nil {
		return nil, e.wrap(ctx, err)
	}
	defer logs.Close()
	var out bytes.Buffer
	if _, err := stdcopy.StdCopy(&out, &out, logs); err != nil {
		return nil, fmt.Errorf("cannot read what the container has printed: %w", err)
	}
	text := strings.TrimRight(strings.ToValidUTF8(out.String(), "\uFFFD"), "\n")
	if text == "" {
		return nil, nil
	}
	all := strings.Split(text, "\n")
	return all[max(0, len(all)-lines):], nil
}

// File is one to be put into a container; a folder if Mode says so.
type File struct {
	Path    string // absolute, in the container
	Mode    fs.FileMode
	Content []byte
}

// Copy puts files into a container, running or not, as root's. Folders on their way are made.
func (e *Engine) Copy(ctx context.Context, id string, files ...File) error {
	var archive bytes.Buffer
	w := tar.NewWriter(&archive)
	for _, f := range files {
		h := &tar.Header{Name: strings.TrimPrefix(path.Clean("/"+f.Path), "/"), Mode: int64(f.Mode.Perm()), Size: int64(len(f.Content)), Typeflag: tar.TypeReg, ModTime: time.Now()}
		if f.Mode&fs.ModeSticky != 0 {
			h.Mode |= 0o1000
		}
		if f.Mode.IsDir() {
			h.Typeflag, h.Name = tar.TypeDir, h.Name+"/"
		}
		if err := w.WriteHeader(h); err != nil {
			return fmt.Errorf("cannot pack %s: %w", f.Path, err)
		}
		if _, err := w.Write(f.Content); err != nil {
			return fmt.Errorf("cannot pack %s: %w", f.Path, err)
		}
	}
	if err := w.Close(); err != nil {
		return fmt.Errorf("cannot pack files: %w", err)
	}
	return e.wrap(ctx, e.api.CopyToContainer(ctx, id, "/", &archive, container.CopyToContainerOptions{}))
}

// Exec starts a command in a container and gives its standard streams: no terminal. Closing them ends neither side's affairs but
// the streams; a command that reads its input sees its end.
func (e *Engine) Exec(ctx context.Context, id string, command ...string) (io.ReadWriteCloser, error) {
	made, err := e.api.ContainerExecCreate(ctx, id, container.ExecOptions{Cmd: command, AttachStdin: true, AttachStdout: true, AttachStderr: true})
	if err != nil {
		return nil, e.wrap(ctx, err)
	}
	streams, err := e.api.ContainerExecAttach(ctx, made.ID, container.ExecAttachOptions{})
	if err != nil {
		return nil, e.wrap(ctx, err)
	}
	return &execStreams{streams: streams, in: streams.Reader}, nil
}

// execStreams are an exec's streams, standard output and error parted.
type execStreams struct {
	streams types.HijackedResponse
	in      *bufio.Reader
	left    int  // of the block that is being read
	isError bool // that block is standard error
	said    []byte
}

func (s *execStreams) Write(p []byte) (int, error) { return s.streams.Conn.Write(p) }

func (s *execStreams) Close() error { return s.streams.Conn.Close() }

// saidError is the end of a command's streams that has printed an error.
type saidError struct{ text string }

func (e saidError) Error() string { return e.text }

func (saidError) Unwrap() error { return io.ErrUnexpectedEOF }

// Read gives standard output. At its end, if something was printed on standard error, the error is its first line, and wraps
// io.ErrUnexpectedEOF.
func (s *execStreams) Read(p []byte) (int, error) {
	for {
		if s.left == 0 {
			var header [8]byte
			if _, err := io.ReadFull(s.in, header[:]); err != nil {
				if text := firstLine(s.said); text != "" && (errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF)) {
					return 0, saidError{text}
				}
				return 0, err
			}
			s.left, s.isError = int(binary.BigEndian.Uint32(header[4:])), header[0] == byte(stdcopy.Stderr)
			continue
		}
		n, err := s.in.Read(p[:min(len(p), s.left)])
		s.left -= n
		if !s.isError {
			return n, err
		}
		const enough = 1 << 10
		s.said = append(s.said, p[:min(n, enough-min(enough, len(s.said)))]...)
		if err != nil {
			return 0, err
		}
	}
}

func firstLine(text []byte) string {
	line, _, _ := strings.Cut(strings.TrimSpace(strings.ToValidUTF8(string(text), "\uFFFD")), "\n")
	return strings.TrimSpace(line)
}
