package job

import (
	"path"
	"slices"

	"github.com/signalman-ci/signalman/shared/mask"
	"github.com/signalman-ci/signalman/shared/protocol"
)

// Secrets says what of a job is masked in its log.
type Secrets struct {
	// EnvVars are globs (path.Match) of names of variables, Files of paths of injected files or of their last element.
	EnvVars, Files []string
}

var (
	// knownVars are what hubs are known to fill with secrets.
	knownVars = []string{
		"SEMAPHORE_ARTIFACT_TOKEN", "SEMAPHORE_OIDC_TOKEN", "SEMAPHORE_CACHE_PASSWORD", "SEMAPHORE_CACHE_PRIVATE_KEY",
		"DOCKERHUB_PASSWORD", "DOCKER_PASSWORD", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN",
	}
	// knownFiles are secret files of hubs, by the last element of their path; a job's keyVars name others.
	knownFiles = []string{"id_rsa", "semaphore_cache_key"}
	keyVars    = []string{"SEMAPHORE_CACHE_KEY_FILE", "SEMAPHORE_CACHE_PRIVATE_KEY_PATH"}
)

// mark returns a job in which all that is to be masked is marked. The files of a registry's credentials are keys.
func (s Secrets) mark(job *protocol.Job) *protocol.Job {
	out := *job
	files := slices.Concat(s.Files, knownFiles)
	for _, v := range job.Env {
		if slices.Contains(keyVars, v.Name) && v.Value != "" {
			files = append(files, literal(path.Base(v.Value)))
		}
	}
	out.Env, out.Files = s.vars(job.Env), markFiles(job.Files, files)
	if job.Compose == nil {
		return &out
	}
	compose := *job.Compose
	compose.Containers = slices.Clone(compose.Containers)
	for i, c := range compose.Containers {
		compose.Containers[i].Env, compose.Containers[i].Files = s.vars(c.Env), markFiles(c.Files, files)
	}
	compose.ImagePullCredentials = slices.Clone(compose.ImagePullCredentials)
	for i, c := range compose.ImagePullCredentials {
		compose.ImagePullCredentials[i] = protocol.PullCredentials{Env: s.vars(c.Env), Files: markFiles(c.Files, []string{"*"})}
	}
	out.Compose = &compose
	return &out
}

// vars returns variables of which those to be masked are marked.
func (s Secrets) vars(vars []protocol.EnvVar) []protocol.EnvVar {
	out := slices.Clone(vars)
	for i, v := range out {
		out[i].Secret = v.Secret || matches(s.EnvVars, v.Name) || slices.Contains(knownVars, v.Name)
	}
	return out
}

func markFiles(files []protocol.File, patterns []string) []protocol.File {
	out := slices.Clone(files)
	for i, f := range out {
		out[i].Secret = f.Secret || matches(patterns, f.Path) || matches(patterns, path.Base(f.Path))
	}
	return out
}

// literal is a glob that matches one name only.
func literal(name string) string {
	var out []rune
	for _, r := range name {
		out = append(out, '\\', r)
	}
	return string(out)
}

// logUnmasked tells the operator, not the job's log, which secrets will stand there if a command prints them.
func (j *Job) logUnmasked(job *protocol.Job, settings *protocol.Settings) {
	var short, large []string
	for _, s := range mask.Check(protocol.Secrets(job, settings)) {
		if s.Short {
			short = append(short, s.Name)
		} else {
			large = append(large, s.Name)
		}
	}
	slices.Sort(short)
	slices.Sort(large)
	if len(short) > 0 {
		j.logger.Info("not masked in the log: "+mask.TooShort, "names", slices.Compact(short))
	}
	if len(large) > 0 {
		j.logger.Warn("not masked in the log: "+mask.TooLarge, "names", slices.Compact(large))
	}
}
