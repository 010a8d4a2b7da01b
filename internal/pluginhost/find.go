package pluginhost

import (
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
)

// builtin are the executors that come with Signalman; a file in a plugin folder can't take their place.
var builtin = []string{"shell", "compose", "k8s"}

// Finder finds worker binaries. It is safe for concurrent use, and looks anew each time: a plugin that was dropped into its
// folder is there for the next job.
type Finder struct {
	// Own is the folder of the workers that come with Signalman, the supervisor's own.
	Own string
	// Dirs are the plugin folders, in the order in which they are looked at.
	Dirs []string
}

// Find gives the path of the worker for an executor.
func (f Finder) Find(executor string) (string, error) {
	if executor == "" || filepath.Base(executor) != executor {
		return "", fmt.Errorf("executor %q: no such name can be a worker's", executor)
	}
	dirs := f.Dirs
	if slices.Contains(builtin, executor) {
		dirs = []string{f.Own}
	}
	for _, dir := range dirs {
		path := filepath.Join(dir, binaryName(executor))
		if info, err := os.Stat(path); err == nil && info.Mode().IsRegular() {
			return path, nil
		}
	}
	return "", fmt.Errorf("executor %q: no %s in %s; known are: %s",
		executor, binaryName(executor), strings.Join(dirs, ", "), strings.Join(f.Known(), ", "))
}

// Known names the executors whose workers are there, sorted.
func (f Finder) Known() []string {
	var names []string
	for _, dir := range append([]string{f.Own}, f.Dirs...) {
		found, _ := filepath.Glob(filepath.Join(dir, binaryName("*")))
		for _, path := range found {
			name := strings.TrimSuffix(strings.TrimPrefix(filepath.Base(path), "worker-"), ".exe")
			if dir == f.Own || !slices.Contains(builtin, name) {
				names = append(names, name)
			}
		}
	}
	slices.Sort(names)
	return slices.Compact(names)
}

func binaryName(executor string) string {
	if runtime.GOOS == "windows" {
		return "worker-" + executor + ".exe"
	}
	return "worker-" + executor
}
