package testcluster

import (
	"bytes"
	"context"
	"crypto/sha256"
	"fmt"
	"strings"
	"sync"
	"testing"

	"github.com/gofrs/flock"

	"github.com/signalman-ci/signalman/internal/testimage"
)

// imageFile keeps processes apart that put the same image into the node.
const imageFile = "/run/signalman-k8s-tests.images"

// Load puts an image of this machine's Docker engine into the node; it goes with the test. Pods need another pull policy than Always.
func (c *Cluster) Load(t testing.TB, image string) {
	t.Helper()
	c.needOurs(t, "images can be put into its node")
	c.control(t, "load", image)
	t.Cleanup(func() { c.control(t, "unload", image) })
}

// Image gives the name of an image with bash and busybox, as testimage makes them, in the node. It stays there, for the next test.
func (c *Cluster) Image(t testing.TB) string {
	t.Helper()
	return c.keptImage(t, true)
}

// ImageWithoutBash is Image with busybox alone.
func (c *Cluster) ImageWithoutBash(t testing.TB) string {
	t.Helper()
	return c.keptImage(t, false)
}

var kept = struct {
	sync.Mutex
	names map[bool]string // with bash or without, once it is in the node
}{names: map[bool]string{}}

func (c *Cluster) keptImage(t testing.TB, withBash bool) string {
	t.Helper()
	c.needOurs(t, "images can be put into its node")
	kept.Lock()
	defer kept.Unlock()
	if name := kept.names[withBash]; name != "" {
		return name
	}
	engine := testimage.Engine(t)
	root, err := testimage.Root(withBash)
	if err != nil {
		t.Fatalf("cannot make a test image: %v", err)
	}
	// Named after its content: the node may have one of older sources.
	name := fmt.Sprintf("signalman-test-k8s:%.12x", sha256.Sum256(root))
	ctx, cancel := context.WithTimeout(context.Background(), limit)
	defer cancel()
	lock := flock.New(imageFile)
	if _, err := lock.TryLockContext(ctx, look); err != nil {
		t.Fatalf("cannot lock %s: %v", imageFile, err)
	}
	defer lock.Close()
	if !strings.Contains(c.NodeExec(t, "ctr", "images", "list", "-q"), "/"+name+"\n") {
		if err := engine.Import(ctx, name, bytes.NewReader(root), "ENV PATH=/usr/local/bin:/bin"); err != nil {
			t.Fatalf("cannot make a test image: %v", err)
		}
		c.control(t, "load", name)
		if err := engine.RemoveImage(ctx, name); err != nil {
			t.Errorf("cannot remove a test image from the Docker engine: %v", err)
		}
	}
	kept.names[withBash] = name
	return name
}
