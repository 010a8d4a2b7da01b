package k8s

import (
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
)

func TestHello(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	start := time.Now()
	s := w.shell()
	t.Log("shell after", time.Since(start))
	out, exit := w.run(s, "echo hello $HOSTTYPE; pwd; tty; shopt login_shell; ps")
	t.Log(out, exit, w.log.all())
	t.Log(w.kubectl("get", "pod", w.podName(), "-o", "yaml"))
	start = time.Now()
	w.end()
	t.Log("closed after", time.Since(start))
	assert.NotEmpty(t, out)
}
