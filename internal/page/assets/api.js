// The admin API. Errors carry what the supervisor says; status 0 is that of a supervisor that doesn't answer.
import { heardAt } from "./dom.js";

export class ApiError extends Error {
  constructor(status, message) {
    super(message);
    this.status = status;
  }
}

const limit = 15000; // ms for an answer that is one piece

// The session is kept for this origin alone, which the port is part of; a cookie would go to every port of the host.
const key = "signalman-session";
const session = () => localStorage.getItem(key);

async function request(method, path, body, signal) {
  const headers = method === "GET" ? {} : { "X-Signalman": "1" };
  if (session()) headers.Authorization = `Bearer ${session()}`;
  if (body !== undefined) headers["Content-Type"] = "application/json";
  let res;
  try {
    res = await fetch(path, { method, headers, body: body === undefined ? undefined : JSON.stringify(body), signal, redirect: "error" });
  } catch (err) {
    if (signal?.aborted) throw err;
    throw new ApiError(0, "The supervisor doesn't answer.");
  }
  heardAt(res.headers.get("Date"));
  if (res.ok) return res;
  let text = `The answer is ${res.status}.`;
  try { text = (await res.json()).error || text; } catch { /* it is not one of ours */ }
  if (res.status === 401 && path !== "/v1/session") document.dispatchEvent(new Event("signed-out"));
  throw new ApiError(res.status, text);
}

async function json(method, path, body, wait = limit) {
  const ended = AbortSignal.timeout(wait);
  try {
    const res = await request(method, path, body, ended);
    return res.status === 204 ? undefined : await res.json();
  } catch (err) {
    if (err instanceof ApiError) throw err;
    throw new ApiError(0, "The supervisor doesn't answer.");
  }
}

const id = encodeURIComponent;

export const api = {
  status: () => json("GET", "/v1/status"),
  jobs: (n) => json("GET", `/v1/jobs?limit=${n}`).then((r) => r.jobs),
  job: (job) => json("GET", `/v1/jobs/${id(job)}`),
  log: (job, from, follow, signal) => request("GET", `/v1/jobs/${id(job)}/log?from=${from}${follow ? "&follow=1" : ""}`, undefined, signal),
  stop: (job) => json("POST", `/v1/jobs/${id(job)}/stop`, undefined, 40000),
  drain: () => json("POST", "/v1/drain"),
  resume: () => json("POST", "/v1/resume"),
  reload: () => json("POST", "/v1/reload", undefined, 120000),
  config: () => json("GET", "/v1/config"),
  plugins: () => json("GET", "/v1/plugins"),
  ready: () => json("GET", "/readyz").then(() => "", (err) => (err.status === 503 ? err.message : Promise.reject(err))),
  plain: (job) => request("GET", `/v1/jobs/${id(job)}/log?plain=1`).then((r) => r.blob()),
  signIn: async (token) => {
    localStorage.removeItem(key);
    localStorage.setItem(key, (await json("POST", "/v1/session", { token })).id);
  },
  signOut: async () => {
    await json("DELETE", "/v1/session").catch(() => {});
    localStorage.removeItem(key);
  },
  examples: () => json("GET", "/v1/dev/examples"),
  submit: (yaml) => json("POST", "/v1/dev/jobs", { yaml }),
};
