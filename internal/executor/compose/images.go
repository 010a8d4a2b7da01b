package compose

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"sync"

	"golang.org/x/sync/errgroup"

	"github.com/signalman-ci/signalman/internal/engine"
	executorsettings "github.com/signalman-ci/signalman/internal/executor/settings"
	"github.com/signalman-ci/signalman/internal/imagepull"
	"github.com/signalman-ci/signalman/internal/pullauth"
	"github.com/signalman-ci/signalman/shared/protocol"
)

// credentialsSection is there only for a job with credentials.
func (e *environment) credentialsSection(ctx context.Context, log protocol.SectionLog) (keys pullauth.Keyring, err error) {
	credentials := e.job.Compose.ImagePullCredentials
	if len(credentials) == 0 {
		return keys, nil
	}
	out, end := log.Section("Setting up image pull credentials")
	defer func() { end(codeOf(err)) }()
	if keys, err = pullauth.Resolve(ctx, credentials, pullauth.Options{}); err != nil {
		return keys, err
	}
	for _, line := range keys.Describe() {
		fmt.Fprintln(out, line)
	}
	return keys, nil
}

// imagesSection gets the images that the engine doesn't have, side by side, and looks at all.
func (e *environment) imagesSection(ctx context.Context, log protocol.SectionLog, keys pullauth.Keyring) (images map[string]engine.Image, err error) {
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
	group, ctx := errgroup.WithContext(ctx) // one that can't be had ends the wait for the others
	for _, name := range names {
		group.Go(func() error {
			image, err := e.image(ctx, lines, keys, name)
			mu.Lock()
			defer mu.Unlock()
			images[name] = image
			return err
		})
	}
	return images, group.Wait()
}

func (e *environment) image(ctx context.Context, out io.Writer, keys pullauth.Keyring, name string) (engine.Image, error) {
	if name == "" {
		return engine.Image{}, errors.New("a container of the job names no image")
	}
	image, err := e.engine.Image(ctx, name)
	switch {
	case err == nil && e.options.PullPolicy != executorsettings.PullAlways:
		fmt.Fprintf(out, "%s is on this host\n", name)
		return image, nil
	case err != nil && !errors.Is(err, engine.ErrNotFound):
		return engine.Image{}, fmt.Errorf("cannot look at image %s: %w", name, err)
	case err != nil && e.options.PullPolicy == executorsettings.PullNever:
		return engine.Image{}, fmt.Errorf("the image %s is not on this host, and compose.pull-policy is never", name)
	}
	if err := e.pull(ctx, out, keys, name); err != nil {
		return engine.Image{}, err
	}
	if image, err = e.engine.Image(ctx, name); err != nil {
		return engine.Image{}, fmt.Errorf("cannot look at image %s: %w", name, err)
	}
	return image, nil
}

func (e *environment) pull(ctx context.Context, out io.Writer, keys pullauth.Keyring, name string) error {
	auth, _ := keys.For(name)
	user, _ := keys.User(name)
	pull := imagepull.Pull{Image: name, User: user}
	stream, err := e.engine.Pull(ctx, name, auth)
	if err != nil {
		return pull.Explain(err)
	}
	defer stream.Close()
	return pull.Show(out, stream)
}

// wholeLines lets several goroutines write lines.
type wholeLines struct {
	mu  sync.Mutex
	out io.Writer
}

func (w *wholeLines) Write(p []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.out.Write(p)
}

func codeOf(err error) int {
	if err != nil {
		return 1
	}
	return 0
}

// inParallel does something with each, side by side, and returns when all is done, with all errors.
func inParallel[T any](all []T, do func(T) error) error {
	errs := make([]error, len(all))
	var group sync.WaitGroup
	for i, one := range all {
		group.Go(func() { errs[i] = do(one) })
	}
	group.Wait()
	return errors.Join(errs...)
}
