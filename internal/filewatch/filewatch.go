// Package filewatch tells when files that people edit have changed: a config file, the executables in a folder.
//
// What counts is the state of the files, not what the kernel says of them. Its notices only make us look at once; a look every
// ten seconds finds what they don't tell: on network file systems, where there are no inotify watches left, or where a folder
// far above was renamed. So it doesn't matter how a file is changed: written in place, replaced by rename, through a symlink or
// by swapping one (a Kubernetes ConfigMap's ..data), removed with its folder and made again.
package filewatch

import (
	"cmp"
	"context"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/fsnotify/fsnotify"
	"github.com/hashicorp/go-hclog"
)

const (
	defaultQuiet = 200 * time.Millisecond
	defaultPoll  = 10 * time.Second
	// patience is how many quiet times files may go on changing before it is told in any case.
	patience = 25
	// mostLinks is how many symlinks in a row the kernel follows.
	mostLinks = 40
	// listenTries bounds the attempts to watch folders that are being replaced meanwhile.
	listenTries = 5
)

// Folder is a folder of which some files are watched.
type Folder struct {
	Path string
	// Pattern is a glob (filepath.Match) of the names that count.
	Pattern string
}

// Options say what to watch. Paths should be absolute; none of the files and folders need exist.
type Options struct {
	Files   []string
	Folders []Folder
	// Quiet is for how long nothing may change before a change is told, so that one that takes several steps is told once; at 25
	// times that it is told in any case. 0 means 200 ms.
	Quiet time.Duration
	// Poll is how often to look without a notice; 0 means 10 s.
	Poll   time.Duration
	Logger hclog.Logger
}

// Watcher knows in what state files were when it was made. Use it in one goroutine.
type Watcher struct {
	opts    Options
	told    state
	open    func() (*fsnotify.Watcher, error)
	notify  *fsnotify.Watcher      // nil while there is none
	folders map[string]os.FileInfo // that notify watches, as they were when it began
	deaf    bool                   // that notices can't be had has been said
}

// state is what can be seen of files without reading them: for each path where it leads to and its stamp.
type state map[string]string

// New remembers in what state the files are. To miss no change, call it before the files are read for the first time. It holds
// nothing that would have to be closed.
func New(opts Options) *Watcher {
	opts.Quiet = cmp.Or(opts.Quiet, defaultQuiet)
	opts.Poll = cmp.Or(opts.Poll, defaultPoll)
	if opts.Logger == nil {
		opts.Logger = hclog.NewNullLogger()
	}
	w := &Watcher{opts: opts, open: fsnotify.NewWatcher}
	w.told = w.look()
	return w
}

// Run calls changed after each change since New, in this goroutine, until ctx ends. Changes while changed runs are told by
// another call. That files are in a state does not mean that they can be read, or that they differ from the last time in what
// they hold.
func (w *Watcher) Run(ctx context.Context, changed func()) {
	poll := time.NewTicker(w.opts.Poll)
	defer poll.Stop()
	quiet := time.NewTimer(time.Hour)
	quiet.Stop()
	defer quiet.Stop()
	defer w.hangUp()

	var seen state        // differs from what was told; nil if nothing does
	var latest time.Time  // when it is told even if it goes on changing
	for look := true; ; { // the first look is for what changed since New
		if look {
			w.listen()
			switch now := w.look(); {
			case maps.Equal(now, w.told):
				seen = nil
				quiet.Stop()
			case seen == nil:
				latest = time.Now().Add(patience * w.opts.Quiet)
				seen = now
				quiet.Reset(w.opts.Quiet)
			case !maps.Equal(now, seen):
				seen = now
				quiet.Reset(min(w.opts.Quiet, time.Until(latest)))
			}
		}
		look = true
		events, errs := w.notices()
		select {
		case <-ctx.Done():
			return
		case <-quiet.C:
			now := w.look()
			if seen == nil || !maps.Equal(now, seen) && time.Now().Before(latest) {
				continue // it goes on
			}
			w.told, seen = now, nil
			changed()
		case <-poll.C:
		case _, ok := <-events:
			if !ok {
				w.hangUp()
			}
		case err, ok := <-errs: // more events than the kernel keeps: as good as any
			if !ok {
				w.hangUp()
			} else {
				w.opts.Logger.Debug("notices of changed files were lost", "error", err)
			}
		}
	}
}

// notices are the channels to wait for; nil ones for ever.
func (w *Watcher) notices() (<-chan fsnotify.Event, <-chan error) {
	if w.notify == nil {
		return nil, nil
	}
	return w.notify.Events, w.notify.Errors
}

func (w *Watcher) hangUp() {
	if w.notify != nil {
		_ = w.notify.Close()
	}
	w.notify, w.folders = nil, nil
}

// listen asks for notices of all folders whose entries lead to the files, as they are now.
func (w *Watcher) listen() {
	if w.notify == nil {
		notify, err := w.open()
		if err != nil {
			w.cannotListen(err)
			return
		}
		w.notify, w.folders = notify, map[string]os.FileInfo{}
	}
	for range listenTries { // what changed before its folder was watched gave no notice
		if !w.follow(w.wanted()) {
			return
		}
	}
}

// follow watches the folders that are wanted and no others, and tells whether that took a change.
func (w *Watcher) follow(wanted map[string]bool) (changed bool) {
	for dir := range w.folders {
		if !wanted[dir] {
			w.forget(dir)
			changed = true
		}
	}
	for dir := range wanted {
		info, err := os.Stat(dir) // before it is watched: if it is another one by then, the next time shows it
		if err != nil {
			continue
		}
		if known, ok := w.folders[dir]; ok && os.SameFile(known, info) {
			continue
		} else if ok {
			w.forget(dir)
		}
		changed = true
		if err := w.notify.Add(dir); err == nil {
			w.folders[dir] = info
		} else if !os.IsNotExist(err) {
			w.cannotListen(err)
		}
	}
	return changed
}

func (w *Watcher) forget(dir string) {
	_ = w.notify.Remove(dir) // gone: as good
	delete(w.folders, dir)
}

func (w *Watcher) cannotListen(err error) {
	if !w.deaf {
		w.deaf = true
		w.opts.Logger.Warn("changed files are noticed late: the system gives no notices of them", "looking-every", w.opts.Poll, "error", err)
	}
}

// wanted are the folders to watch.
func (w *Watcher) wanted() map[string]bool {
	dirs := map[string]bool{}
	for _, file := range w.opts.Files {
		addTrail(dirs, file)
	}
	for _, folder := range w.opts.Folders {
		addTrail(dirs, folder.Path)
		for _, name := range folder.names() {
			addTrail(dirs, filepath.Join(folder.Path, name))
		}
		if info, err := os.Stat(folder.Path); err == nil && info.IsDir() {
			dirs[folder.Path] = true
		}
	}
	return dirs
}

// addTrail adds the folders in which a change can make a path lead elsewhere: its own, and that of each symlink on the way. Of
// what doesn't exist it is the nearest folder that does.
func addTrail(dirs map[string]bool, path string) {
	for range mostLinks {
		dir := filepath.Dir(path)
		for {
			if info, err := os.Stat(dir); err == nil && info.IsDir() || dir == filepath.Dir(dir) {
				break
			}
			dir = filepath.Dir(dir)
		}
		dirs[dir] = true
		link, target := firstLink(path)
		if link == "" {
			return
		}
		dirs[filepath.Dir(link)] = true
		rest := strings.TrimPrefix(path, link)
		if !filepath.IsAbs(target) {
			target = filepath.Join(filepath.Dir(link), target)
		}
		path = filepath.Join(target, rest)
	}
}

// firstLink finds the first symlink in a path.
func firstLink(path string) (link, target string) {
	for at := range path {
		if at == 0 || !os.IsPathSeparator(path[at]) {
			continue
		}
		if target, err := os.Readlink(path[:at]); err == nil {
			return path[:at], target
		}
	}
	if target, err := os.Readlink(path); err == nil {
		return path, target
	}
	return "", ""
}

// look sees in what state the files are.
func (w *Watcher) look() state {
	now := state{}
	for _, file := range w.opts.Files {
		now.add(file)
	}
	for _, folder := range w.opts.Folders {
		for _, name := range folder.names() {
			now.add(filepath.Join(folder.Path, name))
		}
	}
	return now
}

func (s state) add(path string) {
	real, err := filepath.EvalSymlinks(path)
	if err != nil {
		if _, err := os.Lstat(path); err == nil {
			s[path] = "leads nowhere"
		}
		return
	}
	info, err := os.Stat(path)
	if err != nil {
		return
	}
	s[path] = real + "\x00" + Stamp(info)
}

// names are the names of a folder's files that count; none if it can't be read.
func (f Folder) names() []string {
	entries, err := os.ReadDir(f.Path)
	if err != nil {
		return nil
	}
	var names []string
	for _, e := range entries {
		if ok, err := filepath.Match(f.Pattern, e.Name()); ok && err == nil {
			names = append(names, e.Name())
		}
	}
	slices.Sort(names)
	return names
}
