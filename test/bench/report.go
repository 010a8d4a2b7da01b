package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"strings"

	"github.com/signalman-ci/signalman/internal/hub/hubtest"
)

// figure is a line of the table.
type figure struct {
	what, value, target string
	met                 bool // for a figure with a target
	existing            string
}

type report struct {
	machine machine
	figures []figure
}

const intro = `# Benchmarks

Written by %s. One host runs all of it: the supervisor, its workers, and the hub, which takes its share of the
processors. Figures are medians unless they say otherwise, "95 %%" the 95th percentile, MB 1,000,000 bytes. The existing agent was
measured on the same machine through a hub on loopback.

Machine: %s, %d cores, Linux %s, %s, on %s; load average %s before and %s after.

`

const outro = `
What is measured:

- The hub hands a job over in the answer to a sync, and says every %s when it wants the next. The wait for that answer is the
  hub's and isn't part of any figure: times begin with the answer. The jobs were queued beforehand, so each was in the answer to the
  sync that follows the job before.
- The end of a job is the moment its result is at the hub: its whole log was acknowledged before.
- The first command is ` + "`echo $EPOCHREALTIME`" + `; the job goes on afterwards. The target is held against the later point, the arrival of
  its output at the hub's log service. The event's own timestamp has whole seconds only; what the command prints is finer.
- The home folder is empty, so that no profile of a user counts in; the system's /etc/profile does.
- A job in containers has main and one service, both of an image that examples/containers/build-image makes. By hand means the docker
  commands for the same containers, one after another: network create, run, run, and exec up to its output; then rm --force. The runs take turns, and what one takes longer than the
  other is the median over pairs that follow each other. The service ends as soon as it is told to.
- A job in a pod has main alone, of an image that the node has, in the cluster of make k8s-up (one node, on this machine). The pod's own time is from
  its creation until main is seen to run, both as a watch of the cluster tells it; what the job took besides is our share. The cluster's timestamps
  have whole seconds, so the mean of many runs is given for them.
- RSS is the resident size with all shared pages, as the kernel tells it; peaks are VmHWM. Targets for memory are held against it,
  for supervisor and worker in sum. "Own pages" (RssAnon) leaves out the pages of the binaries, which all workers of a host share.
- Bytes read are the supervisor's own count in /proc (rchar), which holds what it reads from the network too.
`

func (r report) markdown() string {
	var b strings.Builder
	m := r.machine
	fmt.Fprintf(&b, intro, "`make bench`", m.CPU, m.Cores, m.Kernel, m.Go, m.Date.Format("2006-01-02"), m.LoadBefore, m.LoadAfter)
	b.WriteString("| what | measured | target | | existing agent |\n|---|---|---|---|---|\n")
	for _, f := range r.figures {
		mark := ""
		if f.target != "–" {
			mark = map[bool]string{true: "met", false: "**missed**"}[f.met]
		}
		fmt.Fprintf(&b, "| %s | %s | %s | %s | %s |\n", f.what, f.value, f.target, mark, f.existing)
	}
	fmt.Fprintf(&b, outro, fmt.Sprintf("%.0f s", syncInterval.Seconds()))
	return b.String()
}

func megabytes(n int64) string { return fmt.Sprintf("%.1f MB", float64(n)/megabyte) }

func yesNo(b bool) string {
	if b {
		return "yes"
	}
	return "no"
}

// isStart tells whether a line of a log is a command's start.
func isStart(line []byte, directive string) bool {
	var e hubtest.Event
	return json.Unmarshal(line, &e) == nil && e.Event == "cmd_started" && e.Directive == directive
}

// closing ends a rig where a measurement returns.
func closing(r *rig, err *error) { *err = errors.Join(*err, r.close()) }
