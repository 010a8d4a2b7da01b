package session

import (
	"errors"
	"os/exec"
	"syscall"
	"time"
)

// ErrEnded is returned (wrapped) for a command that was not started, as the shell had ended before.
var ErrEnded = errors.New("the shell has ended")

// DefaultStartTimeout is how long a shell may take to read its profile where Options.StartTimeout is zero.
const DefaultStartTimeout = time.Minute

// Options say how to open a Shell. ScriptDir is required, everything else may be left empty.
type Options struct {
	// Dir is the folder that the shell starts in; this process's own where empty.
	Dir string
	// Env is the shell's whole environment, as "NAME=value". Nothing is added to it, and nil means none at all.
	Env []string
	// Login makes bash a login shell, which reads the user's profile; otherwise it reads ~/.bashrc.
	Login bool
	// ScriptDir is an existing folder, of mode 0700, that the shell's user can read. A file is put there for each
	// command, and removed when the command has ended. The path has no line break.
	ScriptDir string
	// Chown, if set, hands a command's file to the shell's user. The file has mode 0600.
	Chown func(path string) error
	// SysProcAttr has extra attributes of the process, such as its credential. Session and controlling terminal are
	// set in a copy of it.
	SysProcAttr *syscall.SysProcAttr
	// Start, if set, starts the process in place of (*exec.Cmd).Start. The Shell waits for the process itself, so
	// nobody else may. It starts the process in the goroutine that it is called in, whose signal mask is passed on.
	Start func(*exec.Cmd) error
	// StartTimeout bounds the time until the shell takes commands: a profile may hang. DefaultStartTimeout where zero.
	StartTimeout time.Duration
}
