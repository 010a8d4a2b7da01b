package agent

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"runtime/debug"
	"sync"
	"time"

	"github.com/cenkalti/backoff/v5"

	"github.com/signalman-ci/signalman/internal/history"
	"github.com/signalman-ci/signalman/internal/hub"
	"github.com/signalman-ci/signalman/internal/job"
	"github.com/signalman-ci/signalman/internal/jobdir"
	"github.com/signalman-ci/signalman/internal/request"
	"github.com/signalman-ci/signalman/internal/uploader"
	"github.com/signalman-ci/signalman/shared/protocol"
)

// event is a step of a job, as its goroutine reports it to the loop.
type event struct {
	kind   eventKind
	result protocol.Result // with finished
}

type eventKind int

const (
	held     eventKind = iota // the request is on disk
	dropped                   // the job isn't this slot's
	finished                  // the log is delivered
)

// longLog is the size in bytes from where on a log leaves more buffers behind than an idle slot should hold.
const longLog = 4 << 20

// current is the job a slot has.
type current struct {
	folder *jobdir.Folder
	// stopping is closed to stop the job, forgotten when the hub has given it up: its log is worth nothing any more; leaving
	// when the next supervisor is to go on with it.
	stopping, forgotten, leaving chan struct{}
	stop, forget, leave          func()
	done                         chan struct{} // closed when the job's goroutine has ended
}

func newCurrent(folder *jobdir.Folder) *current {
	c := &current{
		folder: folder, done: make(chan struct{}),
		stopping: make(chan struct{}), forgotten: make(chan struct{}), leaving: make(chan struct{}),
	}
	c.stop = sync.OnceFunc(func() { close(c.stopping) })
	c.forget = sync.OnceFunc(func() { close(c.forgotten) })
	c.leave = sync.OnceFunc(func() { close(c.leaving) })
	if folder.State().StopRequested {
		c.stop()
	}
	return c
}

// held tells whether the job's request has been had already.
func (c *current) held() bool {
	_, err := c.folder.Request()
	return err == nil
}

// runCurrent takes a job from its request to its delivered log.
func (a *Agent) runCurrent(ctx context.Context, c *current, accessToken string) {
	defer close(c.done)
	report := func(e event) {
		select {
		case a.events <- e:
		case <-ctx.Done():
		}
	}
	log := a.Logger.With("job", c.folder.ID())
	resumed := c.held()
	raw, err := a.request(ctx, c, accessToken)
	switch {
	case ctx.Err() != nil, errors.Is(err, job.ErrLeft):
		return
	case hub.NotFound(err):
		log.Warn("the hub says that the job isn't this slot's; dropped")
		if err := c.folder.Remove(); err != nil {
			log.Error("cannot remove the job's folder", "error", err)
		}
		report(event{kind: dropped})
		return
	case raw == nil:
		log.Error("cannot have the job's request; the job fails", "error", err)
		if o := a.Job.Observer; o != nil {
			o.JobFault(job.BadRequest)
		}
		a.Observer.JobEnded(End{
			JobID: c.folder.ID(), Slot: a.Slot, Result: protocol.Failed, Taken: c.folder.State().Taken, Ended: time.Now(), Log: c.folder.EventsPath(),
		})
		a.noteReason(c.folder, fmt.Sprintf("The job's request could not be had: %v", err))
		a.closeFolder(c.folder, protocol.Failed)
		report(event{kind: finished, result: protocol.Failed})
		return
	}
	if !resumed {
		report(event{kind: held})
	}
	end, err := a.runHeld(ctx, c, raw, err, accessToken)
	if err != nil { // nobody waits for it any more
		return
	}
	told := c.folder.State().Outcome != "" // by the supervisor before
	a.closeFolder(c.folder, end.Result)
	if !told {
		a.Observer.JobEnded(end)
	}
	report(event{kind: finished, result: end.Result})
	if !told && a.Tracer != nil {
		a.Tracer.Trace(end)
	}
	if c.folder.State().AckedOffset > longLog {
		debug.FreeOSMemory() // the runtime would hold on to what shipping it took for minutes
	}
}

// noteReason keeps why a job is not going to pass, for history.
func (a *Agent) noteReason(folder *jobdir.Folder, reason string) {
	if err := folder.Update(func(s *jobdir.State) { s.Reason = jobdir.Line(reason) }); err != nil {
		a.Logger.Error("cannot note why the job ends", "job", folder.ID(), "error", err)
	}
}

func (a *Agent) closeFolder(folder *jobdir.Folder, result protocol.Result) {
	if err := history.Close(folder, result); err != nil {
		a.Logger.Error("cannot note the job's outcome", "job", folder.ID(), "error", err)
	}
}

// request fetches the job's request, which can be had once, and keeps it on disk; or reads it there.
func (a *Agent) request(ctx context.Context, c *current, accessToken string) ([]byte, error) {
	if raw, err := c.folder.Request(); err == nil {
		return raw, nil
	}
	if err := jobdir.CheckID(c.folder.ID()); err != nil {
		return nil, err
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	pauses, endPauses := context.WithCancelCause(ctx)
	defer endPauses(nil)
	go func() {
		select {
		case <-c.forgotten:
			cancel()
		case <-c.leaving: // a request that is under way comes to its end: there is one only
			endPauses(job.ErrLeft)
		case <-ctx.Done():
		}
	}()
	// odd is the first of an unbroken row of answers that asking again can't mend, if they are the hub's own.
	var odd time.Time
	raw, err := backoff.Retry(pauses, func() ([]byte, error) {
		if pauses.Err() != nil {
			return nil, backoff.Permanent(context.Cause(pauses))
		}
		raw, err := a.Hub.GetJob(ctx, accessToken, c.folder.ID())
		_, garbled := errors.AsType[*hub.AnswerError](err)
		strange := err == nil && !request.LooksLikeOne(raw)
		switch {
		case !garbled && !strange && !hub.NotFound(err):
			odd = time.Time{}
		case odd.IsZero():
			odd = time.Now()
		case time.Since(odd) > a.Limits.Garbled:
			if strange { // the job's log will say what is wrong with it
				return raw, nil
			}
			return nil, backoff.Permanent(err)
		}
		if strange {
			return nil, errors.New("the answer is no job request")
		}
		return raw, err
	}, backoff.WithMaxElapsedTime(a.Limits.Fetch))
	if err != nil {
		return nil, err
	}
	return raw, c.folder.SaveRequest(request.WithoutTokens(raw))
}

// runHeld runs a job whose request is there, and ships its log meanwhile. saveErr says that the request could not be kept:
// such a job would be lost by a crash, and ends with a log that says so. The error says that the job goes on without us, or that
// ctx has ended.
func (a *Agent) runHeld(ctx context.Context, c *current, raw []byte, saveErr error, accessToken string) (End, error) {
	req, logger, requestErr := request.Parse(raw, c.folder.ID())
	if saveErr != nil {
		requestErr = saveErr
	}
	up := a.startUpload(ctx, c, logger, accessToken)
	defer up.cancel()

	result, err := job.New(a.Job, c.folder).Run(ctx, req, requestErr, job.Control{Stop: c.stopping, Leave: c.leaving})
	switch {
	case err == nil:
	case ctx.Err() != nil, errors.Is(err, job.ErrLeft):
		return End{}, err
	default: // what the log has is delivered nevertheless
		a.Logger.Error("the job's log is broken; the job fails", "job", c.folder.ID(), "error", err)
		result = protocol.Failed
	}
	ended := endOf(c.folder.EventsPath(), time.Now())
	up.Finish()
	select {
	case <-up.done:
	case <-c.forgotten:
	case <-c.leaving:
		return End{}, job.ErrLeft
	case <-ctx.Done():
		return End{}, ctx.Err()
	case <-time.After(a.FlushTimeout):
		a.Logger.Error("the log could not be delivered in time; its rest stays on disk", "job", c.folder.ID(),
			"after", a.FlushTimeout, "delivered events", c.folder.State().Acked, "log", c.folder.EventsPath())
	}
	if err := a.pushLog(ctx, c, req); err != nil {
		return End{}, err
	}
	st := c.folder.State()
	end := End{
		JobID: c.folder.ID(), Slot: a.Slot, Result: result, Taken: st.Taken, Ended: ended, Log: c.folder.EventsPath(), Delivery: up.delivery.soFar(),
	}
	if req != nil {
		end.Name = req.Job.Name
	}
	if st.Worker != nil {
		end.Executor = st.Worker.Executor
	}
	return end, nil
}

// upload is the shipping of a job's log under way.
type upload struct {
	*uploader.Uploader
	delivery  *delivery
	cancelRun context.CancelFunc
	done      chan struct{}
}

func (u *upload) cancel() {
	u.cancelRun()
	<-u.done
}

// startUpload ships the job's log if there is somewhere to ship it to.
func (a *Agent) startUpload(ctx context.Context, c *current, logger request.Logger, accessToken string) *upload {
	ctx, cancel := context.WithCancel(ctx)
	st := c.folder.State()
	d := &delivery{Shipping: a.Observer.Shipping(c.folder.EventsPath(), func() int64 { return c.folder.State().AckedOffset })}
	up := &upload{cancelRun: cancel, done: make(chan struct{}), delivery: d, Uploader: uploader.New(uploader.Options{
		Observer: d,
		Path:     c.folder.EventsPath(), From: uploader.Position{Index: st.Acked, Offset: st.AckedOffset},
		Lost:    uploader.Lost{To: st.LostTo, Until: st.LostUntil},
		Service: &logService{hub: a.Hub, url: logger.URL, accessToken: accessToken}, Token: logger.Token,
		Save: func(p uploader.Position, lost uploader.Lost) error {
			return c.folder.Note(func(s *jobdir.State) {
				s.Acked, s.AckedOffset, s.LostTo, s.LostUntil = p.Index, p.Offset, lost.To, lost.Until
			})
		},
		Logger: a.Logger.With("job", c.folder.ID()),
	})}
	go func() {
		defer close(up.done)
		defer d.Close()
		if st.LogFull {
			return
		}
		if !usable(logger.URL) {
			a.Logger.Error("the job's request names no place that its log could be sent to; it stays on disk", "url", logger.URL, "job", c.folder.ID(), "log", c.folder.EventsPath())
			return
		}
		err := up.Run(ctx)
		switch {
		case errors.Is(err, uploader.ErrFull):
			a.Logger.Warn("the hub takes no more of the job's log; its rest stays on disk", "job", c.folder.ID(), "log", c.folder.EventsPath())
			err = c.folder.Update(func(s *jobdir.State) { s.LogFull = true })
		case ctx.Err() != nil:
			return
		}
		if err != nil {
			a.Logger.Error("cannot ship the job's log", "job", c.folder.ID(), "error", err)
		}
	}()
	return up
}

// usable tells whether a log can be sent to an address at all.
func usable(address string) bool {
	u, err := url.Parse(address)
	return err == nil && (u.Scheme == "http" || u.Scheme == "https") && u.Host != ""
}

// logService is the hub's log service for one job.
type logService struct {
	hub              *hub.Client
	url, accessToken string
}

// pushFarewell is how long a request that is under way may go on when nobody waits for more. It is a pity to cut it off: as long
// as its fate isn't known the next uploader has to wait and to repeat.
const pushFarewell = 3 * time.Second

func (s *logService) Push(ctx context.Context, token string, startFrom int64, body []byte) error {
	ended := ctx
	ctx, cancel := context.WithCancel(context.WithoutCancel(ctx))
	defer cancel()
	defer context.AfterFunc(ended, func() {
		select {
		case <-time.After(pushFarewell):
			cancel()
		case <-ctx.Done():
		}
	})()
	return s.hub.PushLog(ctx, s.url, token, startFrom, body)
}

func (s *logService) Refresh(ctx context.Context) (string, error) {
	token, err := s.hub.RefreshLogToken(ctx, s.accessToken)
	if err != nil {
		return "", fmt.Errorf("cannot have a new token for the log: %w", err)
	}
	return token, nil
}
