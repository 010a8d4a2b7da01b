//go:build unix

package admission

import (
	"os"
	"syscall"
)

// deviceOf tells file systems apart.
func deviceOf(folder string) (any, error) {
	info, err := os.Stat(folder)
	if err != nil {
		return nil, withoutPath(err)
	}
	stat, ok := info.Sys().(*syscall.Stat_t)
	if !ok {
		return folder, nil
	}
	return stat.Dev, nil
}
