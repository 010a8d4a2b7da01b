//go:build unix

package doctor

import (
	"context"
	"fmt"
	"os/exec"
	"os/user"
	"strconv"
	"syscall"
	"time"
)

// passAs looks whether this process can start another as a user, and whether that may pass through a folder.
func passAs(ctx context.Context, u *user.User, folder string) error {
	uid, err := strconv.ParseUint(u.Uid, 10, 32)
	if err != nil {
		return fmt.Errorf("uid %q is no number", u.Uid)
	}
	gid, err := strconv.ParseUint(u.Gid, 10, 32)
	if err != nil {
		return fmt.Errorf("gid %q is no number", u.Gid)
	}
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	cmd := exec.CommandContext(ctx, "sh", "-c", `cd -- "$1"`, "sh", folder)
	cmd.Dir, cmd.Env, cmd.WaitDelay = "/", []string{"PATH=/usr/bin:/bin"}, time.Second
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}}
	if printed, err := cmd.CombinedOutput(); err != nil {
		if line := lastLine(printed); line != "" {
			return fmt.Errorf("it can't pass through %s: %s", folder, line)
		}
		return err
	}
	return nil
}
