package main

import (
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/signalman-ci/signalman/shared/protocol/conformance"
)

// TestConformance does what supervisor plugins check does.
func TestConformance(t *testing.T) {
	path := filepath.Join(t.TempDir(), "worker-example")
	if out, err := exec.Command("go", "build", "-o", path, ".").CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	conformance.Run(t, conformance.Worker{Path: path, Extra: map[string]string{"nice": "5"}})
}
