package main

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"

	"github.com/creack/pty"

	"github.com/signalman-ci/signalman/shared/protocol"
)

// driver sources the files that are named on descriptor 62 and prints their exit statuses to 63; commands have neither. The terminal is
// not to change their output.
const driver = `exec 62<&3 63>&4 3<&- 4>&-
stty -opost -echo <&1
while IFS= read -r -u 62 file; do
	source "$file" 62<&- 63>&-
	echo $? >&63
done`

// shell is a bash on a terminal.
type shell struct {
	cmd      *exec.Cmd
	dir      string // for the files that it sources
	tty      *os.File
	commands *os.File
	statuses chan int      // closed when there will be no more
	ended    chan struct{} // closed when bash has ended
	reading  sync.WaitGroup

	mu   sync.Mutex
	out  io.Writer // nil between commands
	kept []byte    // what was printed then
}

// mostKept bounds what is kept of output between commands.
const mostKept = 64 << 10

func openShell(e *environment) (_ *shell, err error) {
	s := &shell{statuses: make(chan int), ended: make(chan struct{})}
	var owned []*os.File // by this function
	defer func() {
		for _, f := range owned {
			_ = f.Close()
		}
		if err != nil {
			_ = s.Close()
		}
	}()
	if s.dir, err = os.MkdirTemp(e.settings.TempDir, "shell-"); err != nil {
		return nil, err
	}
	master, slave, err := pty.Open()
	if err != nil {
		return nil, fmt.Errorf("cannot open a terminal: %w", err)
	}
	owned = append(owned, slave, master)
	if s.tty, err = pollable(master); err != nil {
		return nil, err
	}
	commands, commandsEnd, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	s.commands = commandsEnd
	statuses, statusesEnd, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	owned = append(owned, commands, statusesEnd)

	s.cmd = exec.Command("nice", "-n", strconv.Itoa(e.nice), "bash", "--login", "-c", driver)
	s.cmd.Dir, s.cmd.Stdout, s.cmd.Stderr = e.home, slave, slave // standard input is /dev/null: nobody answers
	s.cmd.ExtraFiles = []*os.File{commands, statusesEnd}
	s.cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Setctty: true, Ctty: 1}
	for _, v := range e.settings.BaseEnv {
		s.cmd.Env = append(s.cmd.Env, v.Name+"="+v.Value)
	}
	s.cmd.Env = append(s.cmd.Env, "HOME="+e.home, "TMPDIR="+e.settings.TempDir, e.mark())
	if err := s.cmd.Start(); err != nil {
		_ = statuses.Close()
		close(s.statuses)
		close(s.ended)
		return nil, fmt.Errorf("cannot start bash: %w", err)
	}
	s.reading.Go(func() { _ = s.cmd.Wait(); close(s.ended) })
	s.reading.Go(func() { defer statuses.Close(); s.readStatuses(statuses) })
	s.reading.Go(s.readOutput)
	for _, dir := range e.settings.Cgroups { // before it has run anything: so the job's limits hold
		if err := os.WriteFile(filepath.Join(dir, "cgroup.procs"), []byte(strconv.Itoa(s.cmd.Process.Pid)), 0); err != nil {
			return nil, fmt.Errorf("cannot put the job into its cgroup: %w", err)
		}
	}
	return s, nil
}

// pollable is the terminal as a file that Go can wait for, and read only what is there.
func pollable(master *os.File) (*os.File, error) {
	fd, err := syscall.Dup(int(master.Fd()))
	if err != nil {
		return nil, err
	}
	syscall.CloseOnExec(fd)
	if err := syscall.SetNonblock(fd, true); err != nil {
		return nil, err
	}
	return os.NewFile(uintptr(fd), "terminal"), nil
}

func (s *shell) readStatuses(from io.Reader) {
	defer close(s.statuses)
	lines := bufio.NewScanner(from)
	for lines.Scan() {
		code, _ := strconv.Atoi(lines.Text())
		select {
		case s.statuses <- code:
		case <-s.ended:
			return
		}
	}
}

// readOutput passes on what is printed until the terminal is closed.
func (s *shell) readOutput() {
	conn, err := s.tty.SyscallConn()
	if err != nil {
		return
	}
	_ = conn.Read(func(fd uintptr) (done bool) { return s.pump(int(fd)) })
}

// pump passes on what there is to read, and tells whether that is all that there will ever be.
func (s *shell) pump(fd int) (done bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	buf := make([]byte, 32<<10)
	for {
		n, err := syscall.Read(fd, buf)
		if err == syscall.EINTR {
			continue
		}
		if err != nil || n <= 0 {
			return err != syscall.EAGAIN
		}
		if s.out != nil {
			_, _ = s.out.Write(buf[:n])
			continue
		}
		s.kept = append(s.kept, buf[:n]...)
		s.kept = s.kept[max(0, len(s.kept)-mostKept):]
	}
}

// attach makes out get what is printed from now on; nil: nobody. What was printed before goes to who had it until now.
func (s *shell) attach(out io.Writer) {
	if conn, err := s.tty.SyscallConn(); err == nil {
		_ = conn.Control(func(fd uintptr) { s.pump(int(fd)) })
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.out = out
	if out != nil {
		_, _ = out.Write(s.kept)
		s.kept = nil
	}
}

func (s *shell) Run(ctx context.Context, script string, out io.Writer) (protocol.Exit, error) {
	file := filepath.Join(s.dir, "command")
	if err := os.WriteFile(file, []byte(script+"\n"), 0o600); err != nil {
		return protocol.Exit{}, err
	}
	s.attach(out)
	defer s.attach(nil)
	if _, err := fmt.Fprintln(s.commands, file); err != nil {
		return protocol.Exit{Code: 1, ShellEnded: true}, nil
	}
	select {
	case code, ok := <-s.statuses:
		if ok {
			return protocol.Exit{Code: code}, nil
		}
		<-s.ended
	case <-s.ended:
	case <-ctx.Done():
		return protocol.Exit{}, ctx.Err()
	}
	state, _ := s.cmd.ProcessState.Sys().(syscall.WaitStatus)
	if state.Signaled() {
		return protocol.Exit{Code: 128 + int(state.Signal()), ShellEnded: true}, nil
	}
	return protocol.Exit{Code: state.ExitStatus(), ShellEnded: true}, nil
}

// Export sources the variables, as a command line would be limited.
func (s *shell) Export(ctx context.Context, env []protocol.EnvVar) error {
	var script strings.Builder
	for _, v := range env {
		fmt.Fprintf(&script, "export %s=%s\n", v.Name, protocol.ShellQuote(v.Value))
	}
	_, err := s.Run(ctx, script.String(), io.Discard)
	return err
}

// Close ends bash; what it has started lives on until the environment ends it.
func (s *shell) Close() error {
	if s.commands != nil {
		_ = s.commands.Close()
	}
	if s.cmd != nil && s.cmd.Process != nil {
		_ = s.cmd.Process.Kill()
		<-s.ended
	}
	if s.tty != nil {
		_ = s.tty.Close()
	}
	s.reading.Wait()
	return os.RemoveAll(s.dir)
}
