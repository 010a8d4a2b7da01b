package protocol

import (
	"io/fs"
	"time"
)

// Job is a job as a worker gets it: decoded, checked, and without anything that belongs to the hub (the log's address
// and token, callbacks).
type Job struct {
	// ID is made of letters, digits, "-", "_" and "." only, so it can be part of a path or of a resource's name.
	ID   string
	Name string
	// Commands run in order until the first that fails; the epilogues afterwards, as hub-protocol.md orders them.
	Commands       []Command
	EpilogueAlways []Command
	EpilogueOnPass []Command
	EpilogueOnFail []Command
	// Env holds the job's variables; where a name repeats the last one wins.
	Env   []EnvVar
	Files []File
	// SSHPublicKeys are the decoded keys that may open a shell where the job runs.
	SSHPublicKeys []string
	// Compose is nil for a job without containers.
	Compose *Compose
}

// Command is one entry of a job's command lists.
type Command struct {
	// Directive is the shell text to run; it may have several lines.
	Directive string
	// Alias, if set, is shown instead of the directive.
	Alias string
}

// File is a file to be put in place before the first command.
type File struct {
	// Path is absolute, starts with "~/", or is relative to the job's home.
	Path    string
	Content []byte
	Mode    fs.FileMode
	// Secret is set for content that must not get into the log, nor any of its lines.
	Secret bool
}

// Compose describes the containers of a job; the first is where its commands run.
type Compose struct {
	Containers           []Container
	ImagePullCredentials []PullCredentials
	HostSetupCommands    []Command
}

// Container is one container of a job.
type Container struct {
	Name       string
	Image      string
	Command    string
	Entrypoint string
	User       string
	Env        []EnvVar
	Files      []File
}

// PullCredentials are the variables and files of one registry login; DOCKER_CREDENTIAL_TYPE tells its kind.
type PullCredentials struct {
	Env   []EnvVar
	Files []File
}

// Hook is a script of the host's owner that runs as a section of every job.
type Hook struct {
	// Path of the script, where the commands run. An empty path means no hook.
	Path string
	// Source runs the hook in the job's own shell rather than in a bash of its own.
	Source bool
	// FailJob makes a failing hook fail the job before its first command.
	FailJob bool
	// Timeout bounds the hook; 0 is no bound.
	Timeout time.Duration
}

// Settings are what the supervisor decides for a job beside what the hub asked for.
type Settings struct {
	// LogPath is the file that gets the job's events, one JSON object a line (package eventlog).
	LogPath string
	// LogMaxBytes caps the event log on disk, head and tail are kept; 0 is no cap.
	LogMaxBytes int64
	// TempDir is a folder of this job's own, there for as long as the job runs.
	TempDir string
	// Home is the folder where the job starts, and its HOME. Empty: that of the user the job runs as.
	Home string
	// User is the host user whose rights the job gets; empty: the worker's own.
	User string
	// BaseEnv is the environment the job's shell starts with, before Job.Env is exported in it.
	BaseEnv []EnvVar
	// InstanceID marks everything an executor makes as belonging to one state folder.
	InstanceID string
	PreHook    Hook
	PostHook   Hook
	// StopGrace is the time between INT and TERM, and again between TERM and KILL; 0 means DefaultStopGrace.
	StopGrace time.Duration
	// Extra holds settings of an executor's own (the [plugins.NAME] table of agent.toml).
	Extra map[string]string
	// Limits hold for all that the job starts. On this host the supervisor has set them on Cgroups; elsewhere the executor does.
	Limits Limits
	// Cgroups are folders of cgroups, one for each hierarchy, that what the job starts on this host belongs in; there may
	// be none. The worker itself is in none of them.
	Cgroups []string
}

// Limits of a job; 0 is none.
type Limits struct {
	// Memory in bytes.
	Memory int64
	// MilliCPUs are thousandths of a CPU.
	MilliCPUs int64
	// Pids is how many processes and threads there may be.
	Pids int64
}

// DefaultStopGrace is how long a stopped job's processes have to react to INT, and then to TERM.
const DefaultStopGrace = 5 * time.Second
