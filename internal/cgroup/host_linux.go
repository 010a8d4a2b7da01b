package cgroup

import (
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"

	"golang.org/x/sys/unix"

	"github.com/signalman-ci/signalman/shared/protocol"
)

const (
	// jobPrefix and a job's id are the name of its group.
	jobPrefix = "job-"
	// supervisorLeaf is where the supervisor goes if v2 wants its place free of processes. No job's group has that name.
	supervisorLeaf = "supervisor"
)

// Host is where this host's cgroups take the groups of one instance (state folder). It is safe for concurrent use.
type Host struct {
	name   string // of the folder that holds the groups, in each hierarchy
	wanted []string
	seats  []seat

	// deserted are the folders of earlier supervisors of this instance, which were in other cgroups.
	deserted []string

	mu         sync.Mutex
	groups     map[string]*Group // by job id; one whose cgroups are gone may be among them
	scopesOnly bool              // see LimitInScopesOnly
}

// seat is our place in one hierarchy.
type seat struct {
	*hierarchy
	// base is the cgroup that the folder is made in.
	base, folder string
}

// Open finds out what cgroups there are for us, makes the folder that holds the groups of this instance, and finds those that an
// earlier supervisor has left. Its error is one line that says what to do; one can go on without cgroups.
func Open(instanceID string) (*Host, error) {
	return openIn("/proc", instanceID)
}

func openIn(proc, instanceID string) (*Host, error) {
	h, err := look(proc, instanceID, func(s seat) error {
		if err := os.Mkdir(s.folder, 0o755); err != nil && !errors.Is(err, fs.ErrExist) {
			return err
		}
		if !s.v2 { // kernels before 5.11: a limit holds for the cgroups below, too
			_ = write(s.folder, "memory.use_hierarchy", "1")
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	for _, folder := range h.deserted {
		removeFolder(folder)
	}
	return h, nil
}

// removeFolder removes a folder of an instance, unless something is in it.
func removeFolder(folder string) {
	_ = unix.Rmdir(filepath.Join(folder, supervisorLeaf))
	_ = unix.Rmdir(folder)
}

// Inspect tells what Open would find, for people, and changes nothing.
func Inspect(instanceID string) (string, error) {
	h, err := look("/proc", instanceID, func(seat) error { return nil })
	if err != nil {
		return "", err
	}
	return h.Describe(), nil
}

// look finds our seats, which claim tries to take, and the groups.
func look(proc, instanceID string, claim func(seat) error) (*Host, error) {
	mountinfo, err := os.ReadFile(filepath.Join(proc, "self", "mountinfo"))
	if err != nil {
		return nil, fmt.Errorf("cannot use cgroups: cannot tell what is mounted: %w", err)
	}
	membership, err := os.ReadFile(filepath.Join(proc, "self", "cgroup"))
	if err != nil {
		return nil, fmt.Errorf("cannot use cgroups: %w", err)
	}
	h := &Host{name: folderName(instanceID), wanted: wanted(), groups: map[string]*Group{}}
	var refusal error
	for _, tree := range usable(hierarchies(mountinfo)) {
		s, err := h.settle(tree, membership, claim)
		if err != nil {
			refusal = errors.Join(err, refusal)
			continue
		}
		h.seats = append(h.seats, s)
	}
	if len(h.seats) == 0 {
		return nil, refused(refusal)
	}
	h.find()
	return h, nil
}

// settle takes a seat in this process's own cgroup, or else at the top of the hierarchy.
func (h *Host) settle(tree *hierarchy, membership []byte, claim func(seat) error) (seat, error) {
	bases := []string{tree.mount}
	if own, ok := tree.folderOf(membership); ok && own != tree.mount {
		if leaf := filepath.Join(h.name, supervisorLeaf); strings.HasSuffix(own, "/"+leaf) { // an earlier one of us made room
			own = strings.TrimSuffix(own, "/"+leaf)
		}
		bases = []string{own, tree.mount}
	}
	var first error
	for _, base := range bases {
		s := seat{tree, base, filepath.Join(base, h.name)}
		err := unix.Access(base, unix.W_OK)
		if err == nil && tree.v2 { // whoever moves a process needs this, too
			err = unix.Access(filepath.Join(base, procsFile), unix.W_OK)
		}
		if err == nil {
			err = claim(s)
		}
		if err == nil {
			return s, nil
		}
		if pathErr := (*fs.PathError)(nil); errors.As(err, &pathErr) {
			err = pathErr.Err
		}
		if first == nil {
			first = &fs.PathError{Op: "write to", Path: base, Err: err}
		}
	}
	return seat{}, first
}

// refused says in one line why there are no cgroups for us and what to do.
func refused(err error) error {
	var first *fs.PathError
	switch {
	case err == nil:
		return errors.New("cannot use cgroups: none are mounted; mount cgroup2 at /sys/fs/cgroup")
	case !errors.As(err, &first):
		return fmt.Errorf("cannot use cgroups: %w", err)
	case errors.Is(first, fs.ErrPermission):
		return fmt.Errorf("cannot use cgroups: %w; run the supervisor as root, or in a systemd unit with Delegate=yes", first)
	case errors.Is(first, unix.EROFS):
		return fmt.Errorf("cannot use cgroups: %w; in a container, give it a cgroup tree that it may write to", first)
	default:
		return fmt.Errorf("cannot use cgroups: %w", first)
	}
}

// Describe tells people what there is.
func (h *Host) Describe() string {
	var parts []string
	for _, s := range h.seats {
		controllers := s.controllers
		if s.v2 {
			controllers, _ = words(s.base, "cgroup.controllers")
		}
		controllers = slices.DeleteFunc(slices.Clone(h.wanted), func(c string) bool { return !slices.Contains(controllers, c) })
		what := "controllers " + strings.Join(controllers, " ")
		if len(controllers) == 0 {
			what = "to know a job's processes by, no controllers"
		}
		parts = append(parts, fmt.Sprintf("cgroup %s at %s, %s", s.version(), s.base, what))
	}
	return strings.Join(parts, "; ")
}

// find looks through the hierarchies for the groups of this instance: they are where the supervisor of that time was, or in
// scopes of systemd.
func (h *Host) find() {
	for _, s := range h.seats {
		_ = filepath.WalkDir(s.mount, func(path string, entry fs.DirEntry, err error) error {
			if err != nil || !entry.IsDir() {
				return nil //nolint:nilerr // it is gone, or somebody else's
			}
			if entry.Name() == h.name {
				if path != s.folder {
					h.deserted = append(h.deserted, path)
				}
				h.findIn(path, s.v2)
				return fs.SkipDir
			}
			scope, isScope := strings.CutSuffix(entry.Name(), ".scope")
			if id, ours := strings.CutPrefix(scope, h.name+"-"); isScope && ours {
				h.found(id, place{v2: s.v2, dir: path, scope: true})
				return fs.SkipDir
			}
			return nil
		})
	}
}

func (h *Host) findIn(folder string, v2 bool) {
	entries, err := os.ReadDir(folder)
	if err != nil {
		return
	}
	for _, e := range entries {
		if id, ok := strings.CutPrefix(e.Name(), jobPrefix); ok && e.IsDir() {
			h.found(id, place{v2: v2, dir: filepath.Join(folder, e.Name())})
		}
	}
}

func (h *Host) found(jobID string, p place) {
	g := h.groups[jobID]
	if g == nil {
		g = &Group{host: h, jobID: jobID}
		h.groups[jobID] = g
	}
	g.places = append(g.places, p)
}

// Find gives the group of a job, made by this supervisor or an earlier one.
func (h *Host) Find(jobID string) (*Group, bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	g := h.groups[jobID]
	return g, g != nil && g.exists()
}

// Jobs lists the jobs that have groups of this instance, whatever state they are in.
func (h *Host) Jobs() []string {
	h.mu.Lock()
	defer h.mu.Unlock()
	maps.DeleteFunc(h.groups, func(_ string, g *Group) bool { return !g.exists() })
	return slices.Sorted(maps.Keys(h.groups))
}

// Close removes the folder that holds the groups, if none is left in it.
func (h *Host) Close() {
	for _, s := range h.seats {
		removeFolder(s.folder)
	}
}

// Create makes a job's group and sets its limits: all of them hold for job/, that of memory for worker/ as well, each for
// itself. The error names a limit that can't be set; nothing is left then. A group that is there already is
// taken over, with the limits given now.
func (h *Host) Create(jobID string, limits protocol.Limits) (*Group, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.create(jobID, limits, func(seat) (string, bool) { return "", false })
}

// LimitInScopesOnly leaves v2's controllers out of the supervisor's own cgroup from now on: groups there hold processes together, and can't
// have limits. It is for services of systemd, which can't be started again while their cgroup hands on controllers and jobs
// are in it.
func (h *Host) LimitInScopesOnly() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.scopesOnly = true
}

// CreateIn makes a job's group inside the systemd scope of a process (ScopeName is its name, Delegate its property), which
// becomes the group's worker. In hierarchies where that scope is no cgroup of its own it does what Create does.
func (h *Host) CreateIn(jobID string, limits protocol.Limits, pid int) (*Group, error) {
	membership, err := os.ReadFile(filepath.Join("/proc", strconv.Itoa(pid), "cgroup"))
	if err != nil {
		return nil, fmt.Errorf("cannot tell the cgroup of the job's worker: %w", err)
	}
	scope := h.name + "-" + jobID + ".scope"
	h.mu.Lock()
	defer h.mu.Unlock()
	g, err := h.create(jobID, limits, func(s seat) (string, bool) {
		dir, ok := s.folderOf(membership)
		switch filepath.Base(dir) {
		case scope:
		case workerName, jobName: // it has begun before
			dir = filepath.Dir(dir)
		}
		return dir, ok && filepath.Base(dir) == scope
	})
	if err != nil {
		return nil, err
	}
	return g, g.AddWorker(pid)
}

// create makes a group in the scope that scopeIn tells of, or else in our folder.
func (h *Host) create(jobID string, limits protocol.Limits, scopeIn func(seat) (string, bool)) (*Group, error) {
	g := &Group{host: h, jobID: jobID}
	known := h.groups[jobID]
	missing := map[string]error{} // controllers, and why
	for _, l := range limitsOf(limits) {
		if l.value > 0 {
			missing[l.controller] = nil
		}
	}
	fresh := known == nil || !known.exists()
	err := func() error {
		for _, s := range h.seats {
			p := place{v2: s.v2, dir: filepath.Join(s.folder, jobPrefix+jobID)}
			if dir, ok := scopeIn(s); ok {
				p.dir, p.scope = dir, true
			} else if i := known.placeIn(s); i >= 0 {
				p = known.places[i]
			} else if !s.serves(limits) {
				continue
			}
			g.places = append(g.places, p)
			if err := h.furnish(s, p, limits, missing); err != nil {
				return err
			}
		}
		for _, l := range limitsOf(limits) {
			if why, lacks := missing[l.controller]; lacks {
				return lacking(l, why)
			}
		}
		return nil
	}()
	if err != nil {
		if fresh {
			g.discard()
		}
		return nil, err
	}
	h.groups[jobID] = g
	return g, nil
}

// serves tells whether a job needs a group in a hierarchy. Counting memory tells why processes die; the other v1 controllers
// are of no use without their limits.
func (s seat) serves(l protocol.Limits) bool {
	if s.v2 || s.has("memory") || !slices.ContainsFunc(wanted(), s.has) {
		return true
	}
	return s.has("cpu") && l.MilliCPUs > 0 || s.has("pids") && l.Pids > 0
}

// furnish makes the cgroups of a group in one hierarchy. It strikes off missing the controllers that it finds, or notes why
// they can't be had.
func (h *Host) furnish(s seat, p place, limits protocol.Limits, missing map[string]error) error {
	for _, dir := range []string{s.folder, p.dir, p.worker(), p.job()} {
		if err := os.Mkdir(dir, 0o755); err != nil && !errors.Is(err, fs.ErrExist) {
			return fmt.Errorf("cannot make a cgroup for the job: %w", err)
		}
	}
	here := s.controllers
	if s.v2 {
		err := h.delegate(s, p)
		for controller := range missing {
			missing[controller] = err
		}
		here, _ = words(p.dir, "cgroup.subtree_control") // none: nothing can be limited
	}
	if err := setLimits(p.job(), s.v2, limits); err != nil {
		return err
	}
	if err := setLimits(p.worker(), s.v2, protocol.Limits{Memory: limits.Memory}); err != nil {
		return err
	}
	for _, controller := range here {
		delete(missing, controller)
	}
	return nil
}

// delegate passes v2's controllers down to a group's children. It needs mu to be held. Its error tells why some can't be passed.
func (h *Host) delegate(s seat, p place) error {
	if p.scope { // systemd has put the worker there
		return h.passDown(p.dir, func() error { return evacuate(p.dir, p.worker(), func(int) bool { return true }) })
	}
	if h.scopesOnly {
		return errors.New("it has no scope of its own, and systemd can't restart a service that hands on cgroup controllers")
	}
	outer := filepath.Dir(p.dir) // our folder, of this supervisor or of an earlier one
	room := func() error { return s.makeRoom(filepath.Dir(outer), filepath.Join(outer, supervisorLeaf)) }
	return errors.Join(h.passDown(filepath.Dir(outer), room), h.passDown(outer, nil), h.passDown(p.dir, nil))
}

// passDown enables in a v2 cgroup the controllers we want for its children. But at the top, v2 allows that only where no
// process is: makeRoom sees to it.
func (h *Host) passDown(dir string, makeRoom func() error) error {
	available, err := words(dir, "cgroup.controllers")
	if err != nil {
		return err
	}
	passed, err := words(dir, "cgroup.subtree_control")
	if err != nil {
		return err
	}
	var errs []error
	for _, c := range h.wanted {
		if slices.Contains(passed, c) || !slices.Contains(available, c) {
			continue
		}
		err := write(dir, "cgroup.subtree_control", "+"+c)
		if errors.Is(err, unix.EBUSY) && makeRoom != nil {
			if err = makeRoom(); err == nil {
				err = write(dir, "cgroup.subtree_control", "+"+c)
			}
			makeRoom = nil
		}
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}

// makeRoom moves this process into a leaf, if it is alone in its cgroup. In a container, whose top cgroup is our base, its own
// ancestors may be there as well: the container's init, or a shell that started us.
func (s seat) makeRoom(base, leaf string) error {
	mine := map[int]bool{os.Getpid(): true}
	if base == s.mount {
		for pid := os.Getppid(); pid > 0 && !mine[pid]; pid = parent(pid) {
			mine[pid] = true
		}
	}
	return evacuate(base, leaf, func(pid int) bool { return mine[pid] })
}

func parent(pid int) int {
	raw, err := os.ReadFile(filepath.Join("/proc", strconv.Itoa(pid), "status"))
	if err != nil {
		return 0
	}
	_, after, _ := strings.Cut(string(raw), "\nPPid:")
	line, _, _ := strings.Cut(after, "\n")
	ppid, _ := strconv.Atoi(strings.TrimSpace(line)) // 0 ends the way up
	return ppid
}

// evacuate moves the processes of a cgroup into a leaf below it, if all of them may be moved.
func evacuate(dir, leaf string, may func(pid int) bool) error {
	pids, err := pidsIn(dir)
	if err != nil {
		return err
	}
	for _, pid := range pids {
		if pid == 0 || !may(pid) { // 0 is outside of our pid namespace
			return fmt.Errorf("processes of others (%v) run in the supervisor's cgroup %s: start it in a unit or container of its own", pids, dir)
		}
	}
	if err := os.Mkdir(leaf, 0o755); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	for _, pid := range pids {
		if err := write(leaf, procsFile, strconv.Itoa(pid)); err != nil && !errors.Is(err, unix.ESRCH) {
			return err
		}
	}
	return nil
}

// lacking says that a limit can't be set, and why.
func lacking(l limit, why error) error {
	if why == nil {
		why = fmt.Errorf("there is no cgroup controller %s here; a systemd unit needs Delegate=yes", l.controller)
	}
	return fmt.Errorf("cannot hold a job to its %s: %w; without the limit the job can run", l.text, why)
}
