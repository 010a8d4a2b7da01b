package metrics

import (
	"time"

	"github.com/signalman-ci/signalman/shared/eventlog"
)

const (
	// pullExecutor is the executor whose jobs pull images in a section of their log, pullDirective that section. The hub's protocol
	// gives the section its name, and which one follows on it at the latest.
	pullExecutor    = "compose"
	pullDirective   = "Pulling docker images..."
	exportDirective = "Exporting environment variables"
)

// pull is how the images of a job were had.
type pull struct {
	done, failed bool
	took         time.Duration
}

// pullOf reads it from the beginning of a job's log. So it is known to whichever supervisor sees the job's end, and the contract with
// workers needs no way of its own for figures. A job that was stopped meanwhile counts as neither.
func pullOf(log string) pull {
	var p pull
	var stopped bool
	_ = eventlog.Walk(log, func(e eventlog.Event) bool { // a log that can't be read tells nothing
		switch {
		case e.Kind == eventlog.KindCmdFinished && e.Directive == pullDirective:
			p.took = time.Duration(e.FinishedAt-e.StartedAt) * time.Second
			p.done, p.failed = e.ExitCode == 0, e.ExitCode != 0
			return p.failed // then the result comes soon
		case e.Kind == eventlog.KindJobFinished:
			stopped = e.Result == "stopped"
		case e.Kind == eventlog.KindCmdStarted && e.Directive == exportDirective:
			return false
		}
		return true
	})
	if stopped {
		return pull{}
	}
	return p
}
