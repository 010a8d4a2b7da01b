package k8s

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"

	"github.com/signalman-ci/signalman/internal/kube"
)

// placeSuffix goes after the path of a job's log: the file says where the job's pod is, for whoever cleans up after a dead worker
// when the agent's settings name another cluster or namespace by then.
const placeSuffix = ".pod"

func savePlace(logPath string, o kube.Options) error {
	if logPath == "" {
		return nil
	}
	content, err := json.Marshal(o)
	if err != nil {
		return err
	}
	if err := os.WriteFile(logPath+placeSuffix, content, 0o600); err != nil {
		return fmt.Errorf("cannot note where the job's pod is: %w", err)
	}
	return nil
}

// savedPlace is false where there is no such file, or a torn one, before which no pod was made.
func savedPlace(logPath string) (o kube.Options, ok bool) {
	content, err := os.ReadFile(logPath + placeSuffix)
	if logPath == "" || err != nil {
		return o, false
	}
	return o, json.Unmarshal(content, &o) == nil
}

func forgetPlace(logPath string) error {
	if logPath == "" {
		return nil
	}
	if err := os.Remove(logPath + placeSuffix); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("cannot forget where the job's pod was: %w", err)
	}
	return nil
}
