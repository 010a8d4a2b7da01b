package harness

import (
	"context"
	"fmt"
	"os/exec"
)

// Build puts the project's binaries into a folder, with the race detector if the test itself has it.
func Build(ctx context.Context, dir string) error {
	args := []string{"build", "-o", dir}
	if race {
		args = append(args, "-race")
	}
	out, err := exec.CommandContext(ctx, "go", append(args, "github.com/signalman-ci/signalman/cmd/...")...).CombinedOutput()
	if err != nil {
		return fmt.Errorf("cannot build the binaries: %w\n%s", err, out)
	}
	return nil
}
