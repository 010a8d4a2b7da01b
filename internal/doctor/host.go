package doctor

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/google/uuid"

	"github.com/signalman-ci/signalman/internal/admission"
	"github.com/signalman-ci/signalman/internal/cgroup"
	"github.com/signalman-ci/signalman/internal/hostuser"
	"github.com/signalman-ci/signalman/internal/supervisor"
	"github.com/signalman-ci/signalman/shared/protocol"
)

// stateDir looks whether the state folder can be written to, or made. It takes no lock: a supervisor that starts meanwhile gets it.
func stateDir(_ context.Context, s Settings) []Check {
	const name = "state-dir"
	hint := "run this as the agent's user; else give the agent the folder (chown), or set another state-dir"
	folder, there := nearest(s.StateDir)
	if err := tryWrite(folder); err != nil {
		return []Check{{name, Failure, fmt.Sprintf("cannot write to %s: %v", folder, withoutPath(err)), hint}}
	}
	if !there {
		return []Check{ok(name, "%s can be made by the start", s.StateDir)}
	}
	return []Check{ok(name, "%s can be written to", s.StateDir)}
}

// nearest gives a folder, or if it isn't there the one above that is.
func nearest(path string) (folder string, there bool) {
	path = absolute(path)
	if _, err := os.Lstat(path); err == nil || filepath.Dir(path) == path {
		return path, true
	}
	folder, _ = nearest(filepath.Dir(path))
	return folder, false
}

// tryWrite makes a file and removes it. Its name is one of those that a start removes, should this program be killed in between.
func tryWrite(folder string) error {
	f, err := os.CreateTemp(folder, ".new-doctor-")
	if err != nil {
		return err
	}
	_, err = f.WriteString("\n")
	err = errors.Join(err, f.Close())
	if gone := os.Remove(f.Name()); !errors.Is(gone, fs.ErrNotExist) { // a start has removed it
		err = errors.Join(err, gone)
	}
	return err
}

func withoutPath(err error) error {
	if pathErr, ok := errors.AsType[*fs.PathError](err); ok {
		return pathErr.Err
	}
	return err
}

// room looks whether a slot would take a job now.
func room(ctx context.Context, s Settings) []Check {
	state, _ := nearest(s.StateDir)
	folders := []string{state}
	for _, folder := range append([]string{"/tmp"}, homes(s)...) {
		if info, err := os.Stat(folder); err == nil && info.IsDir() {
			folders = append(folders, folder)
		}
	}
	disk := admission.Floors{Disk: s.Floors.Disk, Inodes: s.Floors.Inodes}
	memory := admission.Floors{Memory: s.Floors.Memory}
	return []Check{
		enough(ctx, "disk", disk, folders, fmt.Sprintf("at least %s and %d inodes are free at %s",
			cgroup.Size(int64(s.Floors.Disk)), s.Floors.Inodes, strings.Join(folders, ", ")),
			"make room, or set [admission] min-disk and min-inodes; no job is taken until then"),
		enough(ctx, "memory", memory, nil, fmt.Sprintf("at least %s is available", cgroup.Size(int64(s.Floors.Memory))),
			"end what takes it, or set [admission] min-memory; no job is taken until then"),
	}
}

func enough(ctx context.Context, name string, floors admission.Floors, folders []string, fine, hint string) Check {
	if floors == (admission.Floors{}) {
		return ok(name, "no floor is set ([admission])")
	}
	if err := admission.New(floors, folders).Check(ctx); err != nil {
		return Check{name, Failure, err.Error(), hint}
	}
	return ok(name, "%s", fine)
}

// homes are those that jobs on the host have, but for those in the state folder.
func homes(s Settings) []string {
	var all []string
	for _, name := range s.JobUsers {
		if u, err := hostuser.Lookup(name); err == nil {
			all = append(all, u.HomeDir)
		}
	}
	if own, err := os.UserHomeDir(); err == nil && len(s.JobUsers) == 0 && s.Slots <= 1 {
		all = append(all, own)
	}
	return all
}

// cgroups looks at what holds jobs together and limits them.
func cgroups(_ context.Context, s Settings) []Check {
	const name = "cgroups"
	limited := s.Job.Limits != (protocol.Limits{})
	found, err := supervisor.CheckCgroups(uuid.NewString(), s.Job.Limits)
	switch {
	case errors.Is(err, supervisor.ErrNotTried):
		return []Check{{name, Warning, found + "; whether [limits] can be set is " + err.Error(), "see what the start says of it"}}
	case err != nil && limited:
		return []Check{{name, Failure, "[limits] can't be set, and no job is taken: " + err.Error(), "see docs/limits.md"}}
	case err != nil:
		return []Check{{name, Warning, err.Error(), "jobs run without, less well held together; see docs/limits.md"}}
	case limited:
		return []Check{ok(name, "%s; [limits] can be set", found)}
	}
	return []Check{ok(name, "%s; no [limits] are set", found)}
}
