//go:build unix

package shell

import (
	"context"
	"os"
	"path/filepath"

	"github.com/signalman-ci/signalman/shared/protocol"
)

// asHost in the environment of this test's binary makes it the worker of a job whose files are in that folder.
const asHost = "SHELL_TEST_HOST"

// stubborn is a command that leaves a process without the job's mark in the job's session, and prints its pid.
const stubborn = `(trap '' HUP INT TERM; exec env -i sleep 299 </dev/null >/dev/null 2>&1) & until [ "$(cat /proc/$!/comm)" = sleep ]; do :; done; echo $!`

// beHost runs the command in a job's shell. It doesn't return: it is there to be killed.
func beHost(dir string) error {
	job, settings := jobIn(dir)
	env, err := New().Prepare(context.Background(), job, settings, nil)
	if err != nil {
		return err
	}
	shell, err := env.OpenShell(context.Background())
	if err != nil {
		return err
	}
	if _, err := shell.Run(context.Background(), stubborn, os.Stdout); err != nil {
		return err
	}
	<-make(chan struct{})
	return nil
}

// jobIn is a job without cgroups.
func jobIn(dir string) (*protocol.Job, *protocol.Settings) {
	return &protocol.Job{ID: "the-job"}, &protocol.Settings{
		LogPath: filepath.Join(dir, "events.jsonl"), TempDir: filepath.Join(dir, "tmp"), Home: dir, InstanceID: filepath.Base(dir),
		BaseEnv: []protocol.EnvVar{{Name: "PATH", Value: os.Getenv("PATH")}},
	}
}
