// Package agent is one slot: a registration at the hub and the jobs that come by it, one at a time.
//
// One goroutine owns the slot's state and syncs it; a second one, while there is a job, takes the job from its request to its
// delivered log and reports each step to the first.
package agent

import (
	"cmp"
	"context"
	crand "crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http"
	"os"
	"regexp"
	"strings"
	"sync"
	"time"

	"github.com/hashicorp/go-hclog"

	"github.com/signalman-ci/signalman/internal/agent/state"
	"github.com/signalman-ci/signalman/internal/hub"
	"github.com/signalman-ci/signalman/internal/job"
	"github.com/signalman-ci/signalman/internal/jobdir"
)

// Reason is why a slot has left, in the words of the shutdown hook.
type Reason string

// The reasons.
const (
	Idle         Reason = "IDLE"
	JobFinished  Reason = "JOB_FINISHED"
	UnableToSync Reason = "UNABLE_TO_SYNC"
	Requested    Reason = "REQUESTED"
	Interrupted  Reason = "INTERRUPTED"
	Unknown      Reason = "UNKNOWN"
)

// Settings are what a slot is given.
type Settings struct {
	// Slot is the slot's number, from 1.
	Slot int
	Hub  *hub.Client
	// RegistrationToken and Registration are what the slot registers with.
	RegistrationToken string
	Registration      hub.RegisterRequest
	// RegisterAgain says what to do when the hub has forgotten the agent: register anew, or leave.
	RegisterAgain bool
	// File keeps the slot's name and access token across restarts.
	File string
	// JobsDir is the folder of the job folders.
	JobsDir string
	// FlushTimeout is how long a job's result waits for its log to be delivered.
	FlushTimeout time.Duration
	Job          job.Settings
	Limits       Limits
	Logger       hclog.Logger
}

// Limits are the times after which a slot gives up. Zero values mean the defaults.
type Limits struct {
	// Forgotten is how long 404 must be the answer before the hub is taken to have forgotten the agent: 2 minutes.
	Forgotten time.Duration
	// Alone is how long an idle slot goes on without a sync: 10 minutes. AloneWithJob is the same with a job: 15, the hub's
	// own limit.
	Alone, AloneWithJob time.Duration
	// Farewell is how long after the grace period an interrupted slot leaves if the hub doesn't answer: 1 minute.
	Farewell time.Duration
	// Fetch is how long a job request is asked for: 5 minutes.
	Fetch time.Duration
}

func (l Limits) withDefaults() Limits {
	for _, d := range []struct {
		value *time.Duration
		or    time.Duration
	}{
		{&l.Forgotten, 2 * time.Minute}, {&l.Alone, 10 * time.Minute}, {&l.AloneWithJob, 15 * time.Minute},
		{&l.Farewell, time.Minute}, {&l.Fetch, 5 * time.Minute},
	} {
		if *d.value == 0 {
			*d.value = d.or
		}
	}
	return l
}

const (
	// syncRetryLeast and syncRetryMost bound the pause between syncs where the hub doesn't set one.
	syncRetryLeast = 3 * time.Second
	syncRetryMost  = 6 * time.Second
	// disconnectLimit bounds the goodbye to the hub.
	disconnectLimit = 15 * time.Second
)

// Agent is one slot. Run is called once; the other methods are safe for concurrent use.
type Agent struct {
	Settings
	kick   chan struct{} // asks for a sync now
	events chan event    // what the job's goroutine reports

	mu            sync.Mutex
	interruptedAt time.Time
	status        Status

	// What follows is the loop's own.
	identity  identity
	machine   state.Machine
	current   *current
	leave     Reason // set once the slot is to leave as soon as its job has ended
	lastSync  time.Time
	unknownAt time.Time // first 404 of an unbroken row
	proven    bool      // a sync with this access token has succeeded in this process
}

// Status is what a slot does, for people.
type Status struct {
	Slot  int       `json:"slot"`
	Name  string    `json:"name,omitempty"`
	State string    `json:"state"`
	JobID string    `json:"job_id,omitempty"`
	Since time.Time `json:"since"`
	// Problem is why the slot can't work, in one line.
	Problem string `json:"problem,omitempty"`
}

// identity is what the hub knows the slot by, as it is kept in a file.
type identity struct {
	// Wanted is the name that was asked for.
	Wanted string `json:"wanted_name"`
	Name   string `json:"name"`
	Token  string `json:"access_token"`
}

// New makes a slot. unfinished is the folder of a job that it held when the supervisor ended, or nil.
func New(s Settings, unfinished *jobdir.Folder) *Agent {
	s.Limits = s.Limits.withDefaults()
	s.Logger = s.Logger.With("slot", s.Slot)
	a := &Agent{
		Settings: s, kick: make(chan struct{}, 1), events: make(chan event),
		status: Status{Slot: s.Slot, State: "registering", Since: time.Now()},
	}
	if unfinished != nil {
		a.current = newCurrent(unfinished)
	}
	return a
}

// Status tells what the slot does.
func (a *Agent) Status() Status {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.status
}

// Interrupt tells the hub that this host is about to go: it sends no more jobs, and stops the running one when the
// grace period is over. Run returns when the hub lets the slot go.
func (a *Agent) Interrupt() {
	a.mu.Lock()
	if a.interruptedAt.IsZero() {
		a.interruptedAt = time.Now()
	}
	a.mu.Unlock()
	a.poke()
}

func (a *Agent) interrupted() time.Time {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.interruptedAt
}

func (a *Agent) poke() {
	select {
	case a.kick <- struct{}{}:
	default:
	}
}

// Run registers the slot and works until it has to leave. The error is for a registration that can't succeed. When ctx ends
// Run returns at once, without a goodbye.
func (a *Agent) Run(ctx context.Context) (Reason, error) {
	if !a.resume() {
		if a.current != nil {
			a.Logger.Warn("there is a job of a registration that is lost; it is stopped", "job", a.current.folder.ID())
			go a.runCurrent(ctx, a.current, "")
			a.dropCurrent(ctx)
		}
		if err := a.register(ctx); err != nil {
			if ctx.Err() != nil || !a.interrupted().IsZero() {
				return Interrupted, nil
			}
			return Unknown, err
		}
	}
	reason := a.loop(ctx)
	if ctx.Err() == nil {
		a.disconnect(ctx)
	}
	a.setStatus("left", "")
	return reason, nil
}

// resume goes on with the registration that an earlier supervisor had, if there is one.
func (a *Agent) resume() bool {
	raw, err := os.ReadFile(a.File)
	if err == nil {
		err = json.Unmarshal(raw, &a.identity)
	}
	if err != nil || a.identity.Token == "" || a.current == nil && a.identity.Wanted != a.Registration.Name {
		return false
	}
	a.Logger.Info("going on with the registration of before", "name", a.identity.Name)
	return true
}

// register registers the slot, with growing pauses as long as the hub refuses for a reason that may pass.
func (a *Agent) register(ctx context.Context) error {
	pause := time.Second
	for {
		req := a.Registration
		if req.Name == "" {
			req.Name = madeUpName(req.Hostname)
		}
		answer, err := a.Hub.Register(ctx, a.RegistrationToken, req)
		if err == nil {
			a.identity = identity{Wanted: a.Registration.Name, Name: answer.Name, Token: answer.Token}
			a.proven, a.unknownAt = false, time.Time{}
			a.Logger.Info("registered", "name", answer.Name)
			raw, err := json.Marshal(a.identity)
			if err != nil {
				return err
			}
			return jobdir.WriteFile(a.File, raw)
		}
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if refusal := a.finalRefusal(err); refusal != nil {
			return refusal
		}
		a.Logger.Warn("cannot register; trying again", "in", pause, "error", err)
		a.setStatus("registering", err.Error())
		select {
		case <-time.After(jitter(pause, pause+pause/2)):
		case <-a.kick:
		case <-ctx.Done():
		}
		if ctx.Err() != nil || !a.interrupted().IsZero() {
			return errors.New("interrupted before the registration")
		}
		pause = min(2*pause, time.Minute)
	}
}

var notInName = regexp.MustCompile(`[^a-zA-Z0-9-]+`)

// madeUpName makes a name that no other agent has, of 8 to 64 characters, from the host's name.
func madeUpName(hostname string) string {
	host := notInName.ReplaceAllString(hostname, "-")
	return fmt.Sprintf("%.40s-%s", cmp.Or(host, "signalman"), strings.ToLower(crand.Text()[:12]))
}

// finalRefusal tells whether asking again can't help.
func (a *Agent) finalRefusal(err error) error {
	switch {
	case hub.NotFound(err), hub.Unauthorized(err):
		return fmt.Errorf("%w; the hub doesn't know the registration token, or endpoint isn't a hub's: check token and endpoint", err)
	case hub.HasStatus(err, http.StatusBadRequest) && a.Registration.JobID != "":
		return fmt.Errorf("%w; job %s (job-id) can't be had by this agent", err, a.Registration.JobID)
	default:
		return nil
	}
}

// loop syncs until the slot is to leave.
func (a *Agent) loop(ctx context.Context) Reason {
	a.lastSync = time.Now()
	if a.current != nil {
		a.takeUp(ctx)
	}
	defer func() {
		if a.current != nil {
			<-a.current.done
		}
	}()
	next := time.NewTimer(0)
	defer next.Stop()
	for {
		select {
		case <-ctx.Done():
			a.abandon()
			return Interrupted
		case e := <-a.events:
			a.apply(e)
		case <-a.kick:
		case <-next.C:
		}
		if a.leave != "" && a.current == nil {
			return a.leave
		}
		if ctx.Err() != nil {
			continue
		}
		pause := a.sync(ctx)
		if a.leave != "" && a.current == nil {
			return a.leave
		}
		a.showState()
		next.Reset(pause)
	}
}

// abandon takes the reports of a job that the slot doesn't wait for.
func (a *Agent) abandon() {
	for a.current != nil {
		select {
		case <-a.events:
		case <-a.current.done:
			a.current = nil
		}
	}
}

// sync tells the hub the slot's state, does what it answers, and tells when to sync again.
func (a *Agent) sync(ctx context.Context) time.Duration {
	req := hub.SyncRequest{
		State: hub.State(a.machine.State()), JobID: a.machine.JobID(), JobResult: hub.Result(a.machine.Result()),
	}
	if at := a.interrupted(); !at.IsZero() {
		req.InterruptedAt = at.Unix()
	}
	answer, err := a.Hub.Sync(ctx, a.identity.Token, req)
	if err != nil {
		if ctx.Err() == nil {
			a.syncFailed(ctx, err)
		}
		return jitter(syncRetryLeast, syncRetryMost)
	}
	if !a.unknownAt.IsZero() || time.Since(a.lastSync) > time.Minute {
		a.Logger.Info("the hub answers again")
	}
	a.lastSync, a.unknownAt, a.proven = time.Now(), time.Time{}, true
	a.obey(ctx, answer)
	return answer.NextSyncAfter
}

// obey does what the hub wants.
func (a *Agent) obey(ctx context.Context, answer hub.SyncResponse) {
	if a.machine.State() == state.Finished && (answer.Action == hub.ActionWaitForJobs || answer.Action == hub.ActionShutdown) {
		a.release()
	}
	switch answer.Action {
	case hub.ActionRunJob:
		a.runJob(ctx, answer.JobID)
	case hub.ActionStopJob:
		a.stopJob(answer.JobID)
	case hub.ActionShutdown:
		a.Logger.Info("the hub lets this slot go", "reason", answer.ShutdownReason)
		a.leave = leaveReason(answer.ShutdownReason)
		if a.current != nil {
			a.Logger.Warn("the hub wants this slot gone (a quota, or a user); its job is stopped", "job", a.machine.JobID())
			a.current.stop()
		}
	}
}

func leaveReason(r hub.ShutdownReason) Reason {
	switch r {
	case hub.ShutdownIdle:
		return Idle
	case hub.ShutdownJobFinished:
		return JobFinished
	case hub.ShutdownRequested:
		return Requested
	case hub.ShutdownInterrupted:
		return Interrupted
	default:
		return Unknown
	}
}

// syncFailed decides whether the slot goes on without the hub.
func (a *Agent) syncFailed(ctx context.Context, err error) {
	a.Logger.Warn("cannot sync; trying again", "error", err)
	a.setProblem(err.Error())
	holds := a.current != nil
	if hub.NotFound(err) {
		if a.unknownAt.IsZero() {
			a.unknownAt = time.Now()
		}
		// A kept registration that has ended meanwhile is no loss for a slot without a job.
		if time.Since(a.unknownAt) >= a.Limits.Forgotten || !a.proven && !holds {
			a.forgotten(ctx)
			return
		}
	} else {
		a.unknownAt = time.Time{}
	}
	alone := time.Since(a.lastSync)
	at, grace := a.interrupted(), a.Registration.InterruptionGracePeriod
	switch {
	case !at.IsZero() && time.Since(at) >= grace+a.Limits.Farewell:
		a.giveUp(Interrupted)
	case !holds && alone >= a.Limits.Alone, holds && alone >= a.Limits.AloneWithJob:
		a.giveUp(UnableToSync)
	}
}

func (a *Agent) giveUp(reason Reason) {
	a.Logger.Error("the hub can't be reached; leaving", "since", a.lastSync, "reason", reason)
	a.leave = reason
	if a.current != nil { // what its log lacks at the hub is shipped by the next start, if the hub still wants it
		a.current.stop()
		a.current.forget()
	}
}

// forgotten handles the loss of the registration: the hub has given up the slot's job, if it had one.
func (a *Agent) forgotten(ctx context.Context) {
	a.Logger.Warn("the hub doesn't know this agent any more", "name", a.identity.Name)
	if a.current != nil {
		a.dropCurrent(ctx)
	}
	a.machine = state.Machine{}
	if !a.RegisterAgain && a.proven { // a start that found an old registration gone is a start like any other
		a.leave = UnableToSync
		return
	}
	if err := a.register(ctx); err != nil {
		a.Logger.Error("cannot register again; leaving", "error", err)
		a.leave = UnableToSync
	}
	a.lastSync = time.Now()
}

// dropCurrent stops a job that the hub has given up, and waits for its end.
func (a *Agent) dropCurrent(ctx context.Context) {
	folder := a.current.folder
	a.current.stop()
	a.current.forget()
	for a.current != nil {
		select {
		case <-a.events:
		case <-a.current.done:
			a.current = nil
		}
	}
	if ctx.Err() == nil {
		a.finishFolder(folder)
	}
}

// release lets go of a job whose result the hub knows.
func (a *Agent) release() {
	if err := a.machine.Release(); err != nil {
		a.Logger.Error("the hub's answer doesn't fit", "error", err)
		return
	}
	a.finishFolder(a.current.folder)
	<-a.current.done
	a.current = nil
	a.poke() // the next job may be there already
}

func (a *Agent) finishFolder(folder *jobdir.Folder) {
	if err := folder.Finish(); err != nil {
		a.Logger.Error("cannot clean up the job's folder", "job", folder.ID(), "error", err)
	}
}

// runJob takes a job. The hub repeats itself until it hears of the job in a sync.
func (a *Agent) runJob(ctx context.Context, jobID string) {
	if a.current != nil {
		if jobID != a.machine.JobID() {
			a.Logger.Warn("the hub has a job for a slot that holds another", "job", jobID, "held", a.machine.JobID())
		}
		return
	}
	folder, err := jobdir.Create(a.JobsDir, jobID, a.Slot)
	if err != nil {
		a.Logger.Error("cannot take a job", "job", jobID, "error", err)
		return // the hub will ask again
	}
	a.current = newCurrent(folder)
	a.takeUp(ctx)
}

// takeUp starts the goroutine of the slot's job.
func (a *Agent) takeUp(ctx context.Context) {
	a.Logger.Info("taking job", "job", a.current.folder.ID())
	if err := a.machine.Take(a.current.folder.ID()); err != nil {
		a.Logger.Error("the hub's answer doesn't fit", "error", err)
	}
	if a.current.held() {
		a.apply(event{kind: held})
	}
	go a.runCurrent(ctx, a.current, a.identity.Token)
}

func (a *Agent) stopJob(jobID string) {
	if a.current == nil || jobID != "" && jobID != a.machine.JobID() {
		a.Logger.Warn("the hub wants a job stopped that this slot doesn't hold", "job", jobID)
		return
	}
	if a.machine.State() == state.Finished {
		return
	}
	if err := a.machine.Stop(); err != nil {
		a.Logger.Error("the hub's answer doesn't fit", "error", err)
		return
	}
	a.Logger.Info("stopping the job", "job", a.machine.JobID())
	if err := a.current.folder.Update(func(s *jobdir.State) { s.StopRequested = true }); err != nil {
		a.Logger.Error("cannot note that the job is to stop", "error", err)
	}
	a.current.stop()
	a.poke()
}

// apply notes what the job's goroutine reports.
func (a *Agent) apply(e event) {
	var err error
	switch e.kind {
	case held:
		err = a.machine.Hold()
	case dropped:
		err = a.machine.Drop()
		<-a.current.done
		a.current = nil
	case finished:
		err = a.machine.Finish(string(e.result))
		a.Logger.Info("job finished", "job", a.machine.JobID(), "result", e.result)
	}
	if err != nil {
		a.Logger.Error("a job's report doesn't fit", "error", err)
	}
	// A slot that leaves without the hub doesn't wait for the result to be taken.
	if e.kind == finished && a.leave != "" {
		<-a.current.done
		a.current = nil
	}
}

func (a *Agent) disconnect(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, disconnectLimit)
	defer cancel()
	for pause := 250 * time.Millisecond; ; pause *= 2 {
		err := a.Hub.Disconnect(ctx, a.identity.Token)
		if err == nil {
			a.Logger.Info("disconnected", "name", a.identity.Name)
			_ = os.Remove(a.File)
			return
		}
		select {
		case <-time.After(pause):
		case <-ctx.Done():
			a.Logger.Warn("cannot disconnect", "error", err)
			return
		}
	}
}

func (a *Agent) showState() { a.setStatus(string(a.machine.State()), "") }

func (a *Agent) setStatus(st, problem string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.status.State != st || a.status.JobID != a.machine.JobID() {
		a.status.Since = time.Now()
	}
	if problem == "" && time.Since(a.lastSync) > time.Minute {
		problem = a.status.Problem
	}
	a.status.State, a.status.JobID, a.status.Name, a.status.Problem = st, a.machine.JobID(), a.identity.Name, problem
}

func (a *Agent) setProblem(problem string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.status.Problem = problem
}

func jitter(least, most time.Duration) time.Duration {
	return least + rand.N(most-least+1)
}
