// Command cluster runs a real Kubernetes of one node for tests; see package cluster.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"syscall"

	"github.com/signalman-ci/signalman/test/k8s/cluster"
)

const usage = `usage: cluster VERB, as root:
  up                  make sure that it runs; the last line is the kubeconfig's path
  prepare             install and build what it needs, without starting it
  down                end it and remove what it has
  status              say what runs
  load IMAGE          put an image of the local Docker engine into the node
  unload IMAGE        remove it there
  start COMPONENT     start etcd, containerd, apiserver, controller-manager, scheduler or kubelet, if it doesn't run
  stop COMPONENT      end it, kindly
  kill COMPONENT      end it at once
  restart COMPONENT   stop and start
  freeze COMPONENT    keep it from doing anything
  thaw COMPONENT      let it go on
  exec PROGRAM ARG... run a program in the node's network; "down" ends it`

func main() {
	// The reader of the output may leave; a run that breaks off in the middle would leave half a cluster.
	signal.Notify(make(chan os.Signal, 1), syscall.SIGPIPE)
	ctx, cancel := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer cancel()
	if err := run(ctx, os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, err)
		cancel()
		os.Exit(1) //nolint:gocritic // it is cancelled
	}
}

func run(ctx context.Context, args []string) error {
	if len(args) == 0 {
		return errors.New(usage)
	}
	c := &cluster.Cluster{Log: os.Stderr}
	verb, args := args[0], args[1:]
	switch verb {
	case "up":
		if err := c.Up(ctx); err != nil {
			return fmt.Errorf("cannot bring the cluster up: %w", err)
		}
		fmt.Println(cluster.Kubeconfig())
		return nil
	case "prepare":
		return c.Prepare(ctx)
	case "down":
		return c.Down(ctx)
	case "status":
		fmt.Print(c.Status())
		return nil
	case "exec":
		return cluster.Exec(args)
	}
	if len(args) != 1 {
		return errors.New(usage)
	}
	name := args[0]
	switch verb {
	case "load":
		return c.Load(ctx, name)
	case "unload":
		return c.Unload(ctx, name)
	case "start":
		return c.Start(ctx, name)
	case "stop":
		return c.Stop(ctx, name)
	case "kill":
		return c.Kill(ctx, name)
	case "restart":
		if err := c.Stop(ctx, name); err != nil {
			return err
		}
		return c.Start(ctx, name)
	case "freeze":
		return c.Freeze(name)
	case "thaw":
		return c.Thaw(name)
	}
	return errors.New(usage)
}
