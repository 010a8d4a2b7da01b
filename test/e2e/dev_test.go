//go:build unix

package e2e

import (
	"encoding/json"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/signalman-ci/signalman/test/harness"
)

// Without files dev prints where its page is, takes jobs there, and stays until it is interrupted.
func TestDevPage(t *testing.T) {
	t.Parallel()
	home := openDir(t)
	cmd := exec.Command(filepath.Join(binaries, "supervisor"), "dev")
	cmd.Env = []string{"PATH=" + os.Getenv("PATH"), "HOME=" + home, "TMPDIR=" + os.TempDir(), "LANG=C.UTF-8"}
	p, err := harness.Start(cmd)
	require.NoError(t, err)
	t.Cleanup(func() {
		p.Kill()
		assert.Empty(t, harness.Crashes(p.Log.String()))
	})
	var found []string
	address := regexp.MustCompile(`(http://127\.0\.0\.1:\d+)/#token=(\S+)\n`)
	eventually(t, "dev says where the page is", func() bool {
		found = address.FindStringSubmatch(p.Log.String())
		return found != nil
	})
	post := func(token, yaml string) (int, string) {
		body, err := json.Marshal(map[string]string{"yaml": yaml})
		require.NoError(t, err)
		req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, found[1]+"/v1/dev/jobs", strings.NewReader(string(body)))
		require.NoError(t, err)
		req.Header.Set("Content-Type", "application/json")
		req.Header.Set("Authorization", "Bearer "+token)
		resp, err := http.DefaultClient.Do(req)
		require.NoError(t, err)
		defer resp.Body.Close()
		answer, err := io.ReadAll(resp.Body)
		require.NoError(t, err)
		return resp.StatusCode, string(answer)
	}
	status, answer := post("not-the-token", "commands: [touch ~/it]")
	assert.Equal(t, http.StatusUnauthorized, status, answer)
	status, answer = post(found[2], "env: {NO-NAME: x}")
	assert.Equal(t, http.StatusBadRequest, status)
	assert.Contains(t, answer, "can't be the name")
	status, answer = post(found[2], "commands: [touch "+filepath.Join(home, "ran")+"]")
	assert.Equal(t, http.StatusCreated, status, answer)
	eventually(t, "the job runs", func() bool {
		_, err := os.Stat(filepath.Join(home, "ran"))
		return err == nil
	})
	require.NoError(t, p.Signal(syscall.SIGINT))
	code, err := p.Exit(patience)
	require.NoError(t, err)
	assert.Zero(t, code, p.Log)
}
