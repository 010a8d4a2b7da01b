package main

import (
	"bufio"
	"context"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"hash"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/signalman-ci/signalman/internal/hub/hubtest"
)

const (
	megabyte = 1_000_000
	// floodRuns is how often the smaller of the two floods is repeated.
	floodRuns = 3
)

// flood is how one job with a large output went.
type flood struct {
	exact              bool
	rate               float64 // MB a second, from the command's start to its last event at the hub
	command            time.Duration
	supervisor, worker memory  // while the job is still there, its log delivered
	idle               memory  // the supervisor's, when the job is over
	read               float64 // bytes that the supervisor read, for each byte of the event log
	repeated           int     // requests to the log service that began where another had
	largest            int     // bytes of a request
}

// floods measures jobs that print files of 100 and 400 MB, each with a supervisor of its own.
func (b *bench) floods(ctx context.Context) ([]figure, error) {
	var small []flood
	for range floodRuns {
		f, err := b.flood(ctx, 100*megabyte)
		if err != nil {
			return nil, err
		}
		small = append(small, f)
	}
	large, err := b.flood(ctx, 400*megabyte)
	if err != nil {
		return nil, err
	}
	slices.SortFunc(small, func(a, b flood) int {
		if a.rate < b.rate {
			return -1
		}
		return 1
	})
	middle := small[len(small)/2]
	exact := large.exact && !slices.ContainsFunc(small, func(f flood) bool { return !f.exact })
	peak := func(f flood) int64 { return f.supervisor.peak + f.worker.peak }
	worst := slices.MaxFunc(small, func(a, b flood) int { return int(peak(a) - peak(b)) })
	memory := func(f flood) string {
		return fmt.Sprintf("%s (supervisor %s, worker %s; own pages at the end %s and %s)", megabytes(peak(f)),
			megabytes(f.supervisor.peak), megabytes(f.worker.peak), megabytes(f.supervisor.anon), megabytes(f.worker.anon))
	}
	return []figure{
		{
			what:   "job printing 100 MB: from its start to its last event at the hub",
			value:  fmt.Sprintf("%.0f MB/s (%d runs: %.0f to %.0f)", middle.rate, len(small), small[0].rate, small[len(small)-1].rate),
			target: "≥ 20 MB/s", met: middle.rate >= 20, existing: "0.2 MB/s",
		},
		{
			what: "… the command itself took", value: fmt.Sprintf("%.1f s", middle.command.Seconds()), target: "–",
			existing: "133 s for 50 MB",
		},
		{
			what: "… the output at the hub is that of the command, by its hash", value: yesNo(exact), target: "exact", met: exact,
			existing: "one byte wrong in 10 MB",
		},
		{
			what: "… peak RSS of supervisor and worker, the largest of the runs", value: memory(worst), target: "< 80 MB",
			met: peak(worst) < 80*megabyte, existing: "–",
		},
		{
			what: "job printing 400 MB: MB/s", value: fmt.Sprintf("%.0f MB/s", large.rate), target: "≥ 20 MB/s", met: large.rate >= 20, existing: "–",
		},
		{
			what: "… peak RSS of supervisor and worker", value: memory(large), target: "< 80 MB", met: peak(large) < 80*megabyte, existing: "–",
		},
		{
			what: "… the supervisor afterwards, idle again: RSS", value: megabytes(large.idle.resident) + " (own pages " + megabytes(large.idle.anon) + ")",
			target: "< 25 MB", met: large.idle.resident < 25*megabyte, existing: "–",
		},
		{
			what: "… bytes the supervisor read, for each byte of the event log",
			value: fmt.Sprintf("%.2f; %d of the log requests began where another had; the largest had %s",
				large.read, large.repeated, megabytes(int64(large.largest))),
			target: "1 (nothing twice)", met: large.read < 1.05 && large.repeated == 0, existing: "from the first line for every batch",
		},
	}, nil
}

func (b *bench) flood(ctx context.Context, size int) (f flood, err error) {
	file := filepath.Join(b.dir, "flood")
	sum, err := writeLines(file, size)
	if err != nil {
		return f, err
	}
	r, err := b.start(ctx, 1)
	if err != nil {
		return f, err
	}
	defer closing(r, &err)

	// The job stays until its worker's memory has been looked at.
	gate := filepath.Join(b.dir, "gate")
	printFile := "cat " + file
	hold := fmt.Sprintf("until [ -e %s ]; do sleep 0.05; done", gate)
	read, err := bytesRead(r.pid())
	if err != nil {
		return f, err
	}
	id, err := r.hub.Submit(hubtest.Request{Commands: []string{printClock, printFile, printClockAgain, hold}})
	if err != nil {
		return f, err
	}
	if err := r.waitStarted(ctx, id, hold); err != nil {
		return f, err
	}
	if err := f.look(r, id, read); err != nil {
		return f, err
	}
	if err := os.WriteFile(gate, nil, 0o600); err != nil {
		return f, err
	}
	job, err := r.finish(ctx, id)
	if err != nil {
		return f, err
	}
	if err := pass(ctx, settleTime); err != nil {
		return f, err
	}
	if f.idle, err = memoryOf(r.pid()); err != nil {
		return f, err
	}
	if err := errors.Join(os.Remove(gate), os.Remove(file)); err != nil {
		return f, err
	}
	if err := f.time(job, printFile, size, sum); err != nil {
		return f, err
	}
	starts := map[int]bool{}
	for _, p := range job.posts {
		f.largest = max(f.largest, p.Bytes)
		if starts[p.StartFrom] {
			f.repeated++
		}
		starts[p.StartFrom] = true
	}
	return f, nil
}

// time tells how fast the output of a job's command came to the hub, and whether all of it did. The time was printed before and after.
func (f *flood) time(job finished, command string, size int, sum [sha256.Size]byte) error {
	text, _ := job.output(printClock)
	began, err := parseClock(text)
	if err != nil {
		return err
	}
	text, _ = job.output(printClockAgain)
	ended, err := parseClock(text)
	if err != nil {
		return err
	}
	output, indexes := job.output(command)
	if len(indexes) == 0 {
		return errors.New("the output isn't at the hub")
	}
	f.exact = sha256.Sum256([]byte(output)) == sum
	f.command = ended.Sub(began)
	f.rate = float64(size) / megabyte / job.arrival(indexes[len(indexes)-1]).Sub(began).Seconds()
	return nil
}

// waitStarted waits until a command's start is at the hub: all that was printed before is there too.
func (r *rig) waitStarted(ctx context.Context, id, directive string) error {
	for from := 0; ; {
		lines, err := r.hub.WaitLog(ctx, id, from)
		if err != nil {
			return fmt.Errorf("%w; the supervisor's log:\n%s", err, r.log.String())
		}
		if len(lines) == 0 {
			return fmt.Errorf("the job ended without its command %q; the supervisor's log:\n%s", directive, r.log.String())
		}
		from += len(lines)
		if slices.ContainsFunc(lines, func(l []byte) bool { return isStart(l, directive) }) {
			return nil
		}
	}
}

// look takes the memory of both processes, and what the supervisor has read since it had read so many bytes.
func (f *flood) look(r *rig, jobID string, before int64) error {
	worker, err := r.workerPID(jobID)
	if err != nil {
		return err
	}
	if f.worker, err = memoryOf(worker); err != nil {
		return err
	}
	if f.supervisor, err = memoryOf(r.pid()); err != nil {
		return err
	}
	read, err := bytesRead(r.pid())
	if err != nil {
		return err
	}
	log, err := os.Stat(filepath.Join(r.state, "jobs", jobID, "events.jsonl"))
	if err != nil {
		return err
	}
	f.read = float64(read-before) / float64(log.Size())
	return nil
}

// writeLines fills a file with lines of 10 to 120 characters, and tells its hash.
func writeLines(path string, size int) (sum [sha256.Size]byte, err error) {
	file, err := os.OpenFile(path, os.O_CREATE|os.O_TRUNC|os.O_WRONLY, 0o644)
	if err != nil {
		return sum, err
	}
	defer func() { err = errors.Join(err, file.Close()) }()
	hash := sha256.New()
	w := bufio.NewWriterSize(io.MultiWriter(file, hash), megabyte)
	random := rand.New(rand.NewPCG(1, 2))
	var raw [90]byte
	for left := size; left > 0; {
		for i := range raw {
			raw[i] = byte(random.Uint32())
		}
		line := base64.StdEncoding.AppendEncode(nil, raw[:])
		line = append(line[:min(10+random.IntN(110), left-1)], '\n')
		left -= len(line)
		if _, err := w.Write(line); err != nil {
			return sum, err
		}
	}
	if err := w.Flush(); err != nil {
		return sum, err
	}
	return sumOf(hash), nil
}

func sumOf(h hash.Hash) (sum [sha256.Size]byte) {
	copy(sum[:], h.Sum(nil))
	return sum
}
