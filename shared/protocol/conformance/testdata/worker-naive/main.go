// Command worker-naive is a plugin as a first attempt looks: each command has a shell of its own, without a terminal. The
// kit has to find what it does wrong.
package main

import (
	"context"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"github.com/signalman-ci/signalman/shared/protocol"
)

func main() { protocol.Serve(executor{}) }

type executor struct{}

func (executor) Describe() protocol.Description { return protocol.Description{Name: "simple"} }

func (executor) Check(context.Context) []protocol.CheckResult {
	return []protocol.CheckResult{{Name: "sh", Status: protocol.CheckWarning}}
}

func (executor) Prepare(_ context.Context, _ *protocol.Job, s *protocol.Settings, _ protocol.SectionLog) (protocol.Environment, error) {
	return &place{home: s.Home}, nil
}

func (executor) List(context.Context, string) ([]protocol.Leftover, error) { return nil, nil }

func (executor) Cleanup(context.Context, *protocol.Job, *protocol.Settings) error { return nil }

type place struct{ home string }

func (p *place) OpenShell(context.Context) (protocol.Shell, error) { return &shell{home: p.home}, nil }

func (p *place) ResolvePath(path string) string {
	if filepath.IsAbs(path) {
		return path
	}
	return filepath.Join(p.home, strings.TrimPrefix(path, "~/"))
}

// Inject forgets the mode.
func (p *place) Inject(_ context.Context, f protocol.File) error {
	path := p.ResolvePath(f.Path)
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	return os.WriteFile(path, f.Content, 0o644)
}

func (p *place) Stop(context.Context) error { return nil }

func (p *place) Close(context.Context) error { return nil }

type shell struct {
	home string
	env  []string
}

func (s *shell) Run(ctx context.Context, script string, out io.Writer) (protocol.Exit, error) {
	cmd := exec.CommandContext(ctx, "bash", "-c", script)
	cmd.Dir, cmd.Stdout, cmd.Stderr = s.home, out, out
	cmd.Env = append([]string{"HOME=" + s.home, "PATH=" + os.Getenv("PATH")}, s.env...)
	_ = cmd.Run() // its state tells
	return protocol.Exit{Code: cmd.ProcessState.ExitCode()}, nil
}

func (s *shell) Export(_ context.Context, env []protocol.EnvVar) error {
	for _, v := range env {
		s.env = append(s.env, v.Name+"="+strings.TrimSpace(v.Value))
	}
	return nil
}

func (s *shell) Close() error { return nil }
