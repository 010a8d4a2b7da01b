package shell

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"github.com/signalman-ci/signalman/internal/session"
	"github.com/signalman-ci/signalman/shared/protocol"
)

func (e *environment) ResolvePath(path string) string { return resolve(e.home, path) }

func resolve(home, path string) string {
	switch {
	case path == "~" || strings.HasPrefix(path, "~/"):
		return filepath.Join(home, path[1:])
	case filepath.IsAbs(path):
		return path
	default:
		return filepath.Join(home, path)
	}
}

func (e *environment) Inject(ctx context.Context, file protocol.File) error {
	path := e.ResolvePath(file.Path)
	put := e.put
	if e.owner.switched {
		put = e.putAsOwner
	}
	if err := put(ctx, path, file); err != nil {
		return fmt.Errorf("cannot inject %s: %w", path, err)
	}
	e.injected = append(e.injected, path)
	return nil
}

// put writes a file. What a worker leaves beside its place that dies over it is found by its name.
func (e *environment) put(_ context.Context, path string, file protocol.File) error {
	return session.PlaceFile(path, halfWritten(e.jobID), file.Mode, file.Content)
}

// halfWritten begins the names of files of a job that aren't in their place yet.
func halfWritten(jobID string) string { return ".signalman-" + jobID + "-" }

// leftHalfWritten lists such files beside the places of a job's files.
func leftHalfWritten(jobID string, paths []string) []string {
	var left []string
	seen := map[string]bool{}
	for _, path := range paths {
		dir := filepath.Dir(path)
		if seen[dir] {
			continue
		}
		seen[dir] = true
		entries, err := os.ReadDir(dir)
		if err != nil { // there is nothing then
			continue
		}
		for _, e := range entries {
			if strings.HasPrefix(e.Name(), halfWritten(jobID)) {
				left = append(left, filepath.Join(dir, e.Name()))
			}
		}
	}
	return left
}

// putScript does what put does, for the file $1 in the folder $2 with mode $3; $4 begins the name beside its place.
const putScript = `umask 022
mkdir -p -- "$2" && new=$(mktemp -- "$2/$4XXXXXX") || exit 1
if cat >"$new" && chmod -- "$3" "$new"; then
	if [ -d "$1" ]; then echo "it is a folder" >&2; else mv -f -- "$new" "$1" && exit 0; fi
fi
rm -f -- "$new"
exit 1`

// putAsOwner writes a file with the rights of the job's user. The worker's own would let a job write where its user can't: by
// the path it names, or by a link that an earlier job has left.
func (e *environment) putAsOwner(ctx context.Context, path string, file protocol.File) error {
	cmd := exec.CommandContext(ctx, "sh", "-c", putScript, "sh", path, filepath.Dir(path), fmt.Sprintf("%04o", file.Mode), halfWritten(e.jobID))
	var said bytes.Buffer
	cmd.Dir, cmd.Env, cmd.SysProcAttr = "/", []string{"PATH=" + os.Getenv("PATH"), "LC_ALL=C"}, e.owner.attributes()
	cmd.Stdin, cmd.Stderr = bytes.NewReader(file.Content), &said
	if err := e.tree.Start(cmd); err != nil {
		return err
	}
	if err := cmd.Wait(); err != nil {
		reason, _, _ := strings.Cut(strings.TrimSpace(said.String()), "\n")
		return fmt.Errorf("as %s (job-user): %s (%w)", e.owner.name, reason, err)
	}
	return nil
}

// removeScript removes the files that it is given, folders excepted.
const removeScript = `for f; do [ -d "$f" ] && [ ! -L "$f" ] || rm -f -- "$f" || failed=1; done; exit ${failed-0}`

// remove removes a job's files, which may hold secrets, with the rights of its owner: a job may have put a link in the place
// of a folder. What is gone already is no error.
func (o owner) remove(ctx context.Context, start func(*exec.Cmd) error, paths []string) error {
	if len(paths) == 0 {
		return nil
	}
	if !o.switched {
		var errs []error
		for _, path := range paths {
			if info, err := os.Lstat(path); err == nil && !info.IsDir() {
				errs = append(errs, os.Remove(path))
			}
		}
		return errors.Join(errs...)
	}
	cmd := exec.CommandContext(ctx, "sh", append([]string{"-c", removeScript, "sh"}, paths...)...)
	cmd.Dir, cmd.Env, cmd.SysProcAttr = "/", []string{"PATH=" + os.Getenv("PATH"), "LC_ALL=C"}, o.attributes()
	err := start(cmd)
	if err == nil {
		err = cmd.Wait()
	}
	if err != nil {
		return fmt.Errorf("cannot remove the job's files as %s (job-user): %w", o.name, err)
	}
	return nil
}
