// A job's log as the page keeps it: all of its text, in blocks of lines, and none of the DOM. A block belongs to one section (a command)
// and is drawn only while it is near what the reader sees.
import { plain, styleAfter, isSpecial, textOf, lineText } from "./ansi.js";

export const blockLines = 200;
const blockChars = 64 << 10;
// pieceChars is the length from which a line is shown in pieces; a piece that goes on begins with the mark, and has no number.
const pieceChars = 4000;
const mark = "\x01";

class Block {
  constructor(section, first, style) {
    this.section = section;
    this.first = first; // number of its first line
    this.style = style; // at its beginning
    this.rows = 0;
    this.numbered = 0;
    this.chars = 0;
    this.lines = []; // while it grows
    this.text = "";
    this.special = false;
  }

  push(line) {
    this.lines.push(line);
    this.rows++;
    if (!line.startsWith(mark)) this.numbered++;
    this.chars += line.length + 1;
  }

  close() {
    this.text = this.lines.join("\n");
    this.special = isSpecial(this.text);
    this.lines = null;
  }

  get list() { return this.lines ?? this.text.split("\n"); }
  get full() { return this.rows >= blockLines || this.chars >= blockChars; }

  // clean is its text for a search.
  clean() {
    if (this.lines) return textOf(this.lines.join("\n"));
    return this.special ? textOf(this.text) : this.text;
  }
}

export class Section {
  constructor(directive, at) {
    this.directive = directive;
    this.began = at;
    this.ended = undefined; // both in Unix seconds
    this.exit = undefined;
    this.blocks = [];
    this.partial = "";
  }

  get done() { return this.exit !== undefined; }
  get failed() { return this.done && this.exit !== 0; }
  get seconds() { return this.done ? this.ended - this.began : undefined; }
}

export class LogStore {
  constructor() {
    this.sections = [];
    this.blocks = []; // of all sections, in order
    this.events = 0;
    this.lines = 0;
    this.chars = 0;
    this.result = undefined;
    this.style = plain; // behind the last whole line
    this.current = undefined;
  }

  // add takes one event as it stands in the log.
  add(event) {
    this.events++;
    switch (event.event) {
      case "cmd_started":
        this.#endLine();
        this.#begin(event.directive ?? "", event.timestamp);
        break;
      case "cmd_output":
        this.#output(String(event.output ?? ""));
        break;
      case "cmd_finished": {
        const s = this.current ?? this.#begin(event.directive ?? "", event.timestamp);
        this.#endLine();
        s.exit = Number(event.exit_code ?? 0);
        s.began = event.started_at ?? s.began;
        s.ended = event.finished_at ?? event.timestamp;
        this.current = undefined;
        break;
      }
      case "job_finished":
        this.#endLine();
        this.result = String(event.result ?? "");
    }
  }

  #begin(directive, at) {
    this.style = plain;
    this.current = new Section(String(directive), Number(at));
    this.sections.push(this.current);
    return this.current;
  }

  #output(text) {
    const s = this.current ?? this.#begin("", undefined);
    this.chars += text.length;
    let at = 0;
    text = s.partial + text;
    for (let end; (end = text.indexOf("\n", at)) >= 0; at = end + 1) {
      this.#line(s, text.slice(at, text.charCodeAt(end - 1) === 13 && end > at ? end - 1 : end));
    }
    s.partial = text.slice(at);
    if (s.partial.length > 4 * pieceChars) this.#shorten(s);
  }

  // shorten keeps a line that doesn't end within bounds: a progress bar by what it shows, another by taking it for several.
  #shorten(s) {
    const back = s.partial.lastIndexOf("\r", s.partial.length - 2);
    if (back > 0) {
      this.style = styleAfter(s.partial.slice(0, back), this.style);
      s.partial = s.partial.slice(back);
      if (s.partial.length <= 4 * pieceChars) return;
    }
    const end = s.partial.length - s.partial.length % pieceChars;
    const rest = s.partial.slice(end);
    this.#pieces(s, s.partial.slice(0, end), s.goesOn);
    s.goesOn = true;
    s.partial = rest;
  }

  #endLine() {
    const s = this.current;
    if (!s) return;
    if (s.partial !== "") {
      const text = s.partial;
      s.partial = "";
      this.#line(s, text);
    }
    this.#close(s);
  }

  #line(s, line) {
    const goesOn = s.goesOn;
    s.goesOn = false;
    if (line.length > pieceChars || goesOn) this.#pieces(s, line, goesOn);
    else this.#push(s, line.startsWith(mark) ? line.slice(1) : line);
  }

  #pieces(s, line, goesOn) {
    // What a long line with carriage returns shows is what counts.
    if (line.length > pieceChars && /[\r\b]/.test(line)) line = lineText(line);
    for (let at = 0; at < line.length || at === 0;) {
      let end = Math.min(line.length, at + pieceChars);
      const esc = line.lastIndexOf("\x1b", end - 1);
      if (end < line.length && esc > at && end - esc < 24) end = esc; // not within a sequence
      const code = line.charCodeAt(end - 1);
      if (end < line.length && code >= 0xd800 && code < 0xdc00) end--;
      this.#push(s, at > 0 || goesOn ? mark + line.slice(at, end) : line.slice(at, end));
      at = end;
      if (line.length === 0) break;
    }
  }

  #push(s, line) {
    let b = s.blocks.at(-1);
    if (!b || b.lines === null || b.full) {
      this.#close(s);
      b = new Block(s, this.lines + 1, this.style);
      s.blocks.push(b);
      this.blocks.push(b);
    }
    b.push(line);
    if (!line.startsWith(mark)) this.lines++;
    if (line.includes("\x1b[")) this.style = styleAfter(line, this.style);
  }

  #close(s) {
    const b = s.blocks.at(-1);
    if (b?.lines) b.close();
  }

  // blockOf finds the block that a line is in.
  blockOf(line) {
    let low = 0, high = this.blocks.length - 1;
    while (low < high) {
      const mid = (low + high + 1) >> 1;
      if (this.blocks[mid].first <= line) low = mid;
      else high = mid - 1;
    }
    return this.blocks[low];
  }
}

export const isPiece = (line) => line.startsWith(mark);
export const pieceText = (line) => (line.startsWith(mark) ? line.slice(1) : line);

// Feed reads a log into a store, and goes on where it was when the connection ends.
export class Feed {
  // open(from, signal) gives a Response; changed() is called after something came; failed(err) tells whether to go on, and waits.
  constructor(store, from, { open, changed, failed, more }) {
    Object.assign(this, { store, next: from, open, changed, failed, more });
    this.abort = new AbortController();
    this.done = this.#run();
  }

  stop() { this.abort.abort(); }

  async #run() {
    const { signal } = this.abort;
    while (!signal.aborted) {
      try {
        await this.#read(await this.open(this.next, signal));
        if (signal.aborted || this.store.result !== undefined || !(await this.more())) return;
      } catch (err) {
        if (signal.aborted || !(await this.failed(err))) return;
      }
    }
  }

  async #read(res) {
    const reader = res.body.getReader();
    const decoder = new TextDecoder();
    let rest = "";
    for (;;) {
      const { done, value } = await reader.read();
      if (done) return;
      rest += decoder.decode(value, { stream: true });
      let at = 0;
      for (let end; (end = rest.indexOf("\n", at)) >= 0; at = end + 1) {
        let event = {};
        try { event = JSON.parse(rest.slice(at, end)); } catch { /* a plugin wrote it */ }
        this.store.add(event ?? {});
        this.next++;
      }
      rest = rest.slice(at);
      this.changed();
    }
  }
}

// Search finds a text in a store, piece by piece so that the page stays usable, and goes on while the log grows.
export class Search {
  static most = 100000;

  constructor(store, text, changed) {
    this.store = store;
    this.pattern = new RegExp(text.replace(/[.*+?^${}()|[\]\\]/g, "\\$&"), "gi");
    this.changed = changed;
    this.hits = []; // numbers of lines that match
    this.block = 0;
    this.row = 0; // of that block, which was searched
    this.line = 0; // the last one that was searched
    this.stopped = false;
    this.busy = false;
  }

  get full() { return this.hits.length >= Search.most; }
  stop() { this.stopped = true; }

  async run() {
    if (this.busy || this.stopped) return;
    this.busy = true;
    const { blocks } = this.store;
    for (let until = performance.now() + 12; this.block < blocks.length && !this.full && !this.stopped;) {
      this.#look(blocks[this.block]);
      if (this.block === blocks.length - 1 && blocks[this.block].lines) break; // it grows still
      this.block++;
      this.row = 0;
      if (performance.now() > until) {
        this.changed();
        await new Promise((r) => setTimeout(r));
        until = performance.now() + 12;
      }
    }
    this.busy = false;
    if (!this.stopped) this.changed();
  }

  #look(b) {
    const text = b.clean();
    this.pattern.lastIndex = 0;
    if (!this.pattern.test(text)) { this.row = b.rows; return; }
    let number = b.first - 1;
    const list = b.list;
    text.split("\n").forEach((shown, i) => {
      if (!isPiece(list[i])) number++;
      if (i < this.row || this.full) return;
      this.pattern.lastIndex = 0;
      if (this.pattern.test(shown) && this.hits.at(-1) !== number) this.hits.push(number);
    });
    this.row = b.rows;
  }
}
