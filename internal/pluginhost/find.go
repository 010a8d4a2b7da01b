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
	if executor == "" || strings.ContainsAny(executor, "/\\\x00") {
		return "", fmt.Errorf("executor %q: no such name can be a worker's", executor)
	}
	dirs := f.Dirs
	if slices.Contains(builtin, executor) {
		dirs = []string{f.Own}
	}
	for _, dir := range dirs {
		path := filepath.Join(dir, binaryName(executor))
		if isFile(path) {
			return path, nil
		}
	}
	where := strings.Join(dirs, ", ")
	if len(dirs) == 0 {
		where = "the plugin folders, as none is set (plugin-dirs)"
	}
	return "", fmt.Errorf("executor %q: no %s in %s; known are: %s",
		executor, binaryName(executor), where, strings.Join(f.Known(), ", "))
}

// Known names the executors whose workers are there, sorted.
func (f Finder) Known() []string {
	var names []string
	for _, name := range builtin {
		if isFile(filepath.Join(f.Own, binaryName(name))) {
			names = append(names, name)
		}
	}
	prefix, suffix, _ := strings.Cut(binaryName("*"), "*")
	for _, dir := range f.Dirs {
		entries, err := os.ReadDir(dir)
		if err != nil {
			continue // such a folder has no plugins
		}
		for _, e := range entries {
			name, ok := strings.CutPrefix(e.Name(), prefix)
			if !ok || !strings.HasSuffix(name, suffix) || !isFile(filepath.Join(dir, e.Name())) {
				continue
			}
			if name = strings.TrimSuffix(name, suffix); name != "" && !slices.Contains(builtin, name) {
				names = append(names, name)
			}
		}
	}
	slices.Sort(names)
	return slices.Compact(names)
}

func isFile(path string) bool {
	info, err := os.Stat(path)
	return err == nil && info.Mode().IsRegular()
}

func binaryName(executor string) string {
	if runtime.GOOS == "windows" {
		return "worker-" + executor + ".exe"
	}
	return "worker-" + executor
}
