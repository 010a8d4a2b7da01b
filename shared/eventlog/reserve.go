package eventlog

import (
	"cmp"
	"crypto/rand"
	"errors"
	"fmt"
	"os"
)

const (
	reserveSuffix = ".reserve"
	freshSuffix   = ".new"
)

// reserve is disk space that is kept to be given up when there is none left.
type reserve struct {
	path string
	size int64
	held bool
}

// openReserve takes over a reserve left by another writer or makes one. It may end up without: on a full disk it is made
// later. A negative size means that none is wanted; it then counts as held.
func openReserve(path string, size int64) reserve {
	r := reserve{path: path, size: cmp.Or(size, DefaultReserve)}
	_ = os.Remove(path + freshSuffix) // a killed writer's
	if info, err := os.Stat(path); err == nil && info.Size() >= r.size {
		r.held = true
		return r
	}
	_ = r.hold() // tried again before any output is written
	return r
}

// hold makes the reserve, anew if there is one: so it needs room beside that. The old one stays if there is no room.
func (r *reserve) hold() error {
	if r.size < 0 {
		r.held = true
		return nil
	}
	content := make([]byte, r.size)
	_, _ = rand.Read(content) // never fails; file systems that compress would make nothing of zeros
	fresh := r.path + freshSuffix
	err := os.WriteFile(fresh, content, 0o600)
	if err == nil {
		err = os.Rename(fresh, r.path)
	}
	if err != nil {
		return errors.Join(fmt.Errorf("cannot hold back disk space: %w", err), os.Remove(fresh))
	}
	r.held = true
	return nil
}

// release gives the space up and tells whether there was any.
func (r *reserve) release() bool {
	if r.size < 0 {
		return false
	}
	r.held = false
	return os.Remove(r.path) == nil
}
