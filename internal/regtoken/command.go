package regtoken

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os/exec"
	"slices"
	"strings"
	"time"

	"github.com/signalman-ci/signalman/internal/process"
)

const (
	// commandLimit is how long a command may take.
	commandLimit = 30 * time.Second
	// commandDelay is how long its output is waited for when it has ended: a child in the background may hold it.
	commandDelay = time.Second
	// longestReason is how much of a command's complaint is shown, in bytes.
	longestReason = 200
)

// notForCommands are the prefixes of what systemd gives to the service alone.
var notForCommands = []string{"NOTIFY_SOCKET=", "WATCHDOG_", "LISTEN_"}

func commandEnv(environ []string) []string {
	return slices.DeleteFunc(slices.Clone(environ), func(v string) bool {
		return slices.ContainsFunc(notForCommands, func(prefix string) bool { return strings.HasPrefix(v, prefix) })
	})
}

func (s Source) fromCommand(ctx context.Context) (string, error) {
	token, err := s.run(ctx)
	if err != nil {
		return "", fmt.Errorf("cannot get the registration token by token-command: %w", err)
	}
	return token, nil
}

func (s Source) run(ctx context.Context) (string, error) {
	shell, err := shell()
	if err != nil {
		return "", err
	}
	ctx, cancel := context.WithTimeout(ctx, commandLimit)
	defer cancel()
	cmd := exec.Command(shell, "-c", s.command)
	cmd.Env = s.environ
	cmd.WaitDelay = commandDelay
	out, complaint := &bounded{}, &bounded{tail: true}
	cmd.Stdout, cmd.Stderr = out, complaint
	err = process.RunWithin(ctx, cmd)
	switch {
	case err != nil && errors.Is(ctx.Err(), context.DeadlineExceeded):
		return "", fmt.Errorf("it was ended, as it took longer than %v%s", commandLimit, complaint.reason(out))
	case err != nil && ctx.Err() != nil:
		return "", ctx.Err()
	case err != nil && !errors.Is(err, exec.ErrWaitDelay): // that is of a child in the background
		return "", fmt.Errorf("%w%s", err, complaint.reason(out))
	}
	token, err := clean(out.bytes())
	if err != nil {
		return "", fmt.Errorf("what it prints is no token: %w%s", err, complaint.reason(out))
	}
	return token, nil
}

// shell finds what runs command lines.
func shell() (string, error) {
	for _, name := range []string{"bash", "sh"} {
		if path, err := exec.LookPath(name); err == nil {
			return path, nil
		}
	}
	return "", errors.New("there is neither bash nor sh to run it")
}

// bounded keeps the start of what is written, a byte more than is allowed, or the end. What is beyond is read nevertheless, so that the
// command isn't held up.
type bounded struct {
	tail bool
	buf  bytes.Buffer
}

func (b *bounded) Write(p []byte) (int, error) {
	n := len(p)
	if b.tail {
		b.buf.Write(p)
		if over := b.buf.Len() - largest; over > 0 {
			b.buf.Next(over)
		}
		return n, nil
	}
	b.buf.Write(p[:min(n, largest+1-b.buf.Len())])
	return n, nil
}

func (b *bounded) bytes() []byte { return b.buf.Bytes() }

// reason is the last line of a command's complaint, to follow an error; nothing of what it printed to standard output is in it.
func (b *bounded) reason(out *bounded) string {
	lines := strings.Split(strings.TrimSpace(strings.ToValidUTF8(string(b.bytes()), "")), "\n")
	line := strings.TrimSpace(lines[len(lines)-1])
	for printed := range strings.FieldsSeq(string(out.bytes())) {
		if len(printed) >= 4 { // a shorter one would take words apart
			line = strings.ReplaceAll(line, printed, "[hidden]")
		}
	}
	line = strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f {
			return -1
		}
		return r
	}, line)
	if line == "" {
		return ""
	}
	if len(line) > longestReason {
		line = strings.ToValidUTF8(line[:longestReason], "") + "…"
	}
	return ": " + line
}
