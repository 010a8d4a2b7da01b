package conformance

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"time"

	"github.com/signalman-ci/signalman/shared/eventlog"
	"github.com/signalman-ci/signalman/shared/protocol"
)

const (
	// stopGrace is what stopped processes get between the signals: little, since those of some cases ignore all of them.
	stopGrace = 500 * time.Millisecond
	// tidyLimit bounds what is done for a case that has failed with its job running.
	tidyLimit = 20 * time.Second
)

// bench is where one case works: a folder, and the workers and jobs that it has started.
type bench struct {
	worker   Worker
	dir      string
	log      *os.File // the workers' standard error
	instance string
	peers    []*peer
}

func newBench(w Worker) (*bench, error) {
	path, err := filepath.Abs(w.Path)
	if err != nil {
		return nil, fmt.Errorf("cannot tell where the worker is: %w", err)
	}
	w.Path = path
	dir, err := os.MkdirTemp("", "signalman-check-")
	if err != nil {
		return nil, fmt.Errorf("cannot make a folder for the check: %w", err)
	}
	b := &bench{worker: w, dir: dir, instance: "check-" + id()}
	b.log, err = os.OpenFile(filepath.Join(dir, "worker.log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	err = errors.Join(err, os.Mkdir(b.home(), 0o700), os.Mkdir(b.temp(), 0o700))
	if err != nil {
		return nil, errors.Join(fmt.Errorf("cannot make a folder for the check: %w", err), b.close())
	}
	return b, nil
}

func (b *bench) home() string { return filepath.Join(b.dir, "home") }

func (b *bench) temp() string { return filepath.Join(b.dir, "tmp") }

// executor is the name that the binary's name promises.
func (b *bench) executor() (string, error) {
	base := filepath.Base(b.worker.Path)
	if runtime.GOOS == "windows" {
		base = strings.TrimSuffix(base, ".exe")
	}
	name, ok := strings.CutPrefix(base, "worker-")
	if !ok || name == "" {
		return "", fmt.Errorf("the binary is named %s, not worker-NAME", base)
	}
	return name, nil
}

func (b *bench) env() []string {
	var env []string
	for _, name := range []string{"PATH", "HOME", "LANG"} {
		if value, ok := os.LookupEnv(name); ok {
			env = append(env, name+"="+value)
		}
	}
	return append(env, b.worker.Env...)
}

func (b *bench) launch() (*peer, error) {
	p, err := launch(b.worker.Path, b.env(), b.log)
	if err != nil {
		return nil, err
	}
	b.peers = append(b.peers, p)
	return p, nil
}

// job makes a job of some commands.
func (b *bench) job(commands ...string) *protocol.Job {
	return &protocol.Job{
		ID: "check-" + id(), Name: "conformance", Commands: directives(commands...), Compose: b.worker.Compose,
	}
}

func directives(commands ...string) []protocol.Command {
	var out []protocol.Command
	for _, c := range commands {
		out = append(out, protocol.Command{Directive: c})
	}
	return out
}

// settings are what a supervisor would send with a job.
func (b *bench) settings(job *protocol.Job) *protocol.Settings {
	s := &protocol.Settings{
		LogPath: b.logPath(job), TempDir: b.temp(), Home: b.home(), InstanceID: b.instance, StopGrace: stopGrace,
		Extra: b.worker.Extra, BaseEnv: []protocol.EnvVar{{Name: "LANG", Value: "C.UTF-8"}},
	}
	if path, ok := os.LookupEnv("PATH"); ok {
		s.BaseEnv = append(s.BaseEnv, protocol.EnvVar{Name: "PATH", Value: path})
	}
	return s
}

func (b *bench) logPath(job *protocol.Job) string { return filepath.Join(b.dir, job.ID+".jsonl") }

// begin starts a job in a worker of its own.
func (b *bench) begin(ctx context.Context, job *protocol.Job) (*peer, error) {
	return b.beginWith(ctx, job, b.settings(job))
}

func (b *bench) beginWith(ctx context.Context, job *protocol.Job, settings *protocol.Settings) (*peer, error) {
	p, err := b.launch()
	if err != nil {
		return nil, err
	}
	return p, b.start(ctx, p, job, settings)
}

func (b *bench) start(ctx context.Context, p *peer, job *protocol.Job, settings *protocol.Settings) error {
	p.job = job.ID
	return p.Start(ctx, job, settings)
}

// finish watches a job to its end and reads its log.
func (b *bench) finish(ctx context.Context, p *peer, job *protocol.Job) (*record, error) {
	var seen []protocol.Status
	if err := p.Watch(ctx, func(s protocol.Status) { seen = append(seen, s) }); err != nil {
		return nil, errors.Join(err, fmt.Errorf("the job's log so far:\n%s", b.text(job)))
	}
	return b.recordOf(job, seen)
}

// recordOf reads the log of a job that has ended, of which a watcher has seen statuses.
func (b *bench) recordOf(job *protocol.Job, seen []protocol.Status) (*record, error) {
	r, err := readRecord(b.logPath(job))
	if err != nil {
		return nil, fmt.Errorf("%w\nthe job's log:\n%s", err, b.text(job))
	}
	return r, checkStatuses(seen, job.ID, r.result)
}

// run runs a job from its start to its end in a worker of its own.
func (b *bench) run(ctx context.Context, job *protocol.Job) (*record, error) {
	return b.runWith(ctx, job, b.settings(job))
}

func (b *bench) runWith(ctx context.Context, job *protocol.Job, settings *protocol.Settings) (*record, error) {
	p, err := b.beginWith(ctx, job, settings)
	if err != nil {
		return nil, err
	}
	return b.finish(ctx, p, job)
}

// checkStatuses checks what a watcher was told.
func checkStatuses(seen []protocol.Status, job string, result protocol.Result) error {
	var errs []error
	last := protocol.Waiting
	for _, s := range seen {
		if s.Phase < last {
			errs = append(errs, fmt.Errorf("watch: phase %s came after %s", s.Phase, last))
		}
		last = s.Phase
		if s.Phase > protocol.Waiting && s.JobID != job {
			errs = append(errs, fmt.Errorf("watch: in phase %s the job id is %q, not %q", s.Phase, s.JobID, job))
		}
		if s.Phase == protocol.Finished && s.Result != result {
			errs = append(errs, fmt.Errorf("watch: the result is %q, but %q in the log", s.Result, result))
		}
	}
	return errors.Join(errs...)
}

// output waits until a job's log holds a text in its output.
func (b *bench) output(ctx context.Context, job *protocol.Job, text string) error {
	log, err := eventlog.OpenReader(b.logPath(job))
	if err != nil {
		return err
	}
	defer log.Close()
	var output strings.Builder
	for {
		batch, err := log.Next(1000, 1<<20)
		if err != nil {
			return err
		}
		for line := range bytes.Lines(batch.Data) {
			e, err := eventlog.Parse(line)
			if err != nil {
				return fmt.Errorf("a line of the event log is no event: %w", err)
			}
			output.WriteString(e.Output)
			if strings.Contains(output.String(), text) {
				return nil
			}
			if e.Kind == eventlog.KindJobFinished {
				return fmt.Errorf("the job ended without printing %q; its log:\n%s", text, b.text(job))
			}
		}
		if batch.Count == 0 {
			if err := log.Wait(ctx); err != nil {
				return fmt.Errorf("no output %q in the job's log (%w), which is:\n%s", text, err, b.text(job))
			}
		}
	}
}

// text is a job's log for people.
func (b *bench) text(job *protocol.Job) string {
	file, err := os.Open(b.logPath(job))
	if err != nil {
		return err.Error()
	}
	defer file.Close()
	var text strings.Builder
	if err := eventlog.Text(&text, file); err != nil {
		return err.Error()
	}
	return text.String()
}

// stderr is the end of what the workers have printed on standard error.
func (b *bench) stderr() string {
	raw, err := os.ReadFile(b.log.Name())
	if err != nil {
		return ""
	}
	lines := strings.Split(strings.TrimSpace(string(raw)), "\n")
	return strings.Join(lines[max(0, len(lines)-5):], "\n")
}

// close ends the workers, what they have left, and the folder.
func (b *bench) close() error {
	ctx, cancel := context.WithTimeout(context.Background(), tidyLimit)
	defer cancel()
	orphaned := map[string]bool{}
	for _, p := range b.peers {
		if p.job != "" && p.Stop(ctx, "") == nil {
			_ = p.exited(ctx)
		}
		select {
		case <-p.proc.ended:
		default:
			if p.job != "" {
				orphaned[p.job] = true
			}
		}
		p.client.Kill()
	}
	for job := range orphaned {
		if p, err := launch(b.worker.Path, b.env(), b.log); err == nil {
			_ = p.Cleanup(ctx, &protocol.Job{ID: job}, &protocol.Settings{InstanceID: b.instance})
			p.client.Kill()
		}
	}
	var err error
	if b.log != nil {
		err = b.log.Close()
	}
	if err := errors.Join(err, os.RemoveAll(b.dir)); err != nil {
		return fmt.Errorf("cannot remove what the check has made: %w", err)
	}
	return nil
}

// id is fit for every kind of name: lower-case letters and digits.
func id() string { return strings.ToLower(rand.Text()[:16]) }
