//go:build !linux

package process

import (
	"context"
	"os/exec"
)

// RunWithin runs a command to its end. When ctx ends it is killed; what it has started is not.
func RunWithin(ctx context.Context, cmd *exec.Cmd) error {
	if err := cmd.Start(); err != nil {
		return err
	}
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	select {
	case err := <-ended:
		return err
	case <-ctx.Done():
		_ = cmd.Process.Kill() // it has ended: as good
		return <-ended
	}
}
