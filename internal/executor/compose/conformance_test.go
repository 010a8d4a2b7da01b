package compose_test

import (
	"testing"

	"github.com/signalman-ci/signalman/internal/testimage"
	"github.com/signalman-ci/signalman/shared/protocol"
	"github.com/signalman-ci/signalman/shared/protocol/conformance"
)

func TestComposeWorkerConforms(t *testing.T) {
	t.Parallel()
	image := testimage.Build(t, testimage.Engine(t), true)
	conformance.Run(t, conformance.Worker{
		Path:    testimage.Worker(t, "worker-compose"),
		Compose: &protocol.Compose{Containers: []protocol.Container{{Name: "main", Image: image}}},
	})
}
