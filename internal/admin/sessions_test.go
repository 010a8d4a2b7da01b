package admin

import (
	"encoding/json"
	"net/http"
	"os"
	"path/filepath"
	"strings"
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
		a := newAuth(token, 80, file)
		a.now = func() time.Time { return now }
		return a
	}
	first := open(testToken)
	w := &recorder{header: http.Header{}}
	r, err := http.NewRequest(http.MethodPost, sessionPath, strings.NewReader(`{"token":"`+testToken+`"}`))
	require.NoError(t, err)
	first.begin(w, r)
	with, err := http.NewRequest(http.MethodGet, "/", nil)
	require.NoError(t, err)
	cookie := (&http.Response{Header: w.header}).Cookies()[0]
	with.AddCookie(cookie)

	assert.True(t, open(testToken).hasSession(with), "after an upgrade")
	assert.False(t, open(testToken+"x").hasSession(with), "with another token")
	raw, err := os.ReadFile(file)
	require.NoError(t, err)
	assert.NotContains(t, string(raw), cookie.Value)
	assert.NotContains(t, string(raw), testToken)
	info, err := os.Stat(file)
	require.NoError(t, err)
	assert.Equal(t, os.FileMode(0o600), info.Mode().Perm())

	second := open(testToken)
	second.end(&recorder{header: http.Header{}}, with)
	assert.False(t, open(testToken).hasSession(with), "it was ended")

	require.NoError(t, os.WriteFile(file, raw, 0o600))
	now = now.Add(sessionLife + time.Second)
	late := newAuth(testToken, 80, "")
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
