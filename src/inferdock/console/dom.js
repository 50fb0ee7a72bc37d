// Elements and figures. Text is always set as text, never as HTML: what replicas and people say may hold anything.

export const $ = (id) => document.getElementById(id);

export function el(tag, attributes = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (value === false || value == null) continue;
    if (name.startsWith("on")) made.addEventListener(name.slice(2), value);
    else made.setAttribute(name, value === true ? "" : value);
  }
  made.append(...children.filter((child) => child != null));
  return made;
}

export function table(caption, columns, rows) {
  // Columns: [title, cell of a row, whether it is a number]. The frame can be scrolled by keyboard.
  const head = columns.map(([title, , number]) => el("th", { scope: "col", class: number ? "number" : null }, title));
  const body = rows.map((row) => el("tr", {}, ...columns.map(([, cell, number]) => {
    const value = cell(row);
    return el("td", { class: number ? "number" : null }, value ?? "–");
  })));
  return el("div", { class: "wide", role: "region", "aria-label": caption, tabindex: "0" },
    el("table", { "aria-label": caption }, el("thead", {}, el("tr", {}, ...head)), el("tbody", {}, ...body)));
}

export function put(place, ...children) {
  // Replaces content only where it is new, so that a reader's place and selection stay.
  const fresh = el("div", {}, ...children);
  if (place.dataset.shown === fresh.innerHTML && place.childNodes.length) return;
  place.dataset.shown = fresh.innerHTML;
  const open = [...place.querySelectorAll("details[open]")].map((one) => one.dataset.name);
  const focused = place.contains(document.activeElement) ? document.activeElement.getAttribute("aria-label") : null;
  place.replaceChildren(...fresh.childNodes);
  for (const one of place.querySelectorAll("details")) one.open = open.includes(one.dataset.name);
  if (focused) place.querySelector(`[aria-label="${CSS.escape(focused)}"]`)?.focus();
}

export const notice = (text, kind = "") => el("p", { class: `notice ${kind}` }, text);
export const count = (value) => value == null ? "–" : Math.round(value).toLocaleString("en");
export const rate = (value) => value == null ? "–" : value < 10 ? value.toFixed(1) : count(value);
export const share = (value) => value == null ? "–" : `${(100 * value).toFixed(value < 0.1 ? 1 : 0)} %`;
export const clock = (time) => new Date(time).toLocaleTimeString("en-GB");
export const when = (time) => time ? new Date(time).toLocaleString("en-GB") : "–";

export function span(seconds) {
  if (seconds == null) return "–";
  if (seconds < 1) return `${(1000 * seconds).toFixed(seconds < 0.01 ? 1 : 0)} ms`;
  if (seconds < 120) return `${seconds.toFixed(seconds < 10 ? 2 : 0)} s`;
  return seconds < 7200 ? `${Math.round(seconds / 60)} min` : `${(seconds / 3600).toFixed(1)} h`;
}

export function bytes(value) {
  const units = ["B", "KiB", "MiB", "GiB", "TiB"];
  let step = 0;
  while (value >= 1024 && step < units.length - 1) { value /= 1024; step += 1; }
  return `${value.toFixed(step ? 1 : 0)} ${units[step]}`;
}

export function dollars(value) {
  if (value == null) return "–";
  if (value === 0) return "$0";
  return value >= 0.01 ? `$${value.toFixed(value < 1 ? 3 : 2)}` : `$${value.toPrecision(2)}`;
}
