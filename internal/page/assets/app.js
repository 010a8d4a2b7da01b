// The page as a whole: who is signed in, which part is shown, and what the supervisor's status is.
import { h, icon, put, say, tick, stored, store } from "./dom.js";
import { api } from "./api.js";
import { JobView } from "./jobview.js";
import { SlotsView, JobsView, PluginsView, ConfigView, HealthView, TryView, banners } from "./views.js";

const every = 2000; // ms between looks at the status while the page is seen
const slowest = 10000; // and at most, while nobody answers

const $ = (id) => document.getElementById(id);
const main = $("main");

const app = {
  view: undefined, route: "", status: undefined, signedIn: false, failures: 0, problem: "",
  examples: undefined, // there are some, or an empty list, in `supervisor dev`
};

const pages = () => [
  ["", "Slots"], ["jobs", "Jobs"], ["plugins", "Plugins"], ["config", "Config"], ["health", "Health"],
  ...(app.examples ? [["try", "Try"]] : []),
];

function parse() {
  const [page = "", id, line] = location.hash.replace(/^#\/?/, "").split("/");
  let job;
  try { job = id ? decodeURIComponent(id) : undefined; } catch { job = id; }
  return { page, job, line: /^L[1-9]\d{0,9}$/.test(line ?? "") ? Number(line.slice(1)) : undefined };
}

function make({ page, job, line }) {
  if (page === "jobs" && job) return new JobView(job, line);
  switch (page) {
    case "jobs": return new JobsView();
    case "plugins": return new PluginsView();
    case "config": return new ConfigView();
    case "health": return new HealthView();
    case "try": if (app.examples) return new TryView(app.examples); break;
  }
  return new SlotsView();
}

function show() {
  if (!app.signedIn) return;
  const at = parse();
  const route = `${at.page}/${at.job ?? ""}`;
  if (route === app.route && app.view) {
    if (app.view instanceof JobView) app.view.goToLine(at.line);
    return;
  }
  const first = app.view === undefined;
  app.view?.close?.();
  app.route = route;
  app.view = make(at);
  main.className = app.view instanceof JobView ? "full" : "";
  main.replaceChildren(app.view.el);
  main.scrollTop = 0;
  if (!first) main.focus({ preventScroll: true });
  nav();
  if (app.status) app.view.update?.(app.status);
}

function nav() {
  const at = parse().page;
  put($("nav"), [at, pages()], () => pages().map(([page, name]) =>
    h("a", { href: `#/${page}`, "aria-current": page === at ? "page" : undefined, "data-focus": page }, name)));
  const name = pages().find(([p]) => p === at)?.[1];
  document.title = name && at ? `${name} · Signalman` : "Signalman";
}

// --- signing in

function signIn(text) {
  app.view?.close?.();
  app.view = undefined;
  app.route = "";
  app.signedIn = false;
  const input = h("input", { type: "password", id: "token", autocomplete: "current-password", required: true, autofocus: true, "aria-describedby": "token-hint token-error" });
  const error = h("p", { class: "error", id: "token-error", role: "alert", hidden: !text }, text ?? "");
  const button = h("button", { type: "submit", class: "button primary" }, "Sign in");
  const form = h("form", { class: "card sign-in", onsubmit: async (e) => {
    e.preventDefault();
    button.disabled = true;
    error.hidden = true;
    try {
      await api.signIn(input.value.trim());
      await begin();
    } catch (err) {
      error.textContent = err.status === 401 ? "This is not the token." : err.message;
      error.hidden = false;
      input.select();
    }
    button.disabled = false;
  } },
  h("h1", {}, "Sign in"), h("label", { for: "token" }, "Token"), input,
  h("p", { class: "muted small", id: "token-hint" }, "On the host: ", h("code", {}, "supervisor admin-token")), error, button);
  $("nav").replaceChildren();
  delete $("nav").dataset.key;
  $("signout").hidden = true;
  main.className = "";
  main.replaceChildren(form);
  document.title = "Sign in · Signalman";
  put($("banners"), [], () => []);
  input.focus();
}

document.addEventListener("signed-out", () => {
  if (app.signedIn) {
    signIn("The session has ended; sign in again.");
    say("The session has ended.");
  }
});

// --- status

let timer, looking = false;

async function look() {
  clearTimeout(timer);
  if (!app.signedIn || looking) return;
  looking = true;
  try {
    heard(await api.status());
  } catch (err) {
    if (app.signedIn && err.status !== 401) lost(err);
  }
  looking = false;
  if (app.signedIn && !document.hidden) timer = setTimeout(look, Math.min(slowest, every * Math.max(1, app.failures / 2)));
}

function heard(st) {
  const before = app.status;
  if (app.failures) say("The supervisor answers again.");
  app.failures = 0;
  app.status = st;
  if (before) tell(before, st);
  if (before && before.version !== st.version) {
    app.note = ["ok", `The supervisor is version ${st.version} now.`, ["Reload the page", () => location.reload()]];
  }
  app.view?.update?.(st);
  app.view?.stirred?.();
  foot();
}

function lost(err) {
  app.failures++;
  if (app.failures === 1) say("The supervisor doesn't answer; trying again.");
  foot();
  app.lastError = err.message;
}

// tell says to those who don't see it what has changed.
function tell(before, st) {
  if (before.drained !== st.drained) say(st.drained ? "Drained: no new jobs are taken." : "Resumed: jobs are taken again.");
  for (const s of st.slots) {
    const was = before.slots.find((x) => x.slot === s.slot);
    if (was && was.state !== s.state) say(`Slot ${s.slot}: ${s.state.replaceAll("-", " ")}`);
  }
}

function foot() {
  const list = [];
  if (app.failures) list.push(["bad", "The supervisor doesn't answer. It may be restarting or being upgraded; jobs go on meanwhile. Trying again…"]);
  else if (app.status) list.push(...banners(app.status));
  if (app.note) list.push([...app.note, true]);
  if (app.problem) list.push(["bad", app.problem, ["Close", () => { app.problem = ""; foot(); }]]);
  put($("banners"), list.map(([shade, text]) => [shade, text]), () => list.map(([shade, text, action]) =>
    h("div", { class: `banner ${shade}`, role: shade === "bad" ? "alert" : undefined }, h("span", {}, text),
      action && h("button", { type: "button", class: "button small", "data-focus": action[0], onclick: action[1] }, action[0]))));
  const link = $("link");
  link.hidden = false;
  const word = app.failures ? "no answer" : "live";
  if (link.dataset.word !== word) {
    link.dataset.word = word;
    link.className = `link ${app.failures ? "bad" : "ok"}`;
    link.replaceChildren(h("span", { class: "dot" }), h("span", { class: "link-word" }, word));
  }
}

document.addEventListener("look", look);
document.addEventListener("failed", (e) => { app.problem = e.detail; say(e.detail); foot(); });
document.addEventListener("visibilitychange", () => { if (!document.hidden) look(); });
setInterval(() => { if (!document.hidden) tick(); }, 1000);

// --- keys

const keys = [
  ["?", "this help"], ["1 – 9", "the pages, in the order at the top"], ["j k", "next and previous job or section, also by arrows"], ["/", "search"], ["Esc", "leave the search"],
  ["n N", "next and previous match (in a log; also Enter and Shift+Enter)"], ["f", "follow the end of the log"], ["g G", "begin and end of the log"],
  ["w", "wrap long lines"], ["p", "fold the sections that have passed"],
];

function help() {
  if (document.querySelector("dialog[open]")) return;
  const dialog = h("dialog", { class: "help", "aria-labelledby": "help-title" }, h("h2", { id: "help-title" }, "Keys"),
    h("dl", {}, keys.map(([k, what]) => h("div", {}, h("dt", {}, k.split(" ").map((x) => (x === "–" ? " – " : h("kbd", {}, x)))), h("dd", {}, what)))),
    h("form", { method: "dialog" }, h("button", { class: "button primary", autofocus: true }, "Close")));
  dialog.addEventListener("close", () => dialog.remove());
  document.body.append(dialog);
  dialog.showModal();
}

document.addEventListener("keydown", (e) => {
  if (e.ctrlKey || e.metaKey || e.altKey || document.querySelector("dialog[open]")) return;
  if (e.target.closest("input, textarea, select")) return;
  let done = true;
  if (e.key === "?") help();
  else if (app.signedIn && /^[1-9]$/.test(e.key) && pages()[e.key - 1]) location.hash = `#/${pages()[e.key - 1][0]}`;
  else done = app.view?.key?.(e) ?? false;
  if (done) e.preventDefault();
});

$("skip").addEventListener("click", (e) => { e.preventDefault(); main.focus(); }); // its address would be a page
$("help").addEventListener("click", help);
$("signout").addEventListener("click", async () => {
  await api.signOut();
  signIn();
});

// --- theme

const themes = ["auto", "light", "dark"];

function theme(name) {
  if (name === "auto") delete document.documentElement.dataset.theme;
  else document.documentElement.dataset.theme = name;
  const next = themes[(themes.indexOf(name) + 1) % themes.length];
  const b = $("theme");
  b.replaceChildren(icon({ auto: "auto", light: "sun", dark: "moon" }[name]));
  b.setAttribute("aria-label", `Theme: ${name}; change to ${next}`);
  b.title = `Theme: ${name}`;
  b.onclick = () => { store("theme", next === "auto" ? "" : next); theme(next); };
}
theme(stored("theme", "") || "auto");

// --- the beginning

window.addEventListener("hashchange", show);
document.addEventListener("route", show);
window.addEventListener("popstate", show);

// begin shows the page if the supervisor lets us, which it tells by its status.
async function begin() {
  app.status = await api.status();
  app.examples = await api.examples().catch(() => undefined);
  app.signedIn = true;
  app.failures = 0;
  // Where it needs no token (the socket) there is nothing to sign out of.
  $("signout").hidden = app.status.listen?.split(":").pop() !== location.port;
  if (app.examples && location.hash.replace(/^#\/?/, "") === "" && app.status.slots.every((s) => !s.job_id)) history.replaceState(null, "", "#/try");
  show();
  heard(app.status);
  timer = setTimeout(look, every);
}

// A link may bring the token along (supervisor dev prints one); it doesn't stay in the address.
async function start() {
  const given = /^#token=(.+)$/.exec(location.hash);
  if (given) {
    history.replaceState(null, "", "/");
    await api.signIn(decodeURIComponent(given[1])).catch(() => {});
  }
  for (let wait = 500; ; wait = Math.min(slowest, wait * 2)) {
    try {
      await begin();
      return;
    } catch (err) {
      if (err.status === 401) { signIn(); return; }
      if (err.status !== 0 && err.status < 500) { app.problem = err.message; foot(); return; }
      app.failures++;
      foot();
    }
    await new Promise((r) => setTimeout(r, wait));
  }
}

start();
