// Command worker-compose runs one job's commands in containers of a Docker Engine. The supervisor starts it.
package main

import (
	"github.com/signalman-ci/signalman/internal/executor/compose"
	"github.com/signalman-ci/signalman/internal/session/helperbin"
	"github.com/signalman-ci/signalman/shared/protocol"
)

func main() {
	protocol.Serve(compose.New(helperbin.For))
}
