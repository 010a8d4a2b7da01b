//go:build unix

package plugins

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

const script = "#!/bin/sh\n"

// folder makes a folder with scripts of these names.
func folder(t *testing.T, names ...string) string {
	t.Helper()
	dir := t.TempDir()
	for _, name := range names {
		write(t, filepath.Join(dir, name), script, 0o700)
	}
	return dir
}

func write(t *testing.T, path, text string, mode os.FileMode) {
	t.Helper()
	require.NoError(t, os.WriteFile(path, []byte(text), mode))
	require.NoError(t, os.Chmod(path, mode)) // whatever the umask is
}

func TestFind(t *testing.T) {
	own := folder(t, "worker-shell", "worker-k8s", "supervisor", "worker-stray")
	first := folder(t, "worker-shell", "worker-compose", "worker-mine", "worker-", "other", "mine")
	second := folder(t, "worker-mine", "worker-yours")
	require.NoError(t, os.Mkdir(filepath.Join(second, "worker-folder"), 0o700))
	f := Finder{Own: own, Dirs: []string{filepath.Join(first, "missing"), first, second}}

	for name, want := range map[string]string{
		"shell": filepath.Join(own, "worker-shell"),
		"k8s":   filepath.Join(own, "worker-k8s"),
		"mine":  filepath.Join(first, "worker-mine"), // the first folder wins
		"yours": filepath.Join(second, "worker-yours"),
	} {
		path, err := f.Find(name)
		require.NoError(t, err, name)
		assert.Equal(t, want, path)
	}
	assert.Equal(t, []string{"k8s", "mine", "shell", "yours"}, f.Known())

	// compose is built in: the plugin folder's file can't take its place, even where the own one is missing.
	for _, name := range []string{"compose", "folder", "none", "stray"} {
		_, err := f.Find(name)
		require.ErrorContains(t, err, "worker-"+name)
		assert.ErrorContains(t, err, "known are: k8s, mine, shell, yours")
	}
	for _, name := range []string{"", "../shell", "a/b", "/bin/sh", ".", "/"} {
		_, err := f.Find(name)
		assert.Error(t, err, "%q", name)
		assert.NotContains(t, err.Error(), "\n")
	}
	_, err := f.Find("a\nb\x00")
	require.Error(t, err)
	assert.NotContains(t, err.Error(), "\n")
}

// What is dropped into a plugin folder is there for the next job.
func TestFindLooksAnew(t *testing.T) {
	dir := folder(t)
	f := Finder{Own: folder(t), Dirs: []string{dir}}
	_, err := f.Find("late")
	require.Error(t, err)
	require.NoError(t, os.WriteFile(filepath.Join(dir, "worker-late"), []byte(script), 0o700))
	path, err := f.Find("late")
	require.NoError(t, err)
	assert.Equal(t, filepath.Join(dir, "worker-late"), path)
}

// A folder's name is no pattern.
func TestFolderWithAnOddName(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "[a]*")
	require.NoError(t, os.Mkdir(dir, 0o700))
	require.NoError(t, os.WriteFile(filepath.Join(dir, "worker-odd"), []byte(script), 0o700))
	assert.Equal(t, []string{"odd"}, Finder{Own: folder(t), Dirs: []string{dir}}.Known())
}
