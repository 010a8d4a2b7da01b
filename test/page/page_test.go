//go:build unix

package page

import (
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/chromedp/chromedp"
	"github.com/chromedp/chromedp/kb"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/signalman-ci/signalman/internal/admin"
	"github.com/signalman-ci/signalman/internal/hub"
)

// One supervisor serves all these.
func TestPage(t *testing.T) {
	t.Parallel()
	h := newHost(t, "concurrency = 2\n")
	for name, test := range map[string]func(*host){
		"sign in": signIn, "live log": liveLog, "fold": fold, "search": search, "colours": colours, "follow": follow, "line links": lineLinks,
		"stop": stopAsks, "history": history, "phone": phone, "themes": themes, "keyboard": keyboard, "text stays text": textStaysText,
		"another origin": anotherOrigin, "session ends": sessionEnds, "socket": socket, "large log": largeLog, "parser": parser, "health": health, "plugins": plugins,
	} {
		t.Run(name, func(t *testing.T) { test(h.in(t)) })
	}
}

func signIn(h *host) {
	tb := h.open("/")
	tb.seeText("h1", "Sign in")
	tb.expect("401")
	tb.keys("not the token\r") // the field has the focus
	tb.seeText(".error", "This is not the token.")
	assert.Equal(h.t, "token", eval[string](tb, "document.activeElement.id"))
	tb.keys(h.token() + "\r")
	tb.seeText("h1", "Slots")
	tb.seeText(".slot", "ready")
	do(tb, chromedp.Reload())
	tb.seeText("h1", "Slots") // the session lasts
	assert.NotContains(h.t, eval[string](tb, "JSON.stringify(localStorage)"), h.token(), "and isn't the token")
	tb.click("#signout", "Sign out")
	tb.seeText("h1", "Sign in")
	do(tb, chromedp.Reload())
	tb.seeText("h1", "Sign in")

	tb = h.signedIn("")
	assert.NotContains(h.t, eval[string](tb, "location.href"), h.token(), "it doesn't stay in the address")
}

func liveLog(h *host) {
	id := h.submit("a live one", "echo first; "+h.until("live")+"; echo second")
	tb := h.signedIn("")
	tb.click(".slot .job-link", "a live one")
	tb.seeText(".log .t", "first")
	tb.seeText(".job-title", "running")
	assert.False(h.t, eval[bool](tb, seen(".log .t", "second")))
	h.write("live", "")
	tb.seeText(".log .t", "second")
	tb.seeText(".job-title", "passed")
	tb.seeText(".facts", id)
	assert.Equal(h.t, hub.ResultPassed, h.finished(id).Result)
	tb.seeText(".sec[data-state=passed] .sec-state", "passed")
}

func fold(h *host) {
	id := h.submit("folds", "echo well", "echo ill; exit 3")
	h.finished(id)
	tb := h.signedIn("#/jobs/" + id)
	tb.seeText(".log .t", "ill")
	tb.seeText(".sec[data-state=failed] .code", "exit 3")
	tb.seeText(".reason", "exit code 3: echo ill; exit 3")
	tb.seeText(".log .t", "well")
	tb.click(".sec-head", "echo well")
	tb.is(`!` + seen(".log .t", "well"))
	assert.Equal(h.t, "false", eval[string](tb, `[...document.querySelectorAll(".sec-head")].find((e) => e.textContent.includes("echo well")).getAttribute("aria-expanded")`))
	tb.click(".sec-head", "echo well")
	tb.seeText(".log .t", "well")
	tb.click(".chip", "Fold passed")
	tb.is(`!` + seen(".log .t", "well"))
	tb.seeText(".log .t", "ill") // the failed one stays open
	tb.click(".chip", "Fold passed")
	tb.seeText(".log .t", "well")
}

func search(h *host) {
	id := h.submit("search", `printf 'needle one\nhay\nNEE\033[31mDLE\033[0m two\n'; seq 1 600; echo the last needle`)
	h.finished(id)
	tb := h.signedIn("#/jobs/" + id)
	tb.seeText(".log .t", "needle one")
	tb.keys("/")
	tb.keys("needle")
	tb.seeText(".count", "1 / 3")
	tb.seeText(".l.hit .t", "needle one")
	tb.keys("\r")
	tb.seeText(".l.hit .t", "NEEDLE two") // whatever its colours
	tb.keys("\r")
	tb.seeText(".l.hit .t", "the last needle") // which had not been drawn
	tb.keys(kb.Escape)
	tb.gone(".log mark")
	tb.keys("n")
	tb.is(`document.querySelector(".count").textContent === ""`)
}

func colours(h *host) {
	id := h.submit("colours", `printf '\033[31mred\033[0m \033[1;3;4mfaces\033[0m \033[38;5;208morange\033[0m \033[38;2;10;200;30mtrue\033[0m \033[7minverse\033[0m \033[38;2;0;0;90mdark\033[0m\n'`,
		`printf ' 10%%\r 55%%\r100%%\n'; printf 'gone\r\033[Kkept\n'; printf '\033[32mgreen\n'; printf 'still\033[0m\n'`)
	h.finished(id)
	tb := h.signedIn("#/jobs/" + id)
	tb.seeText(".log .t", "kept")
	style := func(text, property string) string {
		return eval[string](tb, fmt.Sprintf(`getComputedStyle([...document.querySelectorAll(".log .t span")].find((e) => e.textContent === %q))[%q]`, text, property))
	}
	assert.Equal(h.t, "rgb(255, 123, 114)", style("red", "color"))
	assert.Equal(h.t, "700", style("faces", "fontWeight"))
	assert.Equal(h.t, "italic", style("faces", "fontStyle"))
	assert.Contains(h.t, style("faces", "textDecorationLine"), "underline")
	assert.Equal(h.t, "rgb(255, 135, 0)", style("orange", "color"))
	assert.Equal(h.t, "rgb(10, 200, 30)", style("true", "color"))
	assert.Equal(h.t, "rgb(215, 221, 229)", style("inverse", "backgroundColor"))
	assert.NotEqual(h.t, "rgb(0, 0, 90)", style("dark", "color"), "it could not be read")
	assert.Equal(h.t, style("green", "color"), style("still", "color"), "a colour lasts until it is ended")
	assert.True(h.t, eval[bool](tb, `[...document.querySelectorAll(".log .t")].some((e) => e.textContent === "100%")`))
	assert.True(h.t, eval[bool](tb, `[...document.querySelectorAll(".log .t")].some((e) => e.textContent === "kept")`))
}

func follow(h *host) {
	id := h.submit("follow", "seq 1 300; "+h.until("more")+"; seq 301 400; "+h.until("end"))
	tb := h.signedIn("#/jobs/" + id)
	atEnd := `(() => { const l = document.querySelector(".log"); return l.scrollHeight > 2 * l.clientHeight && l.scrollHeight - l.scrollTop - l.clientHeight < 4; })()`
	tb.seeText(".log .t", "300")
	tb.is(atEnd)
	tb.gone(".follow")
	tb.scroll(".log", -600)
	tb.see(".follow")
	tb.is("!" + atEnd)
	top := eval[float64](tb, `document.querySelector(".log").scrollTop`)
	h.write("more", "")
	tb.is(`import("/page/logstore.js") && document.querySelector(".log").scrollHeight > 400 * 18`)
	assert.InDelta(h.t, top, eval[float64](tb, `document.querySelector(".log").scrollTop`), 40, "what is read stays where it is")
	tb.click(".follow", "Follow")
	tb.is(atEnd)
	tb.seeText(".log .t", "400")
	h.write("end", "")
	h.finished(id)
}

func lineLinks(h *host) {
	id := h.submit("lines", "seq 1 900")
	h.finished(id)
	tb := h.signedIn("")
	tb.goTo("#/jobs/" + id + "/L777")
	tb.is(`document.querySelector(".l.target")?.dataset.n === "777"`)
	inView := `(() => { const r = document.querySelector(".l.target").getBoundingClientRect(), l = document.querySelector(".log").getBoundingClientRect(); return r.top >= l.top && r.bottom <= l.bottom; })()`
	tb.is(inView)
	tb.click(".l.target .n", "")
	assert.True(h.t, strings.HasSuffix(eval[string](tb, "location.href"), "/L777"))
	tb.goTo("#/jobs/" + id + "/L12")
	tb.is(`document.querySelector(".l.target")?.dataset.n === "12"`)
	tb.is(inView)
}

func stopAsks(h *host) {
	id := h.submit("to be stopped", "echo here; sleep 600")
	tb := h.signedIn("#/jobs/" + id)
	tb.seeText(".log .t", "here")
	tb.click(".job-head button", "Stop")
	tb.seeText("dialog h2", "Stop to be stopped?")
	assert.Equal(h.t, "Cancel", eval[string](tb, "document.activeElement.textContent"), "what does no harm has the focus")
	tb.keys("\r")
	tb.gone("dialog")
	tb.keys("?")
	tb.seeText("dialog", "Keys")
	tb.keys(kb.Escape)
	tb.gone("dialog")
	tb.seeText(".job-title", "running")
	tb.click(".job-head button", "Stop")
	tb.click("dialog button", "Stop the job")
	assert.Equal(h.t, hub.ResultStopped, h.finished(id).Result)
	tb.seeText(".job-title", "stopped")
}

func history(h *host) {
	passed, failed := h.submit("history passes", "true"), h.submit("history fails", "exit 9")
	h.finished(passed)
	h.finished(failed)
	tb := h.signedIn("#/jobs")
	tb.seeText(".jobs tr", "history fails")
	tb.seeText(".jobs tr", "exit code 9: exit 9")
	tb.click(".filters .chip", "failed")
	tb.is(`!` + seen(".jobs tr", "history passes"))
	tb.seeText(".jobs tr", "history fails")
	tb.click(".filters .chip", "all")
	tb.keys("/")
	tb.keys("history pass")
	tb.is(`document.querySelectorAll(".jobs tbody tr").length === 1`)
	tb.seeText(".jobs tr", "shell")
	tb.keys("es nothing")
	tb.seeText(".empty", "No job matches.")
}

var pages = []string{"#/", "#/jobs", "#/plugins", "#/config", "#/health"}

func phone(h *host) {
	id := h.submit("a job with a name that is much longer than the screen of any phone is wide, and then some", "echo "+strings.Repeat("wide-", 200))
	h.finished(id)
	tb := h.signedIn("")
	tb.looks(360, 740, "light")
	for _, path := range append(pages, "#/jobs/"+id) {
		tb.goTo(path)
		tb.is(`document.querySelector("main").textContent.length > 60`)
		tb.is(`document.documentElement.scrollWidth <= 360 && document.querySelector("main").scrollWidth <= 360`)
		outside := eval[[]string](tb, `[...document.querySelectorAll("a, button, input, td, dd, h1, .pill")].filter((e) => e.checkVisibility() && !e.closest(".skip, .unseen, .clip") && (e.getBoundingClientRect().right > 361 || e.getBoundingClientRect().left < -1)).map((e) => e.outerHTML.slice(0, 120))`)
		assert.Empty(h.t, outside, path)
	}
	tb.is(`(() => { const l = document.querySelector(".log"); return l && l.scrollWidth <= l.clientWidth; })()`) // it is wrapped
}

// contrasts finds text that can't be read well: WCAG 2.2 AA is 4.5, and 3 for large text.
const contrasts = `(() => {
	const canvas = document.createElement("canvas").getContext("2d", { willReadFrequently: true });
	const rgba = (c) => { canvas.clearRect(0, 0, 1, 1); canvas.fillStyle = c; canvas.fillRect(0, 0, 1, 1); return [...canvas.getImageData(0, 0, 1, 1).data]; };
	const over = (top, under) => top.slice(0, 3).map((v, i) => v * top[3] / 255 + under[i] * (1 - top[3] / 255));
	const ground = (e) => { const c = rgba(getComputedStyle(e).backgroundColor); return c[3] === 255 ? c.slice(0, 3) : over(c, e.parentElement ? ground(e.parentElement) : [255, 255, 255]); };
	const lum = (c) => { const [r, g, b] = c.map((v) => (v /= 255) <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4); return 0.2126 * r + 0.7152 * g + 0.0722 * b; };
	const bad = new Set();
	const walk = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
	for (let n; (n = walk.nextNode());) {
		const e = n.parentElement;
		if (!n.data.trim() || !e.checkVisibility() || e.closest(".unseen, .skip, :disabled, noscript")) continue;
		const s = getComputedStyle(e), g = ground(e);
		let faint = 1;
		for (let p = e; p; p = p.parentElement) faint *= getComputedStyle(p).opacity;
		const color = rgba(s.color);
		color[3] *= faint;
		const [a, b] = [lum(over(color, g)), lum(g)].sort((x, y) => y - x);
		const least = parseFloat(s.fontSize) >= 24 || (parseFloat(s.fontSize) >= 18.6 && s.fontWeight >= 700) ? 3 : 4.5;
		if ((a + 0.05) / (b + 0.05) < least) bad.add(e.tagName + "." + e.className + " " + n.data.slice(0, 30) + " " + ((a + 0.05) / (b + 0.05)).toFixed(2));
	}
	return [...bad];
})()`

func themes(h *host) {
	every := "printf '"
	for n := range 16 {
		every += fmt.Sprintf(`\033[38;5;%dmfg%d\033[0m \033[48;5;%dmbg%d\033[0m \033[30;48;5;%dmblack%d\033[0m \033[97;48;5;%dmwhite%d\033[0m\n`, n, n, n, n, n, n, n, n)
	}
	id := h.submit("themes", every+`\033[2mdim\033[0m \033[38;5;17mnavy\033[0m\n'`, "false")
	h.finished(id)
	tb := h.signedIn("")
	ground := func() string { return eval[string](tb, "getComputedStyle(document.body).backgroundColor") }
	grounds := map[string]string{}
	for _, theme := range []string{"light", "dark"} {
		tb.looks(1200, 800, theme)
		tb.is(`matchMedia("(prefers-color-scheme: ` + theme + `)").matches`)
		grounds[theme] = ground()
		for _, path := range append(pages, "#/jobs/"+id) {
			tb.goTo(path)
			tb.is(`document.querySelector("main").textContent.length > 60`)
			if strings.Contains(path, id) {
				tb.seeText(".log .t", "navy")
			}
			assert.Empty(h.t, eval[[]string](tb, contrasts), "%s %s", theme, path)
		}
	}
	assert.Equal(h.t, map[string]string{"light": "rgb(245, 246, 248)", "dark": "rgb(14, 17, 22)"}, grounds)
	tb.click("#theme", "") // light, in a dark browser
	assert.Equal(h.t, grounds["light"], ground())
	do(tb, chromedp.Reload())
	tb.see("#nav a")
	assert.Equal(h.t, grounds["light"], ground(), "the choice is kept")
	tb.click("#theme", "")
	assert.Equal(h.t, grounds["dark"], ground())
}

func keyboard(h *host) {
	id := h.submit("by keys", "echo alpha", "echo beta")
	h.finished(id)
	tb := h.signedIn("")
	tb.seeText("h1", "Slots")
	eval[bool](tb, "document.activeElement.blur() || true")
	tb.keys(kb.Tab)
	assert.Equal(h.t, "skip", eval[string](tb, "document.activeElement.id"))
	assert.NotEqual(h.t, "none", eval[string](tb, "getComputedStyle(document.activeElement).outlineStyle"), "the focus is seen")
	tb.keys("\r")
	assert.Equal(h.t, "main", eval[string](tb, "document.activeElement.id"))
	tb.keys("2")
	tb.seeText("h1", "Jobs")
	tb.seeText(".job-link", "by keys")
	tb.keys("/")
	tb.keys("by keys")
	tb.is(`document.querySelectorAll(".jobs tbody tr").length === 1`)
	tb.keys(kb.Escape)
	tb.keys("j")
	tb.is(`document.activeElement.classList.contains("job-link")`)
	tb.is(`document.activeElement.textContent === "by keys"`) // the newest is first
	tb.keys("\r")
	tb.seeText(".log .t", "beta")
	section := func() string {
		return eval[string](tb, `document.activeElement.querySelector?.(".sec-name")?.textContent ?? ""`)
	}
	for range 12 {
		if tb.keys("j"); section() == "echo beta" {
			break
		}
	}
	assert.Equal(h.t, "echo beta", section())
	tb.keys("k")
	assert.Equal(h.t, "echo alpha", section())
	tb.keys(" ")
	tb.is("!" + seen(".log .t", "alpha"))
	tb.keys("?")
	tb.seeText("dialog h2", "Keys")
	tb.keys("2") // means nothing while the dialog is there
	tb.keys(kb.Escape)
	tb.gone("dialog")
	assert.Equal(h.t, "echo alpha", section(), "the focus is back")
	tb.keys("1")
	tb.seeText("h1", "Slots")
}

func textStaysText(h *host) {
	const evil = `<script>window.stung = 1</script><img src=x onerror="window.stung = 1"><b>bold</b>`
	id := h.submit(evil, "cat <<'E'\n"+evil+"\nE", "echo '"+evil+"'; false")
	h.finished(id)
	tb := h.signedIn("#/jobs/" + id)
	tb.seeText("h1", evil)
	tb.seeText(".log .t", evil)
	tb.seeText(".sec-name", "<script>")
	tb.seeText(".reason", "<img")
	tb.click(".icon", "")
	tb.goTo("#/jobs")
	tb.seeText(".job-link", evil)
	tb.goTo("#/")
	tb.seeText(".job-link", evil)
	assert.False(h.t, eval[bool](tb, `window.stung !== undefined || document.querySelector("main script, main img, main b, h1 *") !== null`))
}

func anotherOrigin(h *host) {
	id := h.submit("not a stranger's", "echo here; "+h.until("strange"))
	own := h.signedIn("#/jobs/" + id)
	own.seeText(".log .t", "here")
	stranger := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/html")
		_, _ = io.WriteString(w, "<!doctype html><link rel=icon href=data:,><title>stranger</title><iframe name=f></iframe>")
	}))
	h.t.Cleanup(stranger.Close)
	// In the same browser, where there is a session.
	own.hosts[strings.TrimPrefix(stranger.URL, "http://")] = true
	own.expect("")
	do(own, chromedp.Navigate(stranger.URL))
	base := "http://" + h.addr
	for _, request := range []string{
		`fetch(%q, {method: "POST", mode: "no-cors", credentials: "include"})`,
		`fetch(%q, {method: "POST", mode: "no-cors", credentials: "include", headers: {"Content-Type": "text/plain"}, body: "{}"})`,
		`fetch(%q, {method: "POST", credentials: "include", headers: {"X-Signalman": "1"}})`,
		`fetch(%q, {method: "POST", credentials: "include", headers: {"Content-Type": "application/json"}, body: "{}"})`,
		`new Promise((r) => { const f = document.createElement("form"); f.method = "post"; f.enctype = "text/plain"; f.target = "f"; f.action = %q; document.body.append(f); frames.f.frameElement.onload = r; f.submit(); setTimeout(r, 1000); })`,
		`navigator.sendBeacon(%q, "{}")`,
	} {
		for _, path := range []string{"/v1/drain", "/v1/jobs/" + id + "/stop"} {
			eval[bool](own, "(async () => { try { await ("+fmt.Sprintf(request, base+path)+") } catch {} return true })()")
		}
	}
	got := eval[string](own, fmt.Sprintf(`fetch(%q, {credentials: "include"}).then((r) => r.text(), () => "refused")`, base+"/v1/status"))
	assert.Equal(h.t, "refused", got)
	got = eval[string](own, fmt.Sprintf(`new Promise((r) => { const f = document.createElement("iframe"); f.src = %q; f.onload = () => { try { r(f.contentDocument ? "empty" : "kept out") } catch { r("kept out") } }; document.body.append(f); })`, base+"/"))
	assert.Equal(h.t, "kept out", got)
	loaded := eval[string](own, fmt.Sprintf(`new Promise((r) => { const s = document.createElement("script"); s.src = %q; s.onload = () => r("loaded"); s.onerror = () => r("refused"); document.body.append(s); })`, base+"/page/app.js"))
	assert.Equal(h.t, "refused", loaded)

	do(own, chromedp.Navigate(base+"/#/jobs/"+id))
	own.seeText(".job-title", "running")
	assert.False(h.t, eval[bool](own, `import("/page/api.js").then((m) => m.api.status()).then((s) => s.drained)`))
	h.write("strange", "")
	assert.Equal(h.t, hub.ResultPassed, h.finished(id).Result)
}

func sessionEnds(h *host) {
	tb := h.signedIn("#/config")
	tb.seeText("h1", "Configuration")
	eval[bool](tb, `(localStorage.setItem("signalman-session", "ended"), true)`)
	tb.seeText(".error", "The session has ended")
	tb.keys(h.token() + "\r")
	tb.seeText("h1", "Configuration") // where it was
}

// A tunnel to the socket needs no token: who can open that may do all.
func socket(h *host) {
	status, err := admin.GetStatus(h.t.Context(), h.adminSocket())
	require.NoError(h.t, err)
	require.NotEmpty(h.t, status.Slots)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(h.t, err)
	h.t.Cleanup(func() { _ = l.Close() })
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			far, err := net.Dial("unix", h.adminSocket())
			if err != nil {
				_ = conn.Close()
				continue
			}
			go func() { _, _ = io.Copy(far, conn); _ = far.Close() }()
			go func() { _, _ = io.Copy(conn, far); _ = conn.Close() }()
		}
	}()
	tb := newTab(h.t, l.Addr().String())
	do(tb, chromedp.Navigate("http://"+l.Addr().String()))
	tb.seeText("h1", "Slots")
	tb.gone("#signout")
}

func health(h *host) {
	tb := h.signedIn("#/health")
	tb.seeText(".card", "ready")
	for _, text := range []string{"dev", "goroutines", "open files", h.path("state"), h.addr} {
		tb.seeText(".facts", text)
	}
}

func plugins(h *host) {
	tb := h.signedIn("#/plugins")
	tb.seeText(".plugins tr", "shell")
	tb.seeText(".plugins tr", "built in")
	h.writePlugin("worker-pretend", "not a program")
	tb.goTo("#/")
	tb.goTo("#/plugins")
	tb.seeText(".plugins tr", "pretend")
	tb.see(".plugins .bad-text")
}

func parser(h *host) {
	tb := h.signedIn("")
	check := func(expression string, want any) {
		h.t.Helper()
		got := eval[string](tb, `import("/page/ansi.js").then((a) => { const s = (l) => a.parseLine(l, a.plain).runs.map((r) => [r.text, r.style.fg, r.style.bg, r.style.face].join()).join("|"); return String(`+expression+`); })`)
		assert.Equal(h.t, want, got, expression)
	}
	check(`s("plain")`, "plain,-1,-1,0")
	check(`s("")`, "")
	check(`s("\x1b[31mred\x1b[mx")`, "red,1,-1,0|x,-1,-1,0")
	check(`s("\x1b[91;44mx")`, "x,9,4,0")
	check(`s("\x1b[38;5;99mx\x1b[48;2;1;2;3my")`, "x,99,-1,0|y,99,16843267,0")
	check(`s("\x1b[38:2::1:2:3mx\x1b[38:5:7my")`, "x,16843267,-1,0|y,7,-1,0")
	check(`s("\x1b[38;5mx\x1b[38;2;999;1;1;1my")`, "x,-1,-1,0|y,-1,-1,1") // broken ones: as far as they go
	check(`s("\x1b[1;2;3;4;7;9mx\x1b[22;23;24;27;29my")`, "x,-1,-1,63|y,-1,-1,0")
	check(`s("abc\rX")`, "Xbc,-1,-1,0")
	check(`s("abc\r\x1b[KX")`, "X,-1,-1,0")
	check(`s("abc\x1b[2K\rX")`, "X,-1,-1,0")
	check(`s("ab\bX")`, "aX,-1,-1,0")
	check(`s("a\x1b[3CX")`, "a   X,-1,-1,0")
	check(`s("abc\x1b[2DX")`, "aXc,-1,-1,0")
	check(`s("abc\x1b[1GX")`, "Xbc,-1,-1,0")
	check(`s("\x1b]8;;http://evil\x07text\x1b]8;;\x1b\\")`, "text,-1,-1,0")
	check(`s("\x1b]0;title\x07x\x1b(By\x1b=z")`, "xyz,-1,-1,0")
	check(`s("\x1b[?25lx\x1b[2Ay\x1b[")`, "xy,-1,-1,0")
	check(`s("a\x00b\x07c\td\u{1F600}e")`, "abc\td\U0001F600e,-1,-1,0")
	check(`s("x\x1b[999999999CY").length`, fmt.Sprint(20000+1+len(",-1,-1,0")))
	check(`a.textOf("a\x1b[1mb\x1b[0m\nc\rd\n")`, "ab\nd\n")
	check(`[[0,0,90],[10,10,10],[90,0,0]].every(([r, g, b]) => a.contrast(a.readable(r << 16 | g << 8 | b, a.ground), a.ground) >= 4.5)`, "true")
}

// The page while its supervisor is drained, gets other settings, is upgraded, and goes.
func TestPageThroughChanges(t *testing.T) {
	t.Parallel()
	whole := newHost(t, "concurrency = 1\n")
	part := func(name string, test func(*testing.T, *host)) {
		t.Run(name, func(t *testing.T) { test(t, whole.in(t)) })
	}
	part("drain", func(t *testing.T, h *host) {
		tb := h.signedIn("")
		tb.expect("503") // readyz
		tb.seeText(".slot", "ready")
		tb.click(".heading button", "Drain")
		tb.seeText("dialog", "No job is running.")
		tb.click("dialog button", "Cancel")
		tb.gone("dialog")
		assert.False(t, eval[bool](tb, seen(".banner", "")))
		tb.click(".heading button", "Drain")
		tb.click("dialog button", "Drain")
		tb.seeText(".banner", "Drained")
		tb.seeText(".slot", "drained")
		tb.seeText("#say", "rained")
		tb.goTo("#/health")
		tb.seeText(".card", "not ready")
		tb.click(".banner button", "Resume")
		tb.gone(".banner")
		tb.seeText(".card", "Takes jobs ready")
	})
	part("reload", func(t *testing.T, h *host) {
		tb := h.signedIn("#/config")
		tb.seeText(".settings tr", "concurrency")
		assert.True(t, eval[bool](tb, seen(".settings tr", "[hidden]")))
		assert.False(t, eval[bool](tb, fmt.Sprintf("document.body.textContent.includes(%q)", h.hub.RegistrationToken())))
		h.config("concurrency = 2\n")
		tb.seeText(".changes", "concurrency")
		tb.seeText(".changes", "applied")
		tb.seeText(".settings tr", "agent.toml:3")
		h.config("concurrency = 2\nconcurency = 3\n")
		tb.seeText("pre.error", `agent.toml:4: unknown key "concurency"`)
		tb.seeText(".banner", "The configuration can't be taken up")
		tb.click(".heading button", "Reload")
		tb.seeText("#say", "can't be taken up")
		h.config("concurrency = 1\n")
		tb.seeText(".changes", "concurrency")
		tb.gone(".banner")
		tb.keys("/")
		tb.keys("state-dir")
		tb.is(`document.querySelectorAll(".settings tbody tr").length === 1`)
	})
	part("upgrade", func(t *testing.T, h *host) {
		id := h.submit("through it all", "echo before; "+h.until("upgraded")+"; echo after; "+h.until("killed")+"; echo the end")
		tb := h.signedIn("#/jobs/" + id)
		tb.expect("ERR_CONNECTION_REFUSED", "ERR_INCOMPLETE_CHUNKED_ENCODING", "ERR_CONNECTION_RESET", "ERR_EMPTY_RESPONSE", "ERR_SOCKET_NOT_CONNECTED")
		tb.seeText(".log .t", "before")
		h.replaceSupervisor("9.9.9")
		require.NoError(t, h.sup.Signal(syscall.SIGUSR2))
		tb.seeText(".banner", "version 9.9.9")
		h.write("upgraded", "")
		tb.seeText(".log .t", "after")
		assert.True(t, eval[bool](tb, `document.querySelectorAll(".log .t").length > 2 && [...document.querySelectorAll(".log .t")].filter((e) => e.textContent === "before").length === 1`), "nothing comes twice")

		h.sup.Kill()
		tb.seeText(".banner", "The supervisor doesn't answer")
		tb.seeText("#link", "no answer")
		whole.start()
		h.write("killed", "")
		tb.seeText(".log .t", "the end")
		tb.seeText(".job-title", "passed")
		tb.is("!" + seen(".banner", "doesn't answer"))
		assert.Equal(t, hub.ResultPassed, h.finished(id).Result)
	})
}

// The page of `supervisor dev`, where jobs are written.
func TestDev(t *testing.T) {
	t.Parallel()
	if browser == nil {
		t.Skip("there is no chromium; scripts/test-needs installs it")
	}
	dir := t.TempDir()
	require.NoError(t, os.WriteFile(filepath.Join(dir, "greet.yaml"), []byte("job_name: greet\ncommands:\n  - echo good morning\n"), 0o644))
	cmd := exec.Command(filepath.Join(binaries, "supervisor"), "dev", "--page", filepath.Join(dir, "greet.yaml"))
	cmd.Env = append(os.Environ(), "HOME="+dir)
	p := startProcess(t, cmd)
	var url string
	eventually(t, "it prints where the page is", func() bool {
		for line := range strings.Lines(p.Log.String()) {
			if at := strings.Index(line, "http://127.0.0.1:"); at >= 0 {
				url = strings.TrimSpace(line[at:])
			}
		}
		return url != ""
	})
	host, _, _ := strings.Cut(strings.TrimPrefix(url, "http://"), "/")
	tb := newTab(t, host)
	tb.expect("400", "404") // a broken job, and one that no slot has taken yet
	do(tb, chromedp.Navigate(url))
	tb.seeText("h1", "Try a job")
	tb.is(`document.querySelector("textarea").value.includes("good morning")`)
	tb.click("button", "Run the job")
	tb.seeText(".log .t", "good morning")
	tb.seeText(".job-title", "passed")
	tb.click("#nav a", "Try")
	tb.seeText("h1", "Try a job")
	eval[bool](tb, `(() => { const t = document.querySelector("textarea"); t.focus(); t.select(); return true })()`)
	tb.keys("env: {NO-NAME: x}")
	tb.click("button", "Run the job")
	tb.seeText(".error", "can't be the name")
	tb.expect("ERR_CONNECTION_REFUSED", "ERR_INCOMPLETE_CHUNKED_ENCODING", "ERR_CONNECTION_RESET", "ERR_EMPTY_RESPONSE", "ERR_SOCKET_NOT_CONNECTED") // it may look once more
	require.NoError(t, p.Signal(os.Interrupt))
	code, err := p.Exit(*patience)
	require.NoError(t, err)
	assert.Zero(t, code, p.Log)
}
