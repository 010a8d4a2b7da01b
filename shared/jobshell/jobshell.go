// Package jobshell is what a job's shell is to those that run commands in it. Package protocol shows all of it under the same
// names; it stands here by itself so that the small helper in a job's container can be built without the contract's gRPC.
package jobshell

import (
	"context"
	"io"
	"regexp"
	"strings"
)

// Shell is one interactive shell on a terminal. Its methods are called by one goroutine at a time.
type Shell interface {
	// Run runs a script in the shell, as if it were sourced, and writes to out what appears on the terminal: raw bytes
	// as they come, one write at a time, none after Run returned. An error means that the command's end could not be
	// learnt (the terminal, container or pod is gone); a failing or dying script is none.
	Run(ctx context.Context, script string, out io.Writer) (Exit, error)
	// Export sets and exports variables in the shell. Where the shell refuses some (bash's UID is read-only), all others
	// are exported still and the error is a *RefusedError, with which a job goes on.
	Export(ctx context.Context, env []EnvVar) error
	// Close ends the shell. Calling it again does nothing.
	Close() error
}

// RefusedError is the error of a Shell that has kept some variables as they were.
type RefusedError struct {
	Names []string
}

func (e *RefusedError) Error() string {
	return "the shell refuses to set " + strings.Join(e.Names, ", ")
}

// Exit tells how a script ended.
type Exit struct {
	// Code is the exit status: of the script, or of the shell where that ended too (128+n for signal n).
	Code int
	// ShellEnded is set when the shell itself is gone (exit, set -e, exec, kill). Open another one to go on.
	ShellEnded bool
}

// EnvVar is an environment variable; its name is one that ValidEnvName takes.
type EnvVar struct {
	Name  string
	Value string
	// Secret is set for a value that must not get into the log.
	Secret bool
}

var envName = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_]*$`)

// ValidEnvName tells whether a shell can have a variable of that name: letters, digits and _, no digit first.
func ValidEnvName(name string) bool { return envName.MatchString(name) }

// Quote quotes a text so that a POSIX shell takes it as one word.
func Quote(s string) string {
	return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'"
}
