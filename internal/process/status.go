package process

import (
	"fmt"
	"os"
	"syscall"
)

// Status is how a process ended. The zero Status is that of one of which it can't be known.
type Status struct {
	// Known is set if the rest says something.
	Known bool
	// Code is the exit code of a process that ended by itself.
	Code int
	// Signal has ended the process, if it isn't 0.
	Signal syscall.Signal
}

// StatusOf is the status of a child that was waited for; s may be nil.
func StatusOf(s *os.ProcessState) Status {
	if s == nil {
		return Status{}
	}
	if ws, ok := s.Sys().(syscall.WaitStatus); ok {
		return fromWait(ws)
	}
	return Status{Known: true, Code: s.ExitCode()}
}

func fromWait(ws syscall.WaitStatus) Status {
	if ws.Signaled() {
		return Status{Known: true, Signal: ws.Signal()}
	}
	return Status{Known: true, Code: ws.ExitStatus()}
}

// String says it in words that go into a sentence: "exit code 2", "killed by signal 9, SIGKILL".
func (s Status) String() string {
	switch {
	case !s.Known:
		return "it is not known how, since an earlier supervisor had started it"
	case s.Signal != 0:
		return fmt.Sprintf("killed by signal %d, %s", int(s.Signal), signalName(s.Signal))
	default:
		return fmt.Sprintf("exit code %d", s.Code)
	}
}
