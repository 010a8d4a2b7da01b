//go:build linux || darwin

package session

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/signalman-ci/signalman/shared/jobshell"
)

// An idle shell is told to exit, which runs its EXIT trap, and killed when it hasn't within this time.
const closeGrace = 2 * time.Second

// Shell is one interactive bash on a terminal of its own. It implements jobshell.Shell. Its methods are called by one
// goroutine at a time.
type Shell struct {
	options  Options
	console  *console
	cmd      *exec.Cmd
	commands *os.File // the driver reads command files' names from it

	statuses   chan status   // of commands, as the driver tells them
	statusPipe *os.File      // read by a goroutine that ends when it is closed
	statusDone chan struct{} // closed when that goroutine has ended
	exited     chan struct{} // closed when the process has been waited for; cmd.ProcessState is set then

	last      status // of the command before
	abandoned bool   // a command still runs that Run no longer waits for
	ended     bool   // Run has told of the shell's end
	closeOnce sync.Once
	closeErr  error
}

var _ jobshell.Shell = (*Shell)(nil)

// Open starts a shell and waits until it takes commands. What its profile prints is thrown away, but for the last lines
// in the error if the shell ends or takes longer than options.StartTimeout. When ctx ends before, its error is returned
// (wrapped) and no process is left.
func Open(ctx context.Context, options Options) (*Shell, error) {
	if strings.Contains(options.ScriptDir, "\n") {
		return nil, fmt.Errorf("cannot open a shell: the path of the script folder has a line break: %q", options.ScriptDir)
	}
	if options.StartTimeout == 0 {
		options.StartTimeout = DefaultStartTimeout
	}
	s, err := start(options)
	if err != nil {
		return nil, fmt.Errorf("cannot open a shell: %w", err)
	}
	if err := s.awaitReady(ctx); err != nil {
		return nil, errors.Join(fmt.Errorf("cannot open a shell: %w", err), s.Close())
	}
	return s, nil
}

func start(options Options) (*Shell, error) {
	bash, err := exec.LookPath("bash")
	if err != nil {
		return nil, errors.New("bash is not installed, or not on the PATH: install it, as commands are run by it")
	}
	commandsRead, commands, err := os.Pipe()
	if err != nil {
		return nil, fmt.Errorf("cannot make a pipe: %w", err)
	}
	defer commandsRead.Close()
	statusPipe, statusWrite, err := os.Pipe()
	if err != nil {
		return nil, errors.Join(fmt.Errorf("cannot make a pipe: %w", err), commands.Close())
	}
	defer statusWrite.Close()
	console, err := openConsole()
	if err != nil {
		return nil, errors.Join(err, commands.Close(), statusPipe.Close())
	}

	token := rand.Text()
	s := &Shell{
		options:    options,
		console:    console,
		cmd:        command(bash, options, token),
		commands:   commands,
		statuses:   make(chan status, 1),
		statusPipe: statusPipe,
		statusDone: make(chan struct{}),
		exited:     make(chan struct{}),
	}
	s.cmd.Stdin, s.cmd.Stdout, s.cmd.Stderr = console.in.tty, console.out.tty, console.out.tty
	s.cmd.ExtraFiles = make([]*os.File, statusesFD-2) // entry i is descriptor 3+i
	s.cmd.ExtraFiles[commandsFD-3], s.cmd.ExtraFiles[statusesFD-3] = commandsRead, statusWrite
	if err := s.startProcess(); err != nil {
		return nil, errors.Join(err, commands.Close(), statusPipe.Close(), console.close())
	}
	go func() {
		defer close(s.exited)
		_ = s.cmd.Wait() // ProcessState tells
	}()
	go func() {
		defer close(s.statusDone)
		readStatuses(statusPipe, token, func(st status) {
			select {
			case s.statuses <- st:
			case <-s.exited: // nobody asks any more
			}
		})
	}()
	return s, nil
}

func command(bash string, options Options, token string) *exec.Cmd {
	args := []string{"bash"}
	if options.Login {
		args = append(args, "--login")
	}
	args = append(args, "--noediting", "-i", "-c", strings.ReplaceAll(driver, "TOKEN", token))
	cmd := &exec.Cmd{Path: bash, Args: args, Dir: options.Dir, Env: options.Env, SysProcAttr: &syscall.SysProcAttr{}}
	if cmd.Env == nil {
		cmd.Env = []string{} // nil would be this process's own
	}
	if options.SysProcAttr != nil {
		*cmd.SysProcAttr = *options.SysProcAttr
	}
	cmd.SysProcAttr.Setsid = true
	cmd.SysProcAttr.Setctty = true
	cmd.SysProcAttr.Ctty = 1
	return cmd
}

func (s *Shell) startProcess() error {
	if user := s.cmd.SysProcAttr.Credential; user != nil {
		if err := s.console.give(int(user.Uid)); err != nil {
			return err
		}
	}
	run := s.options.Start
	if run == nil {
		run = (*exec.Cmd).Start
	}
	if err := withoutStops(func() error { return run(s.cmd) }); err != nil {
		if _, dirErr := os.Stat(s.options.Dir); s.options.Dir != "" && dirErr != nil {
			return fmt.Errorf("cannot start bash in its folder: %w", dirErr)
		}
		return fmt.Errorf("cannot start bash: %w", err)
	}
	return nil
}

// awaitReady waits for the first status line, which comes when the profile has been read.
func (s *Shell) awaitReady(ctx context.Context) error {
	timeout := time.NewTimer(s.options.StartTimeout)
	defer timeout.Stop()
	name, files := "bash", "~/.bashrc"
	if s.options.Login {
		name, files = "bash --login", "~/.bash_profile, ~/.profile and /etc/profile"
	}
	var err error
	select {
	case s.last = <-s.statuses:
	case <-s.exited:
		err = fmt.Errorf("%s ended with code %d before it took a command: look at %s", name, s.exitCode(), files)
	case <-timeout.C:
		err = fmt.Errorf("%s did not get ready within %v: look at %s", name, s.options.StartTimeout, files)
	case <-ctx.Done():
		err = fmt.Errorf("%s was not ready yet: %w", name, ctx.Err())
	}
	s.abandoned = err != nil
	var printed bytes.Buffer
	if swapErr := errors.Join(s.console.swap(&printed), s.console.swap(nil)); swapErr != nil {
		return errors.Join(err, swapErr)
	}
	if words := lastWords(printed.Bytes()); err != nil && words != "" {
		return fmt.Errorf("%w (it printed: %s)", err, words)
	}
	return err
}

// lastWords is the end of what a profile printed, short enough for an error message.
func lastWords(printed []byte) string {
	const limit = 500
	if len(printed) > limit {
		printed = printed[len(printed)-limit:]
	}
	return strings.ToValidUTF8(string(bytes.TrimSpace(printed)), "\uFFFD")
}

// Pid is the process id of the shell, which is the id of its session too.
func (s *Shell) Pid() int { return s.cmd.Process.Pid }

// Run sources script in the shell, as jobshell.Shell says. Output that background children wrote since the command
// before comes first (64 KiB of it at most, the newest). With set -e a script whose last status isn't 0 ends the shell
// even where bash exempts that status within it ("false && true"), as sourcing it is a command of its own.
//
// When ctx ends, Run returns its error (wrapped) without waiting for the script; the shell can then only be closed.
// Where out fails, the script goes on with its output thrown away, and its Exit is returned along with the error.
// A shell that ended between two commands gives an error that wraps ErrEnded.
func (s *Shell) Run(ctx context.Context, script string, out io.Writer) (jobshell.Exit, error) {
	if err := s.usable(ctx); err != nil {
		return jobshell.Exit{}, fmt.Errorf("cannot run the command: %w", err)
	}
	file, err := s.writeScript(script)
	if err != nil {
		return jobshell.Exit{}, fmt.Errorf("cannot run the command: %w", err)
	}
	defer os.Remove(file)
	if err := errors.Join(s.console.reset(), s.console.swap(out)); err != nil {
		return jobshell.Exit{}, fmt.Errorf("cannot run the command: %w", err)
	}
	_, _ = io.WriteString(s.commands, file+"\n") // fails only where the shell has just ended

	var exit jobshell.Exit
	var runErr error
	select {
	case s.last = <-s.statuses:
		exit.Code = s.last.code
	case <-s.exited:
		s.ended = true
		exit = jobshell.Exit{Code: s.exitCode(), ShellEnded: true}
	case <-ctx.Done():
		s.abandoned = true
		runErr = fmt.Errorf("the command still runs: %w", ctx.Err())
	}
	if err := s.console.swap(nil); err != nil && runErr == nil {
		runErr = fmt.Errorf("cannot pass on the command's output: %w", err)
	}
	return exit, runErr
}

func (s *Shell) usable(ctx context.Context) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	if s.abandoned {
		return errors.New("the command before still runs")
	}
	select {
	case <-s.exited:
		if s.ended {
			return ErrEnded
		}
		return fmt.Errorf("%w with code %d after the command before", ErrEnded, s.exitCode())
	default:
		return nil
	}
}

// writeScript puts script into a new file that only the shell's user can read, and returns its path. Where the job's disk is full
// that is a file elsewhere: a job that has no room for a command of its own could not even clean up.
func (s *Shell) writeScript(script string) (path string, err error) {
	for _, dir := range []string{s.options.ScriptDir, os.TempDir(), "/dev/shm"} {
		var elsewhere error
		if path, elsewhere = s.writeScriptIn(dir, script); elsewhere == nil {
			return path, nil
		}
		if err == nil {
			err = elsewhere
		}
		if !errors.Is(err, syscall.ENOSPC) {
			break
		}
	}
	return "", err
}

func (s *Shell) writeScriptIn(dir, script string) (path string, err error) {
	f, err := os.CreateTemp(dir, "command-*.sh")
	if err != nil {
		return "", fmt.Errorf("cannot write the command's file: %w", err)
	}
	_, err = io.WriteString(f, s.last.scriptPrefix()+script)
	err = errors.Join(err, f.Close())
	if err == nil && s.options.Chown != nil {
		err = s.options.Chown(f.Name())
	}
	if err != nil {
		return "", errors.Join(fmt.Errorf("cannot write the command's file: %w", err), os.Remove(f.Name()))
	}
	return f.Name(), nil
}

// Export sets and exports variables in the shell. Nothing of it appears in a command's output. Where bash
// refuses some, such as read-only variables, the others are exported still and the error is a *jobshell.RefusedError.
func (s *Shell) Export(ctx context.Context, env []jobshell.EnvVar) error {
	return Export(ctx, s, env)
}

// exitCode is the code of the process that has ended: 128+n where signal n killed it.
func (s *Shell) exitCode() int {
	ws, ok := s.cmd.ProcessState.Sys().(syscall.WaitStatus)
	if ok && ws.Signaled() {
		return 128 + int(ws.Signal())
	}
	return s.cmd.ProcessState.ExitCode()
}

// Close ends the shell and hangs up its terminals. An idle shell exits by itself, its EXIT trap runs; one that doesn't
// within two seconds, or that has a command running, is killed. What the shell started is not its affair. Calling
// Close again does nothing.
func (s *Shell) Close() error {
	s.closeOnce.Do(func() { s.closeErr = s.close() })
	return s.closeErr
}

func (s *Shell) close() error {
	err := s.commands.Close() // an idle driver reads end of file
	if !s.abandoned {
		grace := time.NewTimer(closeGrace)
		defer grace.Stop()
		select {
		case <-s.exited:
		case <-grace.C:
		}
	}
	if killErr := s.cmd.Process.Kill(); killErr != nil && !errors.Is(killErr, os.ErrProcessDone) {
		return errors.Join(err, fmt.Errorf("cannot kill the shell: %w", killErr)) // it is another user's: nothing to wait for
	}
	<-s.exited
	s.abandoned, s.ended = false, true
	err = errors.Join(err, s.statusPipe.Close())
	<-s.statusDone
	return errors.Join(err, s.console.close())
}
