//go:build unix

package plugins

import (
	"context"
	"os"
	"testing"

	"go.uber.org/goleak"

	"github.com/signalman-ci/signalman/shared/protocol"
)

// asWorker makes the test's own binary a worker; its value is the worker's version.
const asWorker = "PLUGINS_TEST_WORKER"

func TestMain(m *testing.M) {
	if os.Getenv(asWorker) != "" {
		protocol.Serve(fake{})
		return
	}
	goleak.VerifyTestMain(m)
}

// fake is an executor that only answers.
type fake struct{ protocol.Executor }

func (fake) Describe() protocol.Description {
	return protocol.Description{Name: "mine", Version: os.Getenv(asWorker)}
}

// Check tells of the worker's environment.
func (fake) Check(context.Context) []protocol.CheckResult {
	return []protocol.CheckResult{{Name: "env", Message: os.Getenv("OF_THE_PLUGIN")}}
}
