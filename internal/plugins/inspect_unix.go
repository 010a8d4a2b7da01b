//go:build unix

package plugins

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// safeFromOthers refuses a file that every user of the host can change, or replace in its folder. A symlink is looked at with what it
// leads to.
func safeFromOthers(path string) error {
	real, err := filepath.EvalSymlinks(path)
	if err != nil {
		return err
	}
	for _, p := range []string{real, filepath.Dir(real), filepath.Dir(path)} {
		info, err := os.Stat(p)
		if err != nil {
			return err
		}
		if info.Mode().Perm()&0o002 != 0 {
			what := "file"
			if info.IsDir() {
				what = "folder"
			}
			return fmt.Errorf("every user of this host may write to the %s %s; run: chmod o-w %s", what, p, p)
		}
	}
	return nil
}

func executable(path string, info fs.FileInfo) error {
	if info.Mode().Perm()&0o111 == 0 {
		return fmt.Errorf("it is not executable; run: chmod +x %s", path)
	}
	if unix.Faccessat(unix.AT_FDCWD, path, unix.X_OK, unix.AT_EACCESS) != nil {
		return errors.New("the supervisor's user may not execute it, or its file system is mounted with noexec")
	}
	return nil
}
