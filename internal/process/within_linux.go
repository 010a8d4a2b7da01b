package process

import (
	"context"
	"errors"
	"os/exec"
	"syscall"

	"golang.org/x/sys/unix"
)

// RunWithin runs a command to its end. When ctx ends all of its process group is killed; that group can be no other, as its leader stays
// a zombie until then.
func RunWithin(ctx context.Context, cmd *exec.Cmd) error {
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err := cmd.Start(); err != nil {
		return err
	}
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		for {
			err := unix.Waitid(unix.P_PID, cmd.Process.Pid, nil, unix.WEXITED|unix.WNOWAIT, nil)
			if !errors.Is(err, unix.EINTR) {
				return
			}
		}
	}()
	select {
	case <-ended:
	case <-ctx.Done():
		if cmd.Process.Pid > 1 {
			_ = unix.Kill(-cmd.Process.Pid, unix.SIGKILL)
		}
		<-ended
	}
	return cmd.Wait()
}
