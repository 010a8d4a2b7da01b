package session

import (
	"context"
	"fmt"
	"io"
	"strings"

	"github.com/signalman-ci/signalman/shared/jobshell"
)

// ExportScript is the script that sets and exports env in a shell. It fails on a name that bash doesn't take and on a
// value with a NUL byte, which no environment can hold; the error names the variable and never shows its value.
func ExportScript(env []jobshell.EnvVar) (string, error) {
	if len(env) == 0 {
		return "", nil
	}
	var script strings.Builder
	script.WriteString(`\builtin export`)
	for _, v := range env {
		if !jobshell.ValidEnvName(v.Name) {
			return "", fmt.Errorf("%q: a variable's name has letters, digits and _ only, and no digit first", v.Name)
		}
		if strings.ContainsRune(v.Value, 0) {
			return "", fmt.Errorf("%s: its value has a NUL byte", v.Name)
		}
		script.WriteString(" " + v.Name + "=" + jobshell.Quote(v.Value))
	}
	script.WriteByte('\n')
	return script.String(), nil
}

// Export exports env in a shell by a command of its own, whose output is thrown away. Where bash refuses variables the
// others are exported still, and the error is a *jobshell.RefusedError.
func Export(ctx context.Context, shell jobshell.Shell, env []jobshell.EnvVar) error {
	if done, err := export(ctx, shell, env); done || err != nil {
		return err
	}
	var refused []string
	for _, v := range env {
		done, err := export(ctx, shell, []jobshell.EnvVar{v})
		if err != nil {
			return err
		}
		if !done {
			refused = append(refused, v.Name)
		}
	}
	return &jobshell.RefusedError{Names: refused}
}

// export tells whether bash took all of env.
func export(ctx context.Context, shell jobshell.Shell, env []jobshell.EnvVar) (bool, error) {
	script, err := ExportScript(env)
	if err != nil {
		return false, fmt.Errorf("cannot export variables: %w", err)
	}
	if script == "" {
		return true, nil
	}
	exit, err := shell.Run(ctx, script, io.Discard)
	if err != nil {
		return false, fmt.Errorf("cannot export variables: %w", err)
	}
	if exit.ShellEnded {
		return false, fmt.Errorf("cannot export variables: the shell ended with code %d", exit.Code)
	}
	return exit.Code == 0, nil
}
