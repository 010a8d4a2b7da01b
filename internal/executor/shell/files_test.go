//go:build unix

package shell

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/signalman-ci/signalman/shared/protocol"
)

// A job's files hold its secrets: they go with it, at its end and after its worker's death.
func TestInjectedFilesGoWithTheJob(t *testing.T) {
	for name, who := range map[string]func(*testing.T) string{
		"own user": func(*testing.T) string { return "" },
		"job-user": func(t *testing.T) string { return jobUser(t).Username },
	} {
		t.Run(name, func(t *testing.T) {
			for _, end := range []string{"close", "cleanup"} {
				w := newWorld(t, who(t))
				key := protocol.File{Path: ".ssh/id_rsa", Content: []byte("secret"), Mode: 0o600}
				w.job.Files = []protocol.File{key}
				require.NoError(t, w.env.Inject(ctx(t), key))
				path := filepath.Join(w.set.Home, ".ssh/id_rsa")
				require.FileExists(t, path)
				if end == "cleanup" {
					half, other := filepath.Join(filepath.Dir(path), halfWritten(w.job.ID)+"1"), filepath.Join(filepath.Dir(path), halfWritten("other")+"1")
					require.NoError(t, os.WriteFile(half, []byte("sec"), 0o600))
					require.NoError(t, os.WriteFile(other, []byte("sec"), 0o600))
					require.NoError(t, New().Cleanup(ctx(t), w.job, w.set))
					require.NoFileExists(t, path)
					require.NoFileExists(t, half, "a worker died while it wrote")
					require.FileExists(t, other, "another job's")
					require.NoError(t, New().Cleanup(ctx(t), w.job, w.set), "it can be repeated")
				}
				w.close()
				assert.NoFileExists(t, path)
				assert.DirExists(t, filepath.Dir(path))
			}
		})
	}
}

// A job of another user can't have the worker remove what that user couldn't: not even by a link in a folder's place.
func TestRemovalHasTheRightsOfTheJobsUser(t *testing.T) {
	w := newWorld(t, jobUser(t).Username)
	precious := filepath.Join(t.TempDir(), "id_rsa")
	require.NoError(t, os.WriteFile(precious, []byte("root's"), 0o600))
	require.NoError(t, w.env.Inject(ctx(t), protocol.File{Path: ".ssh/id_rsa", Mode: 0o600}))
	require.NoError(t, os.RemoveAll(filepath.Join(w.set.Home, ".ssh")))
	require.NoError(t, os.Symlink(filepath.Dir(precious), filepath.Join(w.set.Home, ".ssh")))
	_ = w.env.Close(ctx(t)) // it says that it could not
	w.open = false
	assert.FileExists(t, precious)
}
