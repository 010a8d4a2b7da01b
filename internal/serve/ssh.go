package serve

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"

	"github.com/hashicorp/go-hclog"

	"github.com/signalman-ci/signalman/internal/jobdir"
	"github.com/signalman-ci/signalman/shared/protocol"
)

// SSH is how the holders of a job's public keys get to where it runs: by the host's SSH server, as the agent's user. The zero value
// lets nobody in.
type SSH struct {
	// Home is the folder whose .ssh/authorized_keys gets the keys; "" lets nobody in.
	Home string
	// JumpPoint is the path of the script that opens a shell where the job runs.
	JumpPoint string
	// Container gives the words of a command that opens a shell in a job's container of a name, or runs what follows there, with the
	// variables of the folder's file (NAME=value, each with a NUL behind it). nil: there is no such way.
	Container func(folder *jobdir.Folder, main string) []string
}

// keysMark is the end of a line of authorized_keys that is a job's.
const keysMark = " signalman-job"

// open lets a job's keys in, until the returned function is called. What goes wrong is no matter for the job.
func (s SSH) open(folder *jobdir.Folder, job *protocol.Job, env []protocol.EnvVar, logger hclog.Logger) (end func()) {
	if s.Home == "" || len(job.SSHPublicKeys) == 0 {
		return func() {}
	}
	err := s.writeJumpPoint(folder, job, env)
	if err == nil {
		err = addKeys(s.keys(), job.SSHPublicKeys)
	}
	if err != nil {
		logger.Error("cannot let the holders of the job's SSH keys in", "error", err)
	}
	return func() {
		if err := errors.Join(s.clear(), ignoreMissing(os.Remove(folder.JumpPath()))); err != nil {
			logger.Error("cannot take back what was made for the job's SSH keys", "error", err)
		}
	}
}

func (s SSH) keys() string { return filepath.Join(s.Home, ".ssh", "authorized_keys") }

// clear lets nobody in any more by a job's keys.
func (s SSH) clear() error {
	if s.Home == "" {
		return nil
	}
	err := removeKeys(s.keys())
	if err == nil && isOurs(s.JumpPoint) {
		err = ignoreMissing(os.Remove(s.JumpPoint))
	}
	return err
}

// jumpHead begins the script.
const jumpHead = "#!/bin/bash\n# Opens a shell where Signalman's job "

// isOurs tells whether a script is one that we have made, rather than another agent's.
func isOurs(path string) bool {
	if info, err := os.Lstat(path); err != nil || !info.Mode().IsRegular() {
		return false
	}
	file, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NONBLOCK, 0) // another user may have put a pipe there since
	if err != nil {
		return false
	}
	defer file.Close()
	head := make([]byte, len(jumpHead))
	_, err = io.ReadFull(file, head)
	return err == nil && string(head) == jumpHead
}

// writeJumpPoint writes the script, and the file of variables that it reads.
func (s SSH) writeJumpPoint(folder *jobdir.Folder, job *protocol.Job, env []protocol.EnvVar) error {
	var vars strings.Builder
	for _, v := range slices.Concat(env, job.Env) {
		vars.WriteString(v.Name + "=" + v.Value + "\x00")
	}
	if err := jobdir.WriteFile(folder.JumpPath(), []byte(vars.String())); err != nil {
		return err
	}
	script, err := s.hostScript(folder), error(nil)
	if job.Compose != nil && len(job.Compose.Containers) > 0 {
		script, err = s.containerScript(folder, job.Compose.Containers[0].Name)
	}
	if err != nil {
		return err
	}
	text := jumpHead + folder.ID() + " runs, or runs its arguments there.\n" + script
	return writeScript(s.JumpPoint, text)
}

// hostScript is for a job on the host: a login shell, whose profile comes before the job's variables, as in the job's own.
func (SSH) hostScript(folder *jobdir.Folder) string {
	const export = `while IFS= read -r -d "" _v; do export "$_v" 2>/dev/null; done <"$0"; `
	file := protocol.ShellQuote(folder.JumpPath())
	return "cd\n" +
		"if [ $# -eq 0 ]; then exec bash --login -c " + protocol.ShellQuote(export+"exec bash -i") + " " + file + "; fi\n" +
		"exec bash --login -c " + protocol.ShellQuote(export+`exec "$@"`) + " " + file + ` "$@"` + "\n"
}

func (s SSH) containerScript(folder *jobdir.Folder, main string) (string, error) {
	if s.Container == nil {
		return "", errors.New("there is no way into the containers of this job")
	}
	script := "exec"
	for _, word := range s.Container(folder, main) {
		script += " " + protocol.ShellQuote(word)
	}
	return script + ` "$@"` + "\n", nil
}

// writeScript puts a script into a folder that others may write to: whatever is at its place goes, and nothing is followed.
func writeScript(path, text string) error {
	tmp, err := os.CreateTemp(filepath.Dir(path), ".signalman-")
	if err != nil {
		return err
	}
	_, err = tmp.WriteString(text)
	err = errors.Join(err, tmp.Chmod(0o755), tmp.Close())
	if err == nil {
		err = os.Rename(tmp.Name(), path)
	}
	if err != nil {
		return fmt.Errorf("cannot write %s: %w", path, errors.Join(err, ignoreMissing(os.Remove(tmp.Name()))))
	}
	return nil
}

// addKeys adds keys to those that are there, in place of those of earlier jobs.
func addKeys(path string, keys []string) error {
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return err
	}
	kept, _, err := keysOfOthers(path)
	if err != nil {
		return err
	}
	for _, key := range keys {
		for line := range strings.Lines(key) {
			if line = strings.TrimSpace(line); line != "" {
				kept += line + keysMark + "\n"
			}
		}
	}
	return jobdir.WriteFile(path, []byte(kept))
}

// removeKeys takes the keys of jobs out.
func removeKeys(path string) error {
	kept, changed, err := keysOfOthers(path)
	switch {
	case err != nil, !changed:
		return err
	case kept == "":
		return ignoreMissing(os.Remove(path))
	}
	return jobdir.WriteFile(path, []byte(kept))
}

// keysOfOthers are the lines of a file that are no job's; jobs tells whether there are any others.
func keysOfOthers(path string) (keys string, jobs bool, err error) {
	raw, err := os.ReadFile(path)
	if err := ignoreMissing(err); err != nil {
		return "", false, err
	}
	var kept strings.Builder
	for line := range strings.Lines(string(raw)) {
		if !strings.HasSuffix(strings.TrimRight(line, "\r\n"), keysMark) {
			kept.WriteString(strings.TrimRight(line, "\n") + "\n")
			continue
		}
		jobs = true
	}
	return kept.String(), jobs, nil
}

func ignoreMissing(err error) error {
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}
