package protocol

import (
	"context"
	"sync"

	"github.com/hashicorp/go-hclog"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	pb "github.com/signalman-ci/signalman/shared/protocol/internal/executorv1"
)

// server is the worker's side of the contract: it holds at most one job in its life and tells watchers how it goes.
type server struct {
	pb.UnimplementedExecutorServer
	executor Executor
	logger   hclog.Logger

	mu      sync.Mutex
	job     *runner
	status  Status
	changed chan struct{} // closed and replaced at each change of status

	watchers int           // streams of Watch that are open
	left     chan struct{} // told when one of them begins or ends
	started  chan struct{} // closed when a job was accepted
	over     chan struct{} // closed when the job has ended
}

func newServer(executor Executor, logger hclog.Logger) *server {
	return &server{
		executor: executor,
		logger:   logger,
		changed:  make(chan struct{}),
		left:     make(chan struct{}, 1),
		started:  make(chan struct{}),
		over:     make(chan struct{}),
	}
}

func (s *server) Describe(context.Context, *pb.DescribeRequest) (*pb.DescribeResponse, error) {
	d := s.executor.Describe()
	return &pb.DescribeResponse{Name: d.Name, Version: d.Version}, nil
}

func (s *server) Check(ctx context.Context, _ *pb.CheckRequest) (*pb.CheckResponse, error) {
	return &pb.CheckResponse{Results: mapSlice(s.executor.Check(ctx), checkToWire)}, nil
}

func (s *server) Start(_ context.Context, req *pb.StartRequest) (*pb.StartResponse, error) {
	job, settings := jobFromWire(req.GetJob()), settingsFromWire(req.GetSettings())
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.job != nil {
		if s.job.job.ID == job.ID {
			return &pb.StartResponse{}, nil
		}
		return nil, status.Errorf(codes.FailedPrecondition, "this worker already has job %s", s.job.job.ID)
	}
	r, err := newRunner(s.executor, job, settings, s.logger, s.setPhase)
	if err != nil {
		return nil, status.Error(codes.InvalidArgument, err.Error())
	}
	s.job = r
	s.setStatusLocked(Status{Phase: Preparing, JobID: job.ID})
	close(s.started)
	go s.run(r)
	return &pb.StartResponse{}, nil
}

func (s *server) run(r *runner) {
	result := r.run()
	s.mu.Lock()
	s.setStatusLocked(Status{Phase: Finished, JobID: r.job.ID, Result: result})
	s.mu.Unlock()
	close(s.over)
}

// setPhase takes the job to a later phase; one that is being stopped isn't running any more.
func (s *server) setPhase(p Phase) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if p > s.status.Phase {
		s.setStatusLocked(Status{Phase: p, JobID: s.status.JobID})
	}
}

func (s *server) setStatusLocked(st Status) {
	s.status = st
	close(s.changed)
	s.changed = make(chan struct{})
}

func (s *server) Watch(_ *pb.WatchRequest, stream grpc.ServerStreamingServer[pb.WatchResponse]) error {
	s.watching(1)
	defer s.watching(-1)
	for {
		s.mu.Lock()
		st, changed := s.status, s.changed
		s.mu.Unlock()
		if err := stream.Send(statusToWire(st)); err != nil {
			return err
		}
		if st.Phase == Finished {
			return nil
		}
		select {
		case <-changed:
		case <-stream.Context().Done():
			return status.FromContextError(stream.Context().Err()).Err()
		}
	}
}

// watching counts watchers, who come and go even while farewell waits for them.
func (s *server) watching(n int) {
	s.mu.Lock()
	s.watchers += n
	s.mu.Unlock()
	select {
	case s.left <- struct{}{}:
	default:
	}
}

func (s *server) watchersNow() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.watchers
}

func (s *server) Stop(_ context.Context, req *pb.StopRequest) (*pb.StopResponse, error) {
	s.stopJob(req.GetReason())
	return &pb.StopResponse{}, nil
}

func (s *server) hasJob() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.job != nil
}

// stopJob asks the job, if there is one that runs, to end.
func (s *server) stopJob(reason string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.job != nil && s.status.Phase < Stopping {
		s.job.stop(reason)
		s.setStatusLocked(Status{Phase: Stopping, JobID: s.status.JobID})
	}
}

func (s *server) List(ctx context.Context, req *pb.ListRequest) (*pb.ListResponse, error) {
	left, err := s.executor.List(ctx, req.GetInstanceId())
	if err != nil {
		return nil, status.Error(codes.Internal, err.Error())
	}
	return &pb.ListResponse{Leftovers: mapSlice(left, func(l Leftover) *pb.Leftover {
		return &pb.Leftover{JobId: l.JobID, What: l.What}
	})}, nil
}

func (s *server) Cleanup(ctx context.Context, req *pb.CleanupRequest) (*pb.CleanupResponse, error) {
	job, settings := jobFromWire(req.GetJob()), settingsFromWire(req.GetSettings())
	job.ID, settings.InstanceID = req.GetJobId(), req.GetInstanceId()
	if err := s.executor.Cleanup(ctx, job, settings); err != nil {
		return nil, status.Error(codes.Internal, err.Error())
	}
	return &pb.CleanupResponse{}, nil
}
