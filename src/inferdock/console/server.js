// Talks with the gateway that gave us this page, and with nobody else.

const KEY = "inferdock-key";

export const key = () => sessionStorage.getItem(KEY) || "";
export function useKey(text) { text ? sessionStorage.setItem(KEY, text) : sessionStorage.removeItem(KEY); }

export class Refused extends Error {
  constructor(status, message) { super(message); this.status = status; }
}

function headers(more = {}) {
  const made = { "x-inferdock-console": "1", ...more };
  if (key()) made.authorization = `Bearer ${key()}`;
  return made;
}

async function checked(response) {
  if (response.ok) return response;
  let said = `HTTP ${response.status}`;
  try { said = (await response.json()).error.message || said; } catch { /* no JSON: the status has to do */ }
  throw new Refused(response.status, said);
}

export async function get(name) {
  return (await checked(await fetch(`/console/api/${name}`, { headers: headers() }))).json();
}

export async function post(name, body) {
  const request = { method: "POST", headers: headers({ "content-type": "application/json" }), body: JSON.stringify(body) };
  return (await checked(await fetch(`/console/api/${name}`, request))).json();
}

export async function chat(body, signal) {
  const request = { method: "POST", headers: headers({ "content-type": "application/json" }), body: JSON.stringify(body), signal };
  return checked(await fetch("/v1/chat/completions", request));
}

export async function* events(response) {
  // The data of server-sent events. EventSource could not send a key.
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let held = "";
  for (;;) {
    const { value, done } = await reader.read();
    if (done) return;
    held += value.replaceAll("\r\n", "\n");
    for (let end; (end = held.indexOf("\n\n")) >= 0; held = held.slice(end + 2)) {
      const lines = held.slice(0, end).split("\n").filter((line) => line.startsWith("data:"));
      if (lines.length) yield lines.map((line) => line.slice(5).trimStart()).join("\n");
    }
  }
}

export async function feed(signal) {
  return checked(await fetch("/console/api/live", { headers: headers(), signal }));
}
