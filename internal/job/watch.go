package job

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/signalman-ci/signalman/internal/jobdir"
	"github.com/signalman-ci/signalman/internal/pluginhost"
	"github.com/signalman-ci/signalman/shared/protocol"
)

const (
	// stopLimit is how long a worker may take to hear that its job is to stop.
	stopLimit = 10 * time.Second
	// watchTries is how often a worker that lives but ends its connection is asked again, retryPause apart.
	watchTries = 5
	retryPause = time.Second
	// silenceLimit is the default of Settings.SilenceLimit, and questions is how often a worker is asked in that time whether it
	// still answers.
	silenceLimit = time.Minute
	questions    = 6
)

// watch follows the worker until its job is over. A problem says why the log may lack its end.
func (j *Job) watch(ctx context.Context, worker *pluginhost.Worker, control Control) (*problem, error) {
	background, stopBackground := context.WithCancel(ctx)
	var owned sync.WaitGroup
	defer owned.Wait()
	defer stopBackground()

	watched := make(chan error, 1)
	look := func() {
		owned.Go(func() {
			watched <- worker.Watch(background, func(s protocol.Status) { j.logger.Debug("job", "phase", s.Phase) })
		})
	}
	look()
	silent := make(chan struct{})
	owned.Go(func() { j.question(background, worker, silent) })
	var deadline <-chan time.Time
	st := j.folder.State() // a job keeps the time-out that it began with
	if st.Timeout > 0 {
		deadline = time.After(time.Until(st.Deadline))
	}

	stopped := protocol.Failed // the result of a job whose worker dies; a job that is stopped ends as that
	reason := ""               // of the stop
	var stopAgain, overdue <-chan time.Time
	stop := func() *problem {
		if overdue == nil {
			overdue = time.After(j.stopAllowance())
		}
		stopped = protocol.Stopped
		err := j.stop(ctx, worker, reason)
		switch {
		case err == nil:
			return nil
		case errors.Is(err, context.DeadlineExceeded):
			return j.end(worker, reason, fmt.Sprintf("no answer for %v when the job was to stop", stopLimit), stopped)
		default: // the connection may be about to be made anew
			j.logger.Warn("cannot stop the job; trying again", "error", err)
			stopAgain = time.After(retryPause)
			return nil
		}
	}
	for failures := 0; ; {
		select {
		case <-ctx.Done(): // the supervisor is made to leave at once: the job is stopped, and not waited for
			farewell, cancel := context.WithTimeout(context.WithoutCancel(ctx), retryPause)
			defer cancel()
			defer worker.Detach()
			return nil, errors.Join(ctx.Err(), worker.Stop(farewell, "The supervisor was made to leave at once."))
		case <-control.Leave:
			worker.Detach()
			return nil, ErrLeft
		case <-control.Stop:
			control.Stop = nil
			reason = j.folder.State().StopReason
		case <-deadline:
			reason = fmt.Sprintf("The job took longer than %v (%s timeout) and is stopped.", st.Timeout, j.limitsTable(st.Worker.Executor))
			if err := j.folder.Update(func(s *jobdir.State) { s.StopReason = reason }); err != nil {
				j.logger.Error("cannot note why the job is stopped", "error", err)
			}
		case <-stopAgain:
		case <-overdue:
			return j.end(worker, reason, fmt.Sprintf("the job did not end in %v after it was to stop", j.stopAllowance()), stopped), nil
		case <-silent:
			return j.end(worker, "", fmt.Sprintf("no answer for %v", j.silenceLimit()), stopped), nil
		case err := <-watched:
			if err == nil {
				return &problem{directive: endDirective, text: "The job's worker left its log without an end.", result: protocol.Failed}, nil
			}
			if ctx.Err() != nil { // the next turn says goodbye
				continue
			}
			if hasEnded(ctx, worker, retryPause) {
				return &problem{directive: endDirective, result: stopped, text: j.death(worker.Status())}, nil
			}
			if failures++; failures == watchTries {
				return j.end(worker, "", "it refuses to be talked to", stopped), nil
			}
			look()
			continue
		}
		if p := stop(); p != nil { // the others have gone on or returned
			return p, nil
		}
	}
}

// stop asks the worker to stop the job.
func (j *Job) stop(ctx context.Context, worker *pluginhost.Worker, reason string) error {
	ctx, cancel := context.WithTimeout(ctx, stopLimit)
	defer cancel()
	return worker.Stop(ctx, reason)
}

// stopAllowance is how long a worker may take to end its job when that is to stop: for INT and TERM, the post-job hook, and the removal of
// what it made, three times over.
func (j *Job) stopAllowance() time.Duration {
	if j.StopLimit > 0 {
		return j.StopLimit
	}
	return 3 * (2*cmp.Or(j.StopGrace, protocol.DefaultStopGrace) + max(j.PostHook.Timeout, time.Minute) + time.Minute)
}

// end ends a worker that is of no use any more; what it had started is cleaned up afterwards. reason is that of the stop that
// came before, "" if there was none or it needs no words.
func (j *Job) end(worker *pluginhost.Worker, reason, why string, result protocol.Result) *problem {
	j.logger.Error("the job's worker hangs and is ended", "pid", worker.Address().Process.PID, "reason", why)
	worker.Kill()
	text := fmt.Sprintf("The job's worker hung and was ended: %s.", why)
	if reason != "" {
		text = reason + " " + text
	}
	return &problem{directive: endDirective, result: result, text: text}
}

// trimWorkerLog keeps a worker that floods its log from filling the disk.
func (j *Job) trimWorkerLog() {
	if err := pluginhost.TrimLog(j.folder.WorkerLogPath(), pluginhost.LogLimit); err != nil {
		j.logger.Error("cannot cut the worker's log", "error", err)
	}
}

// question asks the worker again and again whether it is there, and closes silent when it hasn't answered for too long. It counts
// questions rather than time, so that a host that was asleep doesn't blame the worker.
func (j *Job) question(ctx context.Context, worker *pluginhost.Worker, silent chan<- struct{}) {
	interval := j.silenceLimit() / questions
	for unanswered := 0; unanswered < questions; {
		j.trimWorkerLog()
		asked, cancel := context.WithTimeout(ctx, interval)
		_, err := worker.Describe(asked)
		if errors.Is(err, context.DeadlineExceeded) {
			unanswered++
		} else { // the end of the connection is Watch's affair
			unanswered = 0
			<-asked.Done()
		}
		cancel()
		if ctx.Err() != nil {
			return
		}
	}
	close(silent)
}

func (j *Job) silenceLimit() time.Duration {
	if j.SilenceLimit > 0 {
		return j.SilenceLimit
	}
	return silenceLimit
}

// hasEnded waits a little for the end of a worker's process, which its connection's end often tells first.
func hasEnded(ctx context.Context, worker *pluginhost.Worker, limit time.Duration) bool {
	t := time.NewTimer(limit)
	defer t.Stop()
	select {
	case <-worker.Ended():
		return true
	case <-ctx.Done():
	case <-t.C:
	}
	return false
}
