//go:build unix

package e2e

import (
	"encoding/base64"
	"encoding/json"
	"net/url"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/signalman-ci/signalman/internal/hub"
	"github.com/signalman-ci/signalman/internal/hub/hubtest"
)

// section gives the output of a job's command.
func (h *host) section(id, directive string) string {
	h.t.Helper()
	events, err := h.hub.Events(id)
	require.NoError(h.t, err)
	var b strings.Builder
	inside := false
	for _, e := range events {
		switch e.Event {
		case "cmd_started":
			inside = e.Directive == directive
		case "cmd_output":
			if inside {
				b.WriteString(e.Output)
			}
		}
	}
	return b.String()
}

// A job that prints its secrets in all forms has none of them in its log, neither on disk nor at the hub, and the rest as it was.
func TestSecretsAreMasked(t *testing.T) {
	t.Parallel()
	h := newHost(t, hubtest.Options{}, "--env-vars", "HOST_PASSWORD=the-host's-password")
	h.env = append(h.env, "SUPERVISOR_SECRET=the-supervisor-secret")
	h.start()
	const (
		token   = `t0k&n 'with' "odd" $igns/ünd+more?`
		key     = "-----BEGIN KEY-----\nYWJjZGVmZ2hpamtsbW5vcA\nMTIzNDU2Nzg5MDEyMzQ1Ng\n-----END KEY-----"
		netrc   = "machine hub.example.com\nlogin me\npassword the-netrc-password\n"
		open    = "what everyone may know"
		another = "hub-token-of-the-artifacts"
	)
	marshalled, err := json.Marshal(token)
	require.NoError(t, err)
	for what, c := range map[string]struct{ command, directive, output string }{
		"plain":      {`echo "1 $API_TOKEN. $OPEN."`, "", "1 ***. " + open + ".\n"},
		"artifacts":  {`echo "2 $SEMAPHORE_ARTIFACT_TOKEN."`, "", "2 ***.\n"},
		"operator's": {`echo "3 $HOST_PASSWORD $SUPERVISOR_SECRET."`, "", "3 *** ***.\n"},
		"halves":     {`printf '4 %s' "${API_TOKEN:0:9}"; sleep 0.1; printf '%s.\n' "${API_TOKEN:9}"`, "", "4 ***.\n"},
		"one half":   {`printf '5 %s\n' "${API_TOKEN:0:9}"`, "", "5 " + token[:9] + "\n"},
		"bytes": {
			`printf '6 '; for ((i = 0; i < ${#API_TOKEN}; i++)); do printf %s "${API_TOKEN:i:1}"; sleep 0.002; done; echo .`, "", "6 ***.\n",
		},
		"trace": {
			`set -x; : "7 $API_TOKEN"; X=$API_TOKEN; [[ x == "$API_TOKEN" ]] || :; [[ "$API_TOKEN" == x ]] || :; { set +x; } 2>/dev/null`, "",
			"++ : '7 ***'\n++ X='***'\n++ [[ x == *** ]]\n++ :\n++ [[ *** == x ]]\n++ :\n",
		},
		"quoted":      {`declare -p API_TOKEN; printf '%q\n' "8 $API_TOKEN"`, "", "declare -x API_TOKEN=\"***\"\n8\\ ***\n"},
		"base64":      {`printf %s "$API_TOKEN" | base64 -w0; echo; echo "$API_TOKEN" | base64 -w0; echo ' 9'`, "", "***\n*** 9\n"},
		"base64 of":   {`printf 'abc%sdef' "$API_TOKEN" | base64 -w0; echo ' 10'`, "", "YWJj***9kZWY= 10\n"},
		"long base64": {`printf '%s\n' "$SSH_KEY" | base64; printf %s "$SSH_KEY" | base64 -w64 | sed 's/^/  /'; echo ' 11'`, "", "***\n  ***\n  ***\n 11\n"},
		"url":         {"echo '12 " + url.QueryEscape(token) + " and " + strings.ReplaceAll(url.PathEscape(token), "'", "") + "'", "echo '12 *** and ", ""},
		"json":        {": 13 " + string(marshalled), `: 13 "***"`, ""},
		"literal":     {": 14 " + another, ": 14 ***", ""},
		"lines":       {`echo "15"; echo "$SSH_KEY"; echo "$SSH_KEY" | tac`, "", "15\n***\n-----END KEY-----\n***\n***\n-----BEGIN KEY-----\n"},
		"file":        {`grep -n . ~/.netrc | sort -r; base64 -w0 ~/.netrc; echo ' 16'`, "", "3:***\n2:login me\n1:***\n*** 16\n"},
		"words":       {`echo "17 Exporting environment variables, $OPEN, token password"`, "", "17 Exporting environment variables, " + open + ", token password\n"},
	} {
		t.Run(what, func(t *testing.T) {
			t.Parallel()
			id := h.submit(hubtest.Request{
				Commands: []string{c.command},
				Env: []hubtest.EnvVar{
					{Name: "API_TOKEN", Value: token}, {Name: "SSH_KEY", Value: key}, {Name: "OPEN", Value: open},
					{Name: "SEMAPHORE_ARTIFACT_TOKEN", Value: another},
				},
				Files: []hubtest.File{{Path: ".netrc", Content: netrc, Mode: "0600"}},
			})
			require.Equal(t, hub.ResultPassed, h.finished(id).Result)
			h.delivered(id) // what is on disk is what the hub has
			shown := strings.Join(h.transcript(id), "\n")
			for _, secret := range []string{
				token, another, "host's-password", "supervisor-secret", "YWJjZGVmZ2hpamts", "MTIzNDU2Nzg5MDEy", "netrc-password",
				base64.StdEncoding.EncodeToString([]byte(token))[:40], url.QueryEscape(token), url.PathEscape(token), strings.Trim(string(marshalled), `"`),
			} {
				assert.NotContains(t, shown, secret)
			}
			if c.output != "" {
				assert.Equal(t, c.output, h.section(id, c.command))
			} else {
				assert.Contains(t, shown, "begin "+c.directive)
				assert.Contains(t, shown, "end "+c.directive)
			}
		})
	}
}

// The configuration says what is a secret, and the agent's log names what is too short to be masked.
func TestSecretsAreConfigured(t *testing.T) {
	t.Parallel()
	h := newHost(t, hubtest.Options{})
	h.config("[secrets]\nenv-vars = [\"MINE\", \"TINY*\"]\nfiles = [\"*.pem\"]\n")
	s := h.start()
	const command = `echo "$MINE $API_TOKEN $TINY"; cat a.pem b.txt`
	id := h.submit(hubtest.Request{
		Commands: []string{command},
		Env:      []hubtest.EnvVar{{Name: "MINE", Value: "my-own-secret"}, {Name: "API_TOKEN", Value: "open-token"}, {Name: "TINY", Value: "12345"}},
		Files:    []hubtest.File{{Path: "a.pem", Content: "content of a\n", Mode: "0600"}, {Path: "b.txt", Content: "content of b\n", Mode: "0600"}},
	})
	require.Equal(t, hub.ResultPassed, h.finished(id).Result)
	assert.Equal(t, "*** open-token 12345\n***\ncontent of b\n", h.section(id, command))
	s.saysOnce("not masked in the log: its value has fewer than 6 characters", "TINY", id)
	assert.NotContains(t, s.Log.String(), "12345")
}
