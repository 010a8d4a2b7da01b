package conformance

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/signalman-ci/signalman/shared/protocol"
)

func hooks(ctx context.Context, b *bench) error {
	job := b.job("echo $FROM_HOOK", "false")
	job.Files = []protocol.File{
		{Path: "pre hook.sh", Content: []byte("echo pre\nexport FROM_HOOK=hooked\nfalse\n"), Mode: 0o644},
		{Path: "post.sh", Content: []byte("echo post $FROM_HOOK $SEMAPHORE_JOB_RESULT\nexit 7\n"), Mode: 0o644},
	}
	settings := b.settings(job)
	settings.PreHook = protocol.Hook{Path: "./pre hook.sh", Source: true}
	settings.PostHook = protocol.Hook{Path: "./post.sh"}
	r, err := b.runWith(ctx, job, settings)
	if err != nil {
		return err
	}
	return errors.Join(
		r.wants(protocol.Failed, preDirective, "echo $FROM_HOOK", "false", exportDirective, postDirective),
		r.printed(preDirective, "pre\n", 1),
		r.printed("echo $FROM_HOOK", "hooked\n", 0),
		r.printed(postDirective, "post hooked failed\n", 7),
	)
}

func failingHook(ctx context.Context, b *bench) error {
	job := b.job("echo never")
	job.Files = []protocol.File{{Path: "pre.sh", Content: []byte("exit 5\n"), Mode: 0o644}}
	job.EpilogueAlways = directives("echo always")
	settings := b.settings(job)
	settings.PreHook = protocol.Hook{Path: "./pre.sh", FailJob: true}
	r, err := b.runWith(ctx, job, settings)
	if err != nil {
		return err
	}
	return errors.Join(
		r.wants(protocol.Failed, preDirective, exportDirective, "echo always"),
		r.exited(preDirective, 5),
	)
}

func exit130Passed(ctx context.Context, b *bench) error {
	return exit130(ctx, b, "passed", protocol.Passed, exportDirective, "echo always $SEMAPHORE_JOB_RESULT", "echo pass")
}

func exit130Failed(ctx context.Context, b *bench) error {
	return exit130(ctx, b, "failed", protocol.Failed, exportDirective, "echo always $SEMAPHORE_JOB_RESULT", "echo fail")
}

func exit130Other(ctx context.Context, b *bench) error {
	return exit130(ctx, b, "whatever", protocol.Stopped)
}

func exit130(ctx context.Context, b *bench, value string, result protocol.Result, after ...string) error {
	job := b.job("export SEMAPHORE_JOB_RESULT="+value, "(exit 130)", "echo never")
	job.EpilogueAlways = directives("echo always $SEMAPHORE_JOB_RESULT")
	job.EpilogueOnPass = directives("echo pass")
	job.EpilogueOnFail = directives("echo fail")
	r, err := b.run(ctx, job)
	if err != nil {
		return err
	}
	errs := []error{
		r.wants(result, append([]string{"export SEMAPHORE_JOB_RESULT=" + value, "(exit 130)", resultDirective}, after...)...),
		r.exited("(exit 130)", 130),
	}
	if shown := r.last(resultDirective).output; !strings.Contains(shown, value) {
		errs = append(errs, fmt.Errorf("the section %q says %q: it must tell the value of SEMAPHORE_JOB_RESULT", resultDirective, shown))
	}
	return errors.Join(errs...)
}

func stop(ctx context.Context, b *bench) error {
	mark := "stop-" + id()
	// A daemon that ignores all it can, in a session of its own where the system has a command for that.
	daemon := "session=$(command -v setsid) || session=\n$session sh -c 'trap \"\" HUP INT TERM; while :; do sleep 1; done' " +
		mark + " </dev/null >/dev/null 2>&1 &"
	front := "sh -c 'echo ready; sleep 600; sleep 600' " + mark
	job := b.job(daemon, front, "echo never")
	job.EpilogueAlways = directives("echo always")
	job.EpilogueOnFail = directives("echo fail")
	p, err := b.begin(ctx, job)
	if err != nil {
		return err
	}
	if err := b.output(ctx, job, "ready"); err != nil {
		return err
	}
	const reason = "The job took too long."
	if err := errors.Join(p.Stop(ctx, reason), p.Stop(ctx, "")); err != nil {
		return err
	}
	r, err := b.finish(ctx, p, job)
	if err != nil {
		return err
	}
	var told error
	if shown := r.last(front).output; !strings.Contains(shown, reason) {
		told = fmt.Errorf("the section of the stopped command says %q: it must tell the reason of the stop, %q", shown, reason)
	}
	return errors.Join(
		r.wants(protocol.Stopped, daemon, front),
		r.exited(front, 1),
		told,
		gone(mark),
		b.nothingLeft(ctx, job),
	)
}

func stopHook(ctx context.Context, b *bench) error {
	job := b.job("cd /", "echo ready; sleep 600")
	job.Files = []protocol.File{{Path: "post.sh", Content: []byte("echo cleaned up\nexit 7\n"), Mode: 0o644}}
	settings := b.settings(job)
	settings.PostHook = protocol.Hook{Path: "./post.sh"}
	p, err := b.beginWith(ctx, job, settings)
	if err != nil {
		return err
	}
	if err := errors.Join(b.output(ctx, job, "ready"), p.Stop(ctx, "")); err != nil {
		return err
	}
	r, err := b.finish(ctx, p, job)
	if err != nil {
		return err
	}
	return errors.Join(
		r.wants(protocol.Stopped, "cd /", "echo ready; sleep 600", postDirective),
		r.exited("echo ready; sleep 600", 1),
		r.printed(postDirective, "cleaned up\n", 7),
	)
}

func watchers(ctx context.Context, b *bench) error {
	job := b.job("echo ready; sleep 600")
	p, err := b.begin(ctx, job)
	if err != nil {
		return err
	}
	finished := make(chan error, 1)
	watching := make(chan struct{}, 10)
	var seen []protocol.Status // by the first watcher, which stays to the end: a worker goes once that one knows
	go func() {
		finished <- p.Watch(ctx, func(s protocol.Status) {
			seen = append(seen, s)
			select {
			case watching <- struct{}{}:
			default:
			}
		})
	}()
	if err := b.output(ctx, job, "ready"); err != nil {
		return err
	}
	select {
	case <-watching:
	case <-ctx.Done():
		return fmt.Errorf("the first watcher gets no status: %w", ctx.Err())
	}
	for range 2 { // the second watcher goes, and comes back
		s, err := firstStatus(ctx, p)
		if err != nil {
			return err
		}
		if s != (protocol.Status{Phase: protocol.Running, JobID: job.ID}) {
			return fmt.Errorf("while a command runs a watcher is told %+v, not phase running of job %s", s, job.ID)
		}
	}
	if err := p.Stop(ctx, ""); err != nil {
		return err
	}
	if err := <-finished; err != nil {
		return fmt.Errorf("the first watcher: %w", err)
	}
	r, err := b.recordOf(job, seen)
	if err != nil {
		return err
	}
	return r.wants(protocol.Stopped, "echo ready; sleep 600")
}

func lostSupervisor(ctx context.Context, b *bench) error {
	command := "echo one; sleep 1; echo two; sleep 600"
	job := b.job(command)
	p, err := b.begin(ctx, job)
	if err != nil {
		return err
	}
	if err := b.output(ctx, job, "one\n"); err != nil {
		return err
	}
	if err := p.hangUp(); err != nil {
		return fmt.Errorf("cannot close the connection: %w", err)
	}
	if err := b.output(ctx, job, "two\n"); err != nil {
		return fmt.Errorf("without a supervisor the job does not go on: %w", err)
	}
	again, err := p.reattach()
	if err != nil {
		return err
	}
	b.peers = append([]*peer{again}, b.peers...) // the connection that close can use goes first
	s, err := firstStatus(ctx, again)
	if err != nil {
		return err
	}
	if s != (protocol.Status{Phase: protocol.Running, JobID: job.ID}) {
		return fmt.Errorf("after attaching again the status is %+v, not phase running of job %s", s, job.ID)
	}
	if err := again.Stop(ctx, ""); err != nil {
		return err
	}
	r, err := b.finish(ctx, again, job)
	if err != nil {
		return err
	}
	return errors.Join(
		r.wants(protocol.Stopped, command),
		r.printed(command, "one\ntwo\n", 1),
	)
}

func exitAfterJob(ctx context.Context, b *bench) error {
	job := b.job("true")
	p, err := b.begin(ctx, job)
	if err != nil {
		return err
	}
	if _, err := b.finish(ctx, p, job); err != nil {
		return err
	}
	if err := p.exited(ctx); err != nil {
		return err
	}
	if state := p.proc.cmd.ProcessState; !state.Success() {
		return fmt.Errorf("the worker's process ends with %s", state)
	}
	return nil
}

func cleanup(ctx context.Context, b *bench) error {
	mark := "cleanup-" + id()
	job := b.job("(trap '' HUP; sh -c 'trap \"\" HUP; sleep 600; :' " + mark + " </dev/null >/dev/null 2>&1 &)\necho ready; sleep 600")
	dying, err := b.begin(ctx, job)
	if err != nil {
		return err
	}
	if err := b.output(ctx, job, "ready"); err != nil {
		return err
	}
	if err := errors.Join(dying.proc.Kill(ctx), dying.exited(ctx)); err != nil {
		return err
	}
	p, err := b.launch()
	if err != nil {
		return err
	}
	left, err := p.List(ctx, b.instance)
	if err != nil {
		return err
	}
	listed := slices.ContainsFunc(left, func(l protocol.Leftover) bool { return l.JobID == job.ID && l.What != "" })
	if len(marked(mark)) > 0 && !listed {
		return fmt.Errorf("processes of job %s are left, but List says %+v", job.ID, left)
	}
	// Of another instance, or another job, nothing may be touched.
	if err := errors.Join(p.Cleanup(ctx, &protocol.Job{ID: job.ID}, &protocol.Settings{InstanceID: "check-other"}), p.Cleanup(ctx, &protocol.Job{ID: "check-other"}, &protocol.Settings{InstanceID: b.instance})); err != nil {
		return err
	}
	still, err := p.List(ctx, b.instance)
	if err != nil {
		return err
	}
	if len(still) < len(left) {
		return fmt.Errorf("what a job left was removed by Cleanup for another instance or job: of %+v there is %+v", left, still)
	}
	if err := p.Cleanup(ctx, &protocol.Job{ID: job.ID}, &protocol.Settings{InstanceID: b.instance}); err != nil {
		return err
	}
	if err := p.Cleanup(ctx, &protocol.Job{ID: job.ID}, &protocol.Settings{InstanceID: b.instance}); err != nil {
		return fmt.Errorf("the second Cleanup: %w", err)
	}
	return errors.Join(gone(mark), b.nothingLeft(ctx, job))
}

// nothingLeft asks a worker what is left of a job.
func (b *bench) nothingLeft(ctx context.Context, job *protocol.Job) error {
	p, err := b.launch()
	if err != nil {
		return err
	}
	left, err := p.List(ctx, b.instance)
	if err != nil {
		return err
	}
	for _, l := range left {
		if l.JobID == job.ID {
			return fmt.Errorf("something of job %s is left, says List: %s", l.JobID, l.What)
		}
	}
	return nil
}

// gone checks that no process of this host has a mark in its command line.
func gone(mark string) error {
	if pids := marked(mark); len(pids) > 0 {
		return fmt.Errorf("processes that the job has started are left: %s", strings.Join(pids, ", "))
	}
	return nil
}

// marked are the processes that have a mark in their command line, as far as this host's /proc shows them.
func marked(mark string) []string {
	paths, _ := filepath.Glob("/proc/[0-9]*/cmdline") // no such folder, no processes
	var pids []string
	for _, path := range paths {
		if raw, err := os.ReadFile(path); err == nil && strings.Contains(string(raw), mark) {
			pids = append(pids, filepath.Base(filepath.Dir(path)))
		}
	}
	return pids
}
