//go:build linux

// Command signalman-helper is package helper as an executable: "serve FOLDER" owns a job's shell in a container and is what the
// container runs, "relay FOLDER" is what each exec runs.
package main

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/signalman-ci/signalman/internal/session/helper"
)

// serverLimit is how long a container's entrypoint may take before it runs "serve".
const serverLimit = time.Minute

func main() {
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "signalman-helper:", err)
		os.Exit(1)
	}
}

func run(args []string) error {
	if len(args) != 2 {
		return fmt.Errorf("usage: signalman-helper relay|serve FOLDER")
	}
	switch folder := args[1]; args[0] {
	case helper.RelayMode:
		return helper.Relay(context.Background(), folder, serverLimit, os.Stdin, os.Stdout)
	case helper.ServeMode:
		ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM) // how a container is stopped
		defer stop()
		endNow := make(chan os.Signal, 1)
		signal.Notify(endNow, syscall.SIGUSR1)
		return helper.Listen(ctx, folder, endNow)
	default:
		return fmt.Errorf("unknown command %q", args[0])
	}
}
