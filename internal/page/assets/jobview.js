// The page of one job: what is known of it, and its log.
import { h, icon, ask, say, span, since, clock, bytes, pill, put } from "./dom.js";
import { api } from "./api.js";
import { LogStore, Feed, Search } from "./logstore.js";
import { LogView } from "./logview.js";

// Of a log larger than this the end is shown first, while the rest comes.
const wholeBytes = 3 << 20, endBytes = 400 << 10;
const retry = 1500; // ms

const pause = (ms, signal) => new Promise((resolve) => {
  const t = setTimeout(resolve, ms);
  signal.addEventListener("abort", () => { clearTimeout(t); resolve(); }, { once: true });
});

// download saves the log as text: a plain link would come without the session.
async function download(id) {
  const url = URL.createObjectURL(await api.plain(id));
  h("a", { href: url, download: `${id}.txt` }).click();
  URL.revokeObjectURL(url);
}

export class JobView {
  constructor(id, line) {
    this.id = id;
    this.line = line;
    this.closed = new AbortController();
    this.head = h("div", { class: "job-head" });
    this.count = h("output", { class: "count num", "aria-live": "polite" });
    this.input = h("input", {
      type: "search", id: "log-search", placeholder: "Search the log", "aria-label": "Search the log", autocomplete: "off", spellcheck: "false",
      oninput: () => { clearTimeout(this.typed); this.typed = setTimeout(() => this.view.find(this.input.value), 150); },
      onkeydown: (e) => {
        if (e.key === "Enter") {
          e.preventDefault();
          if (this.view.query !== this.input.value) this.view.find(this.input.value);
          else this.view.next(e.shiftKey ? -1 : 1);
        } else if (e.key === "Escape") {
          e.preventDefault();
          this.input.value = "";
          this.view.find("");
          this.view.el.focus();
        }
      },
    });
    const toggle = (label, title, on, set) => {
      const b = h("button", { type: "button", class: "chip", title, "aria-pressed": String(on), onclick: () => {
        const next = b.getAttribute("aria-pressed") !== "true";
        b.setAttribute("aria-pressed", next);
        set(next);
      } }, label);
      return b;
    };
    this.view = new LogView({ href: (n) => `#/jobs/${encodeURIComponent(this.id)}/L${n}` });
    this.view.searched = () => this.#told();
    this.view.moved = () => this.#follows();
    this.progress = h("span", { class: "progress num", role: "status" });
    this.wrapChip = toggle("Wrap", "Wrap long lines (w)", this.view.wrap, (on) => this.view.setWrap(on));
    this.foldChip = toggle("Fold passed", "Fold the sections that have passed (p)", this.view.foldPassed, (on) => this.view.setFoldPassed(on));
    this.followChip = h("button", { type: "button", class: "follow", title: "Follow the end (f)", onclick: () => this.view.setFollow(true) }, icon("down"), h("span", {}, "Follow the end"));
    this.followChip.hidden = true;
    this.bar = h("div", { class: "log-bar", role: "toolbar", "aria-label": "Log" },
      h("div", { class: "search" }, icon("search"), this.input, this.count,
        h("button", { type: "button", class: "icon", title: "Previous match (N)", "aria-label": "Previous match", onclick: () => this.view.next(-1) }, icon("up")),
        h("button", { type: "button", class: "icon", title: "Next match (n)", "aria-label": "Next match", onclick: () => this.view.next(1) }, icon("down"))),
      this.progress, h("span", { class: "spacer" }), this.foldChip, this.wrapChip,
      h("button", { type: "button", class: "chip", title: "Download the log as text", onclick: () => download(id) }, "Download"));
    this.note = h("p", { class: "empty", hidden: true });
    this.el = h("div", { class: "job" }, this.head, h("div", { class: "log-box" }, this.bar, this.note, this.view.el, this.followChip));
    this.started = this.#start();
  }

  close() {
    this.closed.abort();
    this.feed?.stop();
    this.preview?.stop();
    this.view.close();
  }

  async #start() {
    const { signal } = this.closed;
    for (;;) {
      try {
        this.job = await api.job(this.id);
        break;
      } catch (err) {
        if (signal.aborted) return;
        if (err.status === 404) this.#say(history.state?.submitted === this.id ? "Waiting for a slot to take the job…" : "There is no such job here (any more).");
        else this.#say(err.message);
      }
      await pause(retry, signal);
      if (signal.aborted) return;
    }
    this.#say("");
    this.#drawHead();
    const running = this.job.state !== "ended" && this.job.state !== "reporting";
    const large = this.job.log_bytes > wholeBytes;
    this.full = new LogStore();
    this.feed = this.#feed(this.full, 0, () => this.#came());
    if (running && !this.line) this.view.follow = true;
    if (large && !this.line) {
      const perEvent = this.job.log_bytes / Math.max(1, this.job.log_events);
      const from = Math.max(0, this.job.log_events - Math.max(20, Math.ceil(endBytes / perEvent)));
      this.end = new LogStore();
      this.endAt = from;
      if (!running) this.view.follow = true;
      this.view.show(this.end, { numbers: false });
      this.preview = this.#feed(this.end, from, () => this.view.changed());
    } else this.view.show(this.full);
    this.#follows();
  }

  #feed(store, from, changed) {
    return new Feed(store, from, {
      open: (next, signal) => api.log(this.id, next, true, signal),
      changed,
      more: async () => {
        const job = await api.job(this.id).catch(() => undefined);
        if (job) this.update(job);
        if (job?.state === "ended") { this.#whole(); return false; }
        await pause(retry, this.closed.signal);
        return !this.closed.signal.aborted;
      },
      failed: async (err) => {
        if (err.status === 404 || err.status === 401) return false;
        await pause(err.status === 503 ? 5 * retry : retry, this.closed.signal);
        return !this.closed.signal.aborted;
      },
    });
  }

  // came is told that more of the whole log is here.
  #came() {
    if (this.end) {
      const have = this.full.events, want = this.endAt + this.end.events;
      this.progress.textContent = `loading ${bytes(this.full.chars)} of ${bytes(this.job.log_bytes)}`;
      if (have < want && this.full.result === undefined) return;
      this.#whole();
      return;
    }
    this.view.changed();
    this.#place();
    if (this.full.result !== undefined) this.#ended();
  }

  // place shows the line that the address names, once it is here.
  #place() {
    if (this.placed || !this.line || this.full.lines < this.line) return;
    this.placed = true;
    this.view.draw();
    this.view.goTo(this.line);
  }

  // whole shows the whole log instead of its end.
  #whole() {
    if (!this.end) return;
    this.preview.stop();
    this.end = undefined;
    this.progress.textContent = "";
    this.view.show(this.full);
    this.#place();
    if (this.full.result !== undefined) this.#ended();
  }

  #ended() {
    if (this.over) return;
    this.over = true;
    this.view.draw();
    if (!this.placed && !this.line && !this.view.read && this.full.result === "failed") {
      this.placed = this.view.toFailure();
    }
    this.#follows();
    this.refresh();
  }

  // goToLine is for another line of the same job.
  goToLine(line) {
    if (line === undefined || line === this.line) return;
    this.line = line;
    this.placed = this.full !== undefined && this.view.store === this.full && this.view.goTo(line);
  }

  async refresh() {
    const job = await api.job(this.id).catch(() => undefined);
    if (job) this.update(job);
  }

  update(job) {
    if (this.job?.state !== job.state) say(`Job ${job.name || job.id}: ${job.result || job.state}`);
    this.job = job;
    this.#drawHead();
  }

  // stirred is called when the status has come; a job that goes on may have changed.
  stirred() {
    if (this.job && this.job.state !== "ended") this.refresh();
  }

  #drawHead() {
    const j = this.job;
    const over = j.state === "ended" || j.state === "reporting";
    put(this.head, [j.id, j.name, j.state, j.result, j.reason, j.executor, over && j.duration_seconds], () => [
      h("div", { class: "job-title" },
        h("a", { class: "icon", href: "#/jobs", "aria-label": "All jobs", title: "All jobs" }, icon("back")),
        h("h1", {}, j.name || j.id), pill(j.result || j.state),
        h("span", { class: "spacer" }),
        !over && h("button", { type: "button", class: "button danger", "data-focus": "stop", disabled: j.state === "stopping", onclick: () => stopJob(j) }, j.state === "stopping" ? "Stopping…" : "Stop")),
      h("dl", { class: "facts" },
        fact(over ? "took" : "running for", over ? span(j.duration_seconds) : since(j.started)), aside("started", clock(j.started)),
        j.executor && fact("executor", j.executor), aside("slot", j.slot), j.name && fact("id", h("code", {}, j.id))),
      j.reason && h("p", { class: `reason ${j.result === "failed" ? "bad" : ""}` }, j.reason),
    ]);
  }

  #say(text) {
    this.note.textContent = text;
    this.note.hidden = text === "";
    this.view.el.hidden = text !== "";
  }

  #told() {
    const s = this.view.search;
    const n = s?.hits.length ?? 0;
    const total = `${n.toLocaleString("en")}${s?.full ? "+" : ""}`;
    this.count.textContent = !s ? "" : n === 0 ? (s.busy ? "…" : "none") : `${(this.view.hit + 1).toLocaleString("en")} / ${total}${s.busy ? " …" : ""}`;
  }

  #follows() {
    this.followChip.hidden = this.view.follow || this.over === true || !this.job || this.job.state === "ended";
    this.followChip.setAttribute("aria-hidden", this.followChip.hidden);
  }

  key(e) {
    switch (e.key) {
      case "/": this.input.focus(); this.input.select(); return true;
      case "j": case "ArrowDown": if (e.key !== "j" && e.target.closest?.(".log") && !e.target.closest(".sec-head")) return false; this.view.step(1); return true;
      case "k": case "ArrowUp": if (e.key !== "k" && e.target.closest?.(".log") && !e.target.closest(".sec-head")) return false; this.view.step(-1); return true;
      case "n": this.view.next(1); return true;
      case "N": this.view.next(-1); return true;
      case "f": this.view.setFollow(true); return true;
      case "G": this.view.setFollow(true); return true;
      case "g": this.view.setFollow(false); this.view.goTo(1, "seen"); this.view.el.scrollTop = 0; return true;
      case "w": this.wrapChip.click(); return true;
      case "p": this.foldChip.click(); return true;
    }
    return false;
  }
}

export const fact = (name, value, cls) => h("div", { class: cls }, h("dt", {}, name), h("dd", {}, value));
const aside = (name, value) => fact(name, value, "aside"); // left out where there is little room

// stopJob stops a job if that is really wanted.
export async function stopJob(job) {
  const yes = await ask({
    title: `Stop ${job.name || job.id}?`, danger: true, yes: "Stop the job",
    text: "Everything the job has started is ended, and it is reported as stopped. This can't be taken back.",
  });
  if (!yes) return;
  try {
    await api.stop(job.id);
    say("The job is being stopped.");
    document.dispatchEvent(new Event("look"));
  } catch (err) {
    document.dispatchEvent(new CustomEvent("failed", { detail: `The job was not stopped: ${err.message}` }));
  }
}

export { Search };
