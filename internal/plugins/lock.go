package plugins

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
)

// LockFile is the name of the file in a plugin folder that pins its plugins. It has the form that sha256sum prints, so that
// sha256sum -c checks it.
const LockFile = "plugins.lock"

var lockLine = regexp.MustCompile(`^([0-9a-f]{64}) [ *](worker-.+)$`)

// lock is what a plugin folder's lock pins: checksums by file name.
type lock struct {
	path string
	sums map[string]string
}

// readLock reads a folder's lock; one that isn't there pins nothing.
func readLock(dir string) (lock, error) {
	l := lock{path: filepath.Join(dir, LockFile), sums: map[string]string{}}
	if err := safeFromOthers(l.path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return lock{}, fmt.Errorf("%s can't be relied upon: %w", l.path, err)
	}
	data, err := os.ReadFile(l.path)
	if errors.Is(err, fs.ErrNotExist) {
		return l, nil
	}
	if err != nil {
		return lock{}, fmt.Errorf("cannot read %s: %w", l.path, withoutPath(err))
	}
	for i, line := range strings.Split(string(data), "\n") {
		line = strings.TrimSuffix(line, "\r")
		if line == "" || strings.HasPrefix(line, "#") {
			continue
		}
		m := lockLine.FindStringSubmatch(line)
		if m == nil {
			return lock{}, fmt.Errorf("%s:%d: a line must be as sha256sum prints it, SHA-256 and worker-NAME", l.path, i+1)
		}
		if was, ok := l.sums[m[2]]; ok && was != m[1] {
			return lock{}, fmt.Errorf("%s:%d: %s is pinned twice", l.path, i+1, m[2])
		}
		l.sums[m[2]] = m[1]
	}
	return l, nil
}

// pin tells how a file with a checksum stands to the lock.
func (l lock) pin(path, sum string) Pin {
	switch l.sums[filepath.Base(path)] {
	case "":
		return Unpinned
	case sum:
		return Pinned
	default:
		return Changed
	}
}

// check refuses what isn't pinned.
func (l lock) check(path, sum string) error {
	name, _ := executorOf(filepath.Base(path))
	hint := fmt.Sprintf("if it is what it should be, run: supervisor plugins pin %s", name)
	switch l.pin(path, sum) {
	case Unpinned:
		return refuse(UnpinnedReason, "it is not pinned in %s (plugins.verify = \"locked\"); %s", l.path, hint)
	case Changed:
		return refuse(ChangedReason, "it is not the file that %s pins (plugins.verify = \"locked\"): its SHA-256 is %s; %s", l.path, sum, hint)
	}
	return nil
}

// write replaces the lock, so that a reader sees the old one or the new one.
func (l lock) write() (err error) {
	var text bytes.Buffer
	for _, name := range slices.Sorted(maps.Keys(l.sums)) {
		fmt.Fprintf(&text, "%s  %s\n", l.sums[name], name)
	}
	defer func() {
		if err != nil {
			err = fmt.Errorf("cannot write %s: %w", l.path, withoutPath(err))
		}
	}()
	f, err := os.CreateTemp(filepath.Dir(l.path), "."+LockFile+"-")
	if err != nil {
		return err
	}
	_, err = f.Write(text.Bytes())
	if err = errors.Join(err, f.Chmod(0o644), f.Sync(), f.Close()); err == nil {
		err = os.Rename(f.Name(), l.path)
	}
	if err != nil {
		_ = os.Remove(f.Name())
	}
	return err
}

// Pin pins the file that an executor's plugin is now, and tells its path and SHA-256.
func (f Finder) Pin(executor string) (path, sum string, err error) {
	if BuiltIn(executor) {
		return "", "", fmt.Errorf("executor %q comes with Signalman and needs no pin", executor)
	}
	f.Verify = Off
	if path, err = f.Find(executor); err != nil {
		return "", "", err
	}
	b, err := openFile(path, nil)
	if err != nil {
		return "", "", fmt.Errorf("cannot pin %s: %w", path, err)
	}
	defer b.close()
	l, err := readLock(filepath.Dir(path))
	if err != nil {
		return "", "", err
	}
	l.sums[filepath.Base(path)] = b.sum
	return path, b.sum, l.write()
}
