package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/hashicorp/go-hclog"

	"github.com/signalman-ci/signalman/internal/hub/hubtest"
	"github.com/signalman-ci/signalman/internal/pluginhost"
)

const (
	// jobRuns is how many jobs a latency is taken from, after warmUps that don't count.
	jobRuns = 40
	warmUps = 3
	// lineRuns are lines printed lineGap seconds apart: each comes alone.
	lineRuns = 40
	lineGap  = "0.9"
	// trickleLines lines come trickleGap seconds apart.
	trickleLines = 700
	trickleGap   = "0.02"

	// goOn keeps a job at work, lest its end hurry the log along.
	goOn = "sleep 0.2"
)

// jobs measures jobs without commands and the first command of a job. All jobs are queued before the first is done, so that
// each is handed over with the answer to the sync that follows the job before: the interval between syncs plays no part.
func (b *bench) jobs(ctx context.Context) (_ []figure, err error) {
	r, err := b.start(ctx, 1)
	if err != nil {
		return nil, err
	}
	defer closing(r, &err)
	empty, err := r.queue(ctx, jobRuns)
	if err != nil {
		return nil, err
	}
	var whole durations
	for _, job := range empty {
		whole = append(whole, job.EndedAt.Sub(job.HandedAt))
	}
	speaking, err := r.queue(ctx, jobRuns, printClock, goOn)
	if err != nil {
		return nil, err
	}
	var began, arrived durations
	for _, job := range speaking {
		text, indexes := job.output(printClock)
		at, err := parseClock(text)
		if err != nil {
			return nil, err
		}
		began = append(began, at.Sub(job.HandedAt))
		arrived = append(arrived, job.arrival(indexes[0]).Sub(job.HandedAt))
	}
	return []figure{
		{
			what: "empty job, empty home: `run-job` answer to `finished-job` sync", value: whole.String(),
			target: "< 150 ms", met: whole.median() < 150*time.Millisecond, existing: "3.1 s (up to 16 s)",
		},
		{
			what: "first command: `run-job` answer until its first output is at the hub", value: arrived.String(),
			target: "< 80 ms", met: arrived.median() < 80*time.Millisecond, existing: "–",
		},
		{
			what: "… until it runs, by the time that it prints", value: began.String(), target: "–", existing: "–",
		},
	}, nil
}

// queue runs equal jobs back to back; those to warm up are left out.
func (r *rig) queue(ctx context.Context, n int, commands ...string) ([]finished, error) {
	var ids []string
	for range warmUps + n {
		id, err := r.hub.Submit(hubtest.Request{Commands: commands})
		if err != nil {
			return nil, err
		}
		ids = append(ids, id)
	}
	var jobs []finished
	for _, id := range ids {
		job, err := r.finish(ctx, id)
		if err != nil {
			return nil, err
		}
		jobs = append(jobs, job)
	}
	return jobs[warmUps:], nil
}

// workers measures the start of a worker process: from exec to its first answer.
func (b *bench) workers(ctx context.Context) ([]figure, error) {
	var starts durations
	for i := range warmUps + jobRuns {
		begun := time.Now()
		w, err := pluginhost.Start(context.Background(), pluginhost.Launch{
			Path: filepath.Join(b.binaries, "worker-shell"), Env: []string{"PATH=" + os.Getenv("PATH"), "HOME=" + b.dir},
			StderrPath: filepath.Join(b.dir, "worker.log"), RunDir: b.dir, Logger: hclog.NewNullLogger(),
		})
		if err != nil {
			return nil, err
		}
		_, err = w.Describe(ctx)
		if i >= warmUps {
			starts = append(starts, time.Since(begun))
		}
		w.Kill()
		if err != nil {
			return nil, err
		}
	}
	return []figure{{what: "worker process: from its start to its first answer", value: starts.String(), target: "–", existing: "–"}}, nil
}

// lines measures how long a line that comes alone is on its way.
func (b *bench) lines(ctx context.Context) (_ []figure, err error) {
	command := fmt.Sprintf("for i in {1..%d}; do sleep %s; %s; done", lineRuns, lineGap, printClock)
	late, rate, err := b.printing(ctx, command)
	if err != nil {
		return nil, err
	}
	return []figure{{
		what: "a line printed alone: from its print to the hub", value: late.String(),
		target: "< 300 ms (95 %)", met: late.percentile(95) < 300*time.Millisecond, existing: "1.3 s, 95 % 2.5 s",
	}, {
		what: "requests a second for a line every " + lineGap + " s", value: fmt.Sprintf("%.1f", rate), target: "–", existing: "–",
	}}, nil
}

// trickle measures how many requests a steady stream of lines makes.
func (b *bench) trickle(ctx context.Context) (_ []figure, err error) {
	command := fmt.Sprintf("for i in {1..%d}; do sleep %s; %s; done", trickleLines, trickleGap, printClock)
	late, rate, err := b.printing(ctx, command)
	if err != nil {
		return nil, err
	}
	return []figure{{
		what: "steady trickle, a line every " + trickleGap + " s: requests a second", value: fmt.Sprintf("%.1f", rate),
		target: "about 2", met: rate < 2.5, existing: "–",
	}, {
		what: "steady trickle: from a line's print to the hub", value: late.String(), target: "–", existing: "–",
	}}, nil
}

// printing runs a command that prints times, and tells how long after them its lines were at the hub and how many requests
// a second there were meanwhile.
func (b *bench) printing(ctx context.Context, command string) (late durations, rate float64, err error) {
	r, err := b.start(ctx, 1)
	if err != nil {
		return nil, 0, err
	}
	defer closing(r, &err)
	job, err := r.run(ctx, command)
	if err != nil {
		return nil, 0, err
	}
	_, indexes := job.output(command)
	var first time.Time
	for _, i := range indexes {
		for line := range strings.Lines(job.events[i].Output) {
			at, err := parseClock(line)
			if err != nil {
				return nil, 0, err
			}
			if first.IsZero() {
				first = at
			}
			late = append(late, job.arrival(i).Sub(at))
		}
	}
	last := job.arrival(indexes[len(indexes)-1])
	posts := 0
	for _, p := range job.posts {
		if !p.At.Before(first) && !p.At.After(last) {
			posts++
		}
	}
	return late, float64(posts) / last.Sub(first).Seconds(), nil
}

// durations are the runs of one measurement.
type durations []time.Duration

func (d durations) median() time.Duration { return d.percentile(50) }

func (d durations) percentile(p int) time.Duration {
	sorted := slices.Sorted(slices.Values(d))
	return sorted[min(len(sorted)*p/100, len(sorted)-1)]
}

func (d durations) String() string {
	return fmt.Sprintf("%s, 95 %% %s (%d runs)", milliseconds(d.median()), milliseconds(d.percentile(95)), len(d))
}

func milliseconds(d time.Duration) string { return fmt.Sprintf("%.0f ms", d.Seconds()*1000) }
