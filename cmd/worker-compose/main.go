// Command worker-compose runs one job's commands in containers of a Docker Engine. The supervisor starts it. As `worker-compose jump` it
// lets somebody into a job's container.
package main

import (
	"os"

	"github.com/signalman-ci/signalman/internal/executor/compose"
	"github.com/signalman-ci/signalman/internal/executor/settings"
	"github.com/signalman-ci/signalman/internal/session/helperbin"
	"github.com/signalman-ci/signalman/shared/protocol"
)

func main() {
	if len(os.Args) > 1 && os.Args[1] == settings.JumpMode {
		os.Exit(compose.Jump(os.Args[2:]))
	}
	protocol.Serve(compose.New(helperbin.For))
}
