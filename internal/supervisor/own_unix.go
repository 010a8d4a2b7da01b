//go:build !windows

package supervisor

import (
	"fmt"
	"os"
	"syscall"
)

// checkOwn refuses a folder that belongs to another user or that others may write.
func checkOwn(dir string) error {
	info, err := os.Lstat(dir)
	if err != nil {
		return err
	}
	st, ok := info.Sys().(*syscall.Stat_t)
	if !info.IsDir() || !ok || int(st.Uid) != os.Getuid() || info.Mode().Perm()&0o022 != 0 {
		return fmt.Errorf("the folder %s is not this user's alone: remove it", dir)
	}
	return nil
}
