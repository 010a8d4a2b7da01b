package protocol

import (
	"io/fs"
	"time"

	pb "github.com/signalman-ci/signalman/shared/protocol/internal/executorv1"
)

// The adapter between the Go types and the wire's: nothing outside this file, client.go and server.go sees protobuf.

func mapSlice[A, B any](in []A, f func(A) B) []B {
	if len(in) == 0 {
		return nil
	}
	out := make([]B, len(in))
	for i, v := range in {
		out[i] = f(v)
	}
	return out
}

func jobToWire(j *Job) *pb.Job {
	return &pb.Job{
		Id:             j.ID,
		Name:           j.Name,
		Commands:       mapSlice(j.Commands, commandToWire),
		EpilogueAlways: mapSlice(j.EpilogueAlways, commandToWire),
		EpilogueOnPass: mapSlice(j.EpilogueOnPass, commandToWire),
		EpilogueOnFail: mapSlice(j.EpilogueOnFail, commandToWire),
		Env:            mapSlice(j.Env, envToWire),
		Files:          mapSlice(j.Files, fileToWire),
		SshPublicKeys:  j.SSHPublicKeys,
		Compose:        composeToWire(j.Compose),
	}
}

func jobFromWire(j *pb.Job) *Job {
	return &Job{
		ID:             j.GetId(),
		Name:           j.GetName(),
		Commands:       mapSlice(j.GetCommands(), commandFromWire),
		EpilogueAlways: mapSlice(j.GetEpilogueAlways(), commandFromWire),
		EpilogueOnPass: mapSlice(j.GetEpilogueOnPass(), commandFromWire),
		EpilogueOnFail: mapSlice(j.GetEpilogueOnFail(), commandFromWire),
		Env:            mapSlice(j.GetEnv(), envFromWire),
		Files:          mapSlice(j.GetFiles(), fileFromWire),
		SSHPublicKeys:  j.GetSshPublicKeys(),
		Compose:        composeFromWire(j.GetCompose()),
	}
}

func commandToWire(c Command) *pb.Command {
	return &pb.Command{Directive: c.Directive, Alias: c.Alias}
}

func commandFromWire(c *pb.Command) Command {
	return Command{Directive: c.GetDirective(), Alias: c.GetAlias()}
}

func envToWire(e EnvVar) *pb.EnvVar {
	return &pb.EnvVar{Name: e.Name, Value: []byte(e.Value), Secret: e.Secret}
}

func envFromWire(e *pb.EnvVar) EnvVar {
	return EnvVar{Name: e.GetName(), Value: string(e.GetValue()), Secret: e.GetSecret()}
}

func fileToWire(f File) *pb.File {
	return &pb.File{Path: f.Path, Content: f.Content, Mode: uint32(f.Mode), Secret: f.Secret}
}

func fileFromWire(f *pb.File) File {
	return File{Path: f.GetPath(), Content: f.GetContent(), Mode: fs.FileMode(f.GetMode()), Secret: f.GetSecret()}
}

func composeToWire(c *Compose) *pb.Compose {
	if c == nil {
		return nil
	}
	return &pb.Compose{
		Containers: mapSlice(c.Containers, func(c Container) *pb.Container {
			return &pb.Container{
				Name: c.Name, Image: c.Image, Command: c.Command, Entrypoint: c.Entrypoint, User: c.User,
				Env: mapSlice(c.Env, envToWire), Files: mapSlice(c.Files, fileToWire),
			}
		}),
		ImagePullCredentials: mapSlice(c.ImagePullCredentials, func(p PullCredentials) *pb.PullCredentials {
			return &pb.PullCredentials{Env: mapSlice(p.Env, envToWire), Files: mapSlice(p.Files, fileToWire)}
		}),
		HostSetupCommands: mapSlice(c.HostSetupCommands, commandToWire),
	}
}

func composeFromWire(c *pb.Compose) *Compose {
	if c == nil {
		return nil
	}
	return &Compose{
		Containers: mapSlice(c.GetContainers(), func(c *pb.Container) Container {
			return Container{
				Name: c.GetName(), Image: c.GetImage(), Command: c.GetCommand(), Entrypoint: c.GetEntrypoint(), User: c.GetUser(),
				Env: mapSlice(c.GetEnv(), envFromWire), Files: mapSlice(c.GetFiles(), fileFromWire),
			}
		}),
		ImagePullCredentials: mapSlice(c.GetImagePullCredentials(), func(p *pb.PullCredentials) PullCredentials {
			return PullCredentials{Env: mapSlice(p.GetEnv(), envFromWire), Files: mapSlice(p.GetFiles(), fileFromWire)}
		}),
		HostSetupCommands: mapSlice(c.GetHostSetupCommands(), commandFromWire),
	}
}

func settingsToWire(s *Settings) *pb.Settings {
	return &pb.Settings{
		LogPath: s.LogPath, LogMaxBytes: s.LogMaxBytes, TempDir: s.TempDir, Home: s.Home, User: s.User,
		BaseEnv: mapSlice(s.BaseEnv, envToWire), InstanceId: s.InstanceID,
		PreHook: hookToWire(s.PreHook), PostHook: hookToWire(s.PostHook),
		StopGraceMs: s.StopGrace.Milliseconds(), Extra: s.Extra, Cgroups: s.Cgroups,
		Limits: &pb.Limits{MemoryBytes: s.Limits.Memory, MilliCpus: s.Limits.MilliCPUs, Pids: s.Limits.Pids},
	}
}

func settingsFromWire(s *pb.Settings) *Settings {
	out := &Settings{
		LogPath: s.GetLogPath(), LogMaxBytes: s.GetLogMaxBytes(), TempDir: s.GetTempDir(), Home: s.GetHome(), User: s.GetUser(),
		BaseEnv: mapSlice(s.GetBaseEnv(), envFromWire), InstanceID: s.GetInstanceId(),
		PreHook: hookFromWire(s.GetPreHook()), PostHook: hookFromWire(s.GetPostHook()),
		StopGrace: time.Duration(s.GetStopGraceMs()) * time.Millisecond, Extra: s.GetExtra(), Cgroups: s.GetCgroups(),
		Limits: Limits{
			Memory: s.GetLimits().GetMemoryBytes(), MilliCPUs: s.GetLimits().GetMilliCpus(), Pids: s.GetLimits().GetPids(),
		},
	}
	if out.StopGrace <= 0 {
		out.StopGrace = DefaultStopGrace
	}
	return out
}

func hookToWire(h Hook) *pb.Hook {
	return &pb.Hook{Path: h.Path, Source: h.Source, FailJob: h.FailJob, TimeoutMs: h.Timeout.Milliseconds()}
}

func hookFromWire(h *pb.Hook) Hook {
	return Hook{
		Path: h.GetPath(), Source: h.GetSource(), FailJob: h.GetFailJob(),
		Timeout: time.Duration(h.GetTimeoutMs()) * time.Millisecond,
	}
}

func checkToWire(c CheckResult) *pb.CheckResult {
	status := map[CheckStatus]pb.CheckStatus{
		CheckOK:      pb.CheckStatus_CHECK_STATUS_OK,
		CheckWarning: pb.CheckStatus_CHECK_STATUS_WARNING,
		CheckFailed:  pb.CheckStatus_CHECK_STATUS_FAILED,
	}[c.Status]
	return &pb.CheckResult{Name: c.Name, Status: status, Message: c.Message}
}

func checkFromWire(c *pb.CheckResult) CheckResult {
	status := CheckFailed // a grade that this version doesn't know is no good news
	switch c.GetStatus() {
	case pb.CheckStatus_CHECK_STATUS_OK:
		status = CheckOK
	case pb.CheckStatus_CHECK_STATUS_WARNING:
		status = CheckWarning
	}
	return CheckResult{Name: c.GetName(), Status: status, Message: c.GetMessage()}
}

func statusToWire(s Status) *pb.WatchResponse {
	return &pb.WatchResponse{Phase: pb.Phase(s.Phase + 1), JobId: s.JobID, Result: string(s.Result)}
}

func statusFromWire(s *pb.WatchResponse) Status {
	return Status{Phase: Phase(s.GetPhase() - 1), JobID: s.GetJobId(), Result: Result(s.GetResult())}
}
