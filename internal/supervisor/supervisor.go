// Package supervisor holds an agent's slots together: one state folder, the jobs found in it after a restart, and the way out.
package supervisor

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/go-hclog"

	"github.com/signalman-ci/signalman/internal/admin"
	"github.com/signalman-ci/signalman/internal/admission"
	"github.com/signalman-ci/signalman/internal/agent"
	"github.com/signalman-ci/signalman/internal/cgroup"
	"github.com/signalman-ci/signalman/internal/config"
	"github.com/signalman-ci/signalman/internal/filewatch"
	"github.com/signalman-ci/signalman/internal/history"
	"github.com/signalman-ci/signalman/internal/job"
	"github.com/signalman-ci/signalman/internal/jobdir"
	"github.com/signalman-ci/signalman/internal/pluginhost"
	"github.com/signalman-ci/signalman/internal/plugins"
	"github.com/signalman-ci/signalman/internal/process"
	"github.com/signalman-ci/signalman/internal/reconcile"
	"github.com/signalman-ci/signalman/internal/version"
	"github.com/signalman-ci/signalman/shared/protocol"
)

const (
	// tidyInterval is how often it is looked for what is left of ended jobs.
	tidyInterval = 5 * time.Minute
	// hookLimit bounds the shutdown hook.
	hookLimit = 5 * time.Minute
)

// Settings are what a supervisor is given. A reload changes all but StateDir, AdminListen, Mounts, CheckUpgrade, Load, Watch, Manager and Logger.
type Settings struct {
	StateDir string
	// Slots is how many jobs may run side by side.
	Slots int
	// JobUsers are the users the slots' jobs run as: none, one for all slots, or one a slot.
	JobUsers []string
	// Agent is the pattern for every slot; slot number, name, files and job folders are filled in.
	Agent agent.Settings
	// ShutdownHook is a script to run once, after the last slot has left.
	ShutdownHook string
	// Floors are what the host must have free for a slot to ask for a job, AdmissionChecks what else must hold (package
	// admission).
	Floors          admission.Floors
	AdmissionChecks []func() error
	// KeepJobs is how long the folders of ended jobs stay.
	KeepJobs time.Duration
	// CheckUpgrade lets the binary that would take this one's place check whether it could, and tells its version; nil: there is no
	// such way.
	CheckUpgrade func(ctx context.Context) (version string, err error)
	// AdminListen is the loopback host:port of the admin API beside its socket; "": none.
	AdminListen string
	// Mounts are served there besides the API and the page.
	Mounts []admin.Mount
	// Config is what the user has set, which the rest follows from. Load reads it anew, and gives with it what the user should know of;
	// nil: there is nothing to read. Watch, if set, tells when there is something new to read.
	Config *config.Config
	Load   func() (next Settings, warnings []string, err error)
	Watch  *filewatch.Watcher
	// Manager, if set, is told how the supervisor does.
	Manager Manager
	// Figures, if set, are what the admin socket answers at /metrics.
	Figures Figures
	Logger  hclog.Logger
}

// Supervisor runs the slots of one state folder. Run is called once; the other methods are safe for concurrent use.
type Supervisor struct {
	Settings  // mu
	dir       *StateDir
	checker   *admission.Checker // mu
	cgroups   *cgroup.Host       // nil if there can't be any; then noCgroups says why
	noCgroups error
	runDir    string
	admin     *admin.Server
	began     time.Time
	// changed asks for the manager to be told.
	changed chan struct{}
	// renewed tells that other settings hold.
	renewed chan struct{}

	// scopes is set while jobs can have scopes of their own, noScopes once it was said that they can't.
	scopes, noScopes atomic.Bool
	trying           sync.Mutex // held while it is tried what cgroups jobs can have

	reconciling sync.Mutex
	reconciler  *reconcile.Reconciler // mu

	drained  atomic.Bool
	draining sync.Mutex // held while drained is changed
	// startedWith is the configuration of the start, which some settings are kept from; reloading holds while another one is taken up.
	startedWith *config.Config
	reloading   sync.Mutex

	managing sync.Mutex
	ready    bool // the manager was told

	mu          sync.Mutex
	slots       *slots
	launch      func(*slot) // nil while Run hasn't begun the slots; it needs mu
	lastReload  *admin.Reload
	interrupted bool
	upgrading   bool // an upgrade is checked, or has begun
	handedOver  bool
}

// Open takes the state folder and the sockets that go with it. Close gives them back.
func Open(s Settings) (_ *Supervisor, err error) {
	if n := len(s.JobUsers); n > 1 && n < s.Slots {
		return nil, fmt.Errorf("job-user names %d users for %d slots: name one for all, or one a slot", n, s.Slots)
	}
	dir, err := OpenStateDir(s.StateDir, len(s.JobUsers) > 0)
	if err != nil {
		return nil, err
	}
	sup := &Supervisor{dir: dir, began: time.Now(), changed: make(chan struct{}, 1), renewed: make(chan struct{}, 1), slots: newSlots(), startedWith: s.Config}
	defer func() {
		if err != nil {
			err = errors.Join(err, dir.Close())
		}
	}()
	if sup.runDir, err = makeRunDir(dir.Path); err != nil {
		return nil, err
	}
	if sup.cgroups, sup.noCgroups = cgroup.Open(dir.InstanceID); sup.cgroups != nil {
		defer func() {
			if err != nil {
				sup.cgroups.Close()
			}
		}()
	}
	sup.drained.Store(dir.drained())
	sup.Settings = sup.withCgroups(s)
	sup.checker = newChecker(dir, sup.Settings)
	sup.reconciler = newReconciler(dir, sup.runDir, sup.Agent.Job, s.Logger)
	sup.tellFigures(func(f Figures) {
		f.Slots(func() []agent.Status { return sup.Status().Slots })
		f.Draining(sup.drained.Load())
	})
	if sup.admin, err = sup.openAdmin(); err != nil {
		return nil, err
	}
	return sup, nil
}

// Close gives the state folder up.
func (s *Supervisor) Close() error {
	err := s.admin.Close()
	if s.cgroups != nil {
		s.cgroups.Close()
	}
	_ = os.Remove(s.runDir) // if no worker's socket is left in it
	return errors.Join(err, s.dir.Close())
}

// Run works until every slot has left and the shutdown hook has run. Its error says that no slot could register, or is
// ErrHandedOver. When ctx ends it returns at once, having asked the running jobs to stop.
func (s *Supervisor) Run(ctx context.Context) error {
	unfinished, err := s.recover()
	if err != nil {
		return err
	}
	if err := pluginhost.EndStrays(s.runDir, sockets(unfinished)); err != nil {
		s.Logger.Error("cannot remove what is left of workers that nobody knows", "error", err)
	}
	made, err := s.makeSlots(unfinished)
	if err != nil {
		return err
	}
	var slots sync.WaitGroup
	s.begin(made, func(added *slot) { slots.Go(func() { s.runSlot(ctx, added) }) })

	background, stopBackground := context.WithCancel(ctx)
	var rest sync.WaitGroup
	rest.Go(func() { s.tidy(background) })
	rest.Go(func() { s.tellLacks(background) })
	rest.Go(func() {
		plugins.Watch(background, func() plugins.Finder { return s.Current().Agent.Job.Finder }, s.renewed, s.Logger)
	})
	if s.Manager != nil {
		rest.Go(func() { s.tellManager(background) })
	}
	if s.Load != nil && s.Watch != nil {
		rest.Go(func() { s.watchConfig(background) })
	}
	for _, folders := range unfinished {
		for _, folder := range folders[:len(folders)-1] {
			rest.Go(func() { s.endOrphan(background, folder) })
		}
	}
	<-s.slots.gone
	slots.Wait()
	stopBackground()
	rest.Wait()
	if err := s.slots.failure(); err != nil || ctx.Err() != nil {
		return err
	}
	if s.slots.last == agent.HandedOver {
		s.noteLeft(s.slots.left())
		return ErrHandedOver
	}
	s.shutdownHook(ctx, s.slots.last)
	return nil
}

// begin starts the slots; launch starts one that is counted already.
func (s *Supervisor) begin(made []*slot, launch func(*slot)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.launch = launch
	for _, added := range made { // all are counted before one can end
		s.slots.add(added)
	}
	for _, added := range made {
		launch(added)
	}
	if s.interrupted {
		s.interruptSlots()
	}
	if s.handedOver {
		s.handOver()
	}
}

// runSlot runs a slot to its end.
func (s *Supervisor) runSlot(ctx context.Context, a *slot) {
	reason, err := a.Run(ctx)
	s.mu.Lock()
	defer s.mu.Unlock()
	if err != nil && len(s.slots.all) > 1 { // else it is the supervisor's own error
		s.Logger.Error("a slot can't work", "slot", a.Slot, "error", err)
	}
	a.ended, a.reason, a.err = true, reason, err
	if a.Status().Pending && !s.interrupted && !s.handedOver && ctx.Err() == nil { // a reload met it on its way out
		if err := s.renewSlot(a.Slot); err != nil {
			s.Logger.Error("a slot can't have the new settings", "slot", a.Slot, "error", err)
		}
	}
	s.slots.end(a)
}

// makeSlots makes the configured slots, and those that are no longer configured but hold a job: these only see it to its end.
func (s *Supervisor) makeSlots(unfinished map[int][]*jobdir.Folder) ([]*slot, error) {
	var made []*slot
	left := s.takeLeft()
	for number := 1; number <= s.Slots; number++ {
		if left[number] && len(unfinished[number]) == 0 {
			continue
		}
		settings, err := s.agentSettings(number)
		if err != nil {
			return nil, err
		}
		made = append(made, &slot{Agent: agent.New(settings, newest(unfinished[number]))})
	}
	for _, number := range slices.Sorted(maps.Keys(unfinished)) {
		if number <= s.Slots {
			continue
		}
		folder := newest(unfinished[number])
		s.Logger.Warn("a slot that is no longer configured holds a job; it leaves when that has ended", "slot", number, "job", folder.ID())
		settings, err := s.agentSettings(number)
		if err == nil && settings.Job.User == "" && len(s.JobUsers) > 0 && folder.State().Worker == nil {
			// It has not begun, and is not to run as the supervisor's own user.
			err = folder.Update(func(st *jobdir.State) { st.StopRequested = true })
		}
		if err != nil {
			s.Logger.Error("cannot go on with a job", "job", folder.ID(), "error", err)
			continue
		}
		settings.Drain = true
		made = append(made, &slot{Agent: agent.New(settings, folder), retired: true})
	}
	return made, nil
}

// Interrupt begins the end: no more jobs, and the running ones have the grace period.
func (s *Supervisor) Interrupt() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.interrupted = true
	s.interruptSlots()
}

// interruptSlots needs mu.
func (s *Supervisor) interruptSlots() {
	for _, a := range s.slots.all {
		a.Interrupt()
	}
}

// Current gives the settings that hold now.
func (s *Supervisor) Current() Settings {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.Settings
}

// Interrupted tells whether Interrupt was called.
func (s *Supervisor) Interrupted() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.interrupted
}

// Status tells what the slots do.
func (s *Supervisor) Status() admin.Status {
	s.mu.Lock()
	defer s.mu.Unlock()
	st := admin.Status{
		Version: version.Version, PID: os.Getpid(), StateDir: s.dir.Path, InstanceID: s.dir.InstanceID,
		Since: s.began, Interrupted: s.interrupted, Drained: s.drained.Load(), LastReload: s.lastReload, Slots: []agent.Status{},
		Goroutines: runtime.NumGoroutine(), OpenFiles: process.OpenFiles(),
	}
	for _, a := range s.slots.all {
		if a.retired && a.ended {
			continue
		}
		st.Slots = append(st.Slots, a.Status())
	}
	return st
}

// recover finds the jobs that were running when the last supervisor ended, by slot, oldest first.
func (s *Supervisor) recover() (map[int][]*jobdir.Folder, error) {
	folders, broken, err := jobdir.Unfinished(s.dir.JobsDir())
	if err != nil {
		return nil, fmt.Errorf("cannot read the state folder: %w", err)
	}
	for path, why := range broken {
		if jobdir.Unborn(path) { // the supervisor before died over it; the hub will hand the job out again
			if err := os.RemoveAll(path); err != nil {
				s.Logger.Error("cannot remove the folder of a job that had not begun", "folder", path, "error", err)
			}
			continue
		}
		aside, err := jobdir.SetAside(path)
		s.Logger.Error("a job folder can't be read and is set aside", "folder", aside, "reason", why, "error", err)
	}
	bySlot := map[int][]*jobdir.Folder{}
	for _, f := range folders {
		slot := f.State().Slot
		s.Logger.Info("found an unfinished job", "job", f.ID(), "slot", slot)
		bySlot[slot] = append(bySlot[slot], f)
	}
	return bySlot, nil
}

// sockets are those of the workers that jobs have.
func sockets(unfinished map[int][]*jobdir.Folder) []string {
	var known []string
	for _, folders := range unfinished {
		for _, f := range folders {
			if worker := f.State().Worker; worker != nil {
				known = append(known, worker.Address)
			}
		}
	}
	return known
}

func newest(folders []*jobdir.Folder) *jobdir.Folder {
	if len(folders) == 0 {
		return nil
	}
	return folders[len(folders)-1]
}

// endOrphan ends a job that no slot can go on with.
func (s *Supervisor) endOrphan(ctx context.Context, folder *jobdir.Folder) {
	log := s.Logger.With("job", folder.ID())
	log.Warn("a job that its slot has no more is stopped")
	s.mu.Lock()
	settings, err := s.agentSettings(folder.State().Slot)
	s.mu.Unlock()
	var result protocol.Result
	if err == nil {
		stop := make(chan struct{})
		close(stop)
		result, err = job.New(settings.Job, folder).Run(ctx, nil, errors.New("the job was given up"), job.Control{Stop: stop})
		log.Info("the job has ended; the hub has given it up and isn't told", "result", result)
	}
	if err == nil {
		err = errors.Join(history.Close(folder, result), folder.Finish())
	}
	if err != nil {
		log.Error("cannot end the job", "error", err)
	}
}

// agentSettings fills in what is a slot's own. It needs mu.
func (s *Supervisor) agentSettings(slot int) (agent.Settings, error) {
	a := s.Agent
	a.Slot, a.Logger, a.Changed = slot, s.Logger, s.noteChange
	a.File, a.JobsDir = s.dir.AgentFile(slot), s.dir.JobsDir()
	if slot > 1 && a.Registration.Name != "" {
		a.Registration.Name = fmt.Sprintf("%s-%d", a.Registration.Name, slot)
	}
	a.Job.InstanceID, a.Job.RunDir, a.Job.Logger = s.dir.InstanceID, s.runDir, s.Logger
	a.Job.User = s.jobUser(slot)
	if (s.Slots > 1 || slot > 1) && len(s.JobUsers) < 2 { // else the slots' homes differ anyway
		home, err := s.dir.Home(slot)
		if err != nil {
			return a, err
		}
		a.Job.Home = home
	}
	a.Admit = s.admit(a.Job)
	return a, nil
}

// jobUser is the user of a slot's jobs; "" is the supervisor's own. A slot that is no longer configured may have none where
// others have.
func (s *Supervisor) jobUser(slot int) string {
	switch {
	case len(s.JobUsers) == 1:
		return s.JobUsers[0]
	case slot <= len(s.JobUsers):
		return s.JobUsers[slot-1]
	default:
		return ""
	}
}

// shutdownHook runs the hook; it often powers the machine off.
func (s *Supervisor) shutdownHook(ctx context.Context, reason agent.Reason) {
	s.Logger.Info("all slots have left", "reason", reason)
	hook := s.Current().ShutdownHook
	if hook == "" {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, hookLimit)
	defer cancel()
	cmd := exec.CommandContext(ctx, "bash", hook)
	cmd.Env = slices.DeleteFunc(os.Environ(), func(v string) bool { // what speaks for the supervisor is not the hook's
		return strings.HasPrefix(v, "SEMAPHORE_AGENT_TOKEN") || strings.HasPrefix(v, "SEMAPHORE_AGENT_PROXY=") ||
			strings.HasPrefix(v, "NOTIFY_SOCKET=") || strings.HasPrefix(v, "WATCHDOG_")
	})
	cmd.Env = append(cmd.Env, "SEMAPHORE_AGENT_SHUTDOWN_REASON="+string(reason))
	cmd.WaitDelay = time.Second
	out, err := cmd.CombinedOutput()
	if err != nil && !errors.Is(err, exec.ErrWaitDelay) { // that is of a child in the background, which may go on
		s.Logger.Error("the shutdown hook failed", "hook", hook, "error", err, "output", string(out))
		return
	}
	s.Logger.Info("the shutdown hook has run", "hook", hook, "output", string(out))
}
