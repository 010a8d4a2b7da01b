package harness

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"

	"github.com/signalman-ci/signalman/internal/testimage"
)

// Build puts the project's binaries into a folder, with the race detector if the test itself has it, and with what the workers put into
// containers.
func Build(ctx context.Context, dir string) (err error) {
	aside, err := os.MkdirTemp("", "signalman-build-")
	if err != nil {
		return fmt.Errorf("cannot make a folder to build in: %w", err)
	}
	defer func() { err = errors.Join(err, os.RemoveAll(aside)) }()
	overlay, err := testimage.Overlay(aside)
	if err != nil {
		return fmt.Errorf("cannot build what goes into containers: %w", err)
	}
	args := []string{"build", "-overlay", overlay, "-o", dir}
	if race {
		args = append(args, "-race")
	}
	out, err := exec.CommandContext(ctx, "go", append(args, "github.com/signalman-ci/signalman/cmd/...")...).CombinedOutput()
	if err != nil {
		return fmt.Errorf("cannot build the binaries: %w\n%s", err, out)
	}
	return nil
}
