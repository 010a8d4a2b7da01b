//go:build unix

package page

import (
	"context"
	"encoding/json"
	"fmt"
	"net"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/chromedp/cdproto/cdp"
	"github.com/chromedp/cdproto/emulation"
	"github.com/chromedp/cdproto/input"
	"github.com/chromedp/cdproto/log"
	"github.com/chromedp/cdproto/network"
	"github.com/chromedp/cdproto/runtime"
	"github.com/chromedp/chromedp"
	"github.com/chromedp/chromedp/kb"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/signalman-ci/signalman/internal/admin"
	"github.com/signalman-ci/signalman/internal/hub/hubtest"
	"github.com/signalman-ci/signalman/internal/supervisor"
	"github.com/signalman-ci/signalman/test/harness"
)

// host is a machine with a supervisor that has the page.
type host struct {
	t    *testing.T
	hub  *hubtest.Hub
	dir  string
	addr string // of the page
	sup  *harness.Process
}

func newHost(t *testing.T, config string) *host {
	t.Helper()
	if browser == nil {
		t.Skip("there is no chromium; scripts/test-needs installs it")
	}
	dir, err := os.MkdirTemp("", "signalman-page-")
	require.NoError(t, err)
	t.Cleanup(func() { assert.NoError(t, os.RemoveAll(dir)) })
	h := &host{t: t, hub: hubtest.Start(t, hubtest.Options{}), dir: dir, addr: freePort(t)}
	for _, name := range []string{"home", "bin", "plugins"} {
		require.NoError(t, os.Mkdir(h.path(name), 0o755))
	}
	for _, name := range []string{"supervisor", "worker-shell"} {
		require.NoError(t, os.Link(filepath.Join(binaries, name), h.path("bin/"+name)))
	}
	h.config(config)
	h.start()
	return h
}

// start starts the supervisor; the test's end ends it.
func (h *host) start() {
	h.t.Helper()
	cmd := exec.Command(h.path("bin/supervisor"), "start", "--endpoint", h.hub.Endpoint(), "--no-https", "--state-dir", h.path("state"), "--name", "build-1",
		"--config-file", h.path("agent.toml"))
	cmd.Dir = h.dir
	cmd.Env = []string{"PATH=" + os.Getenv("PATH"), "HOME=" + h.path("home"), "SEMAPHORE_AGENT_TOKEN=" + h.hub.RegistrationToken(), "LANG=C.UTF-8", "TMPDIR=" + os.TempDir()}
	p, err := harness.Start(cmd)
	require.NoError(h.t, err)
	h.sup = p
	h.t.Cleanup(func() {
		p.Kill()
		assert.Empty(h.t, harness.Crashes(p.Log.String()))
		if h.t.Failed() {
			h.t.Logf("supervisor's log:\n%s", p.Log)
		}
	})
	eventually(h.t, "the page's port is open", func() bool {
		conn, err := net.Dial("tcp", h.addr)
		return err == nil && conn.Close() == nil
	})
}

// in is the host for a part of a test.
func (h *host) in(t *testing.T) *host {
	here := *h
	here.t = t
	return &here
}

// freePort is a loopback address that nobody listens at.
func freePort(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	require.NoError(t, l.Close())
	return l.Addr().String()
}

func (h *host) path(name string) string { return filepath.Join(h.dir, name) }

// write puts a file in the place of another one.
func (h *host) write(name, content string) {
	h.t.Helper()
	require.NoError(h.t, os.WriteFile(h.path(name+".new"), []byte(content), 0o644))
	require.NoError(h.t, os.Rename(h.path(name+".new"), h.path(name)))
}

// config is the supervisor's file, with where the page is.
func (h *host) config(toml string) {
	h.t.Helper()
	h.write("agent.toml", fmt.Sprintf("admin.listen = %q\nplugin-dirs = [%q]\n", h.addr, h.path("plugins"))+toml)
}

// writePlugin puts a file into the plugin folder.
func (h *host) writePlugin(name, content string) {
	h.t.Helper()
	require.NoError(h.t, os.WriteFile(filepath.Join(h.path("plugins"), name), []byte(content), 0o755))
}

// until is a command that waits for a file of the host's folder.
func (h *host) until(name string) string {
	return "until [ -e " + h.path(name) + " ]; do sleep 0.02; done"
}

func (h *host) token() string {
	h.t.Helper()
	var token string
	eventually(h.t, "there is a token", func() bool {
		var err error
		token, err = admin.ReadToken(h.path("state"))
		return err == nil
	})
	return token
}

func (h *host) submit(name string, commands ...string) string {
	h.t.Helper()
	id, err := h.hub.Submit(hubtest.Request{
		Name: name, Commands: commands, Env: []hubtest.EnvVar{{Name: "PATH", Value: h.path("bin") + ":" + os.Getenv("PATH")}}, // the shell's profile sets its own
	})
	require.NoError(h.t, err)
	return id
}

func (h *host) finished(id string) hubtest.Job {
	h.t.Helper()
	ctx, cancel := context.WithTimeout(h.t.Context(), *patience)
	defer cancel()
	job, err := h.hub.WaitFinished(ctx, id)
	require.NoError(h.t, err)
	return job
}

// eventually waits for a condition.
func eventually(t *testing.T, what string, condition func() bool) {
	t.Helper()
	require.Eventually(t, condition, *patience, 30*time.Millisecond, "never: %s", what)
}

// tab is one of the browser's.
type tab struct {
	t   *testing.T
	ctx context.Context

	mu     sync.Mutex
	faults []string
	// foreign are requests to others than hosts.
	hosts   map[string]bool
	foreign []string
	// expected are parts of faults that the test brings about.
	expected []string
}

// open opens a tab at an address. What goes wrong in it by the end fails the test: errors in the console, and requests to other hosts.
func (h *host) open(path string) *tab {
	h.t.Helper()
	tb := newTab(h.t, h.addr)
	do(tb, chromedp.Navigate("http://"+h.addr+path))
	return tb
}

// signedIn is open by someone who knows the token.
func (h *host) signedIn(path string) *tab {
	h.t.Helper()
	tb := h.open("/#token=" + h.token())
	tb.see("#nav a")
	if path != "" {
		tb.goTo(path)
	}
	return tb
}

func newTab(t *testing.T, hosts ...string) *tab {
	t.Helper()
	ctx, cancel := chromedp.NewContext(browser, chromedp.WithNewBrowserContext()) // with cookies of its own
	tb := &tab{t: t, ctx: ctx, hosts: map[string]bool{}}
	for _, host := range hosts {
		tb.hosts[host] = true
	}
	require.NoError(t, chromedp.Listen(ctx, tb.hear))
	call(tb, network.Enable, network.EnableParams{})
	call(tb, log.Enable, cdp.Empty{})
	call(tb, runtime.Enable, cdp.Empty{})
	t.Cleanup(func() {
		if t.Failed() {
			if text, err := chromedp.Run(ctx, chromedp.Evaluate[string]("location.href + '\\n' + document.body.innerText")); err == nil {
				t.Logf("the page:\n%.900s", text)
			}
		}
		cancel()
		tb.mu.Lock()
		defer tb.mu.Unlock()
		assert.Empty(t, tb.faults, "in the console")
		assert.Empty(t, tb.foreign, "requests to other hosts")
	})
	return tb
}

func (tb *tab) hear(ev any) {
	tb.mu.Lock()
	defer tb.mu.Unlock()
	fault := func(text string) {
		for _, e := range tb.expected {
			if strings.Contains(text, e) {
				return
			}
		}
		tb.faults = append(tb.faults, text)
	}
	switch ev := ev.(type) {
	case *runtime.EventExceptionThrown:
		raw, _ := json.Marshal(ev.ExceptionDetails)
		fault("exception: " + string(raw))
	case *runtime.EventConsoleAPICalled:
		if ev.Type == runtime.ConsoleAPICalledTypeError || ev.Type == runtime.ConsoleAPICalledTypeWarning {
			raw, _ := json.Marshal(ev.Args)
			fault("console: " + string(raw))
		}
	case *log.EventEntryAdded:
		// What isn't there in this supervisor, and who isn't signed in yet, shows as a resource that can't be had.
		quiet := strings.Contains(ev.Entry.Text, "Failed to load resource") && (strings.HasSuffix(ev.Entry.URL, "/v1/dev/examples") ||
			strings.HasSuffix(ev.Entry.URL, "/v1/status") && strings.Contains(ev.Entry.Text, "401"))
		if ev.Entry.Level == log.EntryLevelError && !quiet {
			fault(fmt.Sprintf("%s: %s %s", ev.Entry.Source, ev.Entry.Text, ev.Entry.URL))
		}
	case *network.EventRequestWillBeSent:
		if u, err := url.Parse(ev.Request.URL); err == nil && strings.HasPrefix(u.Scheme, "http") && !tb.hosts[u.Host] {
			tb.foreign = append(tb.foreign, ev.Request.URL)
		}
	}
}

// expect says what the test brings about that shows in the console.
func (tb *tab) expect(texts ...string) {
	tb.mu.Lock()
	defer tb.mu.Unlock()
	tb.expected = append(tb.expected, texts...)
}

// do lets the browser act, and gives what comes of it.
func do[T any](tb *tab, action chromedp.Action[T]) T {
	tb.t.Helper()
	type outcome struct {
		value T
		err   error
	}
	done := make(chan outcome, 1)
	go func() {
		v, err := chromedp.Run(tb.ctx, action)
		done <- outcome{v, err}
	}()
	select {
	case o := <-done:
		require.NoError(tb.t, o.err)
		return o.value
	case <-time.After(*patience):
		require.Fail(tb.t, "the browser doesn't answer")
		panic("not reached")
	}
}

// call is do for a command of the browser's own.
func call[P, R any](tb *tab, command cdp.Command[P, R], params P) R {
	tb.t.Helper()
	return do(tb, func(ctx context.Context, t *chromedp.Target) (R, error) { return cdp.Call(ctx, t, command, params) })
}

// eval gives what an expression is, or what it promises.
func eval[T any](tb *tab, expression string) T {
	tb.t.Helper()
	return do(tb, chromedp.Evaluate[T](expression, chromedp.EvalAwaitPromise))
}

// goTo goes to a part of the page.
func (tb *tab) goTo(hash string) {
	tb.t.Helper()
	eval[string](tb, "location.hash = "+quote(hash))
}

// is waits until an expression is true.
func (tb *tab) is(expression string) {
	tb.t.Helper()
	eventually(tb.t, expression, func() bool {
		return eval[bool](tb, "Boolean("+expression+")")
	})
}

// seen is the expression for elements that are seen and have a text.
func seen(selector, text string) string {
	return fmt.Sprintf("[...document.querySelectorAll(%q)].some((e) => e.checkVisibility({visibilityProperty: true}) && e.textContent.includes(%q))", selector, text)
}

func (tb *tab) see(selector string) { tb.t.Helper(); tb.is(seen(selector, "")) }

func (tb *tab) seeText(selector, text string) { tb.t.Helper(); tb.is(seen(selector, text)) }

func (tb *tab) gone(selector string) { tb.t.Helper(); tb.is("!" + seen(selector, "")) }

// click clicks at the first element that a selector and a text fit.
func (tb *tab) click(selector, text string) {
	tb.t.Helper()
	tb.seeText(selector, text)
	at := eval[point](tb, fmt.Sprintf(`(() => { const e = [...document.querySelectorAll(%q)].find((e) => e.checkVisibility() && e.textContent.includes(%q));
		e.scrollIntoView({ block: "nearest" }); const r = e.getBoundingClientRect(); return { X: r.x + r.width / 2, Y: r.y + r.height / 2 }; })()`, selector, text))
	do(tb, chromedp.MouseClickXY(at.X, at.Y))
}

type point struct{ X, Y float64 }

// keys types, where the focus is.
func (tb *tab) keys(text string) {
	tb.t.Helper()
	do(tb, chromedp.KeyEvent(text, func(k *input.DispatchKeyEventParams) {
		if k.Type == kb.KeyDown { // else a key that the page takes for itself is written all the same
			k.Type = kb.KeyRawDown
		}
	}))
}

// scroll scrolls as a reader does.
func (tb *tab) scroll(selector string, dy float64) {
	tb.t.Helper()
	eval[bool](tb, fmt.Sprintf("(document.querySelector(%q).scrollBy(0, %v), true)", selector, dy))
}

// looks makes the tab that of a screen, with a theme.
func (tb *tab) looks(width, height int64, theme string) {
	tb.t.Helper()
	call(tb, emulation.SetDeviceMetricsOverride, emulation.SetDeviceMetricsOverrideParams{Width: width, Height: height, DeviceScaleFactor: 1, Mobile: width < 500})
	call(tb, emulation.SetEmulatedMedia, emulation.SetEmulatedMediaParams{Features: []*emulation.MediaFeature{{Name: "prefers-color-scheme", Value: theme}}})
}

func quote(text string) string {
	raw, _ := json.Marshal(text) // a string can be
	return string(raw)
}

// adminSocket is the supervisor's unix socket.
func (h *host) adminSocket() string {
	h.t.Helper()
	dir, err := supervisor.RunDir(h.path("state"))
	require.NoError(h.t, err)
	return filepath.Join(dir, admin.SocketName)
}

// replaceSupervisor puts another version in the place of the binary.
func (h *host) replaceSupervisor(version string) {
	h.t.Helper()
	build := exec.Command("go", "build", "-ldflags", "-X github.com/signalman-ci/signalman/internal/version.Version="+version, "-o", h.path("bin/next"), "../../cmd/supervisor")
	out, err := build.CombinedOutput()
	require.NoError(h.t, err, "%s", out)
	require.NoError(h.t, os.Rename(h.path("bin/next"), h.path("bin/supervisor")))
}

// startProcess starts a process that ends with the test at the latest.
func startProcess(t *testing.T, cmd *exec.Cmd) *harness.Process {
	t.Helper()
	p, err := harness.Start(cmd)
	require.NoError(t, err)
	t.Cleanup(func() {
		p.Kill()
		assert.Empty(t, harness.Crashes(p.Log.String()))
		if t.Failed() {
			t.Logf("what %s has said:\n%s", filepath.Base(cmd.Path), p.Log)
		}
	})
	return p
}
