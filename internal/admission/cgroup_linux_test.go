package admission

import (
	"fmt"
	"math"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// inCgroup is set for the test's own binary when it is to join a cgroup and tell what is left there.
const inCgroup = "ADMISSION_TEST_CGROUP"

// childInCgroup is that.
func childInCgroup() int {
	if err := os.WriteFile(os.Getenv(inCgroup), []byte("0"), 0o600); err != nil {
		fmt.Println(err)
		return 1
	}
	available, err := availableMemory()
	fmt.Println(available, err)
	return 0
}

// A process in a cgroup with a limit has what that leaves.
func TestMemoryLimitOfARealCgroup(t *testing.T) {
	t.Parallel()
	const limit = 100 << 20
	set := func(dir, file string) error {
		return os.WriteFile(filepath.Join(dir, file), fmt.Append(nil, limit), 0o600)
	}
	dir := fmt.Sprintf("%s/signalman-admission-%d", cgroupV1.root, os.Getpid())
	err := os.Mkdir(dir, 0o755)
	if err == nil {
		err = set(dir, cgroupV1.limit)
	} else {
		dir = fmt.Sprintf("%s/signalman-admission-%d", cgroupV2.root, os.Getpid())
		if err = os.Mkdir(dir, 0o755); err == nil {
			err = set(dir, cgroupV2.limit)
		}
	}
	t.Cleanup(func() { _ = os.Remove(dir) })
	if err != nil {
		t.Skipf("no cgroup with a memory limit can be made here: %v", err)
	}
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), inCgroup+"="+filepath.Join(dir, "cgroup.procs"))
	out, err := cmd.CombinedOutput()
	require.NoError(t, err, "%s", out)
	var available uint64
	_, err = fmt.Sscanf(string(out), "%d <nil>", &available)
	require.NoError(t, err, "%s", out)
	assert.LessOrEqual(t, available, uint64(limit))
	assert.Greater(t, available, uint64(limit/10))
}

func TestMemoryLeftByCgroups(t *testing.T) {
	t.Parallel()
	for name, h := range map[string]hierarchy{"v1": cgroupV1, "v2": cgroupV2} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			h.root = t.TempDir()
			write := func(cgroup, limit string, used, file int) {
				dir := filepath.Join(h.root, cgroup)
				require.NoError(t, os.MkdirAll(dir, 0o755))
				for name, content := range map[string]string{
					h.limit: limit + "\n", h.usage: fmt.Sprintln(used),
					"memory.stat": fmt.Sprintf("anon 7\n%s %d\n%s %d\nshmem 5\n", h.activeFile, file, h.inactive, file),
				} {
					require.NoError(t, os.WriteFile(filepath.Join(dir, name), []byte(content), 0o600))
				}
			}
			assert.Equal(t, uint64(math.MaxUint64), h.left("/ci/agent"), "nothing is there")
			write("ci/agent", "max", 500, 10)
			assert.Equal(t, uint64(math.MaxUint64), h.left("/ci/agent"))
			write("ci", "1000", 900, 200)
			assert.Equal(t, uint64(500), h.left("/ci/agent"), "the one above counts, and what it caches of files can be had")
			assert.Equal(t, uint64(500), h.left("/ci/not/seen/here"))
			write("ci/agent", "100", 150, 0)
			assert.Equal(t, uint64(0), h.left("/ci/agent"), "over its limit")
			write("ci/agent", "100", 10, 20)
			assert.Equal(t, uint64(100), h.left("/ci/agent"))
		})
	}
}
