package supervisor

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"time"

	"github.com/gofrs/flock"
	"github.com/google/uuid"

	"github.com/signalman-ci/signalman/internal/jobdir"
)

// StateDir is a state folder that this process owns.
type StateDir struct {
	Path string
	// InstanceID marks all that jobs of this state folder make on the host.
	InstanceID string
	lock       *flock.Flock
}

// ErrInUse says that another supervisor owns the state folder.
var ErrInUse = errors.New("another supervisor runs with it")

// OpenStateDir makes a state folder if need be and takes its lock. With shared set, other users (job-user) may pass through
// it to what is theirs.
func OpenStateDir(path string, shared bool) (*StateDir, error) {
	path, err := filepath.Abs(path)
	if err != nil {
		return nil, fmt.Errorf("cannot use state folder: %w", err)
	}
	mode := fs.FileMode(0o700)
	if shared {
		mode = 0o711
	}
	for _, dir := range []string{path, filepath.Join(path, "jobs")} {
		if err := errors.Join(os.MkdirAll(dir, mode), os.Chmod(dir, mode)); err != nil {
			return nil, fmt.Errorf("cannot use state folder %s (state-dir): %w", path, err)
		}
	}
	if err := os.MkdirAll(filepath.Join(path, "agents"), 0o700); err != nil {
		return nil, fmt.Errorf("cannot use state folder %s (state-dir): %w", path, err)
	}
	_, missing := os.Stat(idFile(path))
	s, err := lockStateDir(path)
	if err != nil || missing != nil { // what isn't known to be ours may hold anything
		return s, err
	}
	if err := errors.Join(jobdir.RemoveTorn(path), jobdir.RemoveTorn(filepath.Join(path, "agents"))); err != nil {
		return nil, errors.Join(fmt.Errorf("cannot tidy state folder %s: %w", path, err), s.Close())
	}
	return s, nil
}

// idFile is where a state folder keeps its instance id.
func idFile(path string) string { return filepath.Join(path, "instance-id") }

// lockStateDir makes this supervisor the owner of a state folder as it is.
func lockStateDir(path string) (*StateDir, error) {
	s := &StateDir{Path: path, lock: flock.New(filepath.Join(path, "lock"))}
	switch ok, err := s.lock.TryLock(); {
	case err != nil:
		return nil, fmt.Errorf("cannot lock state folder %s: %w", path, err)
	case !ok:
		return nil, fmt.Errorf("cannot use state folder %s: %w; give this one another --state-dir", path, ErrInUse)
	}
	var err error
	if s.InstanceID, err = instanceID(idFile(path)); err != nil {
		return nil, errors.Join(err, s.Close())
	}
	return s, nil
}

// Close gives the folder up.
func (s *StateDir) Close() error { return s.lock.Unlock() }

// JobsDir is the folder of the job folders.
func (s *StateDir) JobsDir() string { return filepath.Join(s.Path, "jobs") }

// leftFile is where a supervisor that hands over names the slots that have left for good.
func (s *StateDir) leftFile() string { return filepath.Join(s.Path, "left.json") }

// AgentFile is where a slot keeps its registration.
func (s *StateDir) AgentFile(slot int) string {
	return filepath.Join(s.Path, "agents", fmt.Sprintf("%d.json", slot))
}

// drainedFile is there while an operator wants no jobs taken.
func (s *StateDir) drainedFile() string { return filepath.Join(s.Path, "drained") }

func (s *StateDir) drained() bool {
	_, err := os.Stat(s.drainedFile())
	return err == nil
}

// keepDrained keeps over restarts whether jobs are taken.
func (s *StateDir) keepDrained(drained bool) error {
	if drained {
		return jobdir.WriteFile(s.drainedFile(), []byte(time.Now().Format(time.RFC3339)+"\n"))
	}
	if err := os.Remove(s.drainedFile()); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

// share lets other users (job-user) pass through the folder to what is theirs.
func (s *StateDir) share() error {
	const passable fs.FileMode = 0o711
	return errors.Join(os.Chmod(s.Path, passable), os.Chmod(s.JobsDir(), passable))
}

// Home gives a slot's own home folder, and makes it.
func (s *StateDir) Home(slot int) (string, error) {
	home := filepath.Join(s.Path, "homes", fmt.Sprint(slot))
	if err := os.MkdirAll(filepath.Dir(home), 0o711); err != nil {
		return "", fmt.Errorf("cannot make a home for slot %d: %w", slot, err)
	}
	if err := os.Mkdir(home, 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
		return "", fmt.Errorf("cannot make a home for slot %d: %w", slot, err)
	}
	return home, nil
}

// instanceID reads the id of a state folder, or makes one at the first start.
func instanceID(path string) (string, error) {
	raw, err := os.ReadFile(path)
	if id := strings.TrimSpace(string(raw)); err == nil && id != "" {
		return id, nil
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return "", fmt.Errorf("cannot read the state folder's id: %w", err)
	}
	id := uuid.NewString()
	return id, jobdir.WriteFile(path, []byte(id+"\n"))
}

// longestTempDir leaves room for a socket's path below.
const longestTempDir = 40

// TempDir is where temporary folders go that have sockets in them: the usual place, unless its path is too long for that.
func TempDir() string {
	if dir := os.TempDir(); len(dir) <= longestTempDir || runtime.GOOS == "windows" { // where sockets have no path
		return dir
	}
	return "/tmp"
}

// RunDir is the folder for the sockets that go with a state folder. It is short, since a socket's path may have 107 bytes only,
// and follows from the state folder's path.
func RunDir(stateDir string) (string, error) {
	abs, err := filepath.Abs(stateDir)
	if err != nil {
		return "", fmt.Errorf("cannot use state folder: %w", err)
	}
	base := filepath.Join(TempDir(), fmt.Sprintf("signalman-%d", os.Getuid()))
	if xdg := os.Getenv("XDG_RUNTIME_DIR"); os.Getuid() == 0 {
		base = "/run/signalman"
	} else if xdg != "" {
		base = filepath.Join(xdg, "signalman")
	}
	return filepath.Join(base, fmt.Sprintf("%x", sha256.Sum256([]byte(abs)))[:10]), nil
}

// makeRunDir makes the run folder, and refuses one that somebody else has put there.
func makeRunDir(stateDir string) (string, error) {
	dir, err := RunDir(stateDir)
	if err != nil {
		return "", err
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return "", fmt.Errorf("cannot make the run folder: %w", err)
	}
	for _, d := range []string{filepath.Dir(dir), dir} {
		if err := checkOwn(d); err != nil {
			return "", err
		}
	}
	return dir, nil
}
