package shell

import (
	"errors"
	"fmt"
	"os"
	"os/user"
	"strconv"

	"github.com/signalman-ci/signalman/internal/hostuser"
)

// owner is the user whose rights a job has.
type owner struct {
	name, home string
	// switched is set when that is another user than the worker's own.
	switched bool
	uid, gid int
	groups   []uint32
}

// lookup finds a user by name; "" is the worker's own.
func lookup(name string) (owner, error) {
	if name == "" {
		o := owner{name: os.Getenv("USER"), home: os.Getenv("HOME")}
		if u, err := user.Current(); err == nil {
			o.name = u.Username
			if o.home == "" {
				o.home = u.HomeDir
			}
		}
		if o.home == "" {
			return owner{}, errors.New("cannot tell the home folder of this user: set HOME for the supervisor")
		}
		return o, nil
	}
	u, err := hostuser.Lookup(name)
	if err != nil {
		return owner{}, fmt.Errorf("cannot run the job as %q (job-user): %w", name, err)
	}
	o := owner{name: u.Username, home: u.HomeDir, switched: true}
	if o.uid, err = strconv.Atoi(u.Uid); err != nil {
		return owner{}, fmt.Errorf("cannot run the job as %q (job-user): uid %q is no number", name, u.Uid)
	}
	if o.gid, err = strconv.Atoi(u.Gid); err != nil {
		return owner{}, fmt.Errorf("cannot run the job as %q (job-user): gid %q is no number", name, u.Gid)
	}
	ids, err := u.GroupIds()
	if err != nil {
		return owner{}, fmt.Errorf("cannot tell the groups of %q (job-user): %w", name, err)
	}
	for _, id := range ids {
		if gid, err := strconv.ParseUint(id, 10, 32); err == nil {
			o.groups = append(o.groups, uint32(gid))
		}
	}
	return o, nil
}

// give hands a file to the job's user.
func (o owner) give(path string) error {
	if !o.switched {
		return nil
	}
	if err := os.Lchown(path, o.uid, o.gid); err != nil {
		return fmt.Errorf("cannot hand %s to %s (job-user): %w", path, o.name, err)
	}
	return nil
}
