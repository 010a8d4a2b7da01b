package plugins

import (
	"os"
	"sync"

	"github.com/signalman-ci/signalman/internal/filewatch"
)

// mostSums bounds what is remembered: files come and go for as long as the supervisor lives.
const mostSums = 1000

// Sums remembers checksums of files for as long as these don't change: a plugin is looked at for each job. It is safe for
// concurrent use; nil remembers nothing.
type Sums struct {
	mu    sync.Mutex
	known map[string]string // by path and stamp
}

// NewSums makes an empty memory.
func NewSums() *Sums { return &Sums{known: map[string]string{}} }

// of gives a file's SHA-256 and the stamp it had before that was made; settled tells whether any later change shows in the stamp.
func (s *Sums) of(file *os.File) (sum, stamp string, settled bool, err error) {
	info, err := file.Stat()
	if err != nil {
		return "", "", false, withoutPath(err)
	}
	stamp, settled = filewatch.Stamp(info), filewatch.Settled(info)
	key := file.Name() + "\x00" + stamp
	if s != nil {
		s.mu.Lock()
		sum = s.known[key]
		s.mu.Unlock()
		if sum != "" {
			return sum, stamp, settled, nil
		}
	}
	if sum, err = sumOf(file); err != nil {
		return "", "", false, err
	}
	if s != nil && settled {
		s.mu.Lock()
		if len(s.known) >= mostSums {
			clear(s.known)
		}
		s.known[key] = sum
		s.mu.Unlock()
	}
	return sum, stamp, settled, nil
}
