// Command signalman-helper is package helper as an executable, for its tests: "relay FOLDER" or "serve FOLDER".
package main

import (
	"context"
	"fmt"
	"os"

	"github.com/signalman-ci/signalman/internal/session/helper"
)

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
	case "relay":
		self, err := os.Executable()
		if err != nil {
			return err
		}
		return helper.Relay(folder, []string{self, "serve", folder}, os.Stdin, os.Stdout)
	case "serve":
		return helper.Listen(context.Background(), folder, os.Stdout)
	default:
		return fmt.Errorf("unknown command %q", args[0])
	}
}
