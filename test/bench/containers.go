package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/signalman-ci/signalman/internal/engine"
)

const (
	// containerRounds is how often a job in containers and what it is compared with are measured, after warmUps.
	containerRounds = 20
	// ownShareTarget is what a job may take longer to its first output than the same containers started by hand.
	ownShareTarget = 100 * time.Millisecond
	// engineImage is made for the measurement; serviceCommand is a service that ends when it is told to.
	engineImage    = "signalman-bench"
	serviceName    = "db"
	serviceCommand = "trap exit TERM; sleep 1000 & wait"
)

// start is how one way to run a command beside a service went.
type start struct {
	first time.Duration // until the first output of the first command
	whole time.Duration // until all is removed
}

// containers measures jobs with one service against the same containers without a job. The machine's speed changes over a run, so
// what is compared are runs that follow each other, now one first and now another.
func (b *bench) containers(ctx context.Context) (_ []figure, err error) {
	eng, err := engine.Connect(ctx)
	if errors.Is(err, engine.ErrUnreachable) {
		return nil, skipped("no Docker engine: run scripts/docker-up as root")
	}
	if err != nil {
		return nil, err
	}
	defer eng.Close()
	if _, err := exec.LookPath("docker"); err != nil {
		return nil, skipped("no docker command to compare with")
	}
	if out, err := exec.CommandContext(ctx, "examples/containers/build-image", engineImage).CombinedOutput(); err != nil {
		return nil, fmt.Errorf("cannot make an image: %w: %s", err, out)
	}
	defer func() { err = errors.Join(err, eng.RemoveImage(context.WithoutCancel(ctx), engineImage)) }()
	r, err := b.start(ctx, 1)
	if err != nil {
		return nil, err
	}
	defer closing(r, &err)

	ways := []func(context.Context) (start, error){
		r.containerJob,
		b.dockerCommands,
		func(ctx context.Context) (start, error) {
			return engineCalls(ctx, eng, strconv.FormatInt(time.Now().UnixNano(), 36))
		},
	}
	first, whole := make([]durations, len(ways)), make([]durations, len(ways))
	for round := range warmUps + containerRounds {
		for i := range ways {
			way := (round + i) % len(ways)
			took, err := ways[way](ctx)
			if err != nil {
				return nil, err
			}
			if round >= warmUps {
				first[way], whole[way] = append(first[way], took.first), append(whole[way], took.whole)
			}
		}
	}
	return containerFigures(first, whole), nil
}

// containerFigures takes the times of a job, of docker commands and of calls to the engine.
func containerFigures(first, whole []durations) []figure {
	byHand, byCalls := differences(first[0], first[1]), differences(first[0], first[2])
	return []figure{
		{
			what:  "job in containers, one service: `run-job` answer until the first output of its first command is at the hub",
			value: fmt.Sprintf("%s; docker commands by hand: %s", first[0], milliseconds(first[1].median())), target: "–", existing: "6.3 s",
		},
		{
			what:  "… longer than the docker commands, pair by pair: our own share",
			value: spread(byHand), target: "< " + milliseconds(ownShareTarget), met: byHand.median() < ownShareTarget, existing: "–",
		},
		{
			what:   "… longer than a program that only calls the engine and starts both containers side by side, as we do",
			value:  fmt.Sprintf("%s; such a program: %s", spread(byCalls), milliseconds(first[2].median())),
			target: "< " + milliseconds(ownShareTarget), met: byCalls.median() < ownShareTarget, existing: "–",
		},
		{
			what:  "… the whole job, its containers removed: `run-job` answer to `finished-job` sync",
			value: fmt.Sprintf("%s; docker commands by hand: %s", whole[0], milliseconds(whole[1].median())), target: "–", existing: "30 s",
		},
	}
}

func spread(d durations) string {
	return fmt.Sprintf("%s (%d pairs: %s to %s)", milliseconds(d.median()), len(d), milliseconds(slices.Min(d)), milliseconds(slices.Max(d)))
}

// differences are taken pair by pair.
func differences(a, b durations) (out durations) {
	for i := range a {
		out = append(out, a[i]-b[i])
	}
	return out
}

// containerJob runs a job.
func (r *rig) containerJob(ctx context.Context) (start, error) {
	type object = map[string]any
	job, err := json.Marshal(object{
		"executor": "dockercompose",
		"commands": []object{{"directive": printClock}},
		"compose": object{"containers": []object{
			{"name": "main", "image": engineImage},
			{"name": serviceName, "image": engineImage, "command": "bash -c '" + serviceCommand + "'"},
		}},
	})
	if err != nil {
		return start{}, err
	}
	id, err := r.hub.SubmitJSON(job)
	if err != nil {
		return start{}, err
	}
	done, err := r.finish(ctx, id)
	if err != nil {
		return start{}, err
	}
	_, indexes := done.output(printClock)
	if len(indexes) == 0 {
		return start{}, errors.New("the output isn't at the hub")
	}
	return start{first: done.arrival(indexes[0]).Sub(done.HandedAt), whole: done.EndedAt.Sub(done.HandedAt)}, nil
}

// dockerCommands does by hand what such a job needs.
func (b *bench) dockerCommands(ctx context.Context) (took start, err error) {
	network := "signalman-bench-" + strconv.FormatInt(time.Now().UnixNano(), 36)
	main, service := network+"-main", network+"-"+serviceName
	docker := func(ctx context.Context, args ...string) error {
		out, err := exec.CommandContext(ctx, "docker", args...).CombinedOutput()
		if err != nil {
			return fmt.Errorf("docker %s: %w: %s", strings.Join(args, " "), err, out)
		}
		return nil
	}
	begun := time.Now()
	defer func() {
		ctx := context.WithoutCancel(ctx)
		err = errors.Join(err, docker(ctx, "rm", "--force", main, service), docker(ctx, "network", "rm", network))
		took.whole = time.Since(begun)
	}()
	for _, args := range [][]string{
		{"network", "create", network},
		{"run", "--detach", "--name", service, "--network", network, "--network-alias", serviceName, engineImage, "bash", "-c", serviceCommand},
		{"run", "--detach", "--init", "--name", main, "--network", network, engineImage, "sleep", "1000"},
		{"exec", main, "bash", "-c", printClock},
	} {
		if err := docker(ctx, args...); err != nil {
			return took, err
		}
	}
	took.first = time.Since(begun)
	return took, nil
}

// engineCalls does it by the engine's API.
func engineCalls(ctx context.Context, eng *engine.Engine, mark string) (took start, err error) {
	labels := map[string]string{"signalman.bench": mark}
	begun := time.Now()
	defer func() {
		ctx := context.WithoutCancel(ctx)
		things, listErr := eng.List(ctx, labels)
		err = errors.Join(err, listErr)
		for _, t := range things { // containers before their network
			err = errors.Join(err, eng.RemoveThing(ctx, t))
		}
		took.whole = time.Since(begun)
	}()
	network, err := eng.CreateNetwork(ctx, "signalman-bench-"+mark, labels)
	if err != nil {
		return took, err
	}
	run := func(ctx context.Context, name string, command ...string) (id string, err error) {
		id, err = eng.Create(ctx, engine.Container{Image: engineImage, Command: command, Labels: labels, Network: network, Aliases: []string{name}})
		if err == nil {
			err = eng.Start(ctx, id)
		}
		return id, err
	}
	var main string
	both, starting := errgroup.WithContext(ctx)
	both.Go(func() error {
		_, err := run(starting, serviceName, "bash", "-c", serviceCommand)
		return err
	})
	both.Go(func() (err error) {
		main, err = run(starting, "main", "sleep", "1000")
		return err
	})
	if err := both.Wait(); err != nil {
		return took, err
	}
	streams, err := eng.Exec(ctx, main, "bash", "-c", printClock)
	if err != nil {
		return took, err
	}
	defer streams.Close()
	if _, err := bufio.NewReader(streams).ReadString('\n'); err != nil {
		return took, err
	}
	took.first = time.Since(begun)
	return took, nil
}

// skipped is why a measurement can't be made here.
type skipped string

func (s skipped) Error() string { return string(s) }
