package testcluster

import (
	"context"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/gofrs/flock"
)

// Tests share the lock, or have it alone. A test that wants it alone holds the gate while it waits, so that others don't pass by it.
// The files are outside of the cluster's folder, which goes, and only for this machine's cluster, which only root can use.
const (
	gateFile = "/run/signalman-k8s-tests.gate"
	lockFile = "/run/signalman-k8s-tests.lock"
)

// holders are the tests of this process that hold the lock, by name, and whether alone.
var holders = struct {
	sync.Mutex
	alone map[string]bool
}{alone: map[string]bool{}}

// hold takes the lock until the test's end, if neither the test nor one that it is part of has it.
func hold(t testing.TB, alone bool) {
	t.Helper()
	if name, has, ok := holder(t.Name()); ok {
		if alone && !has {
			t.Fatalf("%s shares the cluster, so that %s would wait for itself: call Alone first", name, t.Name())
		}
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), patience(t))
	defer cancel()
	gate, lock := flock.New(gateFile), flock.New(lockFile)
	take := func(f *flock.Flock) {
		t.Helper()
		try := f.TryRLockContext
		if alone {
			try = f.TryLockContext
		}
		if ok, err := try(ctx, look); err != nil || !ok {
			_ = gate.Close()
			t.Fatalf("the cluster is in use by another test (%s): %v; a test must not call Need before t.Parallel", f.Path(), err)
		}
	}
	take(gate)
	take(lock)
	holders.Lock()
	holders.alone[t.Name()] = alone
	holders.Unlock()
	if !alone {
		_ = gate.Close()
	}
	t.Cleanup(func() {
		holders.Lock()
		delete(holders.alone, t.Name())
		holders.Unlock()
		_ = lock.Close()
		_ = gate.Close()
	})
}

// holder gives the test that holds the lock for this one: itself, or one that it is part of.
func holder(test string) (name string, alone, ok bool) {
	holders.Lock()
	defer holders.Unlock()
	for name, alone := range holders.alone {
		if test == name || strings.HasPrefix(test, name+"/") {
			return name, alone, true
		}
	}
	return "", false, false
}

// patience is how long a test may wait for its turn: until shortly before its package's time is up, which would tell less.
func patience(t testing.TB) time.Duration {
	if timed, ok := t.(interface{ Deadline() (time.Time, bool) }); ok {
		if deadline, ok := timed.Deadline(); ok {
			return max(time.Second, time.Until(deadline)-limit)
		}
	}
	return 10 * time.Minute
}
