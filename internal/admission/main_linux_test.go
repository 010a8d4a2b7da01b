package admission

import (
	"os"
	"testing"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) {
	if os.Getenv(inCgroup) != "" {
		os.Exit(childInCgroup())
	}
	goleak.VerifyTestMain(m)
}
