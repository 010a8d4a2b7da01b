package main

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"

	"github.com/signalman-ci/signalman/internal/hub/hubtest"
)

const (
	// maskingPairs is how often a job with secrets and one without are measured.
	maskingPairs = 9
	// maskedVars is how many secret variables the job has.
	maskedVars = 10
	// maskingTarget is what they may cost of the throughput, in percent.
	maskingTarget = 15
)

// masking measures what it costs to look for secrets in a job's output. The machine's speed changes over a run, so what is
// compared are two jobs that follow each other, now one first and now the other.
func (b *bench) masking(ctx context.Context) (_ []figure, err error) {
	file := filepath.Join(b.dir, "flood")
	sum, err := writeLines(file, 100*megabyte)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, os.Remove(file)) }()
	var costs, with, without []float64
	for i := range maskingPairs {
		rates, err := b.maskingPair(ctx, "cat "+file, sum, i%2 == 0)
		if err != nil {
			return nil, err
		}
		with, without = append(with, rates[true]), append(without, rates[false])
		costs = append(costs, 100*(1-rates[true]/rates[false]))
	}
	cost := median(costs)
	return []figure{{
		what: fmt.Sprintf("job printing 100 MB with %d secret variables: what masking costs of the throughput", maskedVars),
		value: fmt.Sprintf("%.0f %% (%d pairs: %.0f to %.0f %%); %.0f and %.0f MB/s", cost, len(costs), slices.Min(costs), slices.Max(costs),
			median(with), median(without)),
		target: fmt.Sprintf("< %d %%", maskingTarget), met: cost < maskingTarget, existing: "doesn't mask",
	}}, nil
}

// maskingPair gives the rates of a job with secrets and of one without, in MB/s.
func (b *bench) maskingPair(ctx context.Context, command string, sum [sha256.Size]byte, maskedFirst bool) (rates map[bool]float64, err error) {
	r, err := b.start(ctx, 1)
	if err != nil {
		return nil, err
	}
	defer closing(r, &err)
	order := []bool{maskedFirst, !maskedFirst}
	var ids []string
	for _, masked := range order { // both at once: the second follows the first without a wait
		job := hubtest.Request{Commands: []string{printClock, command, printClockAgain}}
		if masked {
			job.Env = secretVars(maskedVars)
		}
		id, err := r.hub.Submit(job)
		if err != nil {
			return nil, err
		}
		ids = append(ids, id)
	}
	rates = map[bool]float64{}
	for i, masked := range order {
		job, err := r.finish(ctx, ids[i])
		if err != nil {
			return nil, err
		}
		var f flood
		if err := f.time(job, command, 100*megabyte, sum); err != nil {
			return nil, err
		}
		if !f.exact {
			return nil, errors.New("the output at the hub is not that of the command, which printed no secret")
		}
		rates[masked] = f.rate
	}
	return rates, nil
}

// secretVars are variables of the kind that holds secrets, some with characters that shells, JSON and URLs write otherwise.
func secretVars(n int) []hubtest.EnvVar {
	var out []hubtest.EnvVar
	for i := range n {
		value := fmt.Sprintf("ghp_%020d%08x", i*7919, i*104729)
		if i%2 == 1 {
			value = fmt.Sprintf("postgres://user-%d:p@ss'word&%x@db.example.com/app", i, i*104729)
		}
		out = append(out, hubtest.EnvVar{Name: fmt.Sprintf("SECRET_%d_TOKEN", i), Value: value})
	}
	return out
}

func median(values []float64) float64 { return slices.Sorted(slices.Values(values))[len(values)/2] }
