// What goes on now: figures, replicas, and what changed since the page was opened.

import { $, clock, count, dollars, el, notice, put, rate, share, span, table } from "./dom.js";

const past = new Map();
const LENGTH = 120;
const states = new Map();
const STYLE = { ready: "good", starting: "warn", draining: "warn", waiting: "bad", stopped: "dim" };
const WORDS = { waiting: "died, will be restarted", starting: "is starting", ready: "is ready", draining: "finishes what it has", stopped: "has stopped" };

function curve(name, value) {
  const values = past.get(name) ?? [];
  values.push(value ?? 0);
  if (values.length > LENGTH) values.shift();
  past.set(name, values);
  const top = Math.max(...values, 1e-9);
  const points = values.map((one, at) => `${(100 * (LENGTH - values.length + at)) / (LENGTH - 1)},${30 - (28 * one) / top}`).join(" ");
  const svg = document.createElementNS("http://www.w3.org/2000/svg", "svg");
  svg.setAttribute("viewBox", "0 0 100 32");
  svg.setAttribute("preserveAspectRatio", "none");
  svg.setAttribute("aria-hidden", "true");
  const line = document.createElementNS("http://www.w3.org/2000/svg", "polyline");
  line.setAttribute("points", points);
  svg.append(line);
  return svg;
}

function tile(title, figure, detail, name, value) {
  return el("div", { class: "tile" }, el("h2", {}, title), el("p", { class: "figure" }, figure),
    el("p", { class: "detail" }, detail ?? ""), name ? curve(name, value) : null);
}

function three(figures) {
  return `p95 ${span(figures.p95)} · p99 ${span(figures.p99)}`;
}

function tiles(now) {
  const figures = now.figures;
  const kv = now.replicas.map((one) => one.kv_cache_usage_ratio).filter((one) => one != null);
  const most = kv.length ? Math.max(...kv) : null;
  const cache = figures.cache;
  return [
    tile("Requests per second", rate(figures.requests_per_s), `${count(figures.requests_total)} in all, ${count(figures.failed_total)} failed`, "requests", figures.requests_per_s),
    tile("Output tokens per second", rate(figures.output_tokens_per_s), `${count(figures.output_tokens_total)} out, ${count(figures.prompt_tokens_total)} in`, "tokens", figures.output_tokens_per_s),
    tile("Time to first token, p50", span(figures.ttft_s.p50), three(figures.ttft_s), "ttft", figures.ttft_s.p95),
    tile("Time per token, p50", span(figures.tpot_s.p50), three(figures.tpot_s), "tpot", figures.tpot_s.p95),
    tile("In flight", count(now.in_flight), `${count(figures.waiting)} wait for a replica`, "flight", now.in_flight),
    tile("KV cache, fullest replica", share(most), kv.length ? `${kv.length} in all` : "no replica says", "kv", most),
    tile("Prefix cache", share(figures.prefix_cache_ratio), figures.prefix_cache_ratio == null ? "no engine says anything of it" : "of prompt tokens were cached"),
    tile("Response cache", cache.requests ? share(cache.hits / cache.requests) : "–",
      cache.requests ? `${count(cache.hits)} hits saved ${count(cache.saved_tokens)} tokens, ${span(cache.saved_s)}` : "off, or not asked yet"),
    ...money(now.cost),
  ];
}

function money(cost) {
  if (!cost?.price) return [tile("Cost", cost?.given === false ? "no price given" : "–", cost?.why ?? "")];
  const million = cost.dollars_per_million;
  return [
    tile("Cost per hour", dollars(cost.dollars_per_hour), `response cache saved ${dollars(cost.saved_dollars.response_cache)}`),
    tile("Cost per 1M tokens", dollars(million.blended), `prompt and output together · output alone ${dollars(million.output)} · cached answers counted ${dollars(million.with_cache)}`),
  ];
}

function replicas(rows) {
  if (!rows.length) return notice("There is no replica.", "warn");
  return table("Replicas", [
    ["Replica", (one) => one.name],
    ["Revision", (one) => one.revision],
    ["State", (one) => el("span", { class: STYLE[one.state] ?? "" }, one.state)],
    ["For", (one) => age(one.since_s), true],
    ["In flight", (one) => one.in_flight == null ? null : count(one.in_flight), true],
    ["Running", (one) => one.running == null ? null : count(one.running), true],
    ["Waiting", (one) => one.waiting == null ? null : count(one.waiting), true],
    ["KV cache", (one) => share(one.kv_cache_usage_ratio), true],
    ["Restarts", (one) => one.restarts == null ? null : count(one.restarts), true],
    ["Problem", (one) => one.problem || null],
  ], rows);
}

function tell(text, kind) {
  const place = $("happened");
  if (place.firstElementChild?.classList.contains("dim")) place.replaceChildren();
  place.prepend(el("li", { class: kind }, `${clock(Date.now())}  ${text}`));
  while (place.children.length > 50) place.lastElementChild.remove();
}

function compare(rows) {
  const first = !states.size;
  const names = new Set(rows.map((one) => one.name));
  for (const one of rows) {
    if (states.get(one.name) !== one.state && !first) tell(`${one.name} ${WORDS[one.state] ?? one.state}`, STYLE[one.state]);
    states.set(one.name, one.state);
  }
  for (const name of states.keys()) {
    if (!names.has(name)) { states.delete(name); tell(`${name} is gone`, ""); }
  }
}

function age(seconds) {
  if (seconds == null) return null;
  return seconds < 60 ? `${Math.floor(seconds)} s` : span(seconds);
}

export function showLive(now) {
  compare(now.replicas);
  $("tiles").replaceChildren(...(now.figures ? tiles(now) : [notice("The gateway gives no figures just now.", "warn")]));
  put($("replicas"), replicas(now.replicas));
}
