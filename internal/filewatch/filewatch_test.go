package filewatch

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"runtime"
	"testing"
	"time"

	"github.com/fsnotify/fsnotify"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const never = 24 * time.Hour

// world is a folder with a config file and a folder of executables that are watched.
type world struct {
	*testing.T
	dir  string
	told chan struct{}
}

func (w world) path(elem ...string) string { return filepath.Join(append([]string{w.dir}, elem...)...) }

func (w world) write(text string, elem ...string) {
	w.Helper()
	require.NoError(w, os.WriteFile(w.path(elem...), []byte(text), 0o600))
}

func (w world) mkdir(elem ...string) {
	w.Helper()
	require.NoError(w, os.MkdirAll(w.path(elem...), 0o700))
}

func (w world) rename(from, to string) {
	w.Helper()
	require.NoError(w, os.Rename(w.path(from), w.path(to)))
}

func (w world) link(target string, elem ...string) {
	w.Helper()
	require.NoError(w, os.Symlink(target, w.path(elem...)))
}

func (w world) remove(elem ...string) {
	w.Helper()
	require.NoError(w, os.RemoveAll(w.path(elem...)))
}

// wait waits until a change was told.
func (w world) wait(what string) {
	w.Helper()
	select {
	case <-w.told:
	case <-time.After(time.Minute):
		require.Fail(w, "a change was not told", what)
	}
}

// watch runs a watcher to the test's end.
func watch(t *testing.T, dir string, opts Options, open func() (*fsnotify.Watcher, error)) world {
	t.Helper()
	w := world{t, dir, make(chan struct{}, 100)}
	opts.Files = []string{w.path("etc", "agent.toml")}
	opts.Folders = []Folder{{Path: w.path("plugins"), Pattern: "worker-*"}}
	watcher := New(opts)
	if open != nil {
		watcher.open = open
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		watcher.Run(ctx, func() { w.told <- struct{}{} })
	}()
	t.Cleanup(func() {
		cancel()
		<-done
	})
	return w
}

func folder(t *testing.T) string {
	t.Helper()
	dir, err := filepath.EvalSymlinks(t.TempDir())
	require.NoError(t, err)
	return dir
}

// changes are ways to change what is watched; each step is told. before makes what is there at first.
var changes = map[string]struct {
	before func(world)
	steps  []func(world)
}{
	"written in place": {
		before: func(w world) { w.mkdir("etc"); w.write("a", "etc", "agent.toml") },
		steps: []func(world){
			func(w world) { w.write("bc", "etc", "agent.toml") },
			func(w world) { w.write("", "etc", "agent.toml") },
		},
	},
	"replaced as editors do": {
		before: func(w world) { w.mkdir("etc"); w.write("a", "etc", "agent.toml") },
		steps: []func(world){
			func(w world) { w.write("b", "etc", "4913"); w.rename("etc/4913", "etc/agent.toml") },
			func(w world) {
				w.rename("etc/agent.toml", "etc/agent.toml~")
				w.write("c", "etc", "agent.toml")
				w.remove("etc", "agent.toml~")
			},
		},
	},
	"removed and made again": {
		before: func(w world) { w.mkdir("etc"); w.write("a", "etc", "agent.toml") },
		steps: []func(world){
			func(w world) { w.remove("etc", "agent.toml") },
			func(w world) { w.write("a", "etc", "agent.toml") },
			func(w world) { w.remove("etc") },
			func(w world) { w.mkdir("etc"); w.write("a", "etc", "agent.toml") },
			func(w world) { w.write("b", "etc", "agent.toml") },
		},
	},
	"not there yet": {
		before: func(world) {},
		steps: []func(world){
			func(w world) { w.mkdir("etc"); w.write("a", "etc", "agent.toml") },
			func(w world) { w.write("b", "etc", "agent.toml") },
			func(w world) { w.mkdir("plugins"); w.write("", "plugins", "worker-a") },
		},
	},
	"its folder replaced": {
		before: func(w world) {
			w.mkdir("etc")
			w.write("a", "etc", "agent.toml")
			w.mkdir("new")
			w.write("b", "new", "agent.toml")
		},
		steps: []func(world){
			func(w world) { w.rename("etc", "old"); w.rename("new", "etc") },
			func(w world) { w.write("c", "etc", "agent.toml") },
		},
	},
	"a ConfigMap's": {
		before: func(w world) {
			w.mkdir("etc", "..1")
			w.write("a", "etc", "..1", "agent.toml")
			w.link("..1", "etc", "..data")
			w.link("..data/agent.toml", "etc", "agent.toml")
		},
		steps: []func(world){
			func(w world) {
				w.mkdir("etc", "..2")
				w.write("b", "etc", "..2", "agent.toml")
				w.link("..2", "etc", "..data_tmp")
				w.rename("etc/..data_tmp", "etc/..data")
				w.remove("etc", "..1")
			},
			func(w world) { w.write("c", "etc", "..2", "agent.toml") },
		},
	},
	"a symlink to elsewhere": {
		before: func(w world) {
			w.mkdir("etc")
			w.mkdir("opt", "v1")
			w.write("a", "opt", "v1", "x")
			w.link("v1", "opt", "now")
			w.link(w.path("opt", "now", "x"), "etc", "agent.toml")
		},
		steps: []func(world){
			func(w world) { w.write("bb", "opt", "v1", "x") },
			func(w world) {
				w.mkdir("opt", "v2")
				w.write("c", "opt", "v2", "x")
				w.link("v2", "opt", "next")
				w.rename("opt/next", "opt/now")
			},
			func(w world) { w.remove("opt", "v2", "x") },
		},
	},
	"in a folder": {
		before: func(w world) {
			w.mkdir("plugins")
			w.write("", "plugins", "worker-a")
			w.mkdir("opt")
			w.write("", "opt", "b")
		},
		steps: []func(world){
			func(w world) { w.link("../opt/b", "plugins", "worker-b") },
			func(w world) { w.write("changed", "opt", "b") },
			func(w world) { require.NoError(w, os.Chmod(w.path("plugins", "worker-a"), 0o700)) },
			func(w world) { w.remove("plugins", "worker-a") },
			func(w world) { w.remove("opt", "b") }, // the link leads nowhere now
			func(w world) { w.remove("plugins") },
			func(w world) { w.mkdir("plugins"); w.write("", "plugins", "worker-c") },
		},
	},
}

func TestChangesAreTold(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Skip("symlinks and open files are different there")
	}
	ways := map[string]struct {
		poll time.Duration
		open func() (*fsnotify.Watcher, error)
	}{
		"by notices": {poll: never},
		"by looking": {poll: 10 * time.Millisecond, open: func() (*fsnotify.Watcher, error) { return nil, errors.New("too many") }},
	}
	for way, how := range ways {
		for name, change := range changes {
			t.Run(way+"/"+name, func(t *testing.T) {
				t.Parallel()
				dir := folder(t)
				change.before(world{t, dir, nil})
				w := watch(t, dir, Options{Quiet: 50 * time.Millisecond, Poll: how.poll}, how.open)
				for i, step := range change.steps {
					for len(w.told) > 0 { // a step that took long is told twice
						<-w.told
					}
					step(w)
					w.wait(name + ", step " + string(rune('1'+i)))
				}
			})
		}
	}
}

// A change between New and Run is told, whenever it was.
func TestChangeBeforeRun(t *testing.T) {
	dir := folder(t)
	w := world{t, dir, make(chan struct{}, 1)}
	watcher := New(Options{Files: []string{w.path("agent.toml")}, Quiet: time.Millisecond, Poll: never})
	w.write("a", "agent.toml")
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	watcher.Run(ctx, cancel)
	require.ErrorIs(t, ctx.Err(), context.Canceled)
}

// A change of several steps is told once, and what doesn't count is not told.
func TestToldOnce(t *testing.T) {
	const quiet = 2 * time.Second
	dir := folder(t)
	w := watch(t, dir, Options{Quiet: quiet, Poll: never}, nil)
	began := time.Now()
	w.mkdir("plugins")
	for _, name := range []string{"worker-a", "worker-b", "README", "worker-c"} {
		w.write("", "plugins", name)
	}
	quick := time.Since(began) < quiet
	w.wait("three plugins")
	w.write("it doesn't count", "plugins", "README")
	w.write("", "plugins", "other")
	w.remove("plugins", "worker-a")
	w.wait("one is gone")
	if quick { // else it may have been told in between
		require.Empty(t, w.told)
	}
}

// A file that never stops changing is told now and then.
func TestEndlessChange(t *testing.T) {
	dir := folder(t)
	w := watch(t, dir, Options{Quiet: 100 * time.Millisecond, Poll: never}, nil)
	w.mkdir("etc")
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	limit := time.After(time.Minute)
	for i := 0; ; i++ {
		select {
		case <-w.told:
			return
		case <-limit:
			require.Fail(t, "it was never told")
		case <-tick.C:
			w.write(string(make([]byte, i%100)), "etc", "agent.toml")
		}
	}
}

// Where folders can't be watched any more, looking goes on.
func TestNoticesEnd(t *testing.T) {
	dir := folder(t)
	var first *fsnotify.Watcher
	opened := make(chan struct{}, 100)
	w := watch(t, dir, Options{Quiet: time.Millisecond, Poll: 10 * time.Millisecond}, func() (*fsnotify.Watcher, error) {
		defer func() { opened <- struct{}{} }()
		notify, err := fsnotify.NewWatcher()
		if first == nil {
			first = notify
		}
		return notify, err
	})
	<-opened
	require.NoError(t, first.Close())
	w.mkdir("etc")
	w.write("a", "etc", "agent.toml")
	w.wait("after the end of the notices")
	<-opened // and they are asked for again
}

func TestStamp(t *testing.T) {
	path := filepath.Join(t.TempDir(), "f")
	stamp := func() string {
		info, err := os.Stat(path)
		require.NoError(t, err)
		return Stamp(info)
	}
	require.NoError(t, os.WriteFile(path, []byte("a"), 0o600))
	first := stamp()
	require.Equal(t, first, stamp())
	info, err := os.Stat(path)
	require.NoError(t, err)
	require.False(t, Settled(info))
	exe, err := os.Executable()
	require.NoError(t, err)
	old, err := os.Stat(exe)
	require.NoError(t, err)
	require.Eventually(t, func() bool { return Settled(old) }, time.Minute, 10*time.Millisecond)
	require.NoError(t, os.WriteFile(path+".new", []byte("b"), 0o600))
	require.NoError(t, os.Chtimes(path+".new", info.ModTime(), info.ModTime())) // as cp -p and tar leave it
	require.NoError(t, os.Rename(path+".new", path))
	if runtime.GOOS == "linux" {
		require.NotEqual(t, first, stamp())
	}
	require.NoError(t, os.WriteFile(path, []byte("longer"), 0o600))
	require.NotEqual(t, first, stamp())
}
