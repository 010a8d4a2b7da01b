package compose

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"time"

	"golang.org/x/term"

	"github.com/signalman-ci/signalman/internal/engine"
)

// resizeLook is how often the size of a terminal is looked at.
const resizeLook = 500 * time.Millisecond

// Jump opens a login shell in a job's container, on the terminal that this process has, or runs a command there: args are what
// settings.JumpMode says. It gives the exit code.
func Jump(args []string) int {
	code, err := jump(context.Background(), args)
	if err != nil {
		fmt.Fprintf(os.Stderr, "cannot get into the job's container: %v\n", err)
		return 1
	}
	return code
}

func jump(ctx context.Context, args []string) (int, error) {
	if len(args) < 4 {
		return 0, errors.New("an instance, a job, a container and a file of variables are needed")
	}
	instance, job, name, file, command := args[0], args[1], args[2], args[3], args[4:]
	raw, err := os.ReadFile(file)
	if err != nil {
		return 0, fmt.Errorf("the job is over: %w", err)
	}
	e, err := engine.Connect(ctx)
	if err != nil {
		return 0, err
	}
	defer e.Close()
	id, err := findMain(ctx, e, instance, job, name)
	if err != nil {
		return 0, err
	}
	s := engine.Session{Command: command, Env: strings.FieldsFunc(string(raw), func(r rune) bool { return r == 0 })}
	if len(command) == 0 {
		s.Command = []string{"bash", "--login"}
	}
	stdin := int(os.Stdin.Fd())
	s.Terminal = term.IsTerminal(stdin) && term.IsTerminal(int(os.Stdout.Fd()))
	if !s.Terminal {
		return run(ctx, e, id, s)
	}
	s.Env = append(s.Env, "TERM="+os.Getenv("TERM"))
	s.Width, s.Height = sizeOf(stdin)
	before, err := term.MakeRaw(stdin)
	if err != nil {
		return 0, fmt.Errorf("cannot prepare the terminal: %w", err)
	}
	defer func() { _ = term.Restore(stdin, before) }() // there is nobody to tell
	return run(ctx, e, id, s)
}

// run runs a session, whose terminal follows this one's size.
func run(ctx context.Context, e *engine.Engine, id string, s engine.Session) (int, error) {
	attached, err := e.Attach(ctx, id, s)
	if err != nil {
		return 0, err
	}
	watching, stop := context.WithCancel(ctx)
	watched := make(chan struct{})
	go func() {
		defer close(watched)
		if s.Terminal {
			follow(watching, attached, s.Width, s.Height)
		}
	}()
	defer func() { stop(); <-watched }()
	return attached.Run(ctx, os.Stdin, os.Stdout, os.Stderr)
}

// follow hands on each new size of this process's terminal until ctx ends.
func follow(ctx context.Context, attached *engine.Attached, width, height uint) {
	tick := time.NewTicker(resizeLook)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		if w, h := sizeOf(int(os.Stdin.Fd())); w > 0 && h > 0 && (w != width || h != height) && attached.Resize(ctx, w, h) == nil {
			width, height = w, h
		}
	}
}

func sizeOf(fd int) (width, height uint) {
	w, h, err := term.GetSize(fd)
	if err != nil || w <= 0 || h <= 0 {
		return 0, 0
	}
	return uint(w), uint(h)
}

// findMain finds a job's container by its name in the request.
func findMain(ctx context.Context, e *engine.Engine, instance, job, name string) (string, error) {
	marks := labels(instance, job)
	marks[labelContainer] = name
	things, err := e.List(ctx, marks)
	if err != nil {
		return "", err
	}
	for _, t := range things {
		if t.Kind == engine.KindContainer {
			return t.ID, nil
		}
	}
	return "", errors.New("it isn't up yet, or the job is over")
}
