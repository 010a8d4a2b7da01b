package doctor

import (
	"context"
	"crypto/tls"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/signalman-ci/signalman/internal/admission"
	"github.com/signalman-ci/signalman/internal/connection"
	"github.com/signalman-ci/signalman/internal/hub"
	"github.com/signalman-ci/signalman/internal/hub/hubtest"
	"github.com/signalman-ci/signalman/internal/job"
	"github.com/signalman-ci/signalman/internal/plugins"
	"github.com/signalman-ci/signalman/internal/regtoken"
	"github.com/signalman-ci/signalman/internal/testca"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// named finds the checks of a name.
func named(checks []Check, name string) []Check {
	var found []Check
	for _, c := range checks {
		if c.Name == name {
			found = append(found, c)
		}
	}
	return found
}

func one(t *testing.T, checks []Check, name string) Check {
	t.Helper()
	found := named(checks, name)
	require.Len(t, found, 1, "%s in %v", name, checks)
	return found[0]
}

// isOneLine holds for all that is printed in a table.
func isOneLine(t *testing.T, checks []Check) {
	t.Helper()
	for _, c := range checks {
		assert.NotEmpty(t, c.Name)
		assert.NotEmpty(t, c.Message)
		assert.NotContains(t, c.Message+c.Hint, "\n")
		assert.Contains(t, []Status{OK, Warning, Failure}, c.Status)
	}
}

func plainHub(endpoint string) hub.Options {
	return hub.Options{Endpoint: endpoint, NoHTTPS: true, UserAgent: "signalman/test", Connection: connection.Settings{Proxy: connection.NoProxy}}
}

func TestHealthy(t *testing.T) {
	h := hubtest.Start(t, hubtest.Options{})
	state := filepath.Join(t.TempDir(), "state")
	checks := Run(t.Context(), Settings{
		Hub: plainHub(h.Endpoint()), Token: regtoken.Text(h.RegistrationToken()), StateDir: state, Slots: 1,
		Floors: admission.Floors{Disk: 1, Inodes: 1, Memory: 1}, Warnings: []string{"a setting is odd"},
	})
	isOneLine(t, checks)
	for _, name := range []string{"endpoint", "clock", "proxy", "token", "state-dir", "disk", "memory"} {
		assert.Equal(t, OK, one(t, checks, name).Status, "%+v", one(t, checks, name))
	}
	assert.Equal(t, Check{Name: "settings", Status: Warning, Message: "a setting is odd"}, one(t, checks, "settings"))
	assert.Empty(t, h.Agents())
	assert.Zero(t, h.Requests(hubtest.Register), "nothing is registered")
	assert.NoDirExists(t, state, "nothing is made")
	for _, c := range checks {
		assert.NotContains(t, c.Message+c.Hint, h.RegistrationToken())
	}
	assert.Equal(t, len(checks), Count(checks, OK)+Count(checks, Warning)+Count(checks, Failure))
}

func TestHubThatIsAway(t *testing.T) {
	h := hubtest.Start(t, hubtest.Options{})
	h.Down()
	checks := connections(t.Context(), Settings{Hub: plainHub(h.Endpoint())})
	isOneLine(t, checks)
	endpoint := one(t, checks, "endpoint")
	assert.Equal(t, Failure, endpoint.Status)
	assert.Contains(t, endpoint.Message, "connection refused")
	assert.NotContains(t, endpoint.Message, endpoint.Hint)
	assert.Contains(t, endpoint.Hint, "nothing listens there")
	assert.Empty(t, named(checks, "clock"))

	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	assert.Equal(t, Failure, one(t, connections(ctx, Settings{Hub: plainHub(h.Endpoint())}), "endpoint").Status)
}

// answers is an HTTPS server that answers each request so.
func answers(t *testing.T, ca *testca.CA, l testca.Leaf, code int, body string, ahead time.Duration) hub.Options {
	t.Helper()
	s := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Date", time.Now().Add(ahead).UTC().Format(http.TimeFormat))
		w.WriteHeader(code)
		_, _ = io.WriteString(w, body)
	}))
	l.Hosts = []string{"127.0.0.1"}
	s.TLS = &tls.Config{Certificates: []tls.Certificate{ca.Certificate(l)}}
	s.Config.ErrorLog = log.New(io.Discard, "", 0)
	s.StartTLS()
	t.Cleanup(s.Close)
	o := plainHub(strings.TrimPrefix(s.URL, "https://"))
	o.NoHTTPS, o.Connection.CAFile = false, ca.File()
	return o
}

func TestAnswers(t *testing.T) {
	ca := testca.New(t)
	for _, c := range []struct {
		code int
		body string
		want Status
	}{
		{401, "", OK}, {200, "hello", Warning}, {404, "", Warning}, {302, "", Warning}, {503, "", Warning}, {407, "", Failure},
		{400, "The plain HTTP request was sent to HTTPS port", Failure}, {400, "", Warning},
	} {
		checks := connections(t.Context(), Settings{Hub: answers(t, ca, testca.Leaf{}, c.code, c.body, 0)})
		isOneLine(t, checks)
		endpoint := one(t, checks, "endpoint")
		assert.Equal(t, c.want, endpoint.Status, "%+v", endpoint)
		assert.Equal(t, c.want == OK, endpoint.Hint == "", "%+v", endpoint)
		assert.Equal(t, OK, one(t, checks, "hub certificate").Status)
		assert.Equal(t, OK, one(t, checks, "ca-file").Status)
	}
}

func TestClock(t *testing.T) {
	ca := testca.New(t)
	for ahead, want := range map[time.Duration]struct {
		status  Status
		message string
	}{
		0: {OK, ""}, time.Hour: {Failure, "behind the hub's"}, -time.Hour: {Failure, "ahead of the hub's"}, 3 * time.Minute: {Warning, "behind"},
	} {
		c := one(t, connections(t.Context(), Settings{Hub: answers(t, ca, testca.Leaf{}, 401, "", ahead)}), "clock")
		assert.Equal(t, want.status, c.Status, "%+v", c)
		assert.Contains(t, c.Message, want.message)
	}
	for _, c := range []struct {
		ahead, margin time.Duration
		want          Status
	}{
		{29 * time.Second, 0, OK}, {31 * time.Second, 0, Warning}, {31 * time.Second, 2 * time.Second, OK}, {-301 * time.Second, 0, Failure},
		{299 * time.Second, 0, Warning},
	} {
		assert.Equal(t, c.want, clock(hub.Probe{Dated: true, Ahead: c.ahead, Margin: c.margin}).Status, "%v", c)
	}
	assert.Equal(t, Warning, clock(hub.Probe{}).Status)
}

func TestCertificates(t *testing.T) {
	ca := testca.New(t)
	now := time.Now()
	soon := answers(t, ca, testca.Leaf{NotAfter: now.Add(5*24*time.Hour + time.Hour)}, 401, "", 0)
	c := one(t, connections(t.Context(), Settings{Hub: soon}), "hub certificate")
	assert.Equal(t, Warning, c.Status)
	assert.Contains(t, c.Message, "for 5 days")

	dir := t.TempDir()
	set := connection.Settings{CAFile: ca.File(), ClientCert: filepath.Join(dir, "c.pem"), ClientKey: filepath.Join(dir, "c.key")}
	for _, test := range []struct {
		leaf testca.Leaf
		at   time.Time
		want Status
		says string
	}{
		{testca.Leaf{}, now, OK, "is good until"},
		{testca.Leaf{NotAfter: now.AddDate(0, 0, 13)}, now, Warning, "for 12 days"},
		{testca.Leaf{NotBefore: now.AddDate(0, 0, -9), NotAfter: now.AddDate(0, 0, -1)}, now, Failure, "has ended at"},
		{testca.Leaf{NotBefore: now.AddDate(0, 0, 1)}, now, Failure, "is good from"},
	} {
		ca.Issue(set.ClientCert, set.ClientKey, test.leaf)
		checks := certificates(set, test.at)
		isOneLine(t, checks)
		c := one(t, checks, "client-cert")
		assert.Equal(t, test.want, c.Status, "%+v", c)
		assert.Contains(t, c.Message, test.says)
		assert.Equal(t, OK, one(t, checks, "ca-file").Status)
	}
	assert.Equal(t, Warning, one(t, certificates(set, now.AddDate(2, 0, 0)), "ca-file").Status, "another in the file may count")
	require.NoError(t, os.WriteFile(set.ClientKey, nil, 0o600))
	assert.Equal(t, Failure, one(t, certificates(set, now), "client-cert").Status)
	set.CAFile = filepath.Join(dir, "none.pem")
	checks := connections(t.Context(), Settings{Hub: hub.Options{Endpoint: "acme", UserAgent: "a/1", Connection: set}})
	isOneLine(t, checks)
	assert.Equal(t, Failure, one(t, checks, "ca-file").Status)
	assert.Contains(t, one(t, checks, "ca-file").Message, set.CAFile)
	assert.Contains(t, one(t, checks, "endpoint").Message, "not asked")
}

func TestTokenSources(t *testing.T) {
	missing := filepath.Join(t.TempDir(), "token")
	c := one(t, token(t.Context(), Settings{Token: regtoken.File(missing)}), "token")
	assert.Equal(t, Failure, c.Status)
	assert.Contains(t, c.Message, missing)
	require.NoError(t, os.WriteFile(missing, []byte("5ecret"), 0o600))
	c = one(t, token(t.Context(), Settings{Token: regtoken.File(missing)}), "token")
	assert.Equal(t, OK, c.Status)
	assert.NotContains(t, c.Message, "5ecret")
}

func TestStateDir(t *testing.T) {
	dir := t.TempDir()
	for path, want := range map[string]string{dir: "can be written to", dir + "/a/b/c": "can be made by the start"} {
		c := one(t, stateDir(t.Context(), Settings{StateDir: path}), "state-dir")
		assert.Equal(t, OK, c.Status)
		assert.Contains(t, c.Message, want)
	}
	file := filepath.Join(dir, "file")
	entries, err := os.ReadDir(dir)
	require.NoError(t, err)
	assert.Empty(t, entries, "nothing is left")
	require.NoError(t, os.WriteFile(file, nil, 0o600))
	for _, path := range []string{file, file + "/below"} {
		c := one(t, stateDir(t.Context(), Settings{StateDir: path}), "state-dir")
		assert.Equal(t, Failure, c.Status, path)
		assert.Contains(t, c.Message, file)
		assert.NotContains(t, c.Message, ".new-")
	}
}

func TestRoom(t *testing.T) {
	s := Settings{StateDir: t.TempDir(), Floors: admission.Floors{Disk: 1 << 60, Inodes: 1, Memory: 1 << 60}}
	checks := room(t.Context(), s)
	isOneLine(t, checks)
	for _, name := range []string{"disk", "memory"} {
		assert.Equal(t, Failure, one(t, checks, name).Status)
		assert.Contains(t, one(t, checks, name).Hint, "min-"+name)
	}
	for _, c := range room(t.Context(), Settings{StateDir: s.StateDir}) {
		assert.Equal(t, OK, c.Status)
		assert.Contains(t, c.Message, "no floor is set")
	}
}

func TestUses(t *testing.T) {
	s := Settings{Job: job.Settings{Executors: map[string]string{"shell": "shell", "dockercompose": "compose"}, JobExecutors: []string{"gpu", "shell"}}}
	assert.Equal(t, []use{
		{"compose", []string{"jobs with containers"}, false},
		{"gpu", []string{"jobs that choose it (job-executors)"}, false},
		{"shell", []string{"jobs without containers", "jobs that choose it (job-executors)"}, true},
	}, uses(s))
	s.Job.Executors = map[string]string{"shell": "k8s", "dockercompose": "k8s"}
	assert.Equal(t, use{"k8s", []string{"jobs without containers", "jobs with containers"}, true}, uses(s)[1])
}

func TestWorkersThatAreMissing(t *testing.T) {
	s := Settings{Job: job.Settings{
		Finder: plugins.Finder{Own: t.TempDir()}, Executors: map[string]string{"shell": "shell", "dockercompose": "compose"},
	}}
	checks := workers(t.Context(), s)
	isOneLine(t, checks)
	assert.Equal(t, Failure, one(t, checks, "executor shell").Status)
	assert.Equal(t, Warning, one(t, checks, "executor compose").Status, "jobs without containers run nevertheless")
	require.NoError(t, os.WriteFile(filepath.Join(s.Job.Finder.Own, "worker-shell"), []byte("#!/bin/sh\nexit 3\n"), 0o755))
	c := one(t, workers(t.Context(), s), "executor shell")
	assert.Equal(t, Failure, c.Status)
	assert.Contains(t, c.Message, "its worker doesn't answer")
}
