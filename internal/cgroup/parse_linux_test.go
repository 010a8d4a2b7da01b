package cgroup

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/signalman-ci/signalman/shared/protocol"
)

const (
	pureV2 = `22 1 0:20 / /proc rw,nosuid - proc proc rw
30 23 0:26 / /sys/fs/cgroup rw,nosuid,nodev,noexec,relatime shared:4 - cgroup2 cgroup2 rw,nsdelegate,memory_recursiveprot
`
	systemdHybrid = `30 23 0:26 / /sys/fs/cgroup ro,nosuid shared:8 - tmpfs tmpfs ro,mode=755
31 30 0:27 / /sys/fs/cgroup/unified rw,nosuid shared:9 - cgroup2 cgroup2 rw,nsdelegate
32 30 0:28 / /sys/fs/cgroup/systemd rw,nosuid shared:10 - cgroup cgroup rw,xattr,name=systemd
33 30 0:29 / /sys/fs/cgroup/cpu,cpuacct rw,nosuid shared:11 - cgroup cgroup rw,cpu,cpuacct
34 30 0:30 / /sys/fs/cgroup/memory rw,nosuid shared:12 - cgroup cgroup rw,memory
35 30 0:31 / /sys/fs/cgroup/freezer rw,nosuid shared:13 - cgroup cgroup rw,freezer
36 30 0:30 / /mnt/memory rw,nosuid shared:12 - cgroup cgroup rw,memory
`
	containerV1 = `90 80 0:30 /docker/c0ffee /sys/fs/cgroup/memory ro,nosuid master:12 - cgroup cgroup rw,memory
91 80 0:31 /docker/c0ffee /sys/fs/cgroup/pids\040and\040more ro master:13 - cgroup cgroup rw,pids
`
	onlyNamed = "32 30 0:28 / /sys/fs/cgroup/systemd rw - cgroup cgroup rw,name=systemd\n33 30 0:28 / /sys/fs/cgroup/x rw - cgroup cgroup rw,freezer\n"
)

func TestHierarchies(t *testing.T) {
	for name, c := range map[string]struct {
		mountinfo, membership string
		own                   []string // "" where it can't be seen
	}{
		"v2":             {pureV2, "0::/system.slice/signalman.service\n", []string{"/sys/fs/cgroup/system.slice/signalman.service"}},
		"v2, top":        {pureV2, "0::/\n", []string{"/sys/fs/cgroup"}},
		"v2, out of see": {pureV2, "0::/../other\n", []string{""}},
		"systemd's hybrid": {systemdHybrid, "9:name=systemd:/a\n4:memory:/b\n3:cpu,cpuacct:/c\n0::/a\n", []string{
			"/sys/fs/cgroup/unified/a", "/sys/fs/cgroup/cpu,cpuacct/c", "/sys/fs/cgroup/memory/b",
		}},
		"a container, v1":        {containerV1, "4:memory:/docker/c0ffee\n8:pids:/docker/c0ffee/x:y\n", []string{"/sys/fs/cgroup/memory", "/sys/fs/cgroup/pids and more/x:y"}},
		"a neighbour's":          {containerV1, "4:memory:/docker/c0ffee2\n8:pids:/\n", []string{"", ""}},
		"no controllers":         {onlyNamed, "9:name=systemd:/a\n", []string{"/sys/fs/cgroup/systemd/a"}},
		"nothing":                {"22 1 0:20 / /proc rw - proc proc rw\n", "0::/\n", nil},
		"nonsense":               {"cgroup\n\n - \n1 2 - cgroup\n1 2 3 4 5 - cgroup2\n", "::\nx\n", nil},
		"not in that membership": {pureV2, "4:memory:/b\n", []string{""}},
	} {
		t.Run(name, func(t *testing.T) {
			var own []string
			for _, h := range usable(hierarchies([]byte(c.mountinfo))) {
				dir, ok := h.folderOf([]byte(c.membership))
				assert.Equal(t, dir != "", ok)
				own = append(own, dir)
			}
			assert.Equal(t, c.own, own)
		})
	}
}

func TestSize(t *testing.T) {
	for bytes, want := range map[int64]string{
		1: "1 bytes", 64 << 20: "64 MiB", 3 << 29: "1.5 GiB", 100_000_000: "95.4 MiB", 2 << 40: "2 TiB", 1 << 52: "4096 TiB", 2048: "2 KiB",
	} {
		assert.Equal(t, want, Size(bytes))
	}
}

// fakeKernel makes files as the kernel would.
func fakeKernel(t *testing.T, dir string, files ...string) {
	t.Helper()
	require.NoError(t, os.MkdirAll(dir, 0o755))
	for _, file := range files {
		name, content, _ := strings.Cut(file, "=")
		require.NoError(t, os.WriteFile(filepath.Join(dir, name), []byte(content), 0o644))
	}
}

func content(t *testing.T, parts ...string) string {
	t.Helper()
	raw, err := os.ReadFile(filepath.Join(parts...))
	require.NoError(t, err)
	return strings.TrimSpace(string(raw))
}

// This machine's v2 has no controllers to limit with: what would be written is looked at in a folder.
func TestLimitsOfV2(t *testing.T) {
	mount := t.TempDir()
	folder := filepath.Join(mount, "unit", "signalman-x")
	group := filepath.Join(folder, "job-j")
	for _, dir := range []string{filepath.Dir(folder), folder, group} {
		fakeKernel(t, dir, "cgroup.controllers=cpuset cpu io memory pids", "cgroup.subtree_control=memory pids cpu", procsFile)
	}
	controllers := []string{"memory.max", "memory.swap.max", "cpu.max", "pids.max"}
	worker, job := filepath.Join(group, workerName), filepath.Join(group, jobName)
	fakeKernel(t, worker, controllers...)
	fakeKernel(t, job, controllers...)
	h := &Host{name: "signalman-x", wanted: wanted(), groups: map[string]*Group{},
		seats: []seat{{&hierarchy{v2: true, mount: mount, root: "/"}, filepath.Dir(folder), folder}}}

	g, err := h.Create("j", protocol.Limits{Memory: 64 << 20, MilliCPUs: 1500, Pids: 100})
	require.NoError(t, err)
	assert.Equal(t, []string{job}, g.JobDirs())
	assert.Equal(t, "67108864", content(t, job, "memory.max"))
	assert.Equal(t, "0", content(t, job, "memory.swap.max"))
	assert.Equal(t, "150000 100000", content(t, job, "cpu.max"))
	assert.Equal(t, "100", content(t, job, "pids.max"))
	assert.Equal(t, "67108864", content(t, worker, "memory.max"))
	assert.Equal(t, "max", content(t, worker, "cpu.max"))
	assert.Equal(t, "max", content(t, worker, "pids.max"))

	_, err = h.Create("j", protocol.Limits{MilliCPUs: 5})
	require.NoError(t, err)
	assert.Equal(t, "max", content(t, job, "memory.max"))
	assert.Equal(t, "max", content(t, job, "memory.swap.max"))
	assert.Equal(t, "5000 1000000", content(t, job, "cpu.max"))
	assert.Equal(t, "max", content(t, job, "pids.max"))

	require.NoError(t, os.Remove(filepath.Join(job, "memory.swap.max"))) // no swap accounting
	_, err = h.Create("j", protocol.Limits{Memory: 1 << 20})
	require.NoError(t, err)

	// A controller that isn't passed down.
	for _, dir := range []string{worker, job} {
		require.NoError(t, os.Remove(filepath.Join(dir, "cpu.max")))
	}
	for _, dir := range []string{filepath.Dir(folder), folder, group} {
		fakeKernel(t, dir, "cgroup.controllers=memory pids", "cgroup.subtree_control=memory pids")
	}
	_, err = h.Create("j", protocol.Limits{MilliCPUs: 1500, Memory: 1 << 20})
	require.EqualError(t, err, "cannot hold a job to its [limits] cpus of 1.5: there is no cgroup controller cpu here; "+
		"a systemd unit needs Delegate=yes; without the limit the job can run")
	_, err = h.Create("j", protocol.Limits{Pids: 1})
	require.NoError(t, err)
	assert.Equal(t, "cgroup v2 at "+mount+"/unit, controllers memory pids", h.Describe())
}

// What happens in cgroups below counts, in v2 as the kernel sums it up, in v1 by our own sum.
func TestEvents(t *testing.T) {
	v2, v1 := filepath.Join(t.TempDir(), "v2"), filepath.Join(t.TempDir(), "v1")
	fakeKernel(t, v2, "cgroup.controllers", "memory.events=low 0\nmax 7\noom 5\noom_kill 3\noom_group_kill 1\n", "memory.events.local=oom 2\n", "pids.events=max 4\n")
	fakeKernel(t, filepath.Join(v2, "below"), "memory.events=oom_kill 3\n", "pids.events=max 1\n")
	fakeKernel(t, v1, "memory.oom_control=oom_kill_disable 0\nunder_oom 0\noom_kill 2\n", "memory.limit_in_bytes=67108864\n", "memory.max_usage_in_bytes=60000000\n")
	fakeKernel(t, filepath.Join(v1, "below"), "memory.oom_control=oom_kill 1\n")
	e, err := EventsOf([]string{v2})
	require.NoError(t, err)
	assert.Equal(t, Events{OOMKills: 3, AtLimit: true, PidsRefused: 5}, e)
	e, err = EventsOf([]string{v1})
	require.NoError(t, err)
	assert.Equal(t, Events{OOMKills: 3}, e)
	e, err = EventsOf([]string{v1, v2, filepath.Join(v1, "gone")})
	require.NoError(t, err)
	assert.Equal(t, Events{OOMKills: 6, AtLimit: true, PidsRefused: 5}, e)
	fakeKernel(t, v1, "memory.max_usage_in_bytes=67100000\n")
	e, err = EventsOf([]string{v1})
	require.NoError(t, err)
	assert.True(t, e.AtLimit)
	fakeKernel(t, v1, "memory.limit_in_bytes=many")
	_, err = EventsOf([]string{v1})
	require.ErrorContains(t, err, "cannot read the events of a cgroup")
}

func TestGoneIsEmpty(t *testing.T) {
	gone := filepath.Join(t.TempDir(), "gone")
	require.NoError(t, Kill(context.Background(), []string{gone}))
	require.NoError(t, removeTree(context.Background(), gone))
}

// Each way of having no cgroups gives one line, which says what to do if that is known.
func TestRefusals(t *testing.T) {
	proc := t.TempDir()
	claim := func(seat) error { return &os.PathError{Op: "mkdir", Path: "x", Err: syscall.EROFS} }
	_, err := look(proc, "x", claim)
	require.ErrorContains(t, err, "cannot tell what is mounted")
	fakeKernel(t, filepath.Join(proc, "self"), "mountinfo")
	_, err = look(proc, "x", claim)
	require.ErrorContains(t, err, "cannot use cgroups: open ")
	fakeKernel(t, filepath.Join(proc, "self"), "cgroup=0::/unit\n")
	_, err = look(proc, "x", claim)
	require.EqualError(t, err, "cannot use cgroups: none are mounted; mount cgroup2 at /sys/fs/cgroup")
	mount := t.TempDir()
	fakeKernel(t, filepath.Join(mount, "unit"), procsFile)
	fakeKernel(t, filepath.Join(proc, "self"), "mountinfo=1 2 0:3 / "+mount+" rw - cgroup2 cgroup2 rw\n")
	_, err = look(proc, "x", claim)
	require.EqualError(t, err, "cannot use cgroups: write to "+mount+"/unit: read-only file system; in a container, give it a cgroup tree that it may write to")
	_, err = look(proc, "x", func(s seat) error {
		if s.base != mount {
			return syscall.ENOSPC
		}
		return nil
	})
	require.ErrorContains(t, err, mount+"/unit: no space left on device", "the top lacks its "+procsFile)
	fakeKernel(t, mount, procsFile)
	h, err := look(proc, "x", func(s seat) error {
		if s.base != mount {
			return syscall.ENOSPC
		}
		return nil
	})
	require.NoError(t, err)
	assert.Equal(t, mount, h.seats[0].base, "the top, where our own cgroup takes nothing")
}
