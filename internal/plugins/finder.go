package plugins

import (
	"context"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strings"

	"github.com/signalman-ci/signalman/internal/executor/settings"
	"github.com/signalman-ci/signalman/internal/pluginhost"
)

// BuiltIn tells whether an executor of this name comes with Signalman; a file in a plugin folder can't take its place.
func BuiltIn(executor string) bool { return settings.IsBuiltIn(executor) }

// goodName is what an executor can be named, here as in the config file.
var goodName = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._-]*$`)

// Verify says whether plugins are held to what is pinned.
type Verify string

// The values of Verify.
const (
	// Off runs any plugin.
	Off Verify = "off"
	// Locked runs a plugin only if plugins.lock in its folder has its SHA-256.
	Locked Verify = "locked"
)

// Finder finds workers and starts them. It is safe for concurrent use, and looks anew each time.
type Finder struct {
	// Own is the folder of the workers that come with Signalman, the supervisor's own.
	Own string
	// Dirs are the plugin folders, in the order in which they are looked at: the first that has a name wins.
	Dirs []string
	// Verify is for plugins; "" means Off. The workers that come with Signalman are as trusted as the supervisor is.
	Verify Verify
	// Env is what the workers of one plugin each get in their environment besides what all get (NAME=value), by its name.
	Env map[string][]string
	// Sums, if set, remembers checksums.
	Sums *Sums
}

// Find gives the path of the worker for an executor. Its error says why there is none that can be run.
func (f Finder) Find(executor string) (string, error) {
	b, err := f.open(executor)
	if err != nil {
		return "", err
	}
	b.close()
	return b.path, nil
}

// Start launches a worker of an executor; path and the plugin's own part of the environment are filled in.
func (f Finder) Start(ctx context.Context, executor string, l pluginhost.Launch) (*pluginhost.Worker, error) {
	b, err := f.open(executor)
	if err != nil {
		return nil, err
	}
	defer b.close()
	l.Path, l.Executable, l.Confirm = b.path, b.executable(), b.confirm
	l.Env = slices.Concat(l.Env, f.Env[executor])
	return pluginhost.Start(ctx, l)
}

// open finds a worker's file and looks whether it is to be run.
func (f Finder) open(executor string) (*workerFile, error) {
	if strings.ContainsAny(executor, "/\\\x00") || executor == "" {
		return nil, unknownError(fmt.Sprintf("executor %q: no such name can be a worker's", executor))
	}
	name := fileName(executor)
	if BuiltIn(executor) {
		if path := filepath.Join(f.Own, name); isFile(path) {
			return &workerFile{path: path}, nil
		}
		return nil, f.unknown(executor, f.Own)
	}
	for _, dir := range f.Dirs {
		path := filepath.Join(dir, name)
		if _, err := os.Lstat(path); err != nil || isDir(path) {
			continue
		}
		b, err := f.openPlugin(path)
		if err != nil {
			return nil, fmt.Errorf("executor %q: %s can't be run: %w", executor, path, err)
		}
		return b, nil
	}
	where := strings.Join(f.Dirs, ", ")
	if len(f.Dirs) == 0 {
		where = "the plugin folders, as none is set (plugin-dirs)"
	}
	return nil, f.unknown(executor, where)
}

func (f Finder) unknown(executor, where string) error {
	return unknownError(fmt.Sprintf("executor %q: no %s in %s; known are: %s", executor, fileName(executor), where, strings.Join(f.Known(), ", ")))
}

// openPlugin opens a plugin's file if it can be run, and is pinned where it has to be.
func (f Finder) openPlugin(path string) (*workerFile, error) {
	if err := inspect(path); err != nil {
		return nil, err
	}
	if f.Verify != Locked {
		return &workerFile{path: path}, nil
	}
	lock, err := readLock(filepath.Dir(path))
	if err != nil {
		return nil, err
	}
	b, err := openFile(path, f.Sums)
	if err != nil {
		return nil, err
	}
	if err := lock.check(path, b.sum); err != nil {
		b.close()
		return nil, err
	}
	return b, nil
}

// Known names the executors whose workers can be run, sorted.
func (f Finder) Known() []string {
	var names []string
	for _, c := range f.candidates() {
		if c.problem != "" {
			continue
		}
		if !BuiltIn(c.name) {
			b, err := f.openPlugin(c.path)
			if err != nil {
				continue
			}
			b.close()
		}
		names = append(names, c.name)
	}
	slices.Sort(names)
	return names
}

// candidate is a file that is a worker by its name.
type candidate struct {
	name, path string
	problem    string // with its name
}

// candidates are the workers that come with Signalman, then the files of the plugin folders, in order.
func (f Finder) candidates() []candidate {
	var all []candidate
	for _, name := range settings.BuiltIn {
		if path := filepath.Join(f.Own, fileName(name)); isFile(path) {
			all = append(all, candidate{name: name, path: path})
		}
	}
	first := map[string]string{}
	for _, dir := range f.Dirs {
		entries, err := os.ReadDir(dir)
		if err != nil {
			continue // such a folder has no plugins
		}
		for _, e := range entries {
			name, ok := executorOf(e.Name())
			path := filepath.Join(dir, e.Name())
			if !ok || isDir(path) {
				continue
			}
			c := candidate{name: name, path: path}
			switch {
			case BuiltIn(name):
				c.problem = fmt.Sprintf("it is not used: the executor %s comes with Signalman; name it otherwise", name)
			case !goodName.MatchString(name):
				c.problem = "it is not used: an executor's name is made of letters, digits, '-', '_' and '.'"
			case first[name] != "":
				c.problem = fmt.Sprintf("it is not used: %s comes first", first[name])
			default:
				first[name] = path
			}
			all = append(all, c)
		}
	}
	return all
}

// Executor is the executor that a file is the worker of by its name; "" if it is none's.
func Executor(path string) string {
	name, _ := executorOf(filepath.Base(path))
	return name
}

// executorOf is the executor whose worker has a file name.
func executorOf(file string) (name string, ok bool) {
	prefix, suffix, _ := strings.Cut(fileName("*"), "*")
	name, ok = strings.CutPrefix(file, prefix)
	if !ok || !strings.HasSuffix(name, suffix) {
		return "", false
	}
	name = strings.TrimSuffix(name, suffix)
	return name, name != ""
}

func fileName(executor string) string {
	if runtime.GOOS == "windows" {
		return "worker-" + executor + ".exe"
	}
	return "worker-" + executor
}

func isFile(path string) bool {
	info, err := os.Stat(path)
	return err == nil && info.Mode().IsRegular()
}

func isDir(path string) bool {
	info, err := os.Stat(path)
	return err == nil && info.Mode()&fs.ModeDir != 0
}
