// Small helpers to build the page. Nothing here takes HTML: text from jobs and files only ever becomes text nodes.

// h makes an element. props: class, on* handlers, data-*/aria-* and other attributes; false and undefined ones are left out.
export function h(tag, props, ...children) {
  const el = document.createElement(tag);
  for (const [name, value] of Object.entries(props ?? {})) {
    if (value === undefined || value === null || value === false) continue;
    if (name === "class") el.className = value;
    else if (name.startsWith("on")) el.addEventListener(name.slice(2), value);
    else if (name === "value" || name === "checked") el[name] = value;
    else el.setAttribute(name, value === true ? "" : value);
  }
  el.append(...children.flat(2).filter((c) => c !== undefined && c !== null && c !== false));
  return el;
}

const svgNS = "http://www.w3.org/2000/svg";
const icons = {
  passed: "M3 8.5 6.5 12 13 4.5", failed: "M4 4l8 8M12 4l-8 8", stopped: "M4.5 4.5h7v7h-7z", running: "M8 2a6 6 0 1 1-6 6",
  chevron: "M6 3.5 10.5 8 6 12.5", down: "M8 3v10M3.5 8.5 8 13l4.5-4.5", up: "M8 13V3M3.5 7.5 8 3l4.5 4.5",
  sun: "M8 5a3 3 0 1 0 0 6 3 3 0 0 0 0-6M8 1v1.5M8 13.5V15M1 8h1.5M13.5 8H15M3 3l1 1M12 12l1 1M3 13l1-1M12 4l1-1",
  moon: "M13.5 9.5A6 6 0 0 1 6.5 2.5a6 6 0 1 0 7 7z", auto: "M8 1.5a6.5 6.5 0 1 0 0 13 6.5 6.5 0 0 0 0-13zm0 1.6a4.9 4.9 0 0 1 0 9.8z",
  search: "M7 2.5a4.5 4.5 0 1 0 0 9 4.5 4.5 0 0 0 0-9M10.3 10.3 14 14", back: "M10 3.5 5.5 8l4.5 4.5",
};

// icon draws one of the icons above; it is decoration.
export function icon(name) {
  const svg = document.createElementNS(svgNS, "svg");
  svg.setAttribute("viewBox", "0 0 16 16");
  svg.setAttribute("class", `i i-${name}`);
  svg.setAttribute("aria-hidden", "true");
  const path = document.createElementNS(svgNS, "path");
  path.setAttribute("d", icons[name] ?? "");
  svg.append(path);
  return svg;
}

// put replaces what is in el if the key has changed, and keeps it, focus and selection otherwise.
export function put(el, key, make) {
  const text = JSON.stringify(key);
  if (el.dataset.key === text) return;
  const focused = el.contains(document.activeElement) ? document.activeElement.dataset.focus : undefined;
  el.dataset.key = text;
  el.replaceChildren(...[make()].flat().filter((c) => c || c === 0));
  if (focused) [...el.querySelectorAll("[data-focus]")].find((e) => e.dataset.focus === focused)?.focus();
}

let skew = 0; // of the server's clock, in ms

// heardAt takes the Date header of an answer.
export function heardAt(header) {
  const at = Date.parse(header ?? "");
  if (!Number.isNaN(at) && Math.abs(at - Date.now()) > 2000) skew = at - Date.now();
  else skew = 0;
}

export const now = () => Date.now() + skew;

// span tells a duration in seconds in words.
export function span(seconds) {
  const s = Math.max(0, seconds);
  if (s < 1) return s > 0 ? `${s.toFixed(1)} s` : "0 s";
  if (s < 10 && s % 1 >= 0.05) return `${s.toFixed(1)} s`;
  if (s < 60) return `${Math.round(s)} s`;
  const whole = Math.round(s), two = (n) => String(n).padStart(2, "0");
  if (whole < 3600) return `${Math.floor(whole / 60)}m ${two(whole % 60)}s`;
  if (whole < 86400) return `${Math.floor(whole / 3600)}h ${two(Math.floor((whole % 3600) / 60))}m`;
  return `${Math.floor(whole / 86400)}d ${Math.floor((whole % 86400) / 3600)}h`;
}

// since is a duration that goes on; tick moves all of them.
export function since(iso) {
  const el = h("time", { datetime: iso, "data-since": iso, class: "num", title: clock(iso) });
  tickOne(el);
  return el;
}

function tickOne(el) {
  const text = span(Math.floor((now() - Date.parse(el.dataset.since)) / 1000));
  if (el.textContent !== text) el.textContent = text;
}

export function tick() {
  for (const el of document.querySelectorAll("[data-since]")) tickOne(el);
}

export function clock(iso) {
  const d = new Date(iso);
  return Number.isNaN(d.getTime()) ? "" : d.toLocaleString(undefined, { dateStyle: "medium", timeStyle: "medium" });
}

// shortClock is a time of today, or a date.
export function shortClock(iso) {
  const d = new Date(iso);
  const today = new Date(now()).toDateString() === d.toDateString();
  return today ? d.toLocaleTimeString(undefined, { timeStyle: "short" }) : d.toLocaleString(undefined, { dateStyle: "medium", timeStyle: "short" });
}

export function bytes(n) {
  if (n < 1000) return `${n} B`;
  for (const unit of ["KB", "MB"]) {
    n /= 1000;
    if (n < 1000) return `${n < 10 ? n.toFixed(1) : Math.round(n)} ${unit}`;
  }
  return `${(n / 1000).toFixed(1)} GB`;
}

let lastSaid = "";

// say tells those who don't see the page what has changed.
export function say(text) {
  const el = document.getElementById("say");
  el.textContent = text === lastSaid ? `${text}\u00a0` : text;
  lastSaid = el.textContent;
}

// ask shows a dialog and tells whether the answer is yes.
export function ask({ title, text, yes, danger }) {
  return new Promise((resolve) => {
    const before = document.activeElement;
    const dialog = h("dialog", { class: "ask", "aria-labelledby": "ask-title", "aria-describedby": "ask-text" },
      h("h2", { id: "ask-title" }, title), h("p", { id: "ask-text" }, text),
      h("form", { method: "dialog" },
        h("button", { value: "no", class: "button", autofocus: true }, "Cancel"),
        h("button", { value: "yes", class: danger ? "button danger" : "button primary" }, yes)));
    dialog.addEventListener("close", () => {
      dialog.remove();
      before?.focus?.();
      resolve(dialog.returnValue === "yes");
    });
    document.body.append(dialog);
    dialog.returnValue = "no";
    dialog.showModal();
  });
}

// stored and store keep a choice of the reader; without storage it holds until the page is closed.
export function stored(name, otherwise) {
  try { return localStorage.getItem(`signalman-${name}`) ?? otherwise; } catch { return otherwise; }
}
export function store(name, value) {
  try { localStorage.setItem(`signalman-${name}`, value); } catch { /* see above */ }
}

const shades = {
  passed: "ok", failed: "bad", stopped: "warn", running: "busy", starting: "busy", stopping: "warn", reporting: "busy",
};

// pill is a state, in words and colour.
export function pill(state, shade) {
  return h("span", { class: `pill ${shade ?? shades[state] ?? ""}` }, h("span", { class: "dot" }), state);
}
