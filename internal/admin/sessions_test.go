package admin

import (
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// A session outlives the supervisor that it was begun with, as long as the token is the same, and its file is no way in.
func TestSessionsAreKept(t *testing.T) {
	file := filepath.Join(t.TempDir(), "sessions.json")
	now := time.Now()
	open := func(token string) *auth {
		a := newAuth(token, file)
		a.now = func() time.Time { return now }
		return a
	}
	first := open(testToken)
	id := beginSession(t, first)

	assert.True(t, open(testToken).isSession(id), "after an upgrade")
	assert.False(t, open(testToken+"x").isSession(id), "with another token")
	raw, err := os.ReadFile(file)
	require.NoError(t, err)
	assert.NotContains(t, string(raw), id)
	assert.NotContains(t, string(raw), testToken)
	info, err := os.Stat(file)
	require.NoError(t, err)
	assert.Equal(t, os.FileMode(0o600), info.Mode().Perm())

	second := open(testToken)
	with := httptest.NewRequest(http.MethodDelete, sessionPath, nil)
	with.Header.Set("Authorization", "Bearer "+id)
	second.end(httptest.NewRecorder(), with)
	assert.False(t, open(testToken).isSession(id), "it was ended")

	require.NoError(t, os.WriteFile(file, raw, 0o600))
	now = now.Add(sessionLife + time.Second)
	late := newAuth(testToken, "")
	late.now, late.file = func() time.Time { return now }, file
	late.load()
	assert.Empty(t, late.sessions, "it has had its time")

	for _, broken := range []string{"", "{", "null", `{"token":"` + late.tokenMark() + `","sessions":{"zz":"2999-01-01T00:00:00Z","00":"2999-01-01T00:00:00Z"}}`} {
		require.NoError(t, os.WriteFile(file, []byte(broken), 0o600))
		assert.Empty(t, open(testToken).sessions, broken)
	}
	var k kept
	require.NoError(t, json.Unmarshal(raw, &k))
	for id := range k.Sessions {
		k.Sessions[id] = now.Add(100 * sessionLife)
	}
	raw, err = json.Marshal(k)
	require.NoError(t, err)
	require.NoError(t, os.WriteFile(file, raw, 0o600))
	assert.Empty(t, open(testToken).sessions, "none lasts longer than sessions do")
}

func TestConfig(t *testing.T) {
	got := listenTCP(t, nil).do(http.MethodGet, "/v1/config", "")
	assert.Equal(t, 200, got.StatusCode)
	assert.JSONEq(t, `{"settings":[{"key":"name","value":"\"a\"","origin":{"source":"file","where":"agent.toml:1"}}]}`, got.body)
	assert.Equal(t, 401, listenTCP(t, nil).do(http.MethodGet, "/v1/config", "", "Authorization: Bearer not-the-token-at-all").StatusCode)
}
