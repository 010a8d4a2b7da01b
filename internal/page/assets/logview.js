// Draws a LogStore. However long the log is, only the blocks near what the reader sees have lines in the DOM; the others are empty boxes
// of their height.
import { h, icon, span, say, stored, store as keep } from "./dom.js";
import { parseLine, plain, dress } from "./ansi.js";
import { isPiece, pieceText, Search } from "./logstore.js";

// mostBlocks is how many boxes a section has at a time, of 200 lines each; for more there is a button.
const mostBlocks = 1000;
const rowHeight = 18; // px, for boxes that have not been drawn yet; see --row in style.css
const drawEvery = 80; // ms

const results = { passed: "passed", failed: "failed", stopped: "stopped" };

export class LogView {
  // href(line) is the address of a line.
  constructor({ href }) {
    this.href = href;
    this.sections = new Map();
    this.boxes = new WeakMap(); // block by its box
    this.follow = false;
    this.read = false; // the reader has scrolled up
    this.foldPassed = stored("fold-passed", "") === "yes";
    this.wrap = stored("wrap", "yes") === "yes";
    this.hit = -1;
    this.el = h("div", { class: "log", tabindex: 0, role: "region", "aria-label": "Log", onscroll: () => this.#scrolled() });
    this.el.classList.toggle("wrap", this.wrap);
    this.near = new IntersectionObserver((entries) => this.#seen(entries), { root: this.el, rootMargin: "700px 0px" });
    this.sized = new ResizeObserver(() => { if (this.follow) this.#toEnd(); });
    this.sized.observe(this.el);
    this.lastTop = 0;
    this.moved = () => {}; // told when follow changes
    this.searched = () => {};
  }

  close() {
    this.near.disconnect();
    this.sized.disconnect();
    this.search?.stop();
    clearTimeout(this.timer);
  }

  // show makes another store the one that is drawn; what the reader sees stays where it is, from the end.
  show(store, { numbers = true } = {}) {
    const fromEnd = this.el.scrollHeight - this.el.scrollTop;
    const had = this.store !== undefined;
    this.near.disconnect();
    this.near = new IntersectionObserver((entries) => this.#seen(entries), { root: this.el, rootMargin: "700px 0px" });
    this.store = store;
    this.sections.clear();
    this.el.replaceChildren();
    this.el.classList.toggle("unnumbered", !numbers);
    this.draw();
    if (had && !this.follow) this.el.scrollTop = this.el.scrollHeight - fromEnd;
    if (this.query) this.find(this.query);
  }

  // changed draws what is new, soon.
  changed() {
    if (this.timer) return;
    const wait = Math.max(0, drawEvery - (performance.now() - (this.drawn ?? 0)));
    this.timer = setTimeout(() => { this.timer = 0; this.draw(); }, wait);
  }

  draw() {
    this.drawn = performance.now();
    for (const s of this.store.sections) {
      let v = this.sections.get(s);
      if (!v) {
        v = new SectionView(this, s);
        this.sections.set(s, v);
        this.el.append(v.el);
      }
      v.update();
    }
    if (this.follow) this.#toEnd();
    if (this.search && !this.search.full) this.search.run();
    else this.searched();
  }

  #seen(entries) {
    for (const e of entries) {
      const box = this.boxes.get(e.target);
      if (!box) continue;
      if (e.isIntersecting) box.fill();
      else if (e.boundingClientRect.height > 0 || e.rootBounds) box.empty(e.boundingClientRect.height);
    }
    if (this.follow) this.#toEnd();
  }

  #toEnd() {
    this.el.scrollTop = this.el.scrollHeight;
    this.lastTop = this.el.scrollTop;
  }

  #scrolled() {
    const { scrollTop, scrollHeight, clientHeight } = this.el;
    const up = scrollTop < this.lastTop - 1;
    this.lastTop = scrollTop;
    if (up) {
      this.read = true;
      this.setFollow(false);
    }
    else if (scrollHeight - scrollTop - clientHeight < 4) this.setFollow(true);
  }

  setFollow(on) {
    if (this.follow === on) return;
    this.follow = on;
    if (on) {
      for (const v of this.sections.values()) v.atEnd();
      this.#toEnd();
    }
    this.moved();
  }

  setWrap(on) {
    this.wrap = on;
    keep("wrap", on ? "yes" : "no");
    this.el.classList.toggle("wrap", on);
    if (this.follow) this.#toEnd();
  }

  setFoldPassed(on) {
    this.foldPassed = on;
    keep("fold-passed", on ? "yes" : "no");
    for (const v of this.sections.values()) if (v.section.done && !v.section.failed) v.open(!on);
  }

  // step moves the focus by a section.
  step(by) {
    const heads = [...this.el.querySelectorAll(".sec-head")];
    const at = heads.indexOf(document.activeElement);
    const top = this.el.getBoundingClientRect().top;
    const from = at >= 0 ? at + by : by > 0 ? heads.findIndex((e) => e.getBoundingClientRect().top >= top)
      : heads.findLastIndex((e) => e.getBoundingClientRect().top < top);
    const to = heads[Math.max(0, Math.min(heads.length - 1, from))];
    if (!to) return;
    this.setFollow(false);
    to.focus({ preventScroll: true });
    to.closest(".sec").scrollIntoView({ block: "start" });
    this.lastTop = this.el.scrollTop;
  }

  // goTo shows a line, and tells whether there is such a line yet.
  goTo(line, mark = "target") {
    const block = line >= 1 && line <= this.store.lines ? this.store.blockOf(line) : undefined;
    if (!block) return false;
    this.setFollow(false);
    const v = this.sections.get(block.section);
    v.open(true);
    const box = v.reveal(block);
    box.fill();
    for (const e of this.el.querySelectorAll(`.${mark}`)) e.classList.remove(mark);
    const row = box.row(line);
    const center = () => {
      const r = row.getBoundingClientRect(), l = this.el.getBoundingClientRect();
      this.el.scrollTop += r.top - l.top - l.height / 2 + r.height / 2;
      this.lastTop = this.el.scrollTop;
    };
    row.classList.add(mark);
    if (mark === "target") this.target = line;
    center();
    requestAnimationFrame(() => { if (row.isConnected) center(); }); // the boxes around it have their heights now
    return true;
  }

  // toFailure shows where the first command failed.
  toFailure() {
    const s = this.store.sections.find((x) => x.failed);
    const last = s?.blocks.at(-1);
    if (last) this.goTo(last.first + Math.max(0, last.numbered - 1), "seen");
    else if (s) this.sections.get(s).el.scrollIntoView({ block: "center" });
    return s !== undefined;
  }

  // find looks for a text; "" ends that.
  find(text) {
    this.search?.stop();
    this.search = undefined;
    this.query = text;
    this.hit = -1;
    for (const e of this.el.querySelectorAll(".hit")) e.classList.remove("hit");
    if (text !== "") {
      this.search = new Search(this.store, text, () => {
        this.searched();
        if (this.hit < 0 && this.search?.hits.length) this.next(1);
      });
      this.search.run();
    }
    for (const v of this.sections.values()) v.redraw();
    this.searched();
  }

  // next shows the next match (1), or the one before (-1).
  next(by) {
    const n = this.search?.hits.length ?? 0;
    if (!n) return;
    if (this.hit < 0) { // the first one from what is seen on
      const top = this.#topLine();
      const at = this.search.hits.findIndex((l) => l >= top);
      this.hit = at >= 0 ? at : 0;
    } else this.hit = (this.hit + by + n) % n;
    this.goTo(this.search.hits[this.hit], "hit");
    this.searched();
  }

  #topLine() {
    const top = this.el.getBoundingClientRect().top;
    for (const row of this.el.querySelectorAll(".l[data-n]")) if (row.getBoundingClientRect().bottom > top) return Number(row.dataset.n);
    return 1;
  }

  boxOf(block) {
    const box = new Box(this, block);
    this.boxes.set(box.el, box);
    this.near.observe(box.el);
    return box;
  }

  drop(box) {
    this.near.unobserve(box.el);
    box.el.remove();
  }
}

let ids = 0;

class SectionView {
  constructor(view, section) {
    Object.assign(this, { view, section, boxes: [], from: 0 });
    const [first, ...more] = section.directive.split("\n");
    const id = `sec-${++ids}`;
    this.state = h("span", { class: "sec-state" });
    this.time = h("span", { class: "sec-time num" });
    this.head = h("button", { type: "button", class: "sec-head", "aria-controls": id, onclick: () => this.open(!this.isOpen) },
      icon("chevron"), this.state, h("span", { class: "sec-name" }, first.trim() || "Output", more.length > 0 && h("span", { class: "faint" }, " …")), this.time);
    this.before = h("button", { type: "button", class: "gap", hidden: true, onclick: () => this.#shift(-mostBlocks / 2) });
    this.after = h("button", { type: "button", class: "gap", hidden: true, onclick: () => this.#shift(mostBlocks / 2) });
    this.list = h("div", { class: "blocks" });
    this.tail = h("div", { class: "l", hidden: true });
    this.body = h("div", { class: "sec-body", id },
      more.length > 0 && h("pre", { class: "sec-full" }, section.directive), this.before, this.list, this.after, this.tail);
    this.el = h("section", { class: "sec" }, this.head, this.body);
    this.open(true);
    if (section.began) this.clock = h("time", { "data-since": new Date(section.began * 1000).toISOString() });
  }

  open(on) {
    this.isOpen = on;
    this.head.setAttribute("aria-expanded", on);
    this.body.hidden = !on;
    this.el.classList.toggle("shut", !on);
  }

  update() {
    const s = this.section;
    if (!this.finished) this.#status();
    const total = s.blocks.length;
    if (total > this.from + this.boxes.length && (this.view.follow || this.boxes.length < mostBlocks)) {
      const from = total - this.from > mostBlocks ? total - mostBlocks : this.from;
      this.#window(from, Math.min(total, from + mostBlocks));
    }
    this.boxes.at(-1)?.grow();
    this.#gaps();
    if (s.partial === "") {
      if (!this.tail.hidden) this.tail.hidden = true;
    } else if (this.shown !== s.partial) {
      this.shown = s.partial;
      this.tail.hidden = this.from + this.boxes.length < total;
      this.tail.replaceChildren(h("span", { class: "n" }), lineOf(s.partial, this.view.store.style, null).el);
    }
  }

  #status() {
    const s = this.section, ended = this.view.store.result !== undefined;
    const state = s.done ? (s.failed ? "failed" : "passed") : ended ? "stopped" : "running";
    this.finished = s.done || ended;
    if (this.told === state) return;
    this.told = state;
    this.el.dataset.state = state;
    const words = { failed: `failed with exit code ${s.exit}`, passed: "passed", stopped: "not finished", running: "running" }[state];
    this.state.replaceChildren(icon(state), h("span", { class: "unseen" }, words));
    this.time.replaceChildren(...(state === "failed" ? [h("span", { class: "code" }, `exit ${s.exit}`)] : []),
      ...(s.done ? [s.seconds > 0 ? span(s.seconds) : "< 1 s"] : state === "running" && this.clock ? [this.clock] : []));
    if (state === "passed" && this.view.foldPassed) this.open(false);
    if (state === "failed") say(`${s.directive.split("\n")[0]} ${words}`);
  }

  // window has the section show those of its blocks.
  #window(from, to) {
    const { blocks } = this.section;
    while (this.boxes.length && this.from < from) { this.view.drop(this.boxes.shift()); this.from++; }
    while (this.boxes.length && this.from + this.boxes.length > to) this.view.drop(this.boxes.pop());
    if (!this.boxes.length) this.from = Math.max(from, Math.min(to, this.from));
    if (!this.boxes.length) this.from = from;
    const ahead = [];
    for (let k = from; k < this.from; k++) ahead.push(this.view.boxOf(blocks[k]));
    this.list.prepend(...ahead.map((b) => b.el));
    const behind = [];
    for (let k = this.from + this.boxes.length; k < to; k++) behind.push(this.view.boxOf(blocks[k]));
    this.list.append(...behind.map((b) => b.el));
    this.boxes = [...ahead, ...this.boxes, ...behind];
    this.from = from;
    if (this.view.follow) behind.at(-1)?.fill();
  }

  #shift(by) {
    const total = this.section.blocks.length;
    const from = Math.max(0, Math.min(total - mostBlocks, this.from + by));
    this.view.setFollow(false);
    const kept = this.boxes[by < 0 ? 0 : this.boxes.length - 1];
    const before = kept?.el.getBoundingClientRect().top;
    this.#window(from, Math.min(total, from + mostBlocks));
    this.#gaps();
    if (kept?.el.isConnected) this.view.el.scrollTop += kept.el.getBoundingClientRect().top - before;
  }

  #gaps() {
    const { blocks } = this.section;
    const count = (n) => `${n.toLocaleString("en")} lines`;
    const first = blocks[this.from]?.first - blocks[0]?.first;
    this.before.hidden = !(first > 0);
    if (first > 0) this.before.textContent = `Show more of the ${count(first)} before`;
    const last = this.boxes.at(-1)?.block, end = blocks.at(-1);
    const rest = last && end !== last ? end.first + end.numbered - last.first - last.numbered : 0;
    this.after.hidden = !(rest > 0);
    if (rest > 0) this.after.textContent = `Show more of the ${count(rest)} after`;
  }

  // atEnd shows the end of a section.
  atEnd() {
    const total = this.section.blocks.length;
    if (this.from + this.boxes.length < total) this.#window(Math.max(0, total - mostBlocks), total);
    this.#gaps();
  }

  // reveal gives the box of a block.
  reveal(block) {
    const at = this.section.blocks.indexOf(block);
    if (at < this.from || at >= this.from + this.boxes.length) {
      const total = this.section.blocks.length;
      const from = Math.max(0, Math.min(total - mostBlocks, at - mostBlocks / 2));
      this.#window(from, Math.min(total, from + mostBlocks));
      this.#gaps();
    }
    return this.boxes[at - this.from];
  }

  redraw() { for (const b of this.boxes) b.redraw(); }
}

// Box is what stands for a block in the page.
class Box {
  constructor(view, block) {
    Object.assign(this, { view, block, filled: false, rows: 0, number: block.first, style: block.style, height: 0 });
    this.el = h("div", { class: "blk" });
    this.#size();
  }

  #size() {
    const height = this.height || Math.max(this.block.rows, Math.ceil(this.block.chars / 160)) * rowHeight;
    this.el.style.height = `${height}px`;
  }

  fill() {
    if (this.filled) return;
    this.filled = true;
    this.el.style.height = "";
    this.grow();
  }

  empty(height) {
    if (!this.filled || this.block.lines) return;
    this.filled = false;
    this.height = height;
    this.el.replaceChildren();
    Object.assign(this, { rows: 0, number: this.block.first, style: this.block.style });
    this.#size();
  }

  grow() {
    if (!this.filled) {
      if (this.sized !== this.block.rows) {
        this.sized = this.block.rows;
        this.#size();
      }
      return;
    }
    if (this.rows === this.block.rows) return;
    const list = this.block.list, out = document.createDocumentFragment();
    for (; this.rows < list.length; this.rows++) {
      const piece = isPiece(list[this.rows]);
      const { el, style } = lineOf(pieceText(list[this.rows]), this.style, this.view.query);
      this.style = style;
      const row = h("div", { class: "l" });
      if (piece) row.append(h("span", { class: "n" }));
      else {
        const n = this.number++;
        row.dataset.n = n;
        row.append(h("a", { class: "n", href: this.view.href(n), tabindex: -1, "aria-hidden": "true", "data-n": n }));
        if (this.view.target === n) row.classList.add("target");
        if (this.view.search?.hits[this.view.hit] === n) row.classList.add("hit");
      }
      row.append(el);
      out.append(row);
    }
    this.el.append(out);
  }

  redraw() {
    if (!this.filled) return;
    Object.assign(this, { rows: 0, number: this.block.first, style: this.block.style });
    this.el.replaceChildren();
    this.grow();
  }

  row(line) { return [...this.el.children].find((e) => e.dataset.n === String(line)); }
}

// lineOf draws a line, with what was searched for marked in it.
function lineOf(text, from, query) {
  const { runs, style } = parseLine(text, from);
  const el = h("span", { class: "t" });
  const spots = query ? spotsOf(runs.map((r) => r.text).join(""), query) : [];
  let at = 0;
  for (const run of runs) {
    for (const part of cut(run.text, at, spots)) {
      if (run.style === plain && !part.marked) { el.append(part.text); continue; }
      const span = document.createElement(part.marked ? "mark" : "span");
      if (!part.marked) dress(span, run.style);
      span.textContent = part.text;
      el.append(span);
    }
    at += run.text.length;
  }
  return { el, style };
}

function spotsOf(text, query) {
  const spots = [], pattern = new RegExp(query.replace(/[.*+?^${}()|[\]\\]/g, "\\$&"), "gi");
  for (const m of text.matchAll(pattern)) {
    spots.push([m.index, m.index + m[0].length]);
    if (spots.length >= 500) break;
  }
  return spots;
}

function cut(text, at, spots) {
  const parts = [];
  let from = 0;
  for (const [a, b] of spots) {
    const start = Math.max(from, a - at), end = Math.min(text.length, b - at);
    if (end <= from || start >= text.length) continue;
    if (start > from) parts.push({ text: text.slice(from, start) });
    parts.push({ text: text.slice(start, end), marked: true });
    from = end;
  }
  if (from < text.length) parts.push({ text: text.slice(from) });
  return parts;
}

export { results };
