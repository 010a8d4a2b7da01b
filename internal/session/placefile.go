package session

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
)

// PlaceFile writes a job's file beside its place first: an old one may be read-only, a link, or in use. Folders on the way are made.
// temporary begins the name that it has meanwhile. One that is mounted, as a container's /etc/hosts is, can't be replaced, and is
// written to.
func PlaceFile(path, temporary string, mode fs.FileMode, content []byte) error {
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	tmp, err := os.CreateTemp(filepath.Dir(path), temporary+"*")
	if err != nil {
		return err
	}
	err = fill(tmp, mode, content)
	if err == nil {
		err = os.Rename(tmp.Name(), path)
	}
	if err == nil {
		return nil
	}
	if errors.Is(err, syscall.EBUSY) {
		err = overwrite(path, mode, content)
	}
	return errors.Join(err, os.Remove(tmp.Name()))
}

func overwrite(path string, mode fs.FileMode, content []byte) error {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_TRUNC, 0)
	if err != nil {
		return err
	}
	return fill(f, mode, content)
}

// fill writes a file and closes it.
func fill(f *os.File, mode fs.FileMode, content []byte) error {
	_, err := f.Write(content)
	return errors.Join(err, f.Chmod(mode), f.Close())
}
