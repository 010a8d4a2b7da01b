package engine

import (
	"context"
	"io"
	"maps"
	"slices"

	"github.com/docker/docker/api/types/image"
)

// Image is one that the engine has.
type Image struct {
	ID         string
	OS, Arch   string
	WorkingDir string
	User       string
	Env        []string
	Entrypoint []string
	Volumes    []string // where its containers have volumes of their own
	HasHealth  bool     // it has a health check
}

// Image looks at an image; the error wraps ErrNotFound if the engine doesn't have it.
func (e *Engine) Image(ctx context.Context, name string) (Image, error) {
	i, err := e.api.ImageInspect(ctx, name)
	if err != nil {
		return Image{}, e.wrap(ctx, err)
	}
	out := Image{ID: i.ID, OS: i.Os, Arch: i.Architecture}
	if c := i.Config; c != nil {
		out.WorkingDir, out.User, out.Env, out.Entrypoint = c.WorkingDir, c.User, c.Env, c.Entrypoint
		out.Volumes = slices.Sorted(maps.Keys(c.Volumes))
		out.HasHealth = c.Healthcheck != nil && len(c.Healthcheck.Test) > 0 && c.Healthcheck.Test[0] != "NONE"
	}
	return out, nil
}

// Pull asks a registry for an image. auth, if not empty, is the registry's login as its header carries it. The stream, JSON objects
// that tell of the progress and of errors, has to be read to its end and closed.
func (e *Engine) Pull(ctx context.Context, name, auth string) (io.ReadCloser, error) {
	stream, err := e.api.ImagePull(ctx, name, image.PullOptions{RegistryAuth: auth})
	if err != nil {
		return nil, e.wrap(ctx, err)
	}
	return stream, nil
}

// Import makes an image of a root file system, a tar; changes are instructions as of a Dockerfile.
func (e *Engine) Import(ctx context.Context, name string, root io.Reader, changes ...string) error {
	stream, err := e.api.ImageImport(ctx, image.ImportSource{Source: root, SourceName: "-"}, name, image.ImportOptions{Changes: changes})
	if err != nil {
		return e.wrap(ctx, err)
	}
	defer stream.Close()
	_, err = io.Copy(io.Discard, stream)
	return e.wrap(ctx, err)
}

// RemoveImage removes an image's name, and the image with its last one. What is gone already is no error.
func (e *Engine) RemoveImage(ctx context.Context, name string) error {
	_, err := e.api.ImageRemove(ctx, name, image.RemoveOptions{Force: true})
	return ignoreNotFound(e.wrap(ctx, err))
}
