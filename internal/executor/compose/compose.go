// Package compose is the executor for jobs with containers, on the Docker Engine's API.
//
// The first container, main, is where commands run: a helper (internal/session/helper) put into it owns the job's shell, and is
// reached over an exec. The others are services, on a network of the job's own. All of it carries the job's id as a
// label, by which it is found after the worker's death.
package compose

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/url"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/signalman-ci/signalman/internal/engine"
	executorsettings "github.com/signalman-ci/signalman/internal/executor/settings"
	"github.com/signalman-ci/signalman/internal/process"
	"github.com/signalman-ci/signalman/internal/version"
	"github.com/signalman-ci/signalman/shared/protocol"
)

// Labels of all that is made for a job.
const (
	LabelInstance = "signalman.instance"
	LabelJob      = "signalman.job"
	// labelContainer is the container's name in the job's request.
	labelContainer = "signalman.container"
)

const (
	// leftoverGrace is what services and background processes get to end at a job's regular end.
	leftoverGrace = time.Second
	// undoLimit bounds the removal of what a Prepare that fails has made.
	undoLimit = time.Minute
	// lateLimit is how long a dead worker's last request may take to show at the engine.
	lateLimit = 500 * time.Millisecond
)

// New makes the executor. helper gives the helper's binary for an architecture (helperbin.For).
func New(helper func(arch string) ([]byte, error)) protocol.Executor { return executor{helper} }

type executor struct {
	helper func(arch string) ([]byte, error)
}

func (executor) Describe() protocol.Description {
	return protocol.Description{Name: "compose", Version: version.Version}
}

func (x executor) Check(ctx context.Context) []protocol.CheckResult {
	e, err := engine.Connect(ctx)
	if err != nil {
		return []protocol.CheckResult{{Name: "docker", Status: protocol.CheckFailed, Message: err.Error()}}
	}
	defer e.Close()
	info, err := e.Info(ctx)
	if err != nil {
		return []protocol.CheckResult{{Name: "docker", Status: protocol.CheckFailed, Message: err.Error()}}
	}
	results := []protocol.CheckResult{{Name: "docker", Status: protocol.CheckOK,
		Message: fmt.Sprintf("engine %s at %s, API %s", info.Version, e.Host(), info.APIVersion)}}
	if _, err := x.helper(info.Arch); err != nil {
		results = append(results, protocol.CheckResult{Name: "helper", Status: protocol.CheckFailed, Message: err.Error()})
	}
	return results
}

func (x executor) Prepare(ctx context.Context, job *protocol.Job, settings *protocol.Settings, log protocol.SectionLog) (protocol.Environment, error) {
	if job.Compose == nil || len(job.Compose.Containers) == 0 {
		return nil, errors.New("the job has no containers, and the executor compose runs none without: map shell to another executor in [executors]")
	}
	options, err := executorsettings.ComposeFrom(settings.Extra)
	if err != nil {
		return nil, err
	}
	if err := checkNames(job.Compose.Containers); err != nil {
		return nil, err
	}
	if err := allow(job.Compose.Containers, options.AllowedImages); err != nil {
		return nil, err
	}
	eng, err := engine.Connect(ctx)
	if err != nil {
		return nil, err
	}
	e := newEnvironment(x.helper, eng, job, settings, options)
	if err := e.prepare(ctx, log); err != nil {
		undo, cancel := context.WithTimeout(context.WithoutCancel(ctx), undoLimit)
		defer cancel()
		return nil, errors.Join(err, e.Close(undo))
	}
	return e, nil
}

func (executor) List(ctx context.Context, instanceID string) ([]protocol.Leftover, error) {
	left := map[string][]string{}
	onHost, err := process.MarkedJobs(markVariable, instanceID)
	if err != nil {
		return nil, err
	}
	for job, count := range onHost {
		left[job] = append(left[job], fmt.Sprintf("%d processes", count))
	}
	things, err := labelled(ctx, map[string]string{LabelInstance: instanceID})
	if err != nil {
		return nil, err
	}
	for _, t := range things {
		what := string(t.Kind)
		if name := t.Labels[labelContainer]; name != "" {
			what += " " + name
		}
		left[t.Labels[LabelJob]] = append(left[t.Labels[LabelJob]], what)
	}
	var out []protocol.Leftover
	for _, job := range slices.Sorted(maps.Keys(left)) {
		out = append(out, protocol.Leftover{JobID: job, What: strings.Join(left[job], ", ")})
	}
	return out, nil
}

// labelled lists what carries labels. Where there is no engine there is nothing.
func labelled(ctx context.Context, labels map[string]string) ([]engine.Thing, error) {
	eng, err := engine.Connect(ctx)
	if err != nil {
		if errors.Is(err, engine.ErrUnreachable) && neverThere() {
			return nil, nil
		}
		return nil, err
	}
	defer eng.Close()
	return eng.List(ctx, labels)
}

// neverThere tells that this host has no engine at all, rather than one that is down.
func neverThere() bool {
	if os.Getenv("DOCKER_HOST") != "" {
		return false
	}
	for _, trace := range []string{"/var/run/docker.sock", "/var/lib/docker"} {
		if _, err := os.Lstat(trace); !errors.Is(err, os.ErrNotExist) {
			return false
		}
	}
	return true
}

func (executor) Cleanup(ctx context.Context, job *protocol.Job, settings *protocol.Settings) error {
	err := endHostCommands(ctx, job.ID, settings)
	eng, connectErr := engine.Connect(ctx)
	if connectErr != nil {
		if errors.Is(connectErr, engine.ErrUnreachable) && neverThere() {
			return err
		}
		return errors.Join(err, connectErr)
	}
	defer eng.Close()
	err = errors.Join(err, removeAll(ctx, eng, labels(settings.InstanceID, job.ID)))
	select {
	case <-time.After(lateLimit):
		return errors.Join(err, removeAll(ctx, eng, labels(settings.InstanceID, job.ID)))
	case <-ctx.Done():
		return errors.Join(err, ctx.Err())
	}
}

// removeAll removes all that carries the labels, containers before their networks.
func removeAll(ctx context.Context, eng *engine.Engine, labels map[string]string) error {
	things, err := eng.List(ctx, labels)
	if err != nil {
		return err
	}
	for _, kind := range []engine.Kind{engine.KindContainer, engine.KindNetwork, engine.KindVolume} {
		err = errors.Join(err, inParallel(things, func(t engine.Thing) error {
			if t.Kind != kind {
				return nil
			}
			return eng.RemoveThing(ctx, t)
		}))
	}
	return err
}

func labels(instance, job string) map[string]string {
	return map[string]string{LabelInstance: instance, LabelJob: job}
}

// socketOf is the path of a local engine's socket; "" if it is elsewhere.
func socketOf(host string) string {
	u, err := url.Parse(host)
	if err != nil || u.Scheme != "unix" {
		return ""
	}
	return u.Path
}
