// Package artifact pushes a job's log, as plain text, to the job's artifacts, by the `artifact` command of the hub's toolbox. It keeps
// nothing in memory that grows with the log.
package artifact

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os/exec"
	"slices"
	"strings"
	"time"

	"github.com/signalman-ci/signalman/internal/process"
	"github.com/signalman-ci/signalman/shared/eventlog"
	"github.com/signalman-ci/signalman/shared/mask"
	"github.com/signalman-ci/signalman/shared/protocol"
)

// When says which logs are pushed.
type When string

// The values of When. Trimmed is a log that the hub didn't take all of, or that had reached its limit on disk.
const (
	Never       When = "never"
	WhenTrimmed When = "when-trimmed"
	Always      When = "always"
)

const (
	// command is what pushes, to the place of destination.
	command     = "artifact"
	destination = "agent/job_logs.txt"
	// tokenVariable is the job's own key to its artifacts.
	tokenVariable = "SEMAPHORE_ARTIFACT_TOKEN" //nolint:gosec // its name
	// defaultLimit is how long a push may take, the text included.
	defaultLimit = 10 * time.Minute
	// outputDelay is how long the command's output is waited for when it has ended: a child in the background may hold it.
	outputDelay = time.Second
	// longestOutput is how much of the command's output is kept, longestReason how much of that is told; in bytes.
	longestOutput = 4 << 10
	longestReason = 300
)

// needed are the job's variables that the command gets, hostVariables those of the host. There are no others.
var (
	needed        = []string{tokenVariable, "SEMAPHORE_JOB_ID", "SEMAPHORE_ORGANIZATION_URL"}
	hostVariables = []string{"PATH", "HOME"}
)

// Pusher pushes logs. The zero value pushes none. It may be copied, and used concurrently.
type Pusher struct {
	When When
	// CompressAbove is the size of the text, in bytes, above which it is compressed.
	CompressAbove int64
	// Environ is the supervisor's environment (NAME=value).
	Environ []string
	// Limit bounds one push; 0 means 10 minutes.
	Limit time.Duration
}

// ErrNoCommand says that the host has no artifact command.
var ErrNoCommand = errors.New("there is no artifact command in PATH; install the toolbox of the hub, or set upload-job-logs to never")

// Log is a job's log that has ended.
type Log struct {
	// Events is the path of the event log. Full tells that the hub has taken only a part of it.
	Events string
	Full   bool
	// Text is where the text is written to for the time of the push, or beside it.
	Text string
	// Env are the job's variables.
	Env []protocol.EnvVar
}

// Wanted tells whether a log is to be pushed.
func (p Pusher) Wanted(log Log) (bool, error) {
	switch {
	case p.When == Always, p.When == WhenTrimmed && log.Full:
		return true, nil
	case p.When == WhenTrimmed:
		return eventlog.Trimmed(log.Events)
	default:
		return false, nil
	}
}

// Push pushes a log, wanted or not. Its error is one line without secrets: ErrNoCommand, or what the command says. When ctx ends
// the command is ended with all of its process group.
func (p Pusher) Push(ctx context.Context, log Log) error {
	env := p.commandEnv(log.Env)
	if variable(env, tokenVariable) == "" {
		return fmt.Errorf("the job has no %s", tokenVariable)
	}
	program, err := lookPath(variable(env, "PATH"))
	if err != nil {
		return err
	}
	limit := cmp.Or(p.Limit, defaultLimit)
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	text, err := writeText(ctx, log.Events, log.Text, p.CompressAbove)
	if err == nil {
		err = p.run(ctx, program, text, strings.TrimPrefix(text, log.Text), env)
	} else {
		err = fmt.Errorf("cannot write it as text: %w", err)
	}
	if ctx.Err() != nil && errors.Is(ctx.Err(), context.DeadlineExceeded) {
		err = fmt.Errorf("it took longer than %v and was ended", limit)
	}
	return errors.Join(err, removeText(log.Text))
}

func (p Pusher) run(ctx context.Context, program, text, suffix string, env []string) error {
	cmd := exec.Command(program, "push", "job", text, "-d", destination+suffix)
	cmd.Env, cmd.WaitDelay = env, outputDelay
	out := &lastBytes{}
	cmd.Stdout, cmd.Stderr = out, out
	err := process.RunWithin(ctx, cmd)
	if err == nil || errors.Is(err, exec.ErrWaitDelay) { // that is of a child in the background
		return nil
	}
	secret := mask.New([]mask.Secret{{Name: tokenVariable, Value: variable(env, tokenVariable)}})
	return fmt.Errorf("%s push: %w%s", command, err, reason(secret.String(out.text())))
}

// commandEnv is the command's environment: of variables that are named more than once the last one counts.
func (p Pusher) commandEnv(job []protocol.EnvVar) []string {
	env := slices.DeleteFunc(slices.Clone(p.Environ), func(v string) bool {
		name, _, _ := strings.Cut(v, "=")
		return !slices.Contains(hostVariables, name)
	})
	for _, name := range needed {
		for _, v := range slices.Backward(job) {
			if v.Name == name {
				env = append(env, name+"="+v.Value)
				break
			}
		}
	}
	return env
}

func variable(env []string, name string) string {
	for _, v := range slices.Backward(env) {
		if value, ok := strings.CutPrefix(v, name+"="); ok {
			return value
		}
	}
	return ""
}

// lastBytes keeps the end of what is written.
type lastBytes struct {
	buf []byte
	cut bool // the beginning is lost
}

func (l *lastBytes) Write(p []byte) (int, error) {
	l.buf = append(l.buf, p...)
	if over := len(l.buf) - longestOutput; over > 0 {
		l.buf, l.cut = append(l.buf[:0], l.buf[over:]...), true
	}
	return len(p), nil
}

// text is what was kept, in whole lines: half a secret couldn't be told any more.
func (l *lastBytes) text() string {
	text := strings.ToValidUTF8(string(l.buf), "")
	if l.cut {
		_, text, _ = strings.Cut(text, "\n")
	}
	return text
}

// reason is the last line of what a command has printed, to follow an error.
func reason(output string) string {
	lines := strings.Split(strings.TrimSpace(output), "\n")
	line := strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f {
			return -1
		}
		return r
	}, strings.TrimSpace(lines[len(lines)-1]))
	if line == "" {
		return ""
	}
	if len(line) > longestReason {
		line = strings.ToValidUTF8(line[:longestReason], "") + "…"
	}
	return ": " + line
}
