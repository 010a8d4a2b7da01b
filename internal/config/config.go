package config

import (
	"regexp"
	"time"

	"github.com/signalman-ci/signalman/internal/executor/settings"
)

// Config is what the user sets, with the defaults filled in. Printing it (String, %v, %#v) shows no secret.
type Config struct {
	// ConfigFile is the path of the file that was read, if any.
	ConfigFile string

	// Name is the agent's name at the hub: empty (one is to be made up), a plain name, or a pre-signed URL of AWS STS
	// GetCallerIdentity, which is a credential (see NameIsURL).
	Name string
	// NameFromEnv is the deprecated way to set Name, which holds what it led to.
	NameFromEnv string
	// Endpoint is the hub's host, or host:port.
	Endpoint string
	// Token is the registration token. If it is empty TokenFile, an absolute path, or TokenCommand says where it comes from.
	Token        Secret
	TokenFile    string
	TokenCommand string
	NoHTTPS      bool
	Connection   Connection
	// Concurrency is the number of slots: agents that are registered, and jobs that run side by side.
	Concurrency int
	OnUnknown   OnUnknown

	DisconnectAfterJob bool
	// JobID is the one job that this agent is for, or empty.
	JobID string
	// DisconnectAfterIdle is 0 if an idle agent stays. It is whole seconds, as is InterruptionGrace.
	DisconnectAfterIdle time.Duration
	InterruptionGrace   time.Duration

	// StateDir is an absolute path, as are PluginDirs.
	StateDir   string
	PluginDirs []string

	EnvVars            []EnvVar
	Files              []File
	FailOnMissingFiles bool
	// PassEnv narrows the environment that jobs have from the supervisor: names and globs (path.Match). Empty: all of it.
	PassEnv []string
	// JobUsers is empty, or one name for all slots, or one a slot.
	JobUsers []string
	// JobExecutors are the executors that a job may choose by itself.
	JobExecutors  []string
	UploadJobLogs UploadJobLogs

	Hooks      Hooks
	Kubernetes Kubernetes
	Compose    Compose
	Executors  Executors
	Log        Log
	Jobs       Jobs
	Limits     Limits
	Admission  Admission
	Admin      Admin
	Secrets    Secrets
	StatsD     StatsD
	Verify     Verify
	Serve      Serve
	// Plugins are the tables [plugins.NAME], sorted by name.
	Plugins []Plugin

	origins map[string]Origin
}

// Connection is how hub and log service are reached. The paths are absolute, or empty.
type Connection struct {
	CAFile, ClientCert, ClientKey string
	// Proxy is a URL that may hold a password, or "none", or empty.
	Proxy Secret
}

// Hooks are the scripts an operator can set; an empty path is no hook.
type Hooks struct {
	Shutdown          string
	PreJob            string
	PostJob           string
	SourcePreJob      bool
	FailOnPreJobError bool
}

// Compose is what the executor for jobs in containers is told beside Files.
type Compose struct {
	PullPolicy settings.PullPolicy
	// AllowedImages are the images that jobs may use; none: all.
	AllowedImages     []*regexp.Regexp
	MountDockerSocket bool
	ExposeKVM         bool
}

// Kubernetes is what the Kubernetes executor is told.
type Kubernetes struct {
	// Executor makes Kubernetes the executor of all jobs that Executors doesn't say otherwise for.
	Executor bool
	// PodSpec is the name of a ConfigMap.
	PodSpec string
	// AllowedImages are the images that jobs may use; none: all.
	AllowedImages   []*regexp.Regexp
	Labels          map[string]string
	PodStartTimeout time.Duration
	DefaultImage    string
	// Kubeconfig (an absolute path), Context and Namespace say where the pods go; what is empty is found otherwise.
	Kubeconfig, Context, Namespace string
}

// Executors says which worker runs what the hub asks for.
type Executors struct {
	Shell         string
	DockerCompose string
}

// Serve is what only `supervisor serve` knows.
type Serve struct {
	AuthTokenSecret       Secret
	Host                  string
	Port                  int
	TLSCert, TLSKey       string
	TLSSelfSigned         bool
	CallbackRetryAttempts int
	ExposeKVM             bool
	// StatsD holds what was set by flags and variables. It is in the other StatsD as well for serve.
	StatsD StatsD
}

// Log holds the settings of the agent's own log and of the logs of jobs.
type Log struct {
	// Level is one of trace, debug, info, warn, error, off.
	Level string
	// File is where the agent's log goes beside standard output; it may be empty.
	File string
	// CompressionSize is the size above which an uploaded job log is compressed.
	CompressionSize Size
	// FlushTimeout is how long a job's result waits for its log to reach the hub.
	FlushTimeout time.Duration
	// MaxDisk caps what one job's log takes on disk.
	MaxDisk Size
}

// Jobs holds the settings of job folders and of how jobs are stopped.
type Jobs struct {
	// Keep is how long the folder of an ended job stays.
	Keep time.Duration
	// StopGrace is how long a process has after each of INT and TERM.
	StopGrace time.Duration
}

// Limits are the limits of one job; 0 is none.
type Limits struct {
	Memory    Size
	MilliCPUs int
	Pids      int
	Timeout   time.Duration
}

// Admission is what the host must have free for a slot to take a job; 0 asks for nothing.
type Admission struct {
	MinDisk, MinMemory Size
	MinInodes          int
}

// Admin holds the settings of the admin API.
type Admin struct {
	// Listen is a loopback host:port where the API is beside its socket, or empty.
	Listen string
}

// StatsD is where figures are pushed to; without a host nowhere.
type StatsD struct {
	Host      string
	Port      int
	Namespace string
}

// Secrets says what of a job is masked in its log.
type Secrets struct {
	// EnvVars are globs (path.Match) of names of variables, Files of paths of injected files or of their last element.
	EnvVars, Files []string
}

// Plugin is what is set for one plugin.
type Plugin struct {
	Name string
	// PassEnv are names and globs (path.Match) of the supervisor's environment variables that the plugin's workers get besides what
	// all workers get.
	PassEnv []string
	// Limits are those of the plugin's jobs: [limits], and in place of that what the plugin's table says.
	Limits Limits
	// Settings are the plugin's own, as text. They may well hold passwords.
	Settings map[string]Secret

	origins map[string]Origin
}

// EnvVar is an environment variable for every job. Its value may well be a password.
type EnvVar struct {
	Name  string
	Value Secret
}

// File is a file of the host that is given to containers.
type File struct {
	Host, Container string
}

// OnUnknown says what to do when the hub doesn't know the agent any more.
type OnUnknown string

// The values of OnUnknown.
const (
	OnUnknownRegister OnUnknown = "register"
	OnUnknownExit     OnUnknown = "exit"
)

// Verify says whether plugins are held to plugins.lock.
type Verify string

// The values of Verify.
const (
	VerifyOff    Verify = "off"
	VerifyLocked Verify = "locked"
)

// UploadJobLogs says when a job's log is uploaded as an artifact too.
type UploadJobLogs string

// The values of UploadJobLogs.
const (
	UploadNever       UploadJobLogs = "never"
	UploadWhenTrimmed UploadJobLogs = "when-trimmed"
	UploadAlways      UploadJobLogs = "always"
)

// NameIsURL tells whether Name is a pre-signed URL, which isn't to be logged.
func (c *Config) NameIsURL() bool { return isURL(c.Name) }
