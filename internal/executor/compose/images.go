package compose

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"sync"
	"time"

	"github.com/signalman-ci/signalman/internal/engine"
	"github.com/signalman-ci/signalman/shared/protocol"
)

// noLogins is for a worker that knows no registries.
func noLogins(_ context.Context, credentials []protocol.PullCredentials) (Keyring, error) {
	if len(credentials) > 0 {
		return nil, errors.New("image pull credentials are not supported in this version")
	}
	return emptyKeyring{}, nil
}

type emptyKeyring struct{}

func (emptyKeyring) For(string) (string, bool) { return "", false }

// credentialsSection is there only for a job with credentials.
func (e *environment) credentialsSection(ctx context.Context, log protocol.SectionLog) (Keyring, error) {
	credentials := e.job.Compose.ImagePullCredentials
	if len(credentials) == 0 {
		return emptyKeyring{}, nil
	}
	_, end := log.Section("Setting up image pull credentials")
	keys, err := e.parts.Resolve(ctx, credentials)
	end(codeOf(err))
	return keys, err
}

// imagesSection gets the images that the engine doesn't have, side by side, and looks at all.
func (e *environment) imagesSection(ctx context.Context, log protocol.SectionLog, keys Keyring) (images map[string]engine.Image, err error) {
	out, end := log.Section("Pulling docker images...")
	defer func() { end(codeOf(err)) }()
	var names []string
	for _, c := range e.job.Compose.Containers {
		if !slices.Contains(names, c.Image) {
			names = append(names, c.Image)
		}
	}
	lines := &wholeLines{out: out}
	images = map[string]engine.Image{}
	var mu sync.Mutex
	err = inParallel(names, func(name string) error {
		image, err := e.image(ctx, lines, keys, name)
		mu.Lock()
		defer mu.Unlock()
		images[name] = image
		return err
	})
	return images, err
}

func (e *environment) image(ctx context.Context, out io.Writer, keys Keyring, name string) (engine.Image, error) {
	if name == "" {
		return engine.Image{}, errors.New("a container of the job names no image")
	}
	image, err := e.engine.Image(ctx, name)
	switch {
	case err == nil && e.options.pull != pullAlways:
		fmt.Fprintf(out, "%s is on this host\n", name)
		return image, nil
	case err != nil && !errors.Is(err, engine.ErrNotFound):
		return engine.Image{}, fmt.Errorf("cannot look at image %s: %w", name, err)
	case err != nil && e.options.pull == pullNever:
		return engine.Image{}, fmt.Errorf("the image %s is not on this host, and compose.pull-policy is never", name)
	}
	if err := e.pull(ctx, out, keys, name); err != nil {
		return engine.Image{}, fmt.Errorf("cannot pull image %s: %w", name, err)
	}
	if image, err = e.engine.Image(ctx, name); err != nil {
		return engine.Image{}, fmt.Errorf("cannot look at image %s: %w", name, err)
	}
	return image, nil
}

func (e *environment) pull(ctx context.Context, out io.Writer, keys Keyring, name string) error {
	auth, _ := keys.For(name)
	stream, err := e.engine.Pull(ctx, name, auth)
	if err != nil {
		return err
	}
	defer stream.Close()
	return e.parts.Progress(out, name, stream)
}

// plainProgress tells the begin and the end of a pull only.
func plainProgress(out io.Writer, image string, stream io.Reader) error {
	started := time.Now()
	fmt.Fprintf(out, "Pulling %s\n", image)
	for messages := json.NewDecoder(stream); ; {
		var m struct {
			Error string `json:"error"`
		}
		switch err := messages.Decode(&m); {
		case errors.Is(err, io.EOF):
			fmt.Fprintf(out, "Pulled %s in %v\n", image, time.Since(started).Round(time.Second/10))
			return nil
		case err != nil:
			return err
		case m.Error != "":
			return errors.New(m.Error)
		}
	}
}

// wholeLines lets several goroutines write lines.
type wholeLines struct {
	mu  sync.Mutex
	out io.Writer
}

func (w *wholeLines) Write(p []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.out.Write(bytes.Clone(p))
}

func codeOf(err error) int {
	if err != nil {
		return 1
	}
	return 0
}

// inParallel does something with each, side by side, and returns when all is done.
func inParallel[T any](all []T, do func(T) error) error {
	errs := make([]error, len(all))
	var group sync.WaitGroup
	for i, one := range all {
		group.Go(func() { errs[i] = do(one) })
	}
	group.Wait()
	return errors.Join(errs...)
}
