package main

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"os/exec"
	"slices"
	"strings"
	"time"

	"github.com/google/uuid"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/signalman-ci/signalman/internal/hub/hubtest"
	"github.com/signalman-ci/signalman/internal/kube"
)

const (
	// podRounds is how often a job in a pod is measured, after warmUps.
	podRounds = 20
	// podShareTarget is what a job may take to its first output beside the time that its pod needs.
	podShareTarget = 300 * time.Millisecond
	// podWorkers is how many jobs run at a time when their workers' memory is looked at.
	podWorkers = 20
	// podNumbers are printed, a line each: more than 10 MB.
	podNumbers = 1_450_000

	// podImage has a tag: without one a node asks its registry each time.
	podImage   = engineImage + ":pods"
	clusterDir = "/var/lib/signalman-k8s"
	kubeconfig = clusterDir + "/kubeconfig"
)

// pods measures jobs in pods of this machine's cluster.
func (b *bench) pods(ctx context.Context) (_ []figure, err error) {
	cluster, err := kube.Connect(kube.Options{Kubeconfig: kubeconfig})
	if err != nil {
		return nil, skipped("no Kubernetes: run make k8s-up as root")
	}
	defer cluster.Close()
	if _, err := cluster.Version(ctx); err != nil {
		return nil, skipped("no Kubernetes that answers: run make k8s-up as root")
	}
	if err := loadBenchImage(ctx); err != nil {
		return nil, err
	}
	r, err := b.start(ctx, podWorkers, "--kubernetes-executor", "--kubernetes-default-image", podImage)
	if err != nil {
		return nil, err
	}
	defer closing(r, &err)
	var times podTimes
	for round := range warmUps + podRounds {
		took, err := r.podJob(ctx, cluster)
		if err != nil {
			return nil, err
		}
		if round >= warmUps {
			times.add(took)
		}
	}
	figures := times.figures()
	exact, took, err := r.muchPodOutput(ctx)
	if err != nil {
		return nil, err
	}
	figures = append(figures, figure{
		what:  "job in a pod printing 10 MB: the output at the hub is that of the command, by its hash",
		value: fmt.Sprintf("%s, in %s", yesNo(exact), milliseconds(took)), target: "exact", met: exact, existing: "–",
	})
	memory, err := r.podMemory(ctx)
	if err != nil {
		return nil, err
	}
	return append(figures, memory), nil
}

func loadBenchImage(ctx context.Context) error {
	if out, err := exec.CommandContext(ctx, "examples/containers/build-image", podImage).CombinedOutput(); err != nil {
		return fmt.Errorf("cannot make an image: %w: %s", err, out)
	}
	if out, err := exec.CommandContext(ctx, clusterDir+"/cluster", "load", podImage).CombinedOutput(); err != nil {
		return fmt.Errorf("cannot put the image into the node: %w: %s", err, out)
	}
	if out, err := exec.CommandContext(ctx, "docker", "rmi", podImage).CombinedOutput(); err != nil {
		return fmt.Errorf("cannot remove the image: %w: %s", err, out)
	}
	return nil
}

// podTook is how one job went: until its first output, the pod's own part of it as seen and as the timestamps say, and to the end.
type podTook struct{ first, pod, stamped, whole time.Duration }

type podTimes struct{ first, pod, share, stamped, whole durations }

func (t *podTimes) add(took podTook) {
	t.first, t.pod, t.share = append(t.first, took.first), append(t.pod, took.pod), append(t.share, took.first-took.pod)
	t.stamped, t.whole = append(t.stamped, took.stamped), append(t.whole, took.whole)
}

func (t *podTimes) figures() []figure {
	var sum time.Duration
	for _, d := range t.stamped {
		sum += d
	}
	mean := sum / time.Duration(len(t.stamped))
	return []figure{
		{
			what:   "job in a pod, image present: `run-job` answer until the first output of its first command is at the hub",
			value:  fmt.Sprintf("%s; its pod alone: %s, by the cluster's timestamps %s in the mean", t.first, milliseconds(t.pod.median()), milliseconds(mean)),
			target: "–", existing: "3.0 s",
		},
		{
			what:   "… longer than its pod takes from its creation until it runs, job by job: our own share",
			value:  fmt.Sprintf("%s (%d jobs: %s to %s)", milliseconds(t.share.median()), len(t.share), milliseconds(slices.Min(t.share)), milliseconds(slices.Max(t.share))),
			target: "< " + milliseconds(podShareTarget), met: t.share.median() < podShareTarget, existing: "–",
		},
		{
			what:  "… the whole job, its pod gone: `run-job` answer to `finished-job` sync",
			value: t.whole.String(), target: "–", existing: "5.2 s",
		},
	}
}

// podJob runs a job and watches its pod meanwhile.
func (r *rig) podJob(ctx context.Context, cluster *kube.Cluster) (took podTook, err error) {
	id := uuid.NewString()
	watching, cancel := context.WithCancel(ctx)
	defer cancel()
	var created, running time.Time
	wait, err := cluster.FollowPod(watching, &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: "semaphore-job-" + id}}, func(pod *corev1.Pod) {
		if created.IsZero() {
			created = time.Now()
		}
		if pod == nil || !running.IsZero() || len(pod.Status.ContainerStatuses) == 0 {
			return
		}
		if state := pod.Status.ContainerStatuses[0].State.Running; state != nil {
			running, took.stamped = time.Now(), state.StartedAt.Sub(pod.CreationTimestamp.Time)
		}
	})
	if err != nil {
		return took, err
	}
	if _, err := r.hub.Submit(hubtest.Request{ID: id, Commands: []string{printClock}}); err != nil {
		return took, err
	}
	done, err := r.finish(ctx, id)
	if err != nil {
		return took, err
	}
	wait() // the pod is gone
	_, indexes := done.output(printClock)
	if len(indexes) == 0 || running.IsZero() {
		return took, fmt.Errorf("the output (%d events) isn't at the hub, or the pod (made %v) wasn't seen to run", len(indexes), !created.IsZero())
	}
	took.first, took.whole = done.arrival(indexes[0]).Sub(done.HandedAt), done.EndedAt.Sub(done.HandedAt)
	took.pod = running.Sub(created)
	return took, nil
}

// muchPodOutput runs a job with much output and tells whether it came as it was.
func (r *rig) muchPodOutput(ctx context.Context) (exact bool, took time.Duration, err error) {
	command := fmt.Sprintf("seq 1 %d", podNumbers)
	done, err := r.run(ctx, command)
	if err != nil {
		return false, 0, err
	}
	text, indexes := done.output(command)
	if len(indexes) == 0 {
		return false, 0, errors.New("the output isn't at the hub")
	}
	hash := sha256.New()
	for i := range podNumbers {
		fmt.Fprintln(hash, i+1)
	}
	return sha256.Sum256([]byte(text)) == sumOf(hash), done.arrival(indexes[len(indexes)-1]).Sub(done.arrival(indexes[0])), nil
}

// podMemory looks at the workers of many jobs that run at a time.
func (r *rig) podMemory(ctx context.Context) (figure, error) {
	var ids []string
	for range podWorkers {
		id, err := r.hub.Submit(hubtest.Request{Commands: []string{"echo ready", "sleep 10", "seq 1 1000"}})
		if err != nil {
			return figure{}, err
		}
		ids = append(ids, id)
	}
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for {
		running := 0
		for _, id := range ids {
			if strings.Contains(string(r.hub.Log(id)), `"output":"ready`) {
				running++
			}
		}
		if running == len(ids) {
			break
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return figure{}, fmt.Errorf("%d of %d jobs run: %w", running, len(ids), ctx.Err())
		}
	}
	var resident, anon int64
	for _, id := range ids {
		pid, err := r.workerPID(id)
		if err != nil {
			return figure{}, err
		}
		m, err := memoryOf(pid)
		if err != nil {
			return figure{}, err
		}
		resident, anon = resident+m.resident, anon+m.anon
	}
	for _, id := range ids {
		if _, err := r.finish(ctx, id); err != nil {
			return figure{}, err
		}
	}
	return figure{
		what: fmt.Sprintf("%d jobs in pods at a time: memory of their workers", podWorkers),
		value: fmt.Sprintf("%s own pages each, %s in all (RSS each, with the binary's pages that all share: %s)",
			megabytes(anon/podWorkers), megabytes(anon), megabytes(resident/podWorkers)),
		target: "–", existing: "–",
	}, nil
}
