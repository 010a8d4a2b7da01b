// Command worker-shell runs one job's commands in a login shell of this host. The supervisor starts it.
package main

import (
	"github.com/signalman-ci/signalman/internal/executor/shell"
	"github.com/signalman-ci/signalman/shared/protocol"
)

func main() {
	protocol.Serve(shell.New())
}
