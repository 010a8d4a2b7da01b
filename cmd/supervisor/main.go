// Command supervisor is Signalman's agent: it registers with a hub and runs its jobs in worker processes.
package main

import (
	"os"

	"github.com/signalman-ci/signalman/internal/cli"
)

func main() {
	os.Exit(cli.Main(os.Args, os.Stdout, os.Stderr))
}
