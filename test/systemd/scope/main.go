// Command scope moves a process into a scope, as the supervisor does it with workers: scope NAME PID.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strconv"

	"github.com/signalman-ci/signalman/internal/systemd"
)

func main() {
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1) //nolint:forbidigo // this is main
	}
}

func run(args []string) error {
	if len(args) != 2 {
		return errors.New("usage: scope NAME PID")
	}
	pid, err := strconv.Atoi(args[1])
	if err != nil {
		return err
	}
	return systemd.StartScope(context.Background(), args[0], pid, "A process of a test")
}
