package conformance

import (
	"context"
	"errors"
	"fmt"
	"os/exec"

	"github.com/hashicorp/go-plugin"

	"github.com/signalman-ci/signalman/shared/protocol"
)

func handshake(_ context.Context, b *bench) error {
	p, err := b.launch() // pings the health service
	if err != nil {
		return err
	}
	if got := p.client.Protocol(); got != plugin.ProtocolGRPC {
		return fmt.Errorf("the handshake says protocol %q, not grpc", got)
	}
	if got := p.client.NegotiatedVersion(); got != protocol.Version {
		return fmt.Errorf("the handshake says version %d, not %d", got, protocol.Version)
	}
	return nil
}

func byHand(ctx context.Context, b *bench) error {
	cmd := exec.CommandContext(ctx, b.worker.Path)
	cmd.Env, cmd.Dir = b.env(), b.dir
	out, err := cmd.CombinedOutput()
	var exit *exec.ExitError
	switch {
	case ctx.Err() != nil:
		return errors.New("it waits for a supervisor")
	case err == nil:
		return errors.New("it ends with status 0")
	case !errors.As(err, &exit):
		return fmt.Errorf("it does not start: %w", err)
	case len(out) == 0:
		return errors.New("it says nothing")
	}
	return nil
}

func describe(ctx context.Context, b *bench) error {
	name, err := b.executor()
	if err != nil {
		return err
	}
	p, err := b.launch()
	if err != nil {
		return err
	}
	d, err := p.Describe(ctx)
	if err != nil {
		return err
	}
	if d.Name != name || d.Version == "" {
		return fmt.Errorf("the name is %q (the binary says %q), the version %q", d.Name, name, d.Version)
	}
	return nil
}

func checkHost(ctx context.Context, b *bench) error {
	p, err := b.launch()
	if err != nil {
		return err
	}
	results, err := p.Check(ctx)
	if err != nil {
		return err
	}
	var errs []error
	for _, r := range results {
		if r.Name == "" {
			errs = append(errs, fmt.Errorf("a result has no name: %+v", r))
		}
		if r.Status != protocol.CheckOK && r.Message == "" {
			errs = append(errs, fmt.Errorf("the result %q is not OK and has no message", r.Name))
		}
	}
	return errors.Join(errs...)
}

func waiting(ctx context.Context, b *bench) error {
	p, err := b.launch()
	if err != nil {
		return err
	}
	if err := p.Stop(ctx, ""); err != nil {
		return err
	}
	s, err := firstStatus(ctx, p)
	if err != nil {
		return err
	}
	if s != (protocol.Status{Phase: protocol.Waiting}) {
		return fmt.Errorf("the status without a job is %+v", s)
	}
	return nil
}

// firstStatus is a watcher that leaves when it has been told something.
func firstStatus(ctx context.Context, p *peer) (protocol.Status, error) {
	ctx, leave := context.WithCancelCause(ctx)
	defer leave(nil)
	told := errors.New("told")
	var first protocol.Status
	err := p.Watch(ctx, func(s protocol.Status) {
		if ctx.Err() == nil {
			first = s
			leave(told)
		}
	})
	if !errors.Is(context.Cause(ctx), told) {
		return first, fmt.Errorf("no status comes: %w", err)
	}
	return first, nil
}
