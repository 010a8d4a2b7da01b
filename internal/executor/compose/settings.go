package compose

import (
	"errors"
	"fmt"
	"os"
	"regexp"
	"slices"

	"github.com/signalman-ci/signalman/internal/engine"
	executorsettings "github.com/signalman-ci/signalman/internal/executor/settings"
	"github.com/signalman-ci/signalman/shared/protocol"
)

// checkNames tells of containers that couldn't be told apart.
func checkNames(containers []protocol.Container) error {
	seen := map[string]bool{}
	for i, c := range containers {
		switch {
		case c.Name == "":
			return fmt.Errorf("container %d of the job (image %s) has no name: it needs one, by which the others reach it", i+1, c.Image)
		case seen[c.Name]:
			return fmt.Errorf("two containers of the job have the name %s: each needs one of its own, by which the others reach it", c.Name)
		}
		seen[c.Name] = true
	}
	return nil
}

// allow tells of an image that jobs may not use.
func allow(containers []protocol.Container, allowed []*regexp.Regexp) error {
	for _, c := range containers {
		matches := func(re *regexp.Regexp) bool { return re.MatchString(c.Image) }
		if len(allowed) > 0 && !slices.ContainsFunc(allowed, matches) {
			return fmt.Errorf("the image %s of container %s may not be used here: it matches none of compose.allowed-images", c.Image, c.Name)
		}
	}
	return nil
}

// hostFiles are the binds of the host's files, which all containers get. missing are those that aren't there, if that is no failure.
func hostFiles(o executorsettings.Compose) (binds []engine.Bind, missing []string, err error) {
	for _, f := range o.Files {
		switch _, err := os.Stat(f.Host); {
		case err == nil:
			binds = append(binds, engine.Bind(f))
		case !errors.Is(err, os.ErrNotExist):
			return nil, nil, fmt.Errorf("cannot give the host's file to the job's containers (files): %w", err)
		case o.FailOnMissingFiles:
			return nil, nil, fmt.Errorf("the host's file %s for the job's containers (files) is not there, and fail-on-missing-files is set", f.Host)
		default:
			missing = append(missing, f.Host)
		}
	}
	return binds, missing, nil
}
