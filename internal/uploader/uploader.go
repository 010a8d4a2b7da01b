// Package uploader ships a job's event log to the hub's log service while the job runs: each event once and in order.
//
// A line that comes alone leaves at once; while there is a backlog the next batch leaves when the last is acknowledged. What
// the service has for certain is noted beside the log, so that another supervisor can go on from there.
package uploader

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"time"

	"github.com/cenkalti/backoff/v5"
	"github.com/hashicorp/go-hclog"

	"github.com/signalman-ci/signalman/internal/hub"
	"github.com/signalman-ci/signalman/shared/eventlog"
)

const (
	maxEvents = 2000 // more is answered with 413
	maxBytes  = 1 << 20
	minBytes  = 16 << 10
	// pace is the least time between two requests that aren't full, as long as events keep coming. After a silence it is
	// firstPace and doubles with each request: what a job prints first is there at once.
	pace      = 500 * time.Millisecond
	firstPace = 10 * time.Millisecond
	// lateLimit is how long after an ambiguous failure the service may still carry out the request (20 s at most by
	// its own time-out).
	lateLimit = 25 * time.Second
	// retryFirst and retryLast bound the growing pauses between tries.
	retryFirst = 250 * time.Millisecond
	retryLast  = 10 * time.Second
)

// Position is a place in an event log: the index of an event and the offset in bytes where it starts.
type Position struct {
	Index, Offset int64
}

// Lost is a request from a known position whose fate isn't known.
type Lost struct {
	// To is the index after the last event of the request; 0 if there is none.
	To int64
	// Until is when it can't be carried out any more; zero if it was under way when this was noted. It is kept so that a
	// supervisor which is started again and again does not wait anew each time.
	Until time.Time
}

// Service is the hub's log service as it takes one job's log.
type Service interface {
	// Push sends events; the errors are those of hub.Client.PushLog.
	Push(ctx context.Context, token string, startFrom int64, body []byte) error
	// Refresh gives a new token for the log.
	Refresh(ctx context.Context) (string, error)
}

// Options say what to ship, and where.
type Options struct {
	// Path of the event log. The file may come later.
	Path string
	// From is the first event that the service doesn't have for certain.
	From Position
	// Lost is a request that an earlier uploader sent from From, and that may still be under way.
	Lost    Lost
	Service Service
	// Token for the log; "" if there is none yet.
	Token string
	// Save notes what the service has for certain, and Lost for an uploader that would have to go on from there.
	Save func(certain Position, lost Lost) error
	// LateLimit is how long a request may be carried out after its failure; 0 means 25 s.
	LateLimit time.Duration
	// Observer, if set, hears how the log is shipped.
	Observer Observer
	Logger   hclog.Logger
}

// ErrFull says that the log service wants no more of this log.
var ErrFull = errors.New("the hub takes no more of this log")

// Uploader ships one log. Run is called once; Finish may be called by another goroutine.
type Uploader struct {
	Options
	reader *eventlog.Reader
	finish chan struct{}

	pace     time.Duration
	first    time.Duration // firstPace
	gap      time.Duration // between firstPace and pace: to be kept after the last request
	next     Position      // the next event to send
	sentFull bool          // the last batch was full: there is a backlog
	lastSent time.Time
	size     int // bytes a batch may have
	events   int
	pin      *pin
	unsaved  bool     // the last Save failed
	shipped  Position // up to where the service has had it once
}

// pin keeps every batch beginning at one place as long as a request from there, whose fate isn't known, may still be carried
// out: that cuts the service's log to its start, and what was appended since would be lost.
type pin struct {
	at    Position
	end   int64 // index after the last event of that request
	until time.Time
}

// New prepares the shipping of a log. After a power loss the log may end before From: New notes where, so it has to be called
// before anything is appended to such a log.
func New(o Options) *Uploader {
	if o.LateLimit == 0 {
		o.LateLimit = lateLimit
	}
	if o.Observer == nil {
		o.Observer = unobserved{}
	}
	o.From.Offset = offsetIn(o.Path, o.From)
	u := &Uploader{
		Options: o, finish: make(chan struct{}), pace: pace, first: firstPace, next: o.From, size: maxBytes, events: maxEvents, shipped: o.From,
	}
	if o.Lost.To > o.From.Index {
		u.pin = &pin{at: o.From, end: o.Lost.To, until: time.Now().Add(o.LateLimit)}
		if u.pin.until.After(o.Lost.Until) && !o.Lost.Until.IsZero() { // later only if the clock was set back
			u.pin.until = o.Lost.Until
		}
	}
	return u
}

// offsetIn is where the event at a position really begins. An error is left to Run, which meets it again.
func offsetIn(path string, at Position) int64 {
	reader, err := eventlog.OpenReader(path)
	if err != nil {
		return at.Offset
	}
	defer reader.Close()
	if _, err := reader.SeekOffset(at.Index, at.Offset); err != nil {
		return at.Offset
	}
	_, offset := reader.Position()
	return offset
}

// Finish says that the log has ended: Run returns once the service has all of it.
func (u *Uploader) Finish() { close(u.finish) }

// Run ships the log until it has ended and the service has all of it (nil), the service wants no more (ErrFull), the log
// holds what is no event (eventlog.ErrLineTooLong) or ctx ends. A log that can't be read is tried again: for want of file
// descriptors, say, which passes.
func (u *Uploader) Run(ctx context.Context) error {
	pause := pauses()
	if u.pin != nil {
		u.save(0)
	}
	for failures := 0; ; failures++ {
		from := u.next
		err := u.ship(ctx)
		if err == nil || errors.Is(err, ErrFull) || errors.Is(err, eventlog.ErrLineTooLong) || ctx.Err() != nil {
			return err
		}
		if u.next != from {
			failures = 0
			pause.Reset()
		}
		if failures == 0 {
			u.Logger.Error("cannot read the event log; trying again", "error", err)
		}
		u.wait(ctx, pause.NextBackOff())
	}
}

// pauses are those between tries.
func pauses() *backoff.ExponentialBackOff {
	p := &backoff.ExponentialBackOff{
		InitialInterval: retryFirst, MaxInterval: retryLast, Multiplier: 2, RandomizationFactor: 0.3,
	}
	p.Reset()
	return p
}

// ship opens the log and ships it until it has ended, or something fails that isn't the service's.
func (u *Uploader) ship(ctx context.Context) error {
	reader, err := eventlog.OpenReader(u.Path)
	if err != nil {
		return err
	}
	defer reader.Close()
	u.reader = reader
	if err := u.seek(u.next); err != nil {
		return err
	}
	for {
		batch, err := u.read(ctx)
		if err != nil {
			return err
		}
		if batch.Count == 0 {
			return nil
		}
		if err := u.send(ctx, batch); err != nil {
			return err
		}
	}
}

// read waits for events and gives the next batch; an empty one says that the log has ended and is shipped.
func (u *Uploader) read(ctx context.Context) (eventlog.Batch, error) {
	for {
		finishing := u.finishing()
		if !finishing && !u.sentFull {
			u.wait(ctx, time.Until(u.lastSent.Add(u.gap)))
		}
		if err := u.unpin(); err != nil {
			return eventlog.Batch{}, err
		}
		from := u.next.Index
		if u.pin != nil { // what was sent since the failure is sent again with what is new
			if err := u.seek(u.pin.at); err != nil {
				return eventlog.Batch{}, err
			}
		}
		batch, err := u.reader.Next(u.events, u.size)
		if err != nil {
			return batch, fmt.Errorf("cannot read the event log: %w", err)
		}
		more := false // there are events that don't fit into a batch that begins at the pin
		if u.pin != nil && batch.First+int64(batch.Count) <= from {
			if more, err = u.more(); err != nil {
				return eventlog.Batch{}, err
			}
		}
		switch {
		case batch.First+int64(batch.Count) > from:
			return batch, nil
		case u.pin != nil && (finishing || more):
			u.wait(ctx, time.Until(u.pin.until))
		case finishing:
			return eventlog.Batch{}, nil
		default:
			if u.pin != nil {
				u.sentFull = false
			}
			u.waitForEvents(ctx)
		}
		if ctx.Err() != nil {
			return eventlog.Batch{}, ctx.Err()
		}
	}
}

// more tells whether there are events that were never sent.
func (u *Uploader) more() (bool, error) {
	if err := u.seek(u.next); err != nil {
		return false, err
	}
	batch, err := u.reader.Next(1, minBytes)
	if err != nil {
		return false, fmt.Errorf("cannot read the event log: %w", err)
	}
	return batch.Count > 0, nil
}

// unpin ends the time in which a lost request may still be carried out. If more than that request held has been sent since, it
// is sent again from there, once.
func (u *Uploader) unpin() error {
	if u.pin == nil || time.Now().Before(u.pin.until) {
		return nil
	}
	p := *u.pin
	u.pin = nil
	if u.next.Index > p.end {
		u.next = p.at
	}
	u.save(0)
	return u.seek(u.next)
}

// send sends a batch until the service has it.
func (u *Uploader) send(ctx context.Context, batch eventlog.Batch) error {
	pause := pauses()
	u.sentFull = u.full(batch)
	if u.gap = min(2*u.gap, u.pace); time.Since(u.lastSent) > 2*u.pace {
		u.gap = u.first
	}
	refreshed, oldest := false, firstTime(batch)
	for failures := 0; ; failures++ {
		u.lastSent = time.Now()
		if u.pin != nil && u.lastSent.After(u.pin.until) {
			u.next, u.pin = u.pin.at, nil // this batch begins there, and no lost request comes after it any more
		}
		u.save(batch.First + int64(batch.Count))
		u.Observer.Sending(oldest, failures > 0)
		err := u.Service.Push(ctx, u.Token, batch.First, batch.Data)
		u.Observer.Sent(err, u.shippedFirst(err, batch))
		switch {
		case err == nil:
			u.size, u.events = min(u.size+u.size/8, maxBytes), min(u.events+u.events/8+1, maxEvents)
			u.next = Position{Index: batch.First + int64(batch.Count), Offset: batch.End}
			if failures > 0 {
				u.Logger.Info("the log service takes events again", "index", u.next.Index)
			}
			u.save(0)
			return nil
		case ctx.Err() != nil:
			return ctx.Err()
		case hub.LogFull(err):
			return ErrFull
		case hub.Unauthorized(err):
			token, refreshErr := u.Service.Refresh(ctx)
			if refreshErr != nil {
				err = fmt.Errorf("%w; %w", err, refreshErr)
				break
			}
			u.Token = token
			if !refreshed {
				refreshed = true
				failures-- // tokens expire: nothing is amiss
				continue
			}
		case hub.HasStatus(err, http.StatusRequestEntityTooLarge):
			u.events, u.size = max(batch.Count/2, 1), max(len(batch.Data)/2, minBytes)
		}
		if hub.Ambiguous(err) {
			u.pinAt(batch)
			u.size = max(u.size/2, minBytes)
		}
		if failures == 0 {
			u.Logger.Warn("the log service doesn't take events; they wait on disk", "index", batch.First, "error", err)
		}
		u.wait(ctx, pause.NextBackOff())
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if batch, err = u.reread(batch); err != nil {
			return err
		}
	}
}

// pinAt notes that a batch may still arrive.
func (u *Uploader) pinAt(batch eventlog.Batch) {
	end := batch.First + int64(batch.Count)
	if u.pin == nil {
		u.pin = &pin{at: Position{Index: batch.First, Offset: batch.Offset}, end: end}
	}
	u.pin.end = min(u.pin.end, end)
	u.pin.until = time.Now().Add(u.LateLimit)
}

// reread reads a batch again in the size that is now right.
func (u *Uploader) reread(batch eventlog.Batch) (eventlog.Batch, error) {
	if err := u.seek(Position{Index: batch.First, Offset: batch.Offset}); err != nil {
		return batch, err
	}
	return u.reader.Next(u.events, u.size)
}

func (u *Uploader) seek(p Position) error {
	if _, err := u.reader.SeekOffset(p.Index, p.Offset); err != nil { // a log cut by a power loss is numbered on
		return fmt.Errorf("cannot read the event log: %w", err)
	}
	return nil
}

// save notes what the service has for certain, and that a request up to the index lostTo is under way.
func (u *Uploader) save(lostTo int64) {
	certain, lost := u.next, Lost{To: lostTo}
	if u.pin != nil {
		certain, lost = u.pin.at, Lost{To: u.pin.end}
		if lostTo == 0 {
			lost.Until = u.pin.until
		}
	}
	err := u.Save(certain, lost)
	if err != nil && !u.unsaved { // once, not for every batch
		u.Logger.Warn("cannot note how much of the log the hub has", "error", err)
	}
	u.unsaved = err != nil
}

func (u *Uploader) full(b eventlog.Batch) bool {
	return b.Count >= u.events || len(b.Data) >= u.size*3/4
}

func (u *Uploader) finishing() bool {
	select {
	case <-u.finish:
		return true
	default:
		return false
	}
}

// wait waits for a time, but not beyond ctx; Finish ends it early where there is nothing to wait for but more events.
func (u *Uploader) wait(ctx context.Context, d time.Duration) {
	if d <= 0 {
		return
	}
	t := time.NewTimer(d)
	defer t.Stop()
	finish := u.finish
	if u.finishing() {
		finish = nil
	}
	select {
	case <-t.C:
	case <-ctx.Done():
	case <-finish:
	}
}

// waitForEvents waits until the log has grown, has ended, or the pin has to be taken out.
func (u *Uploader) waitForEvents(ctx context.Context) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	if u.pin != nil {
		ctx, cancel = context.WithDeadline(ctx, u.pin.until)
		defer cancel()
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		select {
		case <-u.finish:
			cancel()
		case <-ctx.Done():
		}
	}()
	_ = u.reader.Wait(ctx) // its only error is ctx's end
	cancel()
	<-done
}
