package k8s

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/signalman-ci/signalman/internal/imagepull"
)

// starting waits for a pod's start and tells what it waits for, each thing once.
type starting struct {
	watch *watcher
	out   io.Writer
	limit time.Duration
	user  func(image string) (string, bool) // of the image pull credentials
	told  map[string]bool
	// started has the containers of whose start an event has told: a pod's status does so up to a second later.
	started map[string]bool
	// wait is what is waited for now, for the case that it takes too long.
	wait string
}

// await waits until ready says so of the pod. The error is why it won't start, or hasn't within limit.
func (s *starting) await(ctx context.Context, ready func(*corev1.Pod) bool) error {
	timeout := time.NewTimer(s.limit)
	defer timeout.Stop()
	for {
		pod, _, changed := s.watch.state()
		for _, event := range s.watch.takeEvents() {
			s.tellEvent(event)
		}
		if err := s.failure(ctx, pod); err != nil {
			return err
		}
		s.tellState(pod)
		if ready(pod) {
			return nil
		}
		select {
		case <-changed:
		case <-timeout.C:
			text := fmt.Sprintf("the pod did not start within %v (kubernetes-pod-start-timeout)", s.limit)
			if s.wait != "" {
				text += "; it waits for: " + s.wait
			}
			return errors.New(text)
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// once writes a line that wasn't written yet.
func (s *starting) once(line string) {
	if !s.told[line] {
		s.told[line] = true
		fmt.Fprintln(s.out, line)
	}
}

func (s *starting) tellState(pod *corev1.Pod) {
	if c := condition(pod, corev1.PodScheduled); c != nil && c.Status == corev1.ConditionFalse && c.Reason == corev1.PodReasonUnschedulable {
		s.wait = "a node (" + sentence(c.Message, "the scheduler gives no reason") + ")"
		s.once("Waiting for " + s.wait)
	}
	if node := pod.Spec.NodeName; node != "" {
		s.once("The pod runs on node " + node)
	}
	for _, c := range pod.Status.ContainerStatuses {
		image := imageOf(pod, c.Name)
		if w := c.State.Waiting; w != nil && (w.Reason == "ErrImagePull" || w.Reason == "ImagePullBackOff") {
			s.wait = fmt.Sprintf("image %s (%s)", image, sentence(w.Message, w.Reason))
			if w.Reason == "ErrImagePull" {
				s.once(fmt.Sprintf("Warning: cannot pull %s, the node tries again: %s", image, inBrief(w.Message)))
			} else {
				s.once(fmt.Sprintf("Waiting for the next try to pull %s (back-off)", image))
			}
		}
	}
}

// tellEvent tells of what conditions and states don't show.
func (s *starting) tellEvent(e *corev1.Event) {
	switch e.Reason {
	case "Started":
		s.started[strings.TrimSuffix(strings.TrimPrefix(e.InvolvedObject.FieldPath, "spec.containers{"), "}")] = true
	case "Pulling", "Pulled":
		if !strings.Contains(e.Message, "already present") {
			s.once(inBrief(e.Message))
		}
	case "TriggeredScaleUp", "NotTriggerScaleUp", "Nominated":
		s.once(inBrief(e.Message))
	case "FailedMount", "FailedAttachVolume", "FailedCreatePodSandBox", "NetworkNotReady", "FailedMapVolume":
		s.wait = inBrief(e.Message)
		s.once("Warning: " + e.Reason + ": " + inBrief(e.Message))
	}
}

// failure tells why the pod won't start; nil while it may.
func (s *starting) failure(ctx context.Context, pod *corev1.Pod) error {
	for _, statuses := range [][]corev1.ContainerStatus{pod.Status.InitContainerStatuses, pod.Status.ContainerStatuses} {
		for _, c := range statuses {
			c.Image = imageOf(pod, c.Name) // a status has another name of it
			if w := c.State.Waiting; w != nil {
				if err := s.waitingFailure(c, w); err != nil {
					return err
				}
			}
			if t := c.State.Terminated; t != nil && cannotStart(t.Reason) {
				return startError(c.Name, c.Image, t.Message)
			}
		}
	}
	return s.watch.end(ctx)
}

// cannotStart are the reasons of a container that the runtime couldn't start.
func cannotStart(reason string) bool {
	return reason == "StartError" || reason == "ContainerCannotRun"
}

func (s *starting) waitingFailure(c corev1.ContainerStatus, w *corev1.ContainerStateWaiting) error {
	switch w.Reason {
	case "ErrImagePull", "ImagePullBackOff":
		return s.pullFailure(c, w.Message)
	case "InvalidImageName":
		return fmt.Errorf("the image %s of container %s has no valid name: it has to be like registry.example/team/app:1.0", c.Image, c.Name)
	case "ErrImageNeverPull":
		return fmt.Errorf("the image %s of container %s is not on the pod's node, and its imagePullPolicy is Never", c.Image, c.Name)
	case "CreateContainerError", "CreateContainerConfigError", "ImageInspectError", "RunContainerError":
		return startError(c.Name, c.Image, w.Reason+": "+w.Message)
	default:
		return nil
	}
}

func startError(container, image, message string) error {
	if container == mainContainer && strings.Contains(message, `"bash"`) && strings.Contains(message, "not found") {
		return fmt.Errorf("the image %s has no bash, by which commands are run: install it there", image)
	}
	return fmt.Errorf("the container %s (image %s) cannot be started: %s", container, image, inBrief(message))
}

// pullFailure tells of a pull that will fail again as well.
func (s *starting) pullFailure(c corev1.ContainerStatus, message string) error {
	user, _ := s.user(c.Image)
	var pull *imagepull.Error
	if !errors.As(imagepull.Pull{Image: c.Image, User: user}.Explain(errors.New(message)), &pull) {
		return nil
	}
	as := ""
	if user != "" {
		as = " as " + user
	}
	var why string
	switch pull.Reason {
	case imagepull.NotFound:
		why = "its registry has no such image: check name and tag"
	case imagepull.NoPlatform:
		why = "the image isn't there for the node's platform"
	case imagepull.BadName:
		why = "that isn't the name of an image"
	case imagepull.LoginNeeded:
		why = "its registry gives it only with a login, or has no such image: check the name, or give the job image pull credentials"
	case imagepull.LoginRefused:
		why = "its registry refuses the login" + as + ": correct the image pull credentials"
	case imagepull.Denied:
		why = "its registry denies it" + as + ", or has no such image: check the name, and what the user may do"
	default:
		return nil
	}
	return fmt.Errorf("cannot pull %s for container %s: %s (%s)", c.Image, c.Name, why, inBrief(message))
}

// mainRuns tells that commands can be run.
func (s *starting) mainRuns(pod *corev1.Pod) bool { return s.runs(pod, mainContainer) }

func (s *starting) runs(pod *corev1.Pod, container string) bool {
	if status := status(pod, container); status != nil && status.State.Running != nil {
		return true
	}
	return s.started[container]
}

// allUp tells that main runs, and all other containers are ready, or have ended already.
func (s *starting) allUp(pod *corev1.Pod) bool {
	for _, c := range pod.Spec.Containers {
		up := s.runs(pod, c.Name)
		if probed := c.ReadinessProbe != nil || c.StartupProbe != nil; probed && c.Name != mainContainer {
			status := status(pod, c.Name)
			up = status != nil && status.Ready
		}
		if !up && terminated(pod, c.Name) == nil {
			return false
		}
	}
	return true
}

// imageOf is a container's image as the pod's spec has it.
func imageOf(pod *corev1.Pod, container string) string {
	for _, c := range slices.Concat(pod.Spec.InitContainers, pod.Spec.Containers) {
		if c.Name == container {
			return c.Image
		}
	}
	return ""
}
