//go:build unix

package plugins

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/signalman-ci/signalman/internal/filewatch"
	"github.com/signalman-ci/signalman/internal/pluginhost"
)

const patience = 90 * time.Second

func deadline(t *testing.T) context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	t.Cleanup(cancel)
	return ctx
}

// elfHeader is the beginning of a program for some processor: what the kernel looks at.
func elfHeader(kind, machine byte) string {
	return "\x7fELF\x02\x01\x01" + strings.Repeat("\x00", 9) + string([]byte{kind, 0, machine, 0}) + strings.Repeat("\x00", 44)
}

func TestProblems(t *testing.T) {
	for name, test := range map[string]struct {
		make func(t *testing.T, path string)
		want string // a part of it; "": it can be run
	}{
		"script":                  {func(t *testing.T, path string) { write(t, path, script, 0o700) }, ""},
		"script with an argument": {func(t *testing.T, path string) { write(t, path, "#! /usr/bin/env sh -e\n", 0o755) }, ""},
		"group-writable":          {func(t *testing.T, path string) { write(t, path, script, 0o775) }, ""},
		"no x": {func(t *testing.T, path string) { write(t, path, script, 0o644) },
			"it is not executable; run: chmod +x "},
		"text": {func(t *testing.T, path string) { write(t, path, "Hällo, I'm no program.\n", 0o755) },
			"it is a text file; a script needs #! and its interpreter in the first line"},
		"long text": {func(t *testing.T, path string) { write(t, path, strings.Repeat("aä", 1000), 0o755) }, "it is a text file"},
		"empty":     {func(t *testing.T, path string) { write(t, path, "", 0o755) }, "it is empty"},
		"no interpreter": {func(t *testing.T, path string) { write(t, path, "#!\n", 0o755) },
			"its first line, #!, names no interpreter"},
		"missing interpreter": {func(t *testing.T, path string) { write(t, path, "#!/nowhere/python3 -u\n", 0o755) },
			"its interpreter isn't there: /nowhere/python3"},
		"from Windows": {func(t *testing.T, path string) { write(t, path, "#!/bin/sh\r\necho\r\n", 0o755) },
			`its lines end in \r\n`},
		"bytes": {func(t *testing.T, path string) { write(t, path, "\x00\x01\x02", 0o755) },
			"it is neither a program for this system nor a script"},
		"world-writable": {func(t *testing.T, path string) { write(t, path, script, 0o757) },
			"every user of this host may write to the file "},
		"world-writable folder": {func(t *testing.T, path string) {
			write(t, path, script, 0o755)
			require.NoError(t, os.Chmod(filepath.Dir(path), 0o777|os.ModeSticky))
		}, "every user of this host may write to the folder "},
		"link to a world-writable file": {func(t *testing.T, path string) {
			elsewhere := filepath.Join(t.TempDir(), "x")
			write(t, elsewhere, script, 0o777)
			require.NoError(t, os.Symlink(elsewhere, path))
		}, "every user of this host may write to the file "},
		"link to nowhere": {func(t *testing.T, path string) { require.NoError(t, os.Symlink("gone", path)) },
			"it is a symlink that leads nowhere (to gone)"},
		"link": {func(t *testing.T, path string) { require.NoError(t, os.Symlink("/bin/sh", path)) }, ""},
		"pipe": {func(t *testing.T, path string) { require.NoError(t, exec.Command("mkfifo", path).Run()) }, "it is no file"},
	} {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(folder(t), "worker-mine")
			test.make(t, path)
			f := Finder{Own: folder(t), Dirs: []string{filepath.Dir(path)}}
			_, err := f.Find("mine")
			list := f.List()
			require.Len(t, list, 1)
			if test.want == "" {
				require.NoError(t, err)
				assert.Empty(t, list[0].Problem)
				return
			}
			require.ErrorContains(t, err, `executor "mine": `+path+" can't be run: "+test.want)
			assert.NotContains(t, err.Error(), "\n")
			assert.Contains(t, list[0].Problem, test.want)
			assert.Empty(t, f.Known())
		})
	}
}

func TestProgramsForOthers(t *testing.T) {
	if runtime.GOOS != "linux" {
		t.Skip("only Linux's are looked at")
	}
	const sparcV9, exe, object = 43, 2, 1
	dir := folder(t)
	write(t, filepath.Join(dir, "worker-sparc"), elfHeader(exe, sparcV9), 0o755)
	write(t, filepath.Join(dir, "worker-object"), elfHeader(object, sparcV9), 0o755)
	write(t, filepath.Join(dir, "worker-cut"), "\x7fELF\x02", 0o755)
	f := Finder{Own: folder(t), Dirs: []string{dir}}
	for name, want := range map[string]string{
		"sparc":  "it is built for other processors (EM_SPARCV9) than this host's (" + runtime.GOARCH + ")",
		"object": "it is no program: its ELF type is ET_REL",
		"cut":    "it is a damaged program: its ELF header is cut off",
	} {
		_, err := f.Find(name)
		require.ErrorContains(t, err, want)
	}
	self, err := os.Executable()
	require.NoError(t, err)
	require.NoError(t, os.Symlink(self, filepath.Join(dir, "worker-self")))
	_, err = f.Find("self")
	require.NoError(t, err)
}

func TestList(t *testing.T) {
	own := folder(t, "worker-shell")
	first := folder(t, "worker-mine", "worker-compose", "worker-a b", "README")
	second := folder(t, "worker-mine", "worker-yours", "worker-yours~")
	f := Finder{Own: own, Dirs: []string{first, second}, Sums: NewSums()}
	_, sum, err := f.Pin("mine")
	require.NoError(t, err)
	const known = "a8076d3d28d21e02012b20eaf7dbf75409a6277134439025f282e368e3305abf" // echo '#!/bin/sh' | sha256sum
	assert.Equal(t, known, sum)
	size := int64(len(script))
	assert.Equal(t, []Plugin{
		{Name: "shell", Path: filepath.Join(own, "worker-shell"), BuiltIn: true, Size: size, SHA256: known},
		{Name: "a b", Path: filepath.Join(first, "worker-a b"), Size: size, SHA256: known, Pin: Unpinned,
			Problem: "it is not used: an executor's name is made of letters, digits, '-', '_' and '.'"},
		{Name: "compose", Path: filepath.Join(first, "worker-compose"), Size: size, SHA256: known, Pin: Unpinned,
			Problem: "it is not used: the executor compose comes with Signalman; name it otherwise"},
		{Name: "mine", Path: filepath.Join(first, "worker-mine"), Size: size, SHA256: known, Pin: Pinned},
		{Name: "mine", Path: filepath.Join(second, "worker-mine"), Size: size, SHA256: known, Pin: Unpinned,
			Problem: "it is not used: " + filepath.Join(first, "worker-mine") + " comes first"},
		{Name: "yours", Path: filepath.Join(second, "worker-yours"), Size: size, SHA256: known, Pin: Unpinned},
		{Name: "yours~", Path: filepath.Join(second, "worker-yours~"), Size: size, SHA256: known, Pin: Unpinned,
			Problem: "it is not used: an executor's name is made of letters, digits, '-', '_' and '.'"},
	}, f.List())
	assert.Equal(t, []string{"mine", "shell", "yours"}, f.Known())
}

func TestLocked(t *testing.T) {
	dir := folder(t, "worker-mine", "worker-yours")
	f := Finder{Own: folder(t, "worker-shell"), Dirs: []string{dir}, Verify: Locked, Sums: NewSums()}
	lockPath, minePath := filepath.Join(dir, LockFile), filepath.Join(dir, "worker-mine")
	refused := func(executor, want string) {
		t.Helper()
		_, err := f.Find(executor)
		require.ErrorContains(t, err, want)
		assert.NotContains(t, err.Error(), "\n")
	}
	_, err := f.Find("shell") // which comes with Signalman
	require.NoError(t, err)
	refused("mine", "it is not pinned in "+lockPath+` (plugins.verify = "locked"); if it is what it should be, run: supervisor plugins pin mine`)
	assert.Equal(t, []string{"shell"}, f.Known())

	path, _, err := f.Pin("mine")
	require.NoError(t, err)
	assert.Equal(t, minePath, path)
	_, err = f.Find("mine")
	require.NoError(t, err)
	refused("yours", "it is not pinned")
	assert.Equal(t, []string{"mine", "shell"}, f.Known())

	write(t, minePath, script+"# changed\n", 0o700)
	refused("mine", "it is not the file that "+lockPath+" pins")
	refused("mine", "run: supervisor plugins pin mine")
	_, _, err = f.Pin("yours")
	require.NoError(t, err)
	refused("mine", "it is not the file") // pinning another one leaves it as it is
	_, sum, err := f.Pin("mine")
	require.NoError(t, err)
	assert.Equal(t, []string{"mine", "shell", "yours"}, f.Known())

	out, err := exec.Command("sh", "-c", "cd \"$1\" && sha256sum -c --strict plugins.lock", "sh", dir).CombinedOutput()
	require.NoError(t, err, "%s", out)
	entries, err := filepath.Glob(filepath.Join(dir, ".*"))
	require.NoError(t, err)
	assert.Empty(t, entries, "files are left")

	for text, want := range map[string]string{
		sum + "  worker-mine\n" + sum[1:] + "  worker-yours\n":                lockPath + ":2: a line must be as sha256sum prints it, SHA-256 and worker-NAME",
		"[plugins]\nmine = 1\n":                                               lockPath + ":1: a line must be as sha256sum prints it",
		sum + " *worker-mine\n" + strings.Repeat("0", 64) + "  worker-mine\n": lockPath + ":2: worker-mine is pinned twice",
	} {
		write(t, lockPath, text, 0o644)
		refused("mine", want)
		_, _, err := f.Pin("mine") // what can't be read isn't overwritten
		require.ErrorContains(t, err, want)
	}
	write(t, lockPath, "# pinned by hand\r\n\r\n"+sum+" *worker-mine\r\n", 0o644)
	_, err = f.Find("mine")
	require.NoError(t, err)
	write(t, lockPath, sum+"  worker-mine\n", 0o666)
	refused("mine", lockPath+" can't be relied upon: every user of this host may write to the file")
}

func TestRefusal(t *testing.T) {
	dir := folder(t, "worker-mine")
	write(t, filepath.Join(dir, "worker-text"), "text", 0o755)
	f := Finder{Own: folder(t), Dirs: []string{dir}, Verify: Locked}
	refusal := func(executor string) string {
		_, err := f.Find(executor)
		require.Error(t, err)
		return Refusal(executor, err)
	}
	assert.Equal(t, UnpinnedReason, refusal("mine"))
	assert.Equal(t, UnusableReason, refusal("text"))
	assert.Empty(t, refusal("none"))
	assert.Empty(t, refusal("a/b"))
	assert.Empty(t, refusal("shell"))
	_, _, err := f.Pin("mine")
	require.NoError(t, err)
	write(t, filepath.Join(dir, "worker-mine"), script+"# changed", 0o755)
	assert.Equal(t, ChangedReason, refusal("mine"))
	assert.Empty(t, Refusal("mine", nil))
}

func TestPinRefuses(t *testing.T) {
	dir := folder(t, "worker-shell")
	write(t, filepath.Join(dir, "worker-text"), "text", 0o755)
	f := Finder{Own: folder(t), Dirs: []string{dir}}
	for executor, want := range map[string]string{
		"shell": "comes with Signalman", "text": "it is a text file", "none": "no worker-none in " + dir, "a/b": "no such name",
	} {
		_, _, err := f.Pin(executor)
		require.ErrorContains(t, err, want)
	}
	assert.NoFileExists(t, filepath.Join(dir, LockFile))
}

// A checksum that is remembered is that of the file as it is.
func TestSums(t *testing.T) {
	path := filepath.Join(folder(t, "worker-mine"), "worker-mine")
	sums := NewSums()
	sum := func() string {
		f, err := os.Open(path)
		require.NoError(t, err)
		defer f.Close()
		sum, _, _, err := sums.of(f)
		require.NoError(t, err)
		return sum
	}
	first := sum()
	assert.Empty(t, sums.known, "the file was just changed")
	write(t, path, strings.ToUpper(script), 0o700) // as long
	second := sum()
	assert.NotEqual(t, first, second)
	require.Eventually(t, func() bool {
		info, err := os.Stat(path)
		return err == nil && filewatch.Settled(info)
	}, patience, 10*time.Millisecond)
	assert.Equal(t, second, sum())
	assert.Len(t, sums.known, 1)
	for key := range sums.known {
		sums.known[key] = "remembered"
	}
	assert.Equal(t, "remembered", sum())
	write(t, path, script, 0o700)
	assert.Equal(t, first, sum())
}

// world has a plugin that the test's own binary plays.
type world struct {
	Finder
	path   string
	launch pluginhost.Launch
}

func newWorld(t *testing.T) *world {
	t.Helper()
	run, err := os.MkdirTemp("", "run") // t.TempDir's path may be too long for a socket
	require.NoError(t, err)
	t.Cleanup(func() { assert.NoError(t, os.RemoveAll(run)) })
	w := &world{
		Finder: Finder{Own: folder(t), Dirs: []string{folder(t)}, Verify: Locked, Env: map[string][]string{"mine": {"OF_THE_PLUGIN=yes"}}},
		launch: pluginhost.Launch{
			Env: []string{asWorker + "=1", "PATH=" + os.Getenv("PATH")}, RunDir: run, StderrPath: os.DevNull, Logger: hclog.NewNullLogger(),
		},
	}
	w.path = filepath.Join(w.Dirs[0], "worker-mine")
	self, err := os.Executable()
	require.NoError(t, err)
	from, err := os.Open(self)
	require.NoError(t, err)
	defer from.Close()
	to, err := os.OpenFile(w.path, os.O_CREATE|os.O_WRONLY, 0o755)
	require.NoError(t, err)
	_, err = io.Copy(to, from)
	require.NoError(t, err)
	require.NoError(t, to.Close())
	return w
}

func (w *world) pin(t *testing.T) {
	t.Helper()
	_, _, err := w.Pin("mine")
	require.NoError(t, err)
}

func TestStart(t *testing.T) {
	for _, verify := range []Verify{Off, Locked} {
		t.Run(string(verify), func(t *testing.T) {
			w := newWorld(t)
			w.pin(t)
			w.Verify = verify
			worker, err := w.Start(deadline(t), "mine", w.launch)
			require.NoError(t, err)
			defer worker.Kill()
			results, err := worker.Check(deadline(t))
			require.NoError(t, err)
			assert.Equal(t, "yes", results[0].Message)
			if runtime.GOOS == "linux" { // it is known by its name, however it was executed
				args, err := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", worker.Address().Process.PID))
				require.NoError(t, err)
				assert.Equal(t, w.path+"\x00", string(args))
			}
			// A running worker keeps its binary.
			write(t, w.path+".new", script, 0o755)
			require.NoError(t, os.Rename(w.path+".new", w.path))
			d, err := worker.Describe(deadline(t))
			require.NoError(t, err)
			assert.Equal(t, "1", d.Version)
		})
	}
}

// What is put into the file's place after it was looked at doesn't run, and the worker that was started gets no job.
func TestReplacedWhileStarting(t *testing.T) {
	ran := filepath.Join(t.TempDir(), "ran")
	for name, replace := range map[string]func(*testing.T, *world){
		"replaced": func(t *testing.T, w *world) {
			write(t, w.path+".new", script+"touch "+ran+"\n", 0o755)
			require.NoError(t, os.Rename(w.path+".new", w.path))
		},
		"removed": func(t *testing.T, w *world) { require.NoError(t, os.Remove(w.path)) },
		"touched": func(t *testing.T, w *world) { require.NoError(t, os.Chtimes(w.path, time.Now(), time.Now())) },
	} {
		t.Run(name, func(t *testing.T) {
			if runtime.GOOS != "linux" {
				t.Skip("elsewhere it runs, but gets no job")
			}
			w := newWorld(t)
			w.pin(t)
			file, err := w.open("mine")
			require.NoError(t, err)
			defer file.close()
			replace(t, w)
			l := w.launch
			l.Path, l.Executable, l.Confirm = file.path, file.executable(), file.confirm
			_, err = pluginhost.Start(deadline(t), l)
			require.EqualError(t, err, "cannot start worker "+w.path+": its file was changed while it was being started")
		})
	}
	assert.NoFileExists(t, ran)
}

// A script is opened by its interpreter, by name: a change is found before it gets a job.
func TestScriptReplacedWhileStarting(t *testing.T) {
	w := newWorld(t)
	self, err := os.Executable()
	require.NoError(t, err)
	text := script + "exec " + self + "\n"
	require.NoError(t, os.Remove(w.path))
	write(t, w.path, text, 0o755)
	w.pin(t)
	worker, err := w.Start(deadline(t), "mine", w.launch)
	require.NoError(t, err)
	worker.Kill()

	file, err := w.open("mine")
	require.NoError(t, err)
	defer file.close()
	write(t, w.path, text+"# changed\n", 0o755)
	l := w.launch
	l.Path, l.Executable, l.Confirm = file.path, file.executable(), file.confirm
	_, err = pluginhost.Start(deadline(t), l)
	require.ErrorContains(t, err, "its file was changed while it was being started")
}

// put puts a plugin into its folder at once.
func put(t *testing.T, dir, name, text string) {
	t.Helper()
	write(t, filepath.Join(dir, ".new"), text, 0o755)
	require.NoError(t, os.Rename(filepath.Join(dir, ".new"), filepath.Join(dir, "worker-"+name)))
}

func TestWatch(t *testing.T) {
	dir := folder(t, "worker-first")
	f := Finder{Own: folder(t, "worker-shell"), Dirs: []string{filepath.Join(t.TempDir(), "not-yet"), dir}, Sums: NewSums()}
	var mu sync.Mutex
	renewed := make(chan struct{})
	set := func(change func()) {
		mu.Lock()
		change()
		mu.Unlock()
		renewed <- struct{}{}
	}
	log := &logged{lines: make(chan string, 100)}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		Watch(ctx, func() Finder { mu.Lock(); defer mu.Unlock(); return f }, renewed, hclog.New(&hclog.LoggerOptions{Output: log, Level: hclog.Info}))
	}()
	defer func() { cancel(); <-done }()
	log.wait(t, "found a plugin: executor=first")

	put(t, dir, "second", script)
	log.wait(t, "found a plugin: executor=second")
	_, _, err := f.Pin("second")
	require.NoError(t, err)
	log.wait(t, "a plugin's pin has changed: executor=second", "pin=pinned")
	put(t, dir, "second", script+"# 2\n")
	log.wait(t, "a plugin was replaced; the next job gets the new one: executor=second", "pin=changed")
	put(t, dir, "second", "text")
	log.wait(t, "a plugin can't be used: executor=second", "it is a text file")
	put(t, dir, "second", script)
	log.wait(t, "a plugin can be used now: executor=second")
	require.NoError(t, os.Remove(filepath.Join(dir, "worker-first")))
	log.wait(t, "a plugin is gone: executor=first")
	require.NoError(t, os.Mkdir(f.Dirs[0], 0o755))
	put(t, f.Dirs[0], "third", script)
	log.wait(t, "found a plugin: executor=third")
	put(t, dir, "shell", script)
	log.wait(t, "a plugin can't be used: executor=shell", "comes with Signalman")

	// Other settings hold from then on.
	set(func() { f.Verify = Locked })
	log.wait(t, "a plugin can't be used: executor=third", "it is not pinned")
	dirs := f.Dirs
	set(func() { f.Dirs = nil })
	for range 3 { // second, third, and the one that was never used
		log.wait(t, "a plugin is gone")
	}
	set(func() { f.Verify, f.Dirs = Off, dirs[:1] })
	log.wait(t, "found a plugin: executor=third")
	assert.Empty(t, log.lines, "each is told once")
}

// logged is a log line by line.
type logged struct {
	mu    sync.Mutex
	lines chan string
}

func (l *logged) Write(text []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for line := range bytes.Lines(text) {
		l.lines <- string(line)
	}
	return len(text), nil
}

// wait takes the next line, which must hold the texts.
func (l *logged) wait(t *testing.T, texts ...string) {
	t.Helper()
	select {
	case line := <-l.lines:
		for _, text := range texts {
			require.Contains(t, line, text)
		}
	case <-time.After(patience):
		require.Fail(t, "the log doesn't say it", "%q", texts)
	}
}
