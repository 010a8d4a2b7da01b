package config

import (
	"cmp"
	"regexp"
	"strings"
	"time"

	"github.com/signalman-ci/signalman/internal/executor/settings"
	"github.com/signalman-ci/signalman/internal/regtoken"
)

// place says where an option can be set.
type place uint8

const (
	inFlag place = 1 << iota
	inEnv
	inFile
	everywhere = inFlag | inEnv | inFile
)

// option is one setting.
type option struct {
	// key is the flag's name and the key in the file, with a dot if it is in a table there.
	key   string
	group string
	in    place
	value value
	// def is the default as text; empty: nothing is set.
	def string
	// arg stands for the value in the help.
	arg string
	// doc is for the help and for the example file.
	doc string
	// required is set for what has no default and is needed, unless one of the options in or is set instead.
	required bool
	// when is when a running supervisor takes up a change; without one it is NextJob.
	when When
	or   []string
	// more are lines of comment to follow it in the example file.
	more string
}

// takenUp is when a running supervisor takes up a change of the option.
func (o option) takenUp() When { return cmp.Or(o.when, NextJob) }

// env is the name of the option's environment variable.
func (o option) env() string {
	return "SEMAPHORE_AGENT_" + strings.ToUpper(strings.ReplaceAll(o.key, "-", "_"))
}

const (
	year      = 365 * 24 * time.Hour
	hubGroup  = "Hub"
	lifeGroup = "When to leave"
	hostGroup = "Host and jobs"
	hookGroup = "Hooks"
	k8sGroup  = "Kubernetes"
	fileGroup = "Tables"
	envGroup  = "Environment only"
	// serveGroup is what only `supervisor serve` knows.
	serveGroup = "supervisor serve"
)

// serveToo are the options in other groups that `supervisor serve` has flags for as well.
var serveToo = map[string]bool{
	"config-file": true, "ca-file": true, "client-cert": true, "client-key": true, "proxy": true, "state-dir": true, "plugin-dirs": true,
	"job-executors": true, "job-user": true, "pass-env": true, "env-vars": true, "files": true, "fail-on-missing-files": true,
	"upload-job-logs": true, "pre-job-hook-path": true, "post-job-hook-path": true,
}

// options is the table that everything else comes from, in the order of the example file.
var options = []option{
	{key: "config-file", when: Restart, group: hubGroup, in: inFlag | inEnv, arg: "PATH",
		value: text(func(c *Config) *string { return &c.ConfigFile }),
		doc:   "The TOML file with these settings; in the file itself it has no effect."},
	{key: "endpoint", when: NewRegistration, group: hubGroup, in: everywhere, arg: "HOST", required: true,
		value: text(func(c *Config) *string { return &c.Endpoint }, checkEndpoint),
		doc:   "The hub: a host or host:port, such as \"example.semaphoreci.com\". Required."},
	{key: "token", when: NewRegistration, group: hubGroup, in: everywhere, arg: "TOKEN", required: true, or: []string{"token-file", "token-command"},
		value: secret(func(c *Config) *Secret { return &c.Token }, regtoken.Check),
		doc: "The registration token of the agent type. Required, unless token-file or token-command is set. " +
			"On a command line other users of the host can read it."},
	{key: "token-file", when: NewRegistration, group: hubGroup, in: everywhere, arg: "PATH",
		value: text(func(c *Config) *string { return &c.TokenFile }),
		doc:   "A file with the registration token alone, in place of token. It is read anew for each registration."},
	{key: "token-command", when: NewRegistration, group: hubGroup, in: everywhere, arg: "COMMAND",
		value: text(func(c *Config) *string { return &c.TokenCommand }),
		doc: "A command that prints the registration token, in place of token, such as \"pass show ci/token\". " +
			"It runs in a shell for each registration, and has 30 seconds."},
	{key: "name", when: NewRegistration, group: hubGroup, in: everywhere, arg: "NAME",
		value: single(func(c *Config) *string { return &c.Name }, checked(checkName), showName),
		doc: "The agent's name: 1 to 80 characters of a-z A-Z 0-9 - _ / +, or a pre-signed URL of AWS STS GetCallerIdentity. " +
			"If empty, one is made up. With more than one slot the others are NAME-2, NAME-3 and so on."},
	{key: "name-from-env", when: NewRegistration, group: hubGroup, in: everywhere, arg: "VAR",
		value: text(func(c *Config) *string { return &c.NameFromEnv }, checkEnvName),
		doc:   "Deprecated: the environment variable that holds the name. Set the name itself."},
	{key: "no-https", when: NewRegistration, group: hubGroup, in: everywhere, def: "false",
		value: boolean(func(c *Config) *bool { return &c.NoHTTPS }),
		doc:   "Speak plain HTTP to the hub."},
	{key: "ca-file", group: hubGroup, in: everywhere, arg: "PATH",
		value: text(func(c *Config) *string { return &c.Connection.CAFile }),
		doc: "Certificates (PEM) of authorities that are trusted beside the system's, " +
			"for hub and log service."},
	{key: "client-cert", group: hubGroup, in: everywhere, arg: "PATH",
		value: text(func(c *Config) *string { return &c.Connection.ClientCert }),
		doc: "The agent's own certificate (PEM), where hub and log service want one. Needs client-key. " +
			"Both are read again when they have changed."},
	{key: "client-key", group: hubGroup, in: everywhere, arg: "PATH",
		value: text(func(c *Config) *string { return &c.Connection.ClientKey }),
		doc:   "The key (PEM) of client-cert, not encrypted."},
	{key: "proxy", group: hubGroup, in: everywhere, arg: "URL",
		value: proxy(func(c *Config) *Secret { return &c.Connection.Proxy }),
		doc: "The proxy to hub and log service, such as \"http://proxy.example.com:3128\", https or socks5, with USER:PASSWORD@ if need be; " +
			"\"none\" for none. If empty, HTTPS_PROXY and the like count. NO_PROXY always does."},
	{key: "concurrency", when: Now, group: hubGroup, in: everywhere, def: "1", arg: "N",
		value: number(func(c *Config) *int { return &c.Concurrency }, 1, 256),
		doc:   "How many jobs may run side by side, 1 to 256. Each one is an agent of its own at the hub."},
	{key: "on-unknown", group: hubGroup, in: everywhere, def: "register", arg: "WHAT",
		value: oneOf(func(c *Config) *OnUnknown { return &c.OnUnknown }, OnUnknownRegister, OnUnknownExit),
		doc:   "What to do when the hub no longer knows the agent: register (again) or exit."},

	{key: "disconnect-after-job", when: NewRegistration, group: lifeGroup, in: everywhere, def: "false",
		value: boolean(func(c *Config) *bool { return &c.DisconnectAfterJob }),
		doc:   "Leave after one job."},
	{key: "job-id", when: NewRegistration, group: lifeGroup, in: everywhere, arg: "ID",
		value: text(func(c *Config) *string { return &c.JobID }, checkJobID),
		doc:   "Take this job only. Needs disconnect-after-job, and concurrency 1."},
	{key: "disconnect-after-idle-timeout", when: NewRegistration, group: lifeGroup, in: everywhere, def: "0", arg: "SECONDS",
		value: seconds(func(c *Config) *time.Duration { return &c.DisconnectAfterIdle }, 0, year),
		doc:   "Leave after so many seconds without a job. 0: never."},
	{key: "interruption-grace-period", when: NewRegistration, group: lifeGroup, in: everywhere, def: "0", arg: "SECONDS",
		value: seconds(func(c *Config) *time.Duration { return &c.InterruptionGrace }, 0, year),
		doc:   "How many seconds a running job may go on after the agent was interrupted, before it is stopped."},

	{key: "state-dir", when: Restart, group: hostGroup, in: everywhere, arg: "DIR",
		value: text(func(c *Config) *string { return &c.StateDir }),
		doc: "Where jobs and registrations are kept. By default /var/lib/signalman for root, " +
			"else signalman in $XDG_STATE_HOME or ~/.local/state."},
	{key: "plugin-dirs", group: hostGroup, in: everywhere, arg: "DIRS",
		value: texts(func(c *Config) *[]string { return &c.PluginDirs }, func(string) error { return nil }),
		doc:   "Folders with executors of your own: a file worker-NAME is the executor NAME."},
	{key: "job-executors", group: hostGroup, in: everywhere, arg: "NAMES",
		value: texts(func(c *Config) *[]string { return &c.JobExecutors }, checkExecutor),
		doc:   "Executors that a job may choose by its environment variable SIGNALMAN_EXECUTOR."},
	{key: "job-user", group: hostGroup, in: everywhere, arg: "NAMES",
		value: texts(func(c *Config) *[]string { return &c.JobUsers }, checkUser),
		doc: "The user that jobs run as: one name for all slots, or one a slot. " +
			"If empty, it is the agent's own, and jobs can read the agent's files."},
	{key: "pass-env", group: hostGroup, in: everywhere, arg: "NAMES",
		value: texts(func(c *Config) *[]string { return &c.PassEnv }, checkGlob),
		doc: "Names and globs of the environment variables that jobs have from the agent, such as [\"PATH\", \"LC_*\"]. " +
			"If empty, they have all but the agent's own settings and tokens."},
	{key: "env-vars", group: hostGroup, in: everywhere, arg: "VAR=VALUE,...",
		value: envVars(func(c *Config) *[]EnvVar { return &c.EnvVars }),
		doc: "Environment variables for every job, such as [\"CACHE=on\", \"OPTS=a=1,b=2\"]. " +
			"May also be a table, [env-vars], at the end of the file."},
	{key: "files", group: hostGroup, in: everywhere, arg: "/HOST:/CONTAINER,...",
		value: many(func(c *Config) *[]File { return &c.Files }, parseFile, func(f File) string { return f.Host + ":" + f.Container }),
		doc:   "Files of the host for the containers of jobs, such as [\"/etc/ci/netrc:/root/.netrc\"]."},
	{key: "fail-on-missing-files", group: hostGroup, in: everywhere, def: "false",
		value: boolean(func(c *Config) *bool { return &c.FailOnMissingFiles }),
		doc:   "Fail a job if one of the host's files for containers isn't there."},
	{key: "upload-job-logs", group: hostGroup, in: everywhere, def: "never", arg: "WHEN",
		value: oneOf(func(c *Config) *UploadJobLogs { return &c.UploadJobLogs }, UploadNever, UploadWhenTrimmed, UploadAlways),
		doc: "When to push a job's log as plain text to the job's artifacts, by the artifact command: never, when-trimmed (the hub took only a part " +
			"of it, or it reached log.max-disk) or always."},

	{key: "pre-job-hook-path", group: hookGroup, in: everywhere, arg: "PATH",
		value: text(func(c *Config) *string { return &c.Hooks.PreJob }),
		doc:   "A script to run before the commands of each job."},
	{key: "source-pre-job-hook", group: hookGroup, in: everywhere, def: "false",
		value: boolean(func(c *Config) *bool { return &c.Hooks.SourcePreJob }),
		doc:   "Source the pre-job hook in the job's shell, instead of running it in one of its own."},
	{key: "fail-on-pre-job-hook-error", group: hookGroup, in: everywhere, def: "false",
		value: boolean(func(c *Config) *bool { return &c.Hooks.FailOnPreJobError }),
		doc:   "Fail the job if the pre-job hook fails."},
	{key: "post-job-hook-path", group: hookGroup, in: everywhere, arg: "PATH",
		value: text(func(c *Config) *string { return &c.Hooks.PostJob }),
		doc:   "A script to run after each job, whatever its result."},
	{key: "shutdown-hook-path", when: Now, group: hookGroup, in: everywhere, arg: "PATH",
		value: text(func(c *Config) *string { return &c.Hooks.Shutdown }),
		doc:   "A script to run once, after the agent has left the hub. SEMAPHORE_AGENT_SHUTDOWN_REASON says why."},

	{key: "kubernetes-executor", group: k8sGroup, in: everywhere, def: "false",
		value: boolean(func(c *Config) *bool { return &c.Kubernetes.Executor }),
		doc:   "Run jobs in pods: both settings of [executors] are \"k8s\" then, unless they are set."},
	{key: "kubernetes-pod-spec", group: k8sGroup, in: everywhere, arg: "NAME",
		value: text(func(c *Config) *string { return &c.Kubernetes.PodSpec }),
		doc:   "A ConfigMap whose keys pod, mainContainer and sidecarContainers are merged under what a job asks for."},
	{key: "kubernetes-allowed-images", group: k8sGroup, in: everywhere, arg: "REGEXES",
		value: many(func(c *Config) *[]*regexp.Regexp { return &c.Kubernetes.AllowedImages }, parseRegexp, (*regexp.Regexp).String),
		doc:   "Regular expressions of the images that jobs may use, such as [\"^example[.]com/.+\"]. If empty, all."},
	{key: "kubernetes-labels", group: k8sGroup, in: everywhere, arg: "KEY=VALUE,...",
		value: labels(func(c *Config) *map[string]string { return &c.Kubernetes.Labels }),
		doc:   "Labels for what is created in the cluster, such as [\"team=web\"]."},
	{key: "kubernetes-pod-start-timeout", group: k8sGroup, in: everywhere, def: "300", arg: "SECONDS",
		value: seconds(func(c *Config) *time.Duration { return &c.Kubernetes.PodStartTimeout }, time.Second, 24*time.Hour),
		doc:   "How many seconds a pod may take to start."},
	{key: "kubernetes-default-image", group: k8sGroup, in: everywhere, arg: "IMAGE",
		value: text(func(c *Config) *string { return &c.Kubernetes.DefaultImage }),
		doc:   "The image for jobs that name none."},

	{key: "executors.shell", group: fileGroup, in: inFile, def: "shell",
		value: executor(func(c *Config) *string { return &c.Executors.Shell }),
		doc:   "Which executor runs jobs without containers: shell, compose, k8s or a plugin's name."},
	{key: "executors.dockercompose", group: fileGroup, in: inFile, def: "compose",
		value: executor(func(c *Config) *string { return &c.Executors.DockerCompose }),
		doc:   "Which executor runs jobs with containers."},
	{key: "log.flush-timeout", group: fileGroup, in: inFile, def: "5m",
		value: duration(func(c *Config) *time.Duration { return &c.Log.FlushTimeout }, time.Second, 24*time.Hour),
		doc:   "How long a job's result waits for its log to reach the hub."},
	{key: "log.max-disk", group: fileGroup, in: inFile, def: "1GiB",
		value: size(func(c *Config) *Size { return &c.Log.MaxDisk }, MiB, 1024*TiB),
		doc:   "What the log of one job may take on disk; of a longer one the head and the tail are kept. Units are B, KB, MB, GB, KiB, MiB, GiB."},
	{key: "jobs.keep", when: Now, group: fileGroup, in: inFile, def: "168h",
		value: duration(func(c *Config) *time.Duration { return &c.Jobs.Keep }, 0, 10*year),
		doc:   "How long the log and the outcome of an ended job stay on disk. 168h are 7 days."},
	{key: "jobs.stop-grace", group: fileGroup, in: inFile, def: "5s",
		value: duration(func(c *Config) *time.Duration { return &c.Jobs.StopGrace }, 0, time.Hour),
		doc:   "How long a stopped job's processes have after INT, and again after TERM, before they are killed."},

	{key: "compose.pull-policy", group: fileGroup, in: inFile, def: "if-not-present",
		value: oneOf(func(c *Config) *settings.PullPolicy { return &c.Compose.PullPolicy },
			settings.PullIfNotPresent, settings.PullAlways, settings.PullNever),
		doc: "When the images of jobs with containers are pulled: if-not-present, always or never."},
	{key: "compose.allowed-images", group: fileGroup, in: inFile,
		value: many(func(c *Config) *[]*regexp.Regexp { return &c.Compose.AllowedImages }, parseRegexp, (*regexp.Regexp).String),
		doc:   "Regular expressions of the images that jobs may use, such as [\"^example[.]com/.+\"]. If empty, all."},
	{key: "compose.mount-docker-socket", group: fileGroup, in: inFile, def: "true",
		value: boolean(func(c *Config) *bool { return &c.Compose.MountDockerSocket }),
		doc:   "Give a job's first container the Docker engine's socket. A job that has it can do what root can on this host."},
	{key: "compose.expose-kvm-device", group: fileGroup, in: inFile, def: "false",
		value: boolean(func(c *Config) *bool { return &c.Compose.ExposeKVM }),
		doc:   "Give a job's first container /dev/kvm, where the host has it."},

	{key: "kubernetes.kubeconfig", group: fileGroup, in: inFile,
		value: text(func(c *Config) *string { return &c.Kubernetes.Kubeconfig }),
		doc: "The kubeconfig file of the cluster where pods of jobs run. If empty: KUBECONFIG, the service account of the pod that the agent runs in, " +
			"~/.kube/config."},
	{key: "kubernetes.context", group: fileGroup, in: inFile,
		value: text(func(c *Config) *string { return &c.Kubernetes.Context }),
		doc:   "The context in that file. If empty, its current one."},
	{key: "kubernetes.namespace", group: fileGroup, in: inFile,
		value: text(func(c *Config) *string { return &c.Kubernetes.Namespace }, checkKubernetesNamespace),
		doc:   "The namespace for pods of jobs. If empty: KUBERNETES_NAMESPACE, else \"default\"."},

	{key: "limits.memory", group: fileGroup, in: inFile, def: "0B",
		value: size(func(c *Config) *Size { return &c.Limits.Memory }, 0, 1024*TiB),
		doc:   "How much memory all processes of a job may have together. 0B: no limit."},
	{key: "limits.cpus", group: fileGroup, in: inFile, def: "0",
		value: cpus(func(c *Config) *int { return &c.Limits.MilliCPUs }),
		doc:   "How many CPUs a job may use, such as 2 or 0.5. 0: no limit."},
	{key: "limits.pids", group: fileGroup, in: inFile, def: "0",
		value: number(func(c *Config) *int { return &c.Limits.Pids }, 0, 4<<20),
		doc:   "How many processes and threads a job may have. 0: no limit."},
	{key: "limits.timeout", group: fileGroup, in: inFile, def: "0s",
		value: duration(func(c *Config) *time.Duration { return &c.Limits.Timeout }, 0, year),
		doc:   "How long a job may take; then it is stopped, and its log says so. 0s: as long as the hub lets it."},
	{key: "admission.min-disk", when: Now, group: fileGroup, in: inFile, def: "512MiB",
		value: size(func(c *Config) *Size { return &c.Admission.MinDisk }, 0, 1024*TiB),
		doc:   "No job is taken while less disk space than this is free where state-dir, homes or temporary files are."},
	{key: "admission.min-inodes", when: Now, group: fileGroup, in: inFile, def: "5000",
		value: number(func(c *Config) *int { return &c.Admission.MinInodes }, 0, 1<<40),
		doc:   "No job is taken while fewer inodes than this are free there."},
	{key: "admission.min-memory", when: Now, group: fileGroup, in: inFile, def: "128MiB",
		value: size(func(c *Config) *Size { return &c.Admission.MinMemory }, 0, 1024*TiB),
		doc:   "No job is taken while less memory than this is available on the host."},
	{key: "admin.listen", group: fileGroup, in: inFile, when: Restart,
		value: text(func(c *Config) *string { return &c.Admin.Listen }, checkListen),
		doc:   "A loopback address such as \"127.0.0.1:8070\", where the admin API is besides its socket, with a token (docs/operate.md). If empty, none."},
	{key: "secrets.env-vars", group: fileGroup, in: inFile,
		def:   "*_TOKEN,*_SECRET,*_PASSWORD,*_KEY,*_CONNECTION_STRING,*PASSPHRASE*",
		value: texts(func(c *Config) *[]string { return &c.Secrets.EnvVars }, checkGlob),
		doc: "Names and globs of the variables of a job whose values are masked in its log; those that the hub is known to fill with " +
			"secrets are masked in any case."},
	{key: "secrets.files", group: fileGroup, in: inFile, def: "*",
		value: texts(func(c *Config) *[]string { return &c.Secrets.Files }, checkFileGlob),
		doc:   "Names, paths and globs of the files of a job whose contents are masked in its log."},

	{key: "statsd.host", when: Restart, group: fileGroup, in: inFile,
		value: text(func(c *Config) *string { return &c.StatsD.Host }, checkHost),
		doc:   "A StatsD server to push metrics to, by UDP. If empty, none."},
	{key: "statsd.port", when: Restart, group: fileGroup, in: inFile, def: "8125",
		value: number(func(c *Config) *int { return &c.StatsD.Port }, 1, 65535),
		doc:   "The port of the StatsD server."},
	{key: "statsd.namespace", when: Restart, group: fileGroup, in: inFile, def: "agent.prod",
		value: text(func(c *Config) *string { return &c.StatsD.Namespace }, checkNamespace),
		doc:   "What the names of metrics begin with at the StatsD server."},

	{key: "plugins.verify", group: fileGroup, in: inFile, def: "off",
		value: oneOf(func(c *Config) *Verify { return &c.Verify }, VerifyOff, VerifyLocked),
		doc: "What plugins have to be: off (any), or locked: only a file whose SHA-256 is in the plugins.lock of its folder is run " +
			"(supervisor plugins pin).",
		more: `
# [plugins.NAME] sets what concerns one plugin: memory, cpus, pids and timeout as in [limits], for its jobs; pass-env, names
# and globs of the agent's environment variables that it gets. Any other key there is passed to the plugin.
`},

	{key: "auth-token-secret", when: Restart, group: serveGroup, in: inFlag | inEnv, arg: "SECRET",
		value: secret(func(c *Config) *Secret { return &c.Serve.AuthTokenSecret }, func(string) error { return nil }),
		doc:   "What the tokens of callers are signed with (JWT, HS256). Required. On a command line other users of the host can read it."},
	{key: "host", when: Restart, group: serveGroup, in: inFlag | inEnv, def: "0.0.0.0", arg: "ADDRESS",
		value: text(func(c *Config) *string { return &c.Serve.Host }, checkHost),
		doc:   "The address to listen at."},
	{key: "port", when: Restart, group: serveGroup, in: inFlag | inEnv, def: "8000", arg: "N",
		value: number(func(c *Config) *int { return &c.Serve.Port }, 0, 65535),
		doc:   "The port to listen at. 0: any that is free; the log tells."},
	{key: "tls-cert-path", when: Restart, group: serveGroup, in: inFlag | inEnv, def: "server.crt", arg: "PATH",
		value: text(func(c *Config) *string { return &c.Serve.TLSCert }),
		doc:   "The server's certificate (PEM)."},
	{key: "tls-key-path", when: Restart, group: serveGroup, in: inFlag | inEnv, def: "server.key", arg: "PATH",
		value: text(func(c *Config) *string { return &c.Serve.TLSKey }),
		doc:   "The key of tls-cert-path (PEM)."},
	{key: "tls-self-signed", when: Restart, group: serveGroup, in: inFlag | inEnv, def: "false",
		value: boolean(func(c *Config) *bool { return &c.Serve.TLSSelfSigned }),
		doc:   "Make a certificate, and keep it in state-dir, where neither of these files is there."},
	{key: "callback-retry-attempts", when: Restart, group: serveGroup, in: inFlag | inEnv, def: "300", arg: "N",
		value: number(func(c *Config) *int { return &c.Serve.CallbackRetryAttempts }, 1, 1000000),
		doc:   "How often a callback is tried, once a second."},
	{key: "expose-kvm-device", when: Restart, group: serveGroup, in: inFlag | inEnv, def: "true",
		value: boolean(func(c *Config) *bool { return &c.Serve.ExposeKVM }),
		doc:   "Give a job's first container /dev/kvm, where the host has it."},
	{key: "statsd-host", when: Restart, group: serveGroup, in: inFlag | inEnv, arg: "HOST",
		value: text(func(c *Config) *string { return &c.Serve.StatsD.Host }, checkHost),
		doc:   "A StatsD server to push metrics to, by UDP; wins over [statsd] host."},
	{key: "statsd-port", when: Restart, group: serveGroup, in: inFlag | inEnv, def: "8125", arg: "N",
		value: number(func(c *Config) *int { return &c.Serve.StatsD.Port }, 1, 65535),
		doc:   "The port of the StatsD server; wins over [statsd] port."},
	{key: "statsd-namespace", when: Restart, group: serveGroup, in: inFlag | inEnv, def: "agent.prod", arg: "NAME",
		value: text(func(c *Config) *string { return &c.Serve.StatsD.Namespace }, checkNamespace),
		doc:   "What the names of metrics begin with at the StatsD server; wins over [statsd] namespace."},

	{key: "log-level", when: Restart, group: envGroup, in: inEnv, def: "info",
		value: logLevel(func(c *Config) *string { return &c.Log.Level }),
		doc:   "How much the agent logs: trace, debug, info, warn, error or off."},
	{key: "log-file-path", when: Restart, group: envGroup, in: inEnv,
		value: text(func(c *Config) *string { return &c.Log.File }),
		doc:   "A file that the agent logs to as well as to standard output; it is rotated. If empty, there is none."},
	{key: "logs-compression-size", when: Restart, group: envGroup, in: inEnv, def: "100MB",
		value: size(func(c *Config) *Size { return &c.Log.CompressionSize }, 1e6, GiB),
		doc:   "Uploaded job logs above this size are compressed: bytes, or with a unit, 1MB to 1GiB."},
}

// executor is a name that can't be empty.
func executor(field func(*Config) *string) value {
	return single(field, func(s string) (string, error) { return s, checkExecutor(s) }, tomlQuote)
}

// optionOf finds an option by its key.
func optionOf(key string) (option, bool) {
	for _, o := range options {
		if o.key == key {
			return o, true
		}
	}
	return option{}, false
}
