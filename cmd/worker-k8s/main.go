// Command worker-k8s runs one job's commands in a pod of a Kubernetes cluster. The supervisor starts it.
package main

import (
	"github.com/signalman-ci/signalman/internal/executor/k8s"
	"github.com/signalman-ci/signalman/internal/session/helperbin"
	"github.com/signalman-ci/signalman/shared/protocol"
)

func main() {
	protocol.Serve(k8s.New(helperbin.For))
}
