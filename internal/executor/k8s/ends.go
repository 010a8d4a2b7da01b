package k8s

import (
	"fmt"
	"strings"

	corev1 "k8s.io/api/core/v1"

	"github.com/signalman-ci/signalman/internal/session/helper"
	"github.com/signalman-ci/signalman/shared/protocol"
)

// goneError is why nothing more can be run in the pod, said in one line.
type goneError struct{ text string }

func (e goneError) Error() string { return e.text }

// Is makes the helper's client try no more, and the runner start nothing more.
func (goneError) Is(target error) bool {
	return target == helper.ErrGone || target == protocol.ErrEnvironmentGone
}

// endOf tells why a pod, as it was seen last, runs nothing more, in a sentence without its full stop; "" while it may. gone is set when there is no
// such pod any more.
func endOf(pod *corev1.Pod, gone bool) string {
	node := "its node"
	if pod.Spec.NodeName != "" {
		node = "its node " + pod.Spec.NodeName
	}
	if c := condition(pod, corev1.DisruptionTarget); c != nil && c.Status == corev1.ConditionTrue {
		switch c.Reason {
		case corev1.PodReasonPreemptionByScheduler:
			return "The pod was preempted: " + sentence(c.Message, "a pod with a higher priority needed the room")
		case "DeletionByTaintManager":
			return fmt.Sprintf("The pod was deleted, as %s is lost or may no longer run it: %s", node, sentence(c.Message, "the node has a taint"))
		case "EvictionByEvictionAPI":
			return "The pod was evicted, as when a node is drained: " + sentence(c.Message, "somebody asked for it")
		case "DeletionByPodGC":
			return fmt.Sprintf("The pod was deleted, as %s is gone: %s", node, sentence(c.Message, "the node was removed"))
		case corev1.PodReasonTerminationByKubelet:
			return fmt.Sprintf("The pod was evicted by %s: %s", node, sentence(pod.Status.Message, c.Message))
		}
	}
	switch {
	case pod.Status.Reason == "Evicted":
		return fmt.Sprintf("The pod was evicted by %s: %s", node, sentence(pod.Status.Message, "the node lacks resources"))
	case pod.Status.Reason == "NodeLost":
		return fmt.Sprintf("The pod is lost, as %s doesn't answer: %s", node, sentence(pod.Status.Message, "the node doesn't report any more"))
	case gone, pod.DeletionTimestamp != nil:
		return "The pod was deleted by someone else, or with its namespace, while the job ran"
	}
	if phase := pod.Status.Phase; pod.Status.Reason != "" && (phase == corev1.PodFailed || phase == corev1.PodSucceeded) {
		return fmt.Sprintf("The pod was ended (%s): %s", pod.Status.Reason, sentence(pod.Status.Message, "Kubernetes says no more"))
	}
	if state := terminated(pod, mainContainer); state != nil {
		if state.ExitCode == 0 && state.Reason != "OOMKilled" { // the helper ends so when it is asked to
			return "The container main, where the job's commands run, was stopped from outside"
		}
		return "The container main, where the job's commands run, " + howItEnded(state, memoryLimit(pod, mainContainer))
	}
	if phase := pod.Status.Phase; phase == corev1.PodFailed || phase == corev1.PodSucceeded {
		return "The pod has ended: " + sentence(pod.Status.Message, string(phase))
	}
	return ""
}

// howItEnded goes on after a container's name.
func howItEnded(state *corev1.ContainerStateTerminated, memory string) string {
	if state.Reason == "OOMKilled" {
		if memory == "" {
			return "was killed for want of memory on its node; it has no limit of its own"
		}
		return fmt.Sprintf("was killed for want of memory, at its limit of %s (resources.limits.memory)", memory)
	}
	text := fmt.Sprintf("ended with code %d", state.ExitCode)
	if signal := state.ExitCode - 128; signal == 9 {
		text += " (it was killed)"
	}
	if state.Message != "" {
		text += ": " + inBrief(state.Message)
	}
	return text
}

// sentence is a text in brief without its full stop, or another one where there is none.
func sentence(text, instead string) string {
	if text = inBrief(text); text == "" {
		text = inBrief(instead)
	}
	return strings.TrimSuffix(text, ".")
}

// inBrief is a text as one line of bounded length.
func inBrief(text string) string {
	const most = 400
	runes := []rune(strings.Join(strings.Fields(strings.ToValidUTF8(text, "\uFFFD")), " "))
	if len(runes) > most {
		return string(runes[:most]) + "…"
	}
	return string(runes)
}

func condition(pod *corev1.Pod, kind corev1.PodConditionType) *corev1.PodCondition {
	for i, c := range pod.Status.Conditions {
		if c.Type == kind {
			return &pod.Status.Conditions[i]
		}
	}
	return nil
}

func status(pod *corev1.Pod, container string) *corev1.ContainerStatus {
	for i, s := range pod.Status.ContainerStatuses {
		if s.Name == container {
			return &pod.Status.ContainerStatuses[i]
		}
	}
	return nil
}

func terminated(pod *corev1.Pod, container string) *corev1.ContainerStateTerminated {
	if s := status(pod, container); s != nil {
		return s.State.Terminated
	}
	return nil
}

// memoryLimit of a container, as its spec has it; "" without.
func memoryLimit(pod *corev1.Pod, container string) string {
	for _, c := range pod.Spec.Containers {
		if limit, ok := c.Resources.Limits[corev1.ResourceMemory]; ok && c.Name == container {
			return limit.String()
		}
	}
	return ""
}
