package admission

import (
	"context"
	"errors"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/shirou/gopsutil/v4/mem"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/signalman-ci/signalman/internal/testdisk"
)

const patience = time.Minute

// anew makes a checker look again.
func (c *Checker) anew() {
	c.mu.Lock()
	defer c.mu.Unlock()
	clear(c.looks)
}

func check(t *testing.T, c *Checker, folders ...string) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	c.anew()
	if err := c.Check(ctx, folders...); err != nil {
		assert.NotContains(t, err.Error(), "\n")
		return err.Error()
	}
	return ""
}

func TestDiskThatFillsAndIsFreed(t *testing.T) {
	t.Parallel()
	dir := testdisk.Mount(t, testdisk.Limits{Bytes: 4 << 20})
	c := New(Floors{Disk: 2 << 20}, []string{dir})
	require.Empty(t, check(t, c))
	ballast := filepath.Join(dir, "ballast")
	require.NoError(t, os.WriteFile(ballast, make([]byte, 3<<20), 0o600))
	assert.Equal(t, fmt.Sprintf("only 1 MiB of disk free at %s (admission.min-disk is 2 MiB)", dir), check(t, c))
	require.NoError(t, os.Remove(ballast))
	assert.Empty(t, check(t, c))
}

func TestInodesThatRunOut(t *testing.T) {
	t.Parallel()
	dir := testdisk.Mount(t, testdisk.Limits{Bytes: 4 << 20, Inodes: 100})
	c := New(Floors{Disk: 1 << 20, Inodes: 50}, []string{dir})
	require.Empty(t, check(t, c))
	for i := range 60 {
		require.NoError(t, os.WriteFile(filepath.Join(dir, fmt.Sprint(i)), nil, 0o600))
	}
	assert.Equal(t, fmt.Sprintf("only 39 inodes free at %s (admission.min-inodes is 50)", dir), check(t, c), "the root has one")
	for i := range 60 {
		require.NoError(t, os.Remove(filepath.Join(dir, fmt.Sprint(i))))
	}
	assert.Empty(t, check(t, c))
}

// A file system without a count of inodes has enough of them.
func TestFileSystemWithoutACountOfInodes(t *testing.T) {
	t.Parallel()
	dir := testdisk.Mount(t, testdisk.Limits{Bytes: 4 << 20})
	assert.Empty(t, check(t, New(Floors{Inodes: 1 << 40}, []string{dir})))
}

func TestOneFileSystemIsToldOnceAndAllThatIsShortInOneLine(t *testing.T) {
	t.Parallel()
	one, two := t.TempDir(), t.TempDir()
	c := New(Floors{Disk: math.MaxInt64, Memory: math.MaxInt64}, []string{one, two},
		func() error { return nil }, func() error { return errors.New("limits can't be enforced") })
	said := check(t, c, filepath.Dir(one))
	assert.Regexp(t, `^only \d+ [GT]iB of disk free at `+one+` \(admission.min-disk is \d+ TiB\); `+
		`only \d+ [MGT]iB of memory available \(admission.min-memory is \d+ TiB\); limits can't be enforced$`, said)
	assert.NotContains(t, said, two)

	small := testdisk.Mount(t, testdisk.Limits{Bytes: 4 << 20})
	c = New(Floors{Disk: math.MaxInt64}, []string{one})
	said = check(t, c, small)
	assert.Contains(t, said, one)
	assert.Contains(t, said, "only 4 MiB of disk free at "+small, "another file system")
}

// A folder that isn't there is a reason not to take jobs; nothing is one if nothing is asked for.
func TestFolderThatIsGone(t *testing.T) {
	t.Parallel()
	gone := filepath.Join(t.TempDir(), "gone")
	assert.Equal(t, "cannot tell the free disk space at "+gone+": no such file or directory", check(t, New(Floors{Disk: 1}, []string{gone})))
	assert.Equal(t, "cannot tell the free disk space at "+gone+": no such file or directory", check(t, New(Floors{Inodes: 1}, nil), gone))
	assert.Empty(t, check(t, New(Floors{Memory: 1}, []string{gone})))
	assert.Empty(t, check(t, New(Floors{}, []string{gone})))
}

func TestMemory(t *testing.T) {
	t.Parallel()
	host, err := mem.VirtualMemory()
	require.NoError(t, err)
	assert.Empty(t, check(t, New(Floors{Memory: 1 << 20}, nil)))
	assert.Regexp(t, `^only \d+ [MG]iB of memory available \(admission.min-memory is \d+ .iB\)$`, check(t, New(Floors{Memory: host.Total + 1}, nil)))
}

// Slots that ask at the same time, and shortly after, share one look.
func TestSlotsShareALook(t *testing.T) {
	t.Parallel()
	var looks atomic.Int32
	c := New(Floors{Disk: 1, Memory: 1}, []string{t.TempDir()}, func() error {
		looks.Add(1)
		return nil
	})
	// A look holds for a time; the loop sees to it that the test's own slowness is no failure.
	require.Eventually(t, func() bool {
		c.anew()
		looks.Store(0)
		begun := time.Now()
		var wg sync.WaitGroup
		for range 50 {
			wg.Go(func() { assert.NoError(t, c.Check(context.Background())) })
		}
		wg.Wait()
		return time.Since(begun) < fresh && looks.Load() == 1
	}, patience, time.Millisecond)
	require.Eventually(t, func() bool {
		assert.NoError(t, c.Check(context.Background()))
		return looks.Load() == 2
	}, patience, 100*time.Millisecond, "a look doesn't hold for ever")
}

// A check that hangs keeps nobody, is not started again meanwhile, and counts once it has an answer.
func TestCheckThatHangs(t *testing.T) {
	t.Parallel()
	release := make(chan struct{})
	var looks atomic.Int32
	c := New(Floors{}, nil, func() error {
		looks.Add(1)
		<-release
		return errors.New("not now")
	})
	for n := 0; n < 3 || looks.Load() == 0; n++ { // the look may begin after some have given up
		ctx, cancel := context.WithTimeout(context.Background(), time.Millisecond)
		require.ErrorContains(t, c.Check(ctx), "no answer")
		cancel()
	}
	assert.Equal(t, int32(1), looks.Load())
	close(release)
	require.EqualError(t, c.Check(context.Background()), "not now")
}

func TestSize(t *testing.T) {
	t.Parallel()
	for n, want := range map[uint64]string{
		0: "0 B", 1000: "1000 B", 10 << 10: "10 KiB", 512 << 20: "512 MiB", 512<<20 - 1: "511 MiB", 1 << 30: "1 GiB", 1<<30 + 1<<29: "1536 MiB",
		5000: "5000 B", 20_000_000_000: "18 GiB", math.MaxUint64: "16777215 TiB",
	} {
		assert.Equal(t, want, size(n))
	}
}
