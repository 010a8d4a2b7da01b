package protocol

import "github.com/signalman-ci/signalman/shared/mask"

// Secrets lists all of a job that must not get into its log. An executor in Go need not care: the log masks what it is given.
func Secrets(job *Job, settings *Settings) []mask.Secret {
	var out []mask.Secret
	add := func(env []EnvVar, files []File) {
		for _, v := range env {
			if v.Secret {
				out = append(out, mask.Secret{Name: v.Name, Value: v.Value})
			}
		}
		for _, f := range files {
			if f.Secret {
				out = append(out, mask.Secret{Name: f.Path, Value: string(f.Content), File: true})
			}
		}
	}
	add(settings.BaseEnv, nil)
	add(job.Env, job.Files)
	if job.Compose != nil {
		for _, c := range job.Compose.Containers {
			add(c.Env, c.Files)
		}
		for _, c := range job.Compose.ImagePullCredentials {
			add(c.Env, c.Files)
		}
	}
	return out
}
