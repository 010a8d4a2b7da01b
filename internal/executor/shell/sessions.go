package shell

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"

	"github.com/signalman-ci/signalman/internal/process"
	"github.com/signalman-ci/signalman/shared/protocol"
)

// sessionsPath is the file that holds the leaders of a job's sessions, one JSON object a line: its shells. By it a process is found that
// has outlived the worker, without the job's mark, but has stayed in its session. The file is beside the log, where a job of another
// user can't write: what it names is killed with the worker's rights. "" if there is no log.
func sessionsPath(settings *protocol.Settings) string {
	if settings.LogPath == "" {
		return ""
	}
	return settings.LogPath + ".sessions"
}

// noteSession adds the session that a process leads.
func noteSession(path string, leader int) error {
	if path == "" {
		return nil
	}
	id, err := process.Identify(leader)
	if err != nil {
		return err
	}
	line, err := json.Marshal(id)
	if err != nil {
		return err
	}
	file, err := os.OpenFile(path, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	_, err = file.Write(append(line, '\n'))
	return errors.Join(err, file.Close())
}

// notedSessions gives the leaders; lines that aren't whole are left out.
func notedSessions(path string) ([]process.Identity, error) {
	if path == "" {
		return nil, nil
	}
	raw, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("cannot tell the sessions of the job: %w", err)
	}
	var leaders []process.Identity
	for line := range bytes.Lines(raw) {
		var id process.Identity
		if json.Unmarshal(line, &id) == nil && id.PID > 0 {
			leaders = append(leaders, id)
		}
	}
	return leaders, nil
}

// endSessions ends what is left in the sessions, and forgets them.
func endSessions(ctx context.Context, path string) error {
	leaders, err := notedSessions(path)
	if err != nil {
		return err
	}
	if err := process.EndSessions(ctx, leftoverGrace, leaders); err != nil {
		return err
	}
	return forgetSessions(path)
}

// forgetSessions removes the file once nothing of the job is left.
func forgetSessions(path string) error {
	if path == "" {
		return nil
	}
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("cannot remove the list of the job's sessions: %w", err)
	}
	return nil
}
