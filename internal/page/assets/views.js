// The pages beside that of a job. Each has el, and what it needs of: update(status) for every status that comes, key(event), close().
import { h, icon, put, since, span, clock, shortClock, pill, ask, say, bytes } from "./dom.js";
import { api } from "./api.js";
import { stopJob, fact } from "./jobview.js";

const jobHref = (id) => `#/jobs/${encodeURIComponent(id)}`;

// What the states of a slot are to people, and their shades.
const slotStates = {
  "registering": ["registering", "warn"], "waiting-for-jobs": ["ready", "ok"], "starting-job": ["starting a job", "busy"],
  "running-job": ["running", "busy"], "stopping-job": ["stopping", "warn"], "finished-job": ["reporting", "busy"],
  "paused": ["paused", "warn"], "drained": ["drained", "warn"], "left": ["left", ""],
};

const heading = (title, ...rest) => h("div", { class: "heading" }, h("h1", {}, title), ...rest);
const fail = (text) => document.dispatchEvent(new CustomEvent("failed", { detail: text }));

// rows makes a list whose rows the keys j and k go through.
function stepRows(el, by) {
  const rows = [...el.querySelectorAll("[data-row]")];
  const at = rows.indexOf(document.activeElement);
  rows[Math.max(0, Math.min(rows.length - 1, at < 0 ? 0 : at + by))]?.focus();
}

function rowKey(el, e) {
  if (e.key === "j" || e.key === "ArrowDown") { stepRows(el, 1); return true; }
  if (e.key === "k" || e.key === "ArrowUp") { stepRows(el, -1); return true; }
  return false;
}

export class SlotsView {
  constructor() {
    this.title = h("div", { class: "heading" });
    this.slots = h("div", { class: "slots" });
    this.recent = h("div", {});
    this.jobs = new Map();
    this.el = h("div", { class: "page" }, this.title, this.slots, h("h2", { class: "sub" }, "Latest jobs"), this.recent);
  }

  async update(st) {
    this.status = st;
    this.#draw();
    const held = st.slots.map((s) => s.job_id).filter(Boolean);
    const key = JSON.stringify([held, st.slots.map((s) => s.state)]);
    if (key !== this.asked || held.some((id) => !this.jobs.get(id)?.executor)) {
      this.asked = key;
      const list = await api.jobs(6).catch(() => undefined);
      if (!list) { this.asked = ""; return; }
      this.jobs = new Map(list.map((j) => [j.id, j]));
      this.latest = list.filter((j) => j.state === "ended").slice(0, 5);
      this.#draw();
    }
  }

  #draw() {
    const st = this.status;
    const busy = st.slots.filter((s) => s.job_id).length;
    put(this.title, [busy, st.slots.length, st.drained, st.interrupted], () => [
      h("h1", {}, "Slots"), h("span", { class: "muted" }, `${busy} of ${st.slots.length} busy`), h("span", { class: "spacer" }),
      st.drained
        ? h("button", { type: "button", class: "button primary", "data-focus": "drain", onclick: resume }, "Resume")
        : h("button", { type: "button", class: "button", "data-focus": "drain", disabled: st.interrupted, onclick: () => drain(busy) }, "Drain"),
    ]);
    put(this.slots, [st.slots, st.slots.map((s) => this.jobs.get(s.job_id))], () => st.slots.length ? st.slots.map((s) => this.#slot(s)) : h("p", { class: "empty" }, "There are no slots yet."));
    put(this.recent, this.latest ?? null, () => !this.latest ? [] : this.latest.length ? jobTable(this.latest, true) : h("p", { class: "empty" }, "No job has ended here yet."));
  }

  #slot(s) {
    const job = this.jobs.get(s.job_id);
    const [word, shade] = slotStates[s.state] ?? [s.state, ""];
    const notes = [s.state !== "drained" && s.problem, s.pending && "New settings wait until the job has ended."].filter(Boolean); // of a drain the banner tells
    return h("article", { class: `slot ${shade}`, "aria-label": `Slot ${s.slot}: ${word}` },
      h("div", { class: "slot-top" }, h("span", { class: "slot-no" }, `Slot ${s.slot}`), pill(word, shade), h("span", { class: "spacer" }), since(s.since)),
      s.job_id
        ? h("div", { class: "slot-job" },
          h("a", { href: jobHref(s.job_id), class: "job-link", "data-row": true, "data-focus": `job-${s.job_id}` }, job?.name || s.job_id),
          h("div", { class: "muted small clip" }, [job?.executor, job?.name && s.job_id].filter(Boolean).join(" · ")))
        : h("div", { class: "slot-job idle" }, { ok: "Waiting for a job", warn: s.state === "registering" ? "Not at the hub yet" : "Takes no jobs" }[shade] ?? "No job"),
      notes.length > 0 && h("p", { class: "slot-note" }, notes.join(" ")),
      h("div", { class: "slot-foot" }, h("span", { class: "muted small clip", title: s.name }, s.name ?? ""), h("span", { class: "spacer" }),
        s.job_id && h("a", { class: "button small", href: jobHref(s.job_id) }, "Log"),
        s.job_id && h("button", { type: "button", class: "button small danger", "data-focus": `stop-${s.job_id}`, "aria-label": `Stop ${job?.name || s.job_id}`, disabled: s.state === "stopping-job", onclick: () => stopJob(job ?? { id: s.job_id }) }, "Stop")));
  }

  key(e) { return rowKey(this.el, e); }
}

async function drain(busy) {
  const yes = await ask({
    title: "Take no more jobs?", yes: "Drain",
    text: `${busy === 0 ? "No job is running." : busy === 1 ? "The running job goes on to its end." : `The ${busy} running jobs go on to their ends.`} The slots take no new ones until you resume, even over a restart.`,
  });
  if (yes) await act(api.drain, "Drained: no more jobs are taken.", "Not drained");
}

const resume = () => act(api.resume, "Resumed: jobs are taken again.", "Not resumed");

async function act(what, done, not) {
  try {
    await what();
    say(done);
  } catch (err) {
    fail(`${not}: ${err.message}`);
  }
  document.dispatchEvent(new Event("look"));
}

// banners tell what holds for all slots.
export function banners(st) {
  const out = [];
  if (st.interrupted) out.push(["warn", "Interrupted: it takes no more jobs, and leaves when the running ones have ended."]);
  if (st.drained) out.push(["warn", "Drained: no new jobs are taken until someone resumes.", ["Resume", resume]]);
  if (st.last_reload?.error) out.push(["bad", "The configuration can't be taken up; the settings of before hold.", ["See why", () => { location.hash = "#/config"; }]]);
  return out;
}

function jobTable(jobs, brief) {
  const cell = (name, cls, ...kids) => h("td", { "data-label": name, class: cls }, ...kids);
  return h("div", { class: "table-box" }, h("table", { class: "jobs" },
    h("thead", {}, h("tr", {}, ["Result", "Job", "Started", "Took", "Executor", !brief && "Log"].filter(Boolean).map((t) => h("th", { scope: "col" }, t)))),
    h("tbody", {}, jobs.map((j) => h("tr", {},
      cell("Result", "c-state", pill(j.result || j.state)),
      cell("Job", "c-job", h("a", { href: jobHref(j.id), class: "job-link", "data-row": true, "data-focus": j.id }, j.name || j.id), j.reason && h("div", { class: "small muted clip", title: j.reason }, j.reason)),
      cell("Started", "c-when num", h("time", { datetime: j.started, title: clock(j.started) }, shortClock(j.started))),
      cell("Took", "c-took num", j.state === "ended" ? span(j.duration_seconds) : since(j.started)),
      cell("Executor", "c-exec", j.executor ?? ""),
      !brief && cell("Log", "c-log num", bytes(j.log_bytes)))))));
}

const resultKinds = ["all", "running", "passed", "failed", "stopped"];

export class JobsView {
  constructor() {
    this.limit = 100;
    this.kind = "all";
    this.input = h("input", { type: "search", placeholder: "Filter by name, id, reason, executor", "aria-label": "Filter the jobs", autocomplete: "off", spellcheck: "false",
      oninput: () => this.#draw(), onkeydown: (e) => { if (e.key === "Escape") { this.input.value = ""; this.#draw(); this.input.blur(); } } });
    this.chips = h("div", { class: "chips", role: "group", "aria-label": "Result" }, resultKinds.map((k) =>
      h("button", { type: "button", class: "chip", "aria-pressed": String(k === "all"), onclick: (e) => {
        this.kind = k;
        for (const c of this.chips.children) c.setAttribute("aria-pressed", c === e.currentTarget);
        this.#draw();
      } }, k)));
    this.list = h("div", {});
    this.more = h("button", { type: "button", class: "button", hidden: true, onclick: () => { this.limit *= 5; this.#ask(); } }, "Show older ones");
    this.el = h("div", { class: "page" }, heading("Jobs"), h("div", { class: "filters" }, h("div", { class: "search" }, icon("search"), this.input), this.chips), this.list, this.more);
    this.#ask();
  }

  async #ask() {
    try {
      this.jobs = await api.jobs(Math.min(10000, this.limit));
      this.#draw();
    } catch (err) {
      if (!this.jobs) put(this.list, err.message, () => h("p", { class: "empty" }, err.message));
    }
  }

  update(st) {
    const key = JSON.stringify(st.slots.map((s) => [s.state, s.job_id]));
    if (this.seen !== key && this.seen !== undefined) this.#ask();
    this.seen = key;
  }

  #draw() {
    if (!this.jobs) return;
    const words = this.input.value.toLowerCase().split(/\s+/).filter(Boolean);
    const shown = this.jobs.filter((j) => {
      const kind = j.result || "running";
      if (this.kind !== "all" && kind !== this.kind) return false;
      const text = [j.id, j.name, j.reason, j.executor, kind].join(" ").toLowerCase();
      return words.every((w) => text.includes(w));
    });
    const most = 500;
    put(this.list, [shown.slice(0, most).map((j) => [j.id, j.name, j.state, j.result, j.reason, j.log_bytes]), this.jobs.length], () =>
      shown.length ? [jobTable(shown.slice(0, most)), shown.length > most && h("p", { class: "muted small" }, `${shown.length - most} more match: filter for less.`)].filter(Boolean)
        : h("p", { class: "empty" }, this.jobs.length ? "No job matches." : "There are no jobs yet."));
    this.more.hidden = this.jobs.length < this.limit || this.limit > 10000;
  }

  key(e) {
    if (e.key === "/") { this.input.focus(); this.input.select(); return true; }
    return rowKey(this.el, e);
  }
}

export class PluginsView {
  constructor() {
    this.list = h("div", {});
    this.el = h("div", { class: "page" }, heading("Plugins"), this.list);
    this.#ask();
  }

  async #ask() {
    const list = await api.plugins().catch((err) => err);
    if (list instanceof Error) { this.list.replaceChildren(h("p", { class: "empty" }, list.message)); return; }
    const shade = { pinned: "ok", unpinned: "warn", changed: "bad" };
    this.list.replaceChildren(list.length === 0 ? h("p", { class: "empty" }, "There are no executors here.") : h("div", { class: "table-box" }, h("table", { class: "plugins" },
      h("thead", {}, h("tr", {}, ["Executor", "Pin", "File", "Size", "SHA-256"].map((t) => h("th", { scope: "col" }, t)))),
      h("tbody", {}, list.map((p) => h("tr", {},
        h("td", { "data-label": "Executor" }, h("strong", {}, p.name), p.problem && h("div", { class: "small bad-text" }, p.problem)),
        h("td", { "data-label": "Pin" }, p.built_in ? pill("built in", "") : p.pin ? pill(p.pin, shade[p.pin]) : "none"),
        h("td", { "data-label": "File" }, h("code", { class: "long" }, p.path ?? "")),
        h("td", { "data-label": "Size", class: "num muted c-size" }, bytes(p.size)),
        h("td", { "data-label": "SHA-256" }, p.sha256 && h("code", { title: p.sha256 }, p.sha256.slice(0, 12)))))))));
  }
}

const whens = { "now": ["applied", "ok"], "next-job": ["from the next job", "busy"], "new-registration": ["new registration", "busy"], "restart": ["needs a restart", "warn"] };

export class ConfigView {
  constructor() {
    this.report = h("section", { class: "card", "aria-label": "Last reload" });
    this.table = h("div", {});
    this.button = h("button", { type: "button", class: "button primary", onclick: () => this.#reload() }, "Reload");
    this.input = h("input", { type: "search", placeholder: "Filter settings", "aria-label": "Filter settings", autocomplete: "off", spellcheck: "false", oninput: () => this.#draw() });
    this.set = h("button", { type: "button", class: "chip", "aria-pressed": "false", onclick: () => { this.set.setAttribute("aria-pressed", this.set.getAttribute("aria-pressed") !== "true"); this.#draw(); } }, "Only what is set");
    this.el = h("div", { class: "page" }, heading("Configuration", h("span", { class: "spacer" }), this.button), this.report,
      h("div", { class: "filters" }, h("div", { class: "search" }, icon("search"), this.input), this.set), this.table);
    this.#ask();
  }

  async #ask() {
    try {
      this.config = await api.config();
      this.#draw();
    } catch (err) {
      if (!this.config) this.table.replaceChildren(h("p", { class: "empty" }, err.message));
    }
  }

  async #reload() {
    this.button.disabled = true;
    try {
      const r = await api.reload();
      this.#show(r);
      say(r.error ? "The configuration can't be taken up." : `The configuration was read: ${r.changes?.length ?? 0} changes.`);
    } catch (err) {
      fail(`Not reloaded: ${err.message}`);
    }
    this.button.disabled = false;
    this.#ask();
    document.dispatchEvent(new Event("look"));
  }

  update(st) {
    const at = st.last_reload?.at ?? "";
    if (this.at !== at) {
      if (this.at !== undefined) this.#ask();
      this.at = at;
      if (!this.shown || at > this.shown) this.#show(st.last_reload);
    }
  }

  #show(r) {
    this.shown = r?.at;
    put(this.report, r ?? null, () => {
      if (!r) return [h("h2", {}, "Last reload"), h("p", { class: "muted" }, "None since the supervisor has started. The file is read anew when it changes.")];
      const changes = r.changes ?? [];
      return [
        h("h2", {}, "Last reload ", h("span", { class: "muted" }, clock(r.at)), " ", r.error ? pill("refused", "bad") : pill("taken up", "ok")),
        r.error && h("pre", { class: "error" }, r.error),
        !r.error && changes.length === 0 && h("p", { class: "muted" }, "Nothing in it has changed."),
        changes.length > 0 && h("ul", { class: "changes" }, changes.map((c) => h("li", {}, h("code", {}, c.key), " ",
          c.old === c.new ? h("span", {}, "changed") : h("span", { class: "from-to" }, h("del", {}, c.old), " → ", h("ins", {}, c.new)), " ", pill(...(whens[c.when] ?? [c.when, ""]))))),
        ...(r.warnings ?? []).map((w) => h("p", { class: "warning" }, w)),
      ].filter(Boolean);
    });
  }

  #draw() {
    if (!this.config) return;
    const words = this.input.value.toLowerCase().split(/\s+/).filter(Boolean);
    const only = this.set.getAttribute("aria-pressed") === "true";
    const shown = this.config.settings.filter((s) => (!only || s.origin.source !== "default") && words.every((w) => `${s.key} ${s.value} ${s.origin.where ?? ""}`.toLowerCase().includes(w)));
    put(this.table, shown, () => shown.length === 0 ? h("p", { class: "empty" }, "No setting matches.") : h("div", { class: "table-box" }, h("table", { class: "settings" },
      h("thead", {}, h("tr", {}, ["Setting", "Value", "From"].map((t) => h("th", { scope: "col" }, t)))),
      h("tbody", {}, shown.map((s) => h("tr", { class: s.origin.source === "default" ? "default" : "" },
        h("td", { "data-label": "Setting" }, h("code", {}, s.key)), h("td", { "data-label": "Value" }, h("code", { class: "long" }, s.value)),
        h("td", { "data-label": "From", class: "muted small", title: s.origin.where }, (s.origin.where || s.origin.source).replace(/^\/.*\//, ""))))))));
  }

  key(e) {
    if (e.key === "/") { this.input.focus(); this.input.select(); return true; }
    return false;
  }
}

export class HealthView {
  constructor() {
    this.ready = h("section", { class: "card" });
    this.facts = h("dl", { class: "facts wide" });
    this.el = h("div", { class: "page" }, heading("Health"), this.ready, this.facts);
  }

  async update(st) {
    put(this.facts, [st.version, st.pid, st.goroutines, st.open_files, st.since], () => [
      fact("version", st.version), fact("up for", since(st.since)), fact("process", st.pid), fact("goroutines", st.goroutines), st.open_files && fact("open files", st.open_files),
      fact("state folder", h("code", { class: "long" }, st.state_dir)), fact("instance", h("code", { class: "long" }, st.instance_id)),
      st.socket && fact("socket", h("code", { class: "long" }, st.socket)), st.listen && fact("listens at", h("code", {}, st.listen)),
    ].filter(Boolean));
    const why = await api.ready().catch(() => undefined);
    if (why === undefined) return;
    const paused = st.slots.filter((s) => s.problem);
    put(this.ready, [why, paused.map((s) => s.problem)], () => [
      h("h2", {}, "Takes jobs ", why === "" ? pill("ready", "ok") : pill("not ready", "bad")),
      why !== "" && h("p", {}, why),
      paused.length > 0 && h("ul", {}, paused.map((s) => h("li", {}, `Slot ${s.slot}: ${s.problem}`))),
      why === "" && paused.length === 0 && h("p", { class: "muted" }, "The supervisor and its slots are at work; the host has room for jobs."),
    ].filter(Boolean));
  }
}

const firstJob = "job_name: my first job\ncommands:\n  - echo \"Hello from $(hostname)\"\n  - for i in 1 2 3; do echo \"step $i\"; sleep 1; done\n";

// TryView is for `supervisor dev`: a job is written or picked here, and run.
export class TryView {
  constructor(examples) {
    this.text = h("textarea", { id: "job-yaml", rows: 16, spellcheck: "false", autocomplete: "off", "aria-label": "The job, in YAML" });
    this.text.value = examples[0]?.yaml ?? firstJob;
    this.error = h("p", { class: "error", role: "alert", hidden: true });
    const pick = examples.length > 0 && h("label", { class: "pick" }, "Example ", h("select", { onchange: (e) => { this.text.value = examples[e.target.value]?.yaml ?? firstJob; } },
      examples.map((x, i) => h("option", { value: String(i) }, x.name)), h("option", { value: "new" }, "a first job")));
    this.run = h("button", { type: "submit", class: "button primary" }, "Run the job");
    this.el = h("div", { class: "page" }, heading("Try a job"),
      h("p", { class: "muted" }, "Paste a job, or pick one. It runs on this machine through a hub that is there for this trial only."),
      h("form", { class: "try", onsubmit: (e) => { e.preventDefault(); this.#submit(); } }, pick, this.text, this.error,
        h("div", { class: "row" }, this.run, h("span", { class: "muted small" }, "or Ctrl+Enter"))));
    this.text.addEventListener("keydown", (e) => { if (e.key === "Enter" && (e.ctrlKey || e.metaKey)) { e.preventDefault(); this.#submit(); } });
  }

  async #submit() {
    this.error.hidden = true;
    this.run.disabled = true;
    try {
      const { id } = await api.submit(this.text.value);
      history.pushState({ submitted: id }, "", jobHref(id));
      document.dispatchEvent(new Event("route"));
    } catch (err) {
      this.error.textContent = err.message;
      this.error.hidden = false;
    }
    this.run.disabled = false;
  }
}
