package pluginhost

import (
	"errors"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
)

const (
	// socketDirPrefix begins the names of the folders that go-plugin makes for sockets.
	socketDirPrefix = "plugin-dir"
	// strayPrefix goes before the name of one that is being removed.
	strayPrefix = "stray-"
)

// EndStrays asks the workers to end whose sockets are in a run folder, other than the known ones, and removes what is left of
// them. Such a worker was launched, for a job or to clean up after one, by a supervisor that died before it could note it:
// nobody will ever talk to it. No worker may be launched meanwhile.
func EndStrays(runDir string, known []string) error {
	entries, err := os.ReadDir(runDir)
	if err != nil {
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		return err
	}
	var errs []error
	for _, e := range entries {
		name, stray := strings.CutPrefix(e.Name(), strayPrefix) // an earlier supervisor died over it
		if !strings.HasPrefix(name, socketDirPrefix) {
			continue
		}
		dir := filepath.Join(runDir, e.Name())
		if slices.ContainsFunc(known, func(socket string) bool { return filepath.Dir(socket) == dir }) {
			continue
		}
		if !stray { // a worker that hasn't opened its socket yet can't any more, and ends
			aside := filepath.Join(runDir, strayPrefix+e.Name())
			if err := os.Rename(dir, aside); err != nil {
				errs = append(errs, err)
				continue
			}
			dir = aside
		}
		errs = append(errs, endListeners(dir), os.RemoveAll(dir))
	}
	return errors.Join(errs...)
}

// endListeners asks the processes to end that listen on the sockets of a folder, where they can be told.
func endListeners(dir string) error {
	sockets, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	var errs []error
	for _, s := range sockets {
		conn, err := net.DialTimeout("unix", filepath.Join(dir, s.Name()), dialLimit)
		if err != nil { // nobody listens any more
			continue
		}
		if pid := listener(conn); pid > 0 {
			errs = append(errs, askToEnd(pid)) // while the connection is open nobody else has the pid
		}
		_ = conn.Close()
	}
	return errors.Join(errs...)
}

func askToEnd(pid int) error {
	p, err := os.FindProcess(pid)
	if err == nil {
		err = p.Signal(syscall.SIGTERM)
	}
	if errors.Is(err, os.ErrProcessDone) {
		return nil
	}
	return err
}
