// Package agent is one slot: a registration at the hub and the jobs that come by it, one at a time.
//
// One goroutine owns the slot's state and syncs it; a second one, while there is a job, takes the job from its request to its
// delivered log and reports each step to the first.
package agent

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/hashicorp/go-hclog"

	"github.com/signalman-ci/signalman/internal/agent/state"
	"github.com/signalman-ci/signalman/internal/artifact"
	"github.com/signalman-ci/signalman/internal/hub"
	"github.com/signalman-ci/signalman/internal/job"
	"github.com/signalman-ci/signalman/internal/jobdir"
	"github.com/signalman-ci/signalman/internal/regtoken"
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
	// HandedOver is none that a hook hears of: the slot goes on, with its job, under the next supervisor.
	HandedOver Reason = "HANDED_OVER"
)

// Settings are what a slot is given.
type Settings struct {
	// Slot is the slot's number, from 1.
	Slot int
	Hub  *hub.Client
	// Endpoint is the hub's host, as Hub has it.
	Endpoint string
	// Token gives the registration token, anew for each registration. With Registration it is what the slot registers with.
	Token        regtoken.Source
	Registration hub.RegisterRequest
	// RegisterAgain says what to do when the hub has forgotten the agent: register anew, or leave.
	RegisterAgain bool
	// Drain makes the slot leave as soon as it holds no job.
	Drain bool
	// Admit tells why the host has no room for another job; nil if it has, and if Admit itself is nil.
	Admit func(context.Context) error
	// File keeps the slot's name and access token across restarts.
	File string
	// JobsDir is the folder of the job folders.
	JobsDir string
	// FlushTimeout is how long a job's result waits for its log to be delivered.
	FlushTimeout time.Duration
	// LogPusher pushes a job's log to the job's artifacts, before the result is told.
	LogPusher artifact.Pusher
	Job       job.Settings
	Limits    Limits
	// Changed, if set, is called when the slot's status is another; it must not wait for anything.
	Changed func()
	// Observer and Tracer, if set, hear what the slot does.
	Observer Observer
	Tracer   Tracer
	Logger   hclog.Logger
}

// Limits are the times after which a slot gives up. Zero values mean the defaults.
type Limits struct {
	// Forgotten is how long 404 must be the answer before the hub is taken to have forgotten the agent: 2 minutes. Unproven is
	// the same for a slot without a job that has not synced since it was started: 15 seconds.
	Forgotten, Unproven time.Duration
	// Alone is how long an idle slot goes on without a sync: 10 minutes. AloneWithJob is the same with a job: 15, the hub's
	// own limit.
	Alone, AloneWithJob time.Duration
	// Farewell is how long after the grace period an interrupted slot leaves if the hub doesn't answer: 1 minute.
	Farewell time.Duration
	// Fetch is how long a job request is asked for: 5 minutes. Garbled is the same while what comes is no job request or 404, which may
	// be something on the way to the hub, but is more likely the hub itself: 15 seconds.
	Fetch, Garbled time.Duration
	// Refused is how long a slot that isn't admitted keeps its registration without a sync: 2 minutes, of the hub's 3. Look is
	// how often it asks to be admitted meanwhile: every 3 seconds.
	Refused, Look time.Duration
}

func (l Limits) withDefaults() Limits {
	for _, d := range []struct {
		value *time.Duration
		or    time.Duration
	}{
		{&l.Forgotten, 2 * time.Minute}, {&l.Unproven, 15 * time.Second}, {&l.Alone, 10 * time.Minute}, {&l.AloneWithJob, 15 * time.Minute},
		{&l.Farewell, time.Minute}, {&l.Fetch, 5 * time.Minute}, {&l.Garbled, 15 * time.Second},
		{&l.Refused, 2 * time.Minute}, {&l.Look, 3 * time.Second},
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
	stops  chan stopOrder

	handingOver chan struct{}
	handOver    func()

	mu            sync.Mutex
	interruptedAt time.Time
	status        Status
	next          *Settings // what the slot is to go on with once it is free
	overdue       time.Time // when what the loop does ought to be done; zero while it waits for something to do

	// What follows is the loop's own.
	identity  identity
	machine   state.Machine
	current   *current
	leave     Reason // set once the slot is to leave as soon as its job has ended
	lastSync  time.Time
	unknownAt time.Time // first 404 of an unbroken row
	// registered is set once the hub has taken the registration token in this process, or synced a kept registration.
	registered bool
	proven     bool // a sync with this access token has succeeded in this process
	// renewed is set from when other settings ask for another registration until the hub has given that: it is asked for until the
	// settings are mended, if need be.
	renewed bool
	// pausedAt is set, and pausedBy says why, while the slot asks for no jobs.
	pausedAt time.Time
	pausedBy error
	offered  bool // the hub has given the slot a job that could not be taken yet
}

// States of a slot that are none of the state machine's.
const (
	// Registering is that of a slot that has not yet synced.
	Registering = "registering"
	// Paused is that of a slot that the host has no room for, Drained that of one that an operator wants to take no jobs.
	Paused  = "paused"
	Drained = "drained"
	// Left is that of a slot that is no more.
	Left = "left"
)

// ErrDrained is what Settings.Admit says when an operator wants no more jobs.
var ErrDrained = errors.New("drained: no jobs are taken until someone calls `supervisor resume`")

// Status is what a slot does, for people.
type Status struct {
	Slot int    `json:"slot"`
	Name string `json:"name,omitempty"`
	// State is one of the state machine's, Registering before, Left after, or Paused or Drained while the slot asks for no jobs.
	State string    `json:"state"`
	JobID string    `json:"job_id,omitempty"`
	Since time.Time `json:"since"`
	// Problem is why the slot can't work, in one line.
	Problem string `json:"problem,omitempty"`
	// Pending is set while other settings wait for the slot's job to end.
	Pending bool `json:"pending,omitempty"`
}

// New makes a slot. unfinished is the folder of a job that it held when the supervisor ended, or nil.
func New(s Settings, unfinished *jobdir.Folder) *Agent {
	s.Limits = s.Limits.withDefaults()
	if s.Observer == nil {
		s.Observer = unobserved{}
	}
	s.Logger = s.Logger.With("slot", s.Slot)
	a := &Agent{
		Settings: s, kick: make(chan struct{}, 1), events: make(chan event), stops: make(chan stopOrder),
		status: Status{Slot: s.Slot, State: Registering, Since: time.Now()},
	}
	a.handingOver = make(chan struct{})
	a.handOver = sync.OnceFunc(func() { close(a.handingOver) })
	if unfinished != nil {
		a.current = newCurrent(unfinished)
		a.status.JobID = unfinished.ID()
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

// HandOver makes Run return as soon as nothing is under way that the next supervisor couldn't go on with. Registration and job
// stay as they are.
func (a *Agent) HandOver() { a.handOver() }

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
		if err := a.join(ctx); err != nil {
			return a.notJoined(ctx, err)
		}
	}
	if a.current != nil && a.identity.Wanted != a.fingerprint() { // the kept registration is for this job only
		a.renewLater()
	}
	reason := a.loop(ctx)
	if reason == HandedOver {
		return reason, nil
	}
	if ctx.Err() == nil && a.identity.Token != "" {
		a.disconnect(ctx, a.Hub)
	}
	a.setStatus(Left, "")
	return reason, nil
}

// notJoined is how Run ends where the slot could not register.
func (a *Agent) notJoined(ctx context.Context, err error) (Reason, error) {
	switch {
	case errors.Is(err, errHandOver):
		return HandedOver, nil
	case a.leave != "":
		a.setStatus(Left, "")
		return a.leave, nil
	case ctx.Err() != nil, !a.interrupted().IsZero(): // to be interrupted meanwhile is no failure
		a.setStatus(Left, "")
		return Interrupted, nil //nolint:nilerr // see above
	}
	a.setStatus(Left, err.Error())
	return Unknown, err
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
		a.setBusy(false)
	}()
	next := time.NewTimer(0)
	defer next.Stop()
	for {
		a.setBusy(false)
		select {
		case <-ctx.Done():
			a.abandon()
			return Interrupted
		case <-a.handingOver:
			if a.current != nil {
				a.current.leave()
			}
			a.abandon()
			return HandedOver
		case e := <-a.events:
			a.apply(e)
		case order := <-a.stops:
			order.answer <- a.stopByOperator(order.jobID)
		case <-a.kick:
		case <-next.C:
		}
		a.setBusy(true)
		a.moveOn(ctx)
		if a.mayLeave() {
			return a.leave
		}
		if ctx.Err() != nil {
			continue
		}
		pause := a.turn(ctx)
		if a.mayLeave() {
			return a.leave
		}
		a.showState()
		next.Reset(pause)
	}
}

// mayLeave tells whether the slot is to leave, and holds no job any more.
func (a *Agent) mayLeave() bool {
	if a.Drain && a.leave == "" {
		a.leave = Requested
	}
	return a.leave != "" && a.current == nil
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

// dropCurrent stops a job that the hub has given up, and waits for its end.
func (a *Agent) dropCurrent(ctx context.Context) {
	folder := a.current.folder
	a.current.stop()
	a.current.forget()
	a.abandon()
	if ctx.Err() == nil {
		a.finishFolder(folder)
	}
}

func (a *Agent) finishFolder(folder *jobdir.Folder) {
	if err := folder.Finish(); err != nil {
		a.Logger.Error("cannot clean up the job's folder", "job", folder.ID(), "error", err)
	}
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

func (a *Agent) showState() {
	if !a.pausedAt.IsZero() {
		state := Paused
		if errors.Is(a.pausedBy, ErrDrained) {
			state = Drained
		}
		a.setStatus(state, a.pausedBy.Error())
		return
	}
	a.setStatus(string(a.machine.State()), "")
}

func (a *Agent) setStatus(st, problem string) {
	a.changeStatus(func(s *Status) {
		if s.State != st || s.JobID != a.machine.JobID() {
			s.Since = time.Now()
		}
		if problem == "" && time.Since(a.lastSync) > time.Minute {
			problem = s.Problem
		}
		s.State, s.JobID, s.Name, s.Problem = st, a.machine.JobID(), a.identity.Name, problem
	})
}

func (a *Agent) setProblem(problem string) {
	a.changeStatus(func(s *Status) { s.Problem = problem })
}

func (a *Agent) changeStatus(change func(*Status)) {
	a.mu.Lock()
	before := a.status
	change(&a.status)
	changed := a.status != before
	a.mu.Unlock()
	if changed && a.Changed != nil {
		a.Changed()
	}
}
