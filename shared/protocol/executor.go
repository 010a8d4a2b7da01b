package protocol

import (
	"context"
	"errors"
	"io"

	"github.com/signalman-ci/signalman/shared/jobshell"
)

// Executor runs jobs of one kind. It is all that a worker written in Go implements; Serve does the rest. A worker
// process runs one job in its life, so Prepare is called at most once; Check, List and Cleanup may be called in a worker
// that runs no job, at any time and concurrently.
type Executor interface {
	// Describe tells the executor's name and version. It must not block.
	Describe() Description
	// Check looks at the host: is there what this executor needs? It changes nothing.
	Check(ctx context.Context) []CheckResult
	// Prepare makes the place where a job's commands run. Sections of its own (pulling images, waiting for a pod) go to
	// log. After an error it has removed what it made, and the job fails with that error as its reason: it should
	// say what failed, on what, and what to do. ctx ends when the job is stopped.
	Prepare(ctx context.Context, job *Job, settings *Settings, log SectionLog) (Environment, error)
	// List names the jobs of an instance of which something is left on this host (processes, containers, pods).
	List(ctx context.Context, instanceID string) ([]Leftover, error)
	// Cleanup removes all that is left of a job whose worker is dead, as Environment.Close would have. It is idempotent:
	// nothing left is no error. Of a job whose request is lost only Job.ID and Settings.InstanceID are set.
	Cleanup(ctx context.Context, job *Job, settings *Settings) error
}

// Environment is the place where one job's commands run. Its methods are called by one goroutine at a time, but for
// Stop, which comes while another one runs.
type Environment interface {
	// OpenShell starts the shell in which commands run one after another. It is called again after a shell died.
	OpenShell(ctx context.Context) (Shell, error)
	// ResolvePath gives the path shown for an injected file: resolved on a host, as given in a container.
	ResolvePath(path string) string
	// Inject puts a file in place. Its error names the path.
	Inject(ctx context.Context, file File) error
	// Stop ends all that the job started and that still runs, gently first: INT, TERM, then KILL. It returns when
	// nothing is left; a shell can be opened afterwards. Without processes it does nothing.
	Stop(ctx context.Context) error
	// Close ends what is left and removes all that Prepare made. No other method is called after it.
	Close(ctx context.Context) error
}

// ErrEnvironmentGone is what errors of a Shell and an Environment wrap where nothing more can run in that environment, for good: its
// container or pod is gone. The job then ends with that error, and without its epilogues.
var ErrEnvironmentGone = errors.New("the job's environment is gone")

// What a job's shell is stands in package jobshell.
type (
	// Shell is one interactive shell on a terminal.
	Shell = jobshell.Shell
	// RefusedError is the error of a Shell that has kept some variables as they were.
	RefusedError = jobshell.RefusedError
	// Exit tells how a script ended.
	Exit = jobshell.Exit
	// EnvVar is an environment variable; its name is one that ValidEnvName takes.
	EnvVar = jobshell.EnvVar
)

// ValidEnvName tells whether a shell can have a variable of that name: letters, digits and _, no digit first.
func ValidEnvName(name string) bool { return jobshell.ValidEnvName(name) }

// ShellQuote quotes a text so that a POSIX shell takes it as one word.
func ShellQuote(s string) string { return jobshell.Quote(s) }

// SectionLog lets an executor write sections into the job's log while it prepares.
type SectionLog interface {
	// Section starts a section. The writer takes its output; end closes it with an exit code and must be called once.
	Section(directive string) (out io.Writer, end func(exitCode int))
}

// Description is what an executor says of itself.
type Description struct {
	// Name of the executor, as agent.toml and job requests name it.
	Name    string
	Version string
}

// CheckResult is one line of a look at the host.
type CheckResult struct {
	// Name of what was looked at, e.g. "bash".
	Name   string
	Status CheckStatus
	// Message says what was found and, unless all is well, what to do.
	Message string
}

// CheckStatus grades a CheckResult.
type CheckStatus int

// The grades, from best to worst.
const (
	CheckOK CheckStatus = iota
	CheckWarning
	CheckFailed
)

// Leftover names a job of which something is left on the host.
type Leftover struct {
	JobID string
	// What is left, for people: "2 processes", "container main".
	What string
}
