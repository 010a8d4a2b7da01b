package artifact

import (
	"os"
	"os/exec"
	"path/filepath"
)

// lookPath finds the command in the folders of a PATH, which need not be that of this process. A relative one is none: nobody means the
// folder that a service happens to work in.
func lookPath(path string) (string, error) {
	for _, dir := range filepath.SplitList(path) {
		if !filepath.IsAbs(dir) {
			continue
		}
		found, err := exec.LookPath(filepath.Join(dir, command))
		if err != nil {
			continue
		}
		if info, err := os.Stat(found); err == nil && !info.IsDir() {
			return found, nil
		}
	}
	return "", ErrNoCommand
}
