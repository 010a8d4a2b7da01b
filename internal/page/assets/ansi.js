// What terminals make of control characters, for one line: colours and faces (SGR), carriage returns, backspaces, cursor moves within the
// line and erasing, as progress bars use them. All else that begins with ESC is left out.

// A style is one object per look; equal looks are the same object. fg and bg: -1 default, 0 to 255 of the palette, else 0x1000000 | RGB.
const BOLD = 1, DIM = 2, ITALIC = 4, UNDER = 8, INVERSE = 16, STRIKE = 32, HIDDEN = 64;
const styles = new Map();

function style(fg, bg, face) {
  const key = `${fg},${bg},${face}`;
  let s = styles.get(key);
  if (!s) {
    if (styles.size > 20000) styles.clear(); // a job that draws pictures
    s = { fg, bg, face };
    styles.set(key, s);
  }
  return s;
}

export const plain = style(-1, -1, 0);

const sgrFace = { 1: BOLD, 2: DIM, 3: ITALIC, 4: UNDER, 7: INVERSE, 8: HIDDEN, 9: STRIKE, 21: UNDER };
const sgrEnd = { 22: BOLD | DIM, 23: ITALIC, 24: UNDER, 27: INVERSE, 28: HIDDEN, 29: STRIKE };

// sgr is the style after the parameters of a CSI … m.
export function sgr(params, from) {
  let { fg, bg, face } = from;
  if (params === "") return plain;
  const list = params.split(";");
  for (let i = 0; i < list.length; i++) {
    const parts = list[i].split(":");
    const n = parts[0] === "" ? 0 : Number(parts[0]);
    if (n === 0) { fg = bg = -1; face = 0; }
    else if (n === 4 && parts[1] === "0") face &= ~UNDER;
    else if (sgrFace[n]) face |= sgrFace[n];
    else if (sgrEnd[n]) face &= ~sgrEnd[n];
    else if (n >= 30 && n <= 37) fg = n - 30;
    else if (n >= 90 && n <= 97) fg = n - 82;
    else if (n >= 40 && n <= 47) bg = n - 40;
    else if (n >= 100 && n <= 107) bg = n - 92;
    else if (n === 39) fg = -1;
    else if (n === 49) bg = -1;
    else if (n === 38 || n === 48) {
      const rest = parts.length > 1 ? parts.slice(1).filter((p, k) => !(k === 1 && p === "")) : list.slice(i + 1);
      const [color, used] = extended(rest.map(Number));
      if (parts.length === 1) i += used;
      if (color >= 0) { if (n === 38) fg = color; else bg = color; }
    }
  }
  return style(fg, bg, face);
}

function extended(p) {
  const ok = (n) => Number.isInteger(n) && n >= 0 && n <= 255;
  if (p[0] === 5) return [ok(p[1]) ? p[1] : -1, 2];
  if (p[0] === 2) return [ok(p[1]) && ok(p[2]) && ok(p[3]) ? 0x1000000 | (p[1] << 16) | (p[2] << 8) | p[3] : -1, 4];
  return [-1, p.length];
}

// One control sequence: CSI (parameters, final byte), OSC and other strings up to their end, or ESC and what it takes.
const escape = /\x1b(?:\[([0-9:;<=>?]*)[ -\/]*([@-~])|[\]PX^_][^\x07\x1b]*(?:\x07|\x1b\\)?|[ -\/]*[0-~])/y;
const special = /[\x00-\x08\x0b-\x1f\x7f]/;
const escapes = /\x1b(?:\[[0-9:;<=>?]*[ -\/]*[@-~]|[\]PX^_][^\x07\x1b]*(?:\x07|\x1b\\)?|[ -\/]*[0-~])/g;
const sgrs = /\x1b\[([0-9:;]*)m/g;

// styleAfter is the style behind a text of any number of lines.
export function styleAfter(text, from) {
  if (!text.includes("\x1b[")) return from;
  for (const m of text.matchAll(sgrs)) from = sgr(m[1], from);
  return from;
}

export const isSpecial = (text) => special.test(text);

// textOf is a text without what isn't shown, with as many lines as before.
export function textOf(text) {
  if (!special.test(text)) return text;
  return text.split("\n").map(lineText).join("\n");
}

export function lineText(line) {
  if (!special.test(line)) return line;
  if (!/[\r\b]|\x1b\[[0-9;]*[CDGK]/.test(line)) return line.replace(escapes, "").replace(/[\x00-\x08\x0b-\x1f\x7f]/g, "");
  return parseLine(line, plain).runs.map((r) => r.text).join("");
}

const maxColumn = 20000;

// parseLine gives the runs of equal style that a line ends up as, and the style behind it.
export function parseLine(line, from) {
  if (!special.test(line)) return { runs: line === "" ? [] : [{ text: line, style: from }], style: from };
  let now = from, column = 0;
  const cells = [], looks = [];
  const write = (ch) => {
    while (cells.length < column) { cells.push(" "); looks.push(plain); }
    cells[column] = ch;
    looks[column++] = now;
  };
  for (let i = 0; i < line.length;) {
    const c = line.charCodeAt(i);
    if (c === 0x1b) {
      escape.lastIndex = i;
      const m = escape.exec(line);
      if (!m) { i++; continue; }
      i = escape.lastIndex;
      if (m[2] === undefined) continue;
      const n = Math.min(maxColumn, Number.parseInt(m[1], 10) || 0);
      switch (m[2]) {
        case "m": if (/^[0-9:;]*$/.test(m[1])) now = sgr(m[1], now); break;
        case "C": column = Math.min(maxColumn, column + Math.max(1, n)); break;
        case "D": column = Math.max(0, column - Math.max(1, n)); break;
        case "G": column = Math.max(0, n - 1); break;
        case "K":
          if (n === 0) { cells.length = Math.min(cells.length, column); looks.length = cells.length; }
          else if (n === 2) { cells.length = looks.length = 0; }
          else for (let k = 0; k <= column && k < cells.length; k++) { cells[k] = " "; looks[k] = plain; }
      }
      continue;
    }
    if (c === 0x0d) { column = 0; i++; continue; }
    if (c === 0x08) { column = Math.max(0, column - 1); i++; continue; }
    if ((c < 0x20 && c !== 0x09) || c === 0x7f) { i++; continue; }
    const ch = String.fromCodePoint(line.codePointAt(i));
    write(ch);
    i += ch.length;
  }
  const runs = [];
  for (let k = 0; k < cells.length;) {
    const start = k, look = looks[k];
    while (k < cells.length && looks[k] === look) k++;
    runs.push({ text: cells.slice(start, k).join(""), style: look });
  }
  return { runs, style: now };
}

// rgb of a colour of the palette beyond the first 16.
export function paletteRGB(n) {
  if (n >= 232) { const v = 8 + 10 * (n - 232); return (v << 16) | (v << 8) | v; }
  const level = (k) => (k === 0 ? 0 : 55 + 40 * k);
  n -= 16;
  return (level(Math.floor(n / 36)) << 16) | (level(Math.floor(n / 6) % 6) << 8) | level(n % 6);
}

const linear = (v) => ((v /= 255) <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4);
const luminance = (rgb) => 0.2126 * linear(rgb >> 16) + 0.7152 * linear((rgb >> 8) & 255) + 0.0722 * linear(rgb & 255);

export function contrast(a, b) {
  const [x, y] = [luminance(a), luminance(b)].sort((p, q) => q - p);
  return (x + 0.05) / (y + 0.05);
}

const readableCache = new Map();

// readable is a colour as it is if it can be read on a dark ground, else a lighter one of its kind.
export function readable(rgb, ground) {
  const key = rgb * 0x1000000 + ground;
  let out = readableCache.get(key);
  if (out !== undefined) return out;
  out = rgb;
  for (let k = 1; contrast(out, ground) < 4.5 && k <= 20; k++) {
    const mix = (shift) => Math.round(((rgb >> shift) & 255) + (255 - ((rgb >> shift) & 255)) * k / 20);
    out = (mix(16) << 16) | (mix(8) << 8) | mix(0);
  }
  if (readableCache.size > 20000) readableCache.clear();
  readableCache.set(key, out);
  return out;
}

export const ground = 0x12161c; // of the log: --log-bg of style.css
const hex = (rgb) => `#${(rgb & 0xffffff).toString(16).padStart(6, "0")}`;
const faces = [[BOLD, "b"], [DIM, "d"], [ITALIC, "it"], [UNDER, "u"], [STRIKE, "s"], [HIDDEN, "hid"]];

// dress gives an element the look of a style. Colours beyond the 16 are set one by one, as the page allows no style attributes in HTML.
export function dress(el, s) {
  if (s === plain) return;
  let { fg, bg } = s;
  const classes = faces.filter(([bit]) => s.face & bit).map(([, name]) => name);
  if (s.face & INVERSE) {
    [fg, bg] = [bg, fg];
    if (fg < 0) classes.push("fbg");
    if (bg < 0) classes.push("bfg");
  }
  const whole = (n) => (n >= 0x1000000 ? n & 0xffffff : paletteRGB(n));
  if (fg >= 0 && fg < 16) classes.push(`f${fg}`);
  else if (fg >= 16) el.style.color = hex(bg === -1 && !(s.face & INVERSE) ? readable(whole(fg), ground) : whole(fg));
  if (bg >= 0 && bg < 16) classes.push(`g${bg}`);
  else if (bg >= 16) el.style.backgroundColor = hex(whole(bg));
  if (bg >= 16 && fg === -1 && !(s.face & INVERSE)) el.style.color = luminance(whole(bg)) > 0.25 ? "#000" : "#fff";
  if (classes.length) el.className = classes.join(" ");
}
