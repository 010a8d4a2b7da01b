package job

import (
	"path"
	"slices"
	"strings"

	"github.com/signalman-ci/signalman/shared/protocol"
)

// withheld are the supervisor's variables that no job may have: its settings and tokens, and what systemd gives to it alone.
var withheld = []string{
	"OTEL_EXPORTER_OTLP_*HEADERS", // which hold keys
	"SEMAPHORE_AGENT_*", "NOTIFY_SOCKET", "WATCHDOG_*", "LISTEN_*", "INVOCATION_ID", "JOURNAL_STREAM", "MAINPID", "SIGNALMAN_*", "PLUGIN_*",
}

// workerNeeds are the supervisor's variables that a worker gets.
var workerNeeds = []string{
	"PATH", "HOME", "USER", "LOGNAME", "LANG", "LC_*", "TZ", "TMPDIR", "SHELL", "SystemRoot",
	"HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "http_proxy", "https_proxy", "no_proxy", "ALL_PROXY", "all_proxy",
	"DOCKER_*", "KUBERNETES_*", "KUBECONFIG", "AWS_*", "SSL_CERT_*",
}

// WorkerEnv picks from an environment (NAME=value) what a worker needs.
func WorkerEnv(environ []string) []string {
	return slices.DeleteFunc(slices.Clone(environ), func(v string) bool {
		name, _, _ := strings.Cut(v, "=")
		return !matches(workerNeeds, name)
	})
}

// PluginEnv picks from an environment what a plugin's workers get besides: what pass names (globs may be used), but never the
// supervisor's own.
func PluginEnv(environ, pass []string) []string {
	return slices.DeleteFunc(slices.Clone(environ), func(v string) bool {
		name, _, _ := strings.Cut(v, "=")
		return name == "" || matches(withheld, name) || !matches(pass, name)
	})
}

// BaseEnv picks from an environment what a job's shell starts with: all but the supervisor's own, or only what pass names (globs
// may be used). TERM is always set.
func BaseEnv(environ, pass []string) []protocol.EnvVar {
	vars := []protocol.EnvVar{{Name: "TERM", Value: "xterm"}}
	for _, v := range environ {
		name, value, _ := strings.Cut(v, "=")
		if name == "" || matches(withheld, name) || len(pass) > 0 && !matches(pass, name) {
			continue
		}
		vars = append(vars, protocol.EnvVar{Name: name, Value: value})
	}
	return vars
}

func matches(patterns []string, name string) bool {
	return slices.ContainsFunc(patterns, func(p string) bool {
		ok, err := path.Match(p, name)
		return ok && err == nil
	})
}
