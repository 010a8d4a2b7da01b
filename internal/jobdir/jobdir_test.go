package jobdir

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/signalman-ci/signalman/internal/process"
	"github.com/signalman-ci/signalman/internal/testdisk"
)

func create(t *testing.T, jobs, id string, slot int) *Folder {
	t.Helper()
	f, err := Create(jobs, id, slot)
	require.NoError(t, err)
	return f
}

// names lists a folder.
func names(t *testing.T, dir string) []string {
	t.Helper()
	entries, err := os.ReadDir(dir)
	require.NoError(t, err)
	out := []string{}
	for _, e := range entries {
		out = append(out, e.Name())
	}
	return out
}

func TestFolderIsAllThatASupervisorNeeds(t *testing.T) {
	jobs := filepath.Join(t.TempDir(), "jobs")
	f := create(t, jobs, "a-job", 3)
	worker := Worker{Executor: "shell", Process: process.Identity{PID: 4, Start: 5, Boot: "b"}, Network: "unix", Address: "/s", Protocol: 1}
	require.NoError(t, f.Update(func(s *State) {
		s.Worker, s.Acked, s.AckedOffset, s.LostTo, s.StopRequested = &worker, 10, 999, 12, true
	}))
	require.NoError(t, f.SaveRequest([]byte("{}")))

	again, err := Open(filepath.Join(jobs, "a-job"))
	require.NoError(t, err)
	want := f.State()
	got := again.State()
	assert.True(t, want.Taken.Equal(got.Taken))
	got.Taken = want.Taken
	assert.Equal(t, want, got)
	assert.Equal(t, "a-job", again.ID())
	raw, err := again.Request()
	require.NoError(t, err)
	assert.Equal(t, "{}", string(raw))
	for _, name := range []string{"job.json", "request.json"} {
		info, err := os.Stat(filepath.Join(jobs, "a-job", name))
		require.NoError(t, err)
		assert.Equal(t, fs.FileMode(0o600), info.Mode(), name)
	}
	assert.Equal(t, []string{"acked.json", "job.json", "request.json", "tmp"}, names(t, filepath.Join(jobs, "a-job")), "no temporary files are left")
}

func TestRequestThatWasNotHad(t *testing.T) {
	_, err := create(t, t.TempDir(), "x", 1).Request()
	require.ErrorIs(t, err, fs.ErrNotExist)
}

func TestCreateAnew(t *testing.T) {
	jobs := t.TempDir()
	f := create(t, jobs, "x", 1)
	require.NoError(t, os.WriteFile(f.EventsPath(), []byte("old"), 0o600))
	require.NoError(t, f.Update(func(s *State) { s.Acked = 7 }))
	_, err := Create(jobs, "x", 2)
	require.ErrorIs(t, err, ErrInProgress, "a job that isn't over loses nothing")
	assert.FileExists(t, f.EventsPath())

	require.NoError(t, f.Finish())
	f = create(t, jobs, "x", 2)
	assert.NoFileExists(t, f.EventsPath())
	assert.Zero(t, f.State().Acked)
	assert.DirExists(t, f.TempPath())
}

// An id that is no name gets a folder all the same: its job has to end as failed.
func TestBadIDs(t *testing.T) {
	for _, id := range []string{
		"", ".", "..", "/", "../x", "a/b", "/etc/passwd", `a\b`, "a b", "a\nb", "a\x00b", "ä", "~", "$HOME", "*",
		strings.Repeat("x", 129), strings.Repeat("x", 1<<20),
	} {
		name := fmt.Sprintf("%.20q", id)
		err := CheckID(id)
		require.Error(t, err, name)
		assert.NotContains(t, err.Error(), "\n")
		assert.Less(t, len(err.Error()), 1000)

		jobs := filepath.Join(t.TempDir(), "jobs")
		f := create(t, jobs, id, 1)
		require.Equal(t, []string{"jobs"}, names(t, filepath.Dir(jobs)), name)
		require.Len(t, names(t, jobs), 1, name)
		again, err := Open(filepath.Join(jobs, names(t, jobs)[0]))
		require.NoError(t, err, name)
		assert.Equal(t, id, again.ID())
		folders, broken, err := Unfinished(jobs)
		require.NoError(t, err)
		assert.Empty(t, broken)
		assert.Len(t, folders, 1)
		require.NoError(t, f.Remove())
		assert.Empty(t, names(t, jobs))
	}
	for _, id := range []string{"a", "A-1_b.c", "...", "-", strings.Repeat("x", 128)} {
		assert.NoError(t, CheckID(id))
	}
}

// An id that looks like a folder that was set aside must not be overlooked.
func TestIDWithTheSuffixOfBrokenFolders(t *testing.T) {
	jobs := t.TempDir()
	create(t, jobs, "x.broken", 1)
	folders, broken, err := Unfinished(jobs)
	require.NoError(t, err)
	assert.Empty(t, broken)
	require.Len(t, folders, 1)
	assert.Equal(t, "x.broken", folders[0].ID())
}

// A reader sees the old content or the new one, never a part; so does one after a crash.
func TestUpdateIsAtomic(t *testing.T) {
	jobs := t.TempDir()
	f := create(t, jobs, "x", 1)
	stop := make(chan struct{})
	var readers sync.WaitGroup
	readers.Go(func() {
		last := int64(0)
		for {
			again, err := Open(filepath.Join(jobs, "x"))
			if !assert.NoError(t, err) {
				return
			}
			if !assert.GreaterOrEqual(t, again.State().Acked, last) {
				return
			}
			last = again.State().Acked
			select {
			case <-stop:
				return
			default:
			}
		}
	})
	var writers sync.WaitGroup
	for range 4 {
		writers.Go(func() {
			for range 50 {
				assert.NoError(t, f.Update(func(s *State) { s.Acked++; s.Outcome = strings.Repeat("x", int(s.Acked*50)) }))
			}
		})
	}
	writers.Wait()
	close(stop)
	readers.Wait()
	assert.EqualValues(t, 200, f.State().Acked)
}

// What can't be written isn't taken for written.
func TestUpdateThatFails(t *testing.T) {
	jobs := t.TempDir()
	f := create(t, jobs, "x", 1)
	require.NoError(t, os.RemoveAll(filepath.Join(jobs, "x")))
	err := f.Update(func(s *State) { s.Acked = 5 })
	require.ErrorContains(t, err, "cannot write ")
	assert.Zero(t, f.State().Acked)
}

func TestWriteFileLeavesNothingBehind(t *testing.T) {
	dir := t.TempDir()
	require.NoError(t, os.Mkdir(filepath.Join(dir, "target"), 0o700))
	require.NoError(t, os.WriteFile(filepath.Join(dir, "target", "x"), nil, 0o600))
	require.Error(t, WriteFile(filepath.Join(dir, "target"), []byte("text")), "a folder is in the way")
	assert.Equal(t, []string{"target"}, names(t, dir))
}

func TestFinishRemovesWhatAWriteLeft(t *testing.T) {
	f := create(t, t.TempDir(), "job", 1)
	torn := filepath.Join(f.path, ".new-1234")
	require.NoError(t, os.WriteFile(torn, []byte(`{"half`), 0o600))
	require.NoError(t, f.Finish())
	assert.NoFileExists(t, torn)
	assert.FileExists(t, filepath.Join(f.path, "job.json"))
}

func TestUnfinished(t *testing.T) {
	jobs := t.TempDir()
	begin := time.Now()
	for i, id := range []string{"z-first", "a-second", "m-third", "done"} {
		f := create(t, jobs, id, 1)
		require.NoError(t, f.Update(func(s *State) { s.Taken = begin.Add(time.Duration(i) * time.Second) }))
		if id == "done" {
			require.NoError(t, f.Finish())
			require.NoError(t, f.SaveRequest([]byte("secret"))) // as if its supervisor had died before the removal
		}
	}
	for name, content := range map[string]string{
		"cut":        `{"job_id":"cut","slo`,
		"empty":      ``,
		"null":       `null`,
		"other":      `{"job_id":"somebody else","slot":1}`,
		"no-slot":    `{"job_id":"no-slot"}`,
		"many-slots": `{"job_id":"many-slots","slot":1000000000}`,
		"minus":      `{"job_id":"minus","slot":-1}`,
	} {
		require.NoError(t, os.Mkdir(filepath.Join(jobs, name), 0o700))
		require.NoError(t, os.WriteFile(filepath.Join(jobs, name, "job.json"), []byte(content), 0o600))
	}
	require.NoError(t, os.Mkdir(filepath.Join(jobs, "bare"), 0o700))
	require.NoError(t, os.WriteFile(filepath.Join(jobs, "stray-file"), nil, 0o600))
	require.NoError(t, os.Mkdir(filepath.Join(jobs, "old.broken"), 0o700))

	folders, broken, err := Unfinished(jobs)
	require.NoError(t, err)
	ids := []string{}
	for _, f := range folders {
		ids = append(ids, f.ID())
	}
	assert.Equal(t, []string{"z-first", "a-second", "m-third"}, ids, "oldest first")
	assert.NoFileExists(t, filepath.Join(jobs, "done", "request.json"))
	found := []string{}
	for path, why := range broken {
		found = append(found, filepath.Base(path))
		assert.NotContains(t, why.Error(), "\n")
	}
	assert.ElementsMatch(t, []string{"cut", "empty", "null", "other", "no-slot", "many-slots", "minus", "bare", "stray-file"}, found)

	for path := range broken {
		aside, err := SetAside(path)
		require.NoError(t, err)
		assert.Equal(t, path+".broken", aside)
		assert.NoFileExists(t, path)
	}
	_, broken, err = Unfinished(jobs)
	require.NoError(t, err)
	assert.Empty(t, broken, "what was set aside is left alone")
}

func TestNoJobsYet(t *testing.T) {
	missing := filepath.Join(t.TempDir(), "none")
	folders, broken, err := Unfinished(missing)
	require.NoError(t, err)
	assert.Empty(t, folders)
	assert.Empty(t, broken)
	require.NoError(t, Sweep(missing, 0))
}

// Only a folder with nothing of its job in it yet is one that can just go.
func TestUnborn(t *testing.T) {
	jobs := t.TempDir()
	path := filepath.Join(jobs, "x")
	require.False(t, Unborn(path), "there is none")
	require.NoError(t, os.MkdirAll(filepath.Join(path, "tmp"), 0o700))
	require.NoError(t, os.WriteFile(filepath.Join(path, ".new-1"), []byte("{"), 0o600))
	require.True(t, Unborn(path))
	for _, name := range []string{"job.json", "acked.json", "request.json", "events.jsonl", "a-stranger's"} {
		require.NoError(t, os.WriteFile(filepath.Join(path, name), nil, 0o600))
		require.False(t, Unborn(path), name)
		require.NoError(t, os.Remove(filepath.Join(path, name)))
	}
}

func TestSetAside(t *testing.T) {
	jobs := t.TempDir()
	for range 2 { // the second replaces the first
		f := create(t, jobs, "x", 1)
		require.NoError(t, f.SaveRequest([]byte("secret")))
		require.NoError(t, os.WriteFile(f.EventsPath(), []byte("log"), 0o600))
		aside, err := SetAside(filepath.Join(jobs, "x"))
		require.NoError(t, err)
		assert.Equal(t, []string{"acked.json", "events.jsonl", "job.json"}, names(t, aside), "no secrets are kept")
	}
	assert.Equal(t, []string{"x.broken"}, names(t, jobs))
	_, err := SetAside(filepath.Join(jobs, "none"))
	require.ErrorIs(t, err, fs.ErrNotExist)
}

func TestFinishRemovesSecrets(t *testing.T) {
	f := create(t, t.TempDir(), "x", 1)
	require.NoError(t, f.SaveRequest([]byte("secret")))
	require.NoError(t, os.WriteFile(filepath.Join(f.TempPath(), "key"), []byte("secret"), 0o600))
	require.NoError(t, os.WriteFile(f.EventsPath(), []byte("log"), 0o600))
	// What a supervisor leaves that dies over a file.
	require.NoError(t, os.WriteFile(filepath.Join(filepath.Dir(f.EventsPath()), ".new-1"), []byte("half a secret"), 0o600))
	require.NoError(t, f.Finish())
	assert.Equal(t, []string{"acked.json", "events.jsonl", "job.json"}, names(t, filepath.Dir(f.EventsPath())))
	assert.WithinDuration(t, time.Now(), f.State().Done, time.Hour)
	require.NoError(t, f.Finish(), "it can be repeated")
}

func TestSweep(t *testing.T) {
	jobs := t.TempDir()
	long := time.Now().Add(-2 * time.Hour)
	ended := create(t, jobs, "ended-long-ago", 1)
	require.NoError(t, ended.Update(func(s *State) { s.Done = long }))
	require.NoError(t, create(t, jobs, "just-ended", 1).Finish())
	running := create(t, jobs, "running", 1)
	require.NoError(t, running.Update(func(s *State) { s.Taken = long }))
	for name, when := range map[string]time.Time{"old.broken": long, "new.broken": time.Now(), "unreadable": long} {
		path := filepath.Join(jobs, name)
		require.NoError(t, os.Mkdir(path, 0o700))
		require.NoError(t, os.Chtimes(path, when, when))
	}
	require.NoError(t, Sweep(jobs, time.Hour))
	assert.Equal(t, []string{"just-ended", "new.broken", "running", "unreadable"}, names(t, jobs))
	require.NoError(t, Sweep(jobs, 0))
	assert.Equal(t, []string{"running", "unreadable"}, names(t, jobs))
}

func TestIgnoreMissing(t *testing.T) {
	require.NoError(t, ignoreMissing(fmt.Errorf("x: %w", fs.ErrNotExist)))
	require.Error(t, ignoreMissing(errors.New("x")))
}

// On a disk without a free byte or inode the folder's state can still be changed, as a whole.
func TestStateOnAFullDisk(t *testing.T) {
	for name, fill := range map[string]func(t *testing.T, dir string){
		"bytes": func(t *testing.T, dir string) { testdisk.Fill(t, dir) },
		"inodes": func(t *testing.T, dir string) {
			for i := 0; ; i++ {
				if err := os.WriteFile(filepath.Join(dir, fmt.Sprint("ballast", i)), nil, 0o600); err != nil {
					require.ErrorIs(t, err, syscall.ENOSPC)
					return
				}
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			dir := testdisk.Mount(t, testdisk.Limits{Bytes: 1 << 20, Inodes: 50})
			f := create(t, dir, "a-job", 1)
			fill(t, dir)
			before := names(t, filepath.Join(dir, "a-job"))
			require.ErrorIs(t, f.SaveRequest([]byte("{}")), syscall.ENOSPC, "it is full")
			worker := Worker{
				Executor: strings.Repeat("e", 60), Process: process.Identity{PID: 1 << 22, Start: 1 << 60, Boot: strings.Repeat("b", 36)},
				Network: "unix", Address: strings.Repeat("s", 107), Protocol: 1,
			}
			require.NoError(t, f.Update(func(s *State) { s.Worker, s.StopRequested, s.LogFull = &worker, true, true }))
			require.NoError(t, f.Note(func(s *State) { s.Acked, s.AckedOffset, s.LostTo = 1<<60, 1<<60, 1<<60 }))
			require.NoError(t, f.Update(func(s *State) { s.Outcome, s.Worker = "stopped", nil }))
			assert.Equal(t, before, names(t, filepath.Join(dir, "a-job")))
			again, err := Open(filepath.Join(dir, "a-job"))
			require.NoError(t, err)
			assert.Equal(t, State{
				JobID: "a-job", Slot: 1, Taken: again.State().Taken, StopRequested: true, LogFull: true,
				Acked: 1 << 60, AckedOffset: 1 << 60, LostTo: 1 << 60, Outcome: "stopped",
			}, again.State())
			require.NoError(t, f.Finish())
			again, err = Open(filepath.Join(dir, "a-job"))
			require.NoError(t, err)
			assert.False(t, again.State().Done.IsZero())

			_, err = Create(dir, "another", 2)
			require.ErrorIs(t, err, syscall.ENOSPC)
			assert.NoDirExists(t, filepath.Join(dir, "another"), "a start would find it broken")
		})
	}
}

// What doesn't fit where it is stays as it was.
func TestStateThatOutgrowsAFullDisk(t *testing.T) {
	dir := testdisk.Mount(t, testdisk.Limits{Bytes: 1 << 20})
	f := create(t, dir, "a-job", 1)
	free := testdisk.Fill(t, dir)
	require.ErrorIs(t, f.Update(func(s *State) { s.Outcome = strings.Repeat("x", 5000) }), syscall.ENOSPC)
	again, err := Open(filepath.Join(dir, "a-job"))
	require.NoError(t, err)
	assert.Empty(t, again.State().Outcome+f.State().Outcome)
	free()
	require.NoError(t, f.Update(func(s *State) { s.Outcome = strings.Repeat("x", 5000) }))
}

// What others have written fits into job.json, which has to stay within its size.
func TestLine(t *testing.T) {
	for text, want := range map[string]string{
		"": "", "a\n\tb\r\n c\n": "a b c", "a\x1b[31mb\x00": "a [31mb", "\xff": "\uFFFD", "grün": "grün",
	} {
		assert.Equal(t, want, Line(text))
	}
	long := Line(strings.Repeat("ü", 1000))
	assert.True(t, utf8.ValidString(long))
	assert.LessOrEqual(t, len(long), longestText+len("…"))
	assert.True(t, strings.HasSuffix(long, "ü…"))
}

// The last words about a job are noted on a full disk, too: the file has its size from the first.
func TestStateKeepsItsSize(t *testing.T) {
	f, err := Create(t.TempDir(), "job", 1)
	require.NoError(t, err)
	size := func() int64 {
		info, err := os.Stat(filepath.Join(f.path, "job.json"))
		require.NoError(t, err)
		return info.Size()
	}
	before := size()
	worst := Line(strings.Repeat("<", 1000)) // six bytes each in JSON
	require.NoError(t, f.Update(func(s *State) { s.Reason, s.Outcome, s.Ended = worst, "failed", time.Now() }))
	assert.Equal(t, before, size())
}
