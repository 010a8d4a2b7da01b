package conformance

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/signalman-ci/signalman/shared/protocol"
	pb "github.com/signalman-ci/signalman/shared/protocol/internal/executorv1"
)

func passingJob(ctx context.Context, b *bench) error {
	job := b.job("echo one", "echo two; echo three")
	job.EpilogueAlways = directives("echo always $SEMAPHORE_JOB_RESULT")
	job.EpilogueOnPass = directives("echo pass $SEMAPHORE_JOB_RESULT")
	job.EpilogueOnFail = directives("echo fail")
	r, err := b.run(ctx, job)
	if err != nil {
		return err
	}
	return errors.Join(
		r.wants(protocol.Passed, "echo one", "echo two; echo three", exportDirective,
			"echo always $SEMAPHORE_JOB_RESULT", "echo pass $SEMAPHORE_JOB_RESULT"),
		r.printed("echo one", "one\n", 0),
		r.printed("echo two; echo three", "two\nthree\n", 0),
		r.printed(exportDirective, "Exporting SEMAPHORE_JOB_RESULT\n", 0),
		r.printed("echo always $SEMAPHORE_JOB_RESULT", "always passed\n", 0),
		r.printed("echo pass $SEMAPHORE_JOB_RESULT", "pass passed\n", 0),
	)
}

func startTwice(ctx context.Context, b *bench) error {
	job := b.job("echo ready", "sleep 600")
	p, err := b.begin(ctx, job)
	if err != nil {
		return err
	}
	if err := b.output(ctx, job, "ready"); err != nil {
		return err
	}
	if err := p.Start(ctx, job, b.settings(job)); err != nil {
		return fmt.Errorf("the second Start with the same id: %w", err)
	}
	other := b.job("echo other")
	refused := refusal(ctx, p, other.ID, b.logPath(other), codes.FailedPrecondition)
	if err := p.Stop(ctx, ""); err != nil {
		return err
	}
	r, err := b.finish(ctx, p, job)
	if err != nil {
		return err
	}
	return errors.Join(refused, r.wants(protocol.Stopped, "echo ready", "sleep 600"))
}

func unusableJob(ctx context.Context, b *bench) error {
	p, err := b.launch()
	if err != nil {
		return err
	}
	job := b.job("echo usable")
	if err := errors.Join(
		refusal(ctx, p, "", b.logPath(job), codes.InvalidArgument),
		refusal(ctx, p, job.ID, "", codes.InvalidArgument),
	); err != nil {
		return err
	}
	if err := b.start(ctx, p, job, b.settings(job)); err != nil {
		return err
	}
	r, err := b.finish(ctx, p, job)
	if err != nil {
		return err
	}
	return r.wants(protocol.Passed, "echo usable", exportDirective)
}

// refusal starts a job that must be refused with a status code.
func refusal(ctx context.Context, p *peer, id, logPath string, want codes.Code) error {
	_, err := p.rpc.Start(ctx, &pb.StartRequest{Job: &pb.Job{Id: id}, Settings: &pb.Settings{LogPath: logPath}})
	if got := status.Code(err); got != want {
		return fmt.Errorf("Start with job id %q and log path %q ends with the status %s (%q), not %s", id, logPath, got, status.Convert(err).Message(), want)
	}
	return nil
}

func largeJob(ctx context.Context, b *bench) error {
	const size = 10 << 20
	const count = "wc -c < large; tail -c 5 large"
	job := b.job(count)
	job.Files = []protocol.File{{Path: "large", Mode: 0o644, Content: append(bytes.Repeat([]byte{0xA5}, size-5), "end.\n"...)}}
	r, err := b.run(ctx, job)
	if err != nil {
		return err
	}
	if err := r.wants(protocol.Passed, count, exportDirective); err != nil {
		return err
	}
	// Some systems pad the number with blanks.
	if got := strings.Fields(r.last(count).output); len(got) != 2 || got[0] != strconv.Itoa(size) || got[1] != "end." {
		return fmt.Errorf("of a file of %d bytes that ends with \"end.\" arrived: %q", size, got)
	}
	return nil
}
