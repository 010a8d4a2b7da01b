package plugins

import (
	"os"
	"path/filepath"
)

// Pin tells how a plugin's file stands to the lock of its folder.
type Pin string

// The values of Pin.
const (
	Unpinned Pin = "unpinned"
	Pinned   Pin = "pinned"
	// Changed is a file whose name is pinned with another checksum.
	Changed Pin = "changed"
)

// Plugin is what is known of a worker's file without running it.
type Plugin struct {
	Name    string `json:"name"`
	Path    string `json:"path"`
	BuiltIn bool   `json:"built_in"`
	// Size is in bytes, SHA256 in hex; 0 and "" of what can't be read.
	Size   int64  `json:"size"`
	SHA256 string `json:"sha256,omitempty"`
	// Pin is "" for what comes with Signalman, and for what can't be read.
	Pin Pin `json:"pin,omitempty"`
	// Problem says in one line why it can't be run; "" if it can.
	Problem string `json:"problem,omitempty"`
}

// List tells of all workers: those that come with Signalman, then what is in the plugin folders, also what can't be run.
func (f Finder) List() []Plugin {
	all := []Plugin{}
	for _, c := range f.candidates() {
		all = append(all, f.describe(c))
	}
	return all
}

// Describe tells of one file that is a worker by its name, wherever it is. It need not be pinned.
func (f Finder) describe(c candidate) Plugin {
	p := Plugin{Name: c.name, Path: c.path, Problem: c.problem}
	p.BuiltIn = filepath.Dir(c.path) == f.Own && BuiltIn(c.name)
	if info, err := os.Stat(c.path); err == nil {
		p.Size = info.Size()
	}
	b, err := openFile(c.path, f.Sums)
	if err == nil {
		p.SHA256 = b.sum
		b.close()
	}
	if p.BuiltIn {
		return p
	}
	lock, lockErr := readLock(filepath.Dir(c.path))
	if err == nil && lockErr == nil {
		p.Pin = lock.pin(c.path, p.SHA256)
	}
	if p.Problem != "" {
		return p
	}
	if b, err := f.openPlugin(c.path); err != nil {
		p.Problem = err.Error()
	} else {
		b.close()
	}
	return p
}
