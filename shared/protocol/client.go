package protocol

import (
	"context"
	"errors"
	"fmt"
	"io"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	pb "github.com/signalman-ci/signalman/shared/protocol/internal/executorv1"
)

// ErrWorkerGone is in the errors of a Client whose worker doesn't answer any more: it died or closed its socket.
var ErrWorkerGone = errors.New("the worker is gone")

// Client is the supervisor's side of the contract. It is safe for concurrent use. Its errors are one line each.
type Client struct {
	rpc pb.ExecutorClient
}

// Describe asks who the worker is.
func (c *Client) Describe(ctx context.Context) (Description, error) {
	d, err := c.rpc.Describe(ctx, &pb.DescribeRequest{})
	if err != nil {
		return Description{}, rpcError("describe the worker", err)
	}
	return Description{Name: d.GetName(), Version: d.GetVersion()}, nil
}

// Check lets the worker look at the host.
func (c *Client) Check(ctx context.Context) ([]CheckResult, error) {
	r, err := c.rpc.Check(ctx, &pb.CheckRequest{})
	if err != nil {
		return nil, rpcError("check the host", err)
	}
	return mapSlice(r.GetResults(), checkFromWire), nil
}

// Start hands over the job; it may be repeated for the same job.
func (c *Client) Start(ctx context.Context, job *Job, settings *Settings) error {
	_, err := c.rpc.Start(ctx,
		&pb.StartRequest{Job: jobToWire(job), Settings: settingsToWire(settings)},
		grpc.MaxCallSendMsgSize(MaxMessageBytes))
	return rpcError("start the job", err)
}

// Watch calls f with the job's status, at once and after each change, until the job is over (nil) or the connection ends.
func (c *Client) Watch(ctx context.Context, f func(Status)) error {
	stream, err := c.rpc.Watch(ctx, &pb.WatchRequest{})
	if err != nil {
		return rpcError("watch the job", err)
	}
	finished := false
	for {
		s, err := stream.Recv()
		if errors.Is(err, io.EOF) && finished {
			return nil
		}
		if errors.Is(err, io.EOF) {
			return fmt.Errorf("cannot watch the job: %w: the stream ended before the job did", ErrWorkerGone)
		}
		if err != nil {
			return rpcError("watch the job", err)
		}
		st := statusFromWire(s)
		finished = st.Phase == Finished
		f(st)
	}
}

// Stop asks the worker to end its job; Watch tells when it has. A reason is told in the job's log, in one line; a stop that a
// user asked for needs none.
func (c *Client) Stop(ctx context.Context, reason string) error {
	_, err := c.rpc.Stop(ctx, &pb.StopRequest{Reason: reason})
	return rpcError("stop the job", err)
}

// List names the jobs of an instance that left something on the host.
func (c *Client) List(ctx context.Context, instanceID string) ([]Leftover, error) {
	r, err := c.rpc.List(ctx, &pb.ListRequest{InstanceId: instanceID})
	if err != nil {
		return nil, rpcError("list what is left of jobs", err)
	}
	return mapSlice(r.GetLeftovers(), func(l *pb.Leftover) Leftover {
		return Leftover{JobID: l.GetJobId(), What: l.GetWhat()}
	}), nil
}

// Cleanup removes all that is left of a job whose worker is dead. Of one whose request is lost Job.ID and
// Settings.InstanceID are enough.
func (c *Client) Cleanup(ctx context.Context, job *Job, settings *Settings) error {
	_, err := c.rpc.Cleanup(ctx, &pb.CleanupRequest{
		InstanceId: settings.InstanceID, JobId: job.ID, Job: jobToWire(job), Settings: settingsToWire(settings),
	}, grpc.MaxCallSendMsgSize(MaxMessageBytes))
	return rpcError("clean up after job "+job.ID, err)
}

func rpcError(what string, err error) error {
	if err == nil {
		return nil
	}
	switch s := status.Convert(err); s.Code() {
	case codes.Unavailable:
		return fmt.Errorf("cannot %s: %w (%s)", what, ErrWorkerGone, s.Message())
	case codes.Canceled, codes.DeadlineExceeded:
		return fmt.Errorf("cannot %s: %w", what, ctxError(s.Code()))
	default:
		return fmt.Errorf("cannot %s: %s", what, s.Message())
	}
}

func ctxError(c codes.Code) error {
	if c == codes.Canceled {
		return context.Canceled
	}
	return context.DeadlineExceeded
}
