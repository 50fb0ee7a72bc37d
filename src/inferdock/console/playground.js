// A chat with what is served here; below each answer stands what it took.

import { $, count, dollars, el, rate, span } from "./dom.js";
import { chat, events } from "./server.js";

let messages = [];
let running = null;
let latest = null;

export function playgroundKnows(now) { latest = now; }

function say(who, text) {
  const body = el("span", {}, text);
  const made = el("div", { class: "said" }, el("b", {}, who), body);
  if (!messages.length) $("chat").replaceChildren();
  $("chat").append(made);
  $("chat").scrollTop = $("chat").scrollHeight;
  return body;
}

function cacheOutcome(headers) {
  const outcome = headers.get("x-inferdock-cache");
  if (!outcome) return "off";
  const more = headers.get("x-inferdock-cache-tier") || headers.get("x-inferdock-cache-reason");
  return more ? `${outcome} (${more})` : outcome;
}

function price(usage, hit) {
  if (!latest?.cost?.price) return "no price given";
  if (hit) return "$0 (cached)";
  const million = latest.cost.dollars_per_million.blended;
  if (million == null) return "not known yet";
  return `about ${dollars((million * (usage.prompt_tokens + usage.completion_tokens)) / 1e6)}`;
}

function facts(response, took, usage) {
  const hit = (response.headers.get("x-inferdock-cache") ?? "") === "hit";
  const parts = [
    `revision ${response.headers.get("x-inferdock-revision") ?? "not said"}`,
    `cache ${cacheOutcome(response.headers)}`,
    `TTFT ${span(took.first)}`,
    usage ? `${count(usage.prompt_tokens)} tokens in, ${count(usage.completion_tokens)} out` : "tokens not said",
    usage && took.whole > took.first ? `${rate(usage.completion_tokens / took.whole)} tokens/s` : null,
    `cost ${usage ? price(usage, hit) : "not known"}`,
  ];
  return parts.filter(Boolean).join(" · ");
}

async function answer(body, place) {
  const began = performance.now();
  const response = await chat(body, running.signal);
  const took = { first: null, whole: null };
  let text = "", usage = null;
  for await (const data of events(response)) {
    if (data === "[DONE]") break;
    const event = JSON.parse(data);
    if (event.error) throw new Error(event.error.message);
    usage = event.usage ?? usage;
    const piece = event.choices?.[0]?.delta?.content;
    if (!piece) continue;
    took.first ??= (performance.now() - began) / 1000;
    text += piece;
    place.textContent = text.trimStart();
    $("chat").scrollTop = $("chat").scrollHeight;
  }
  took.whole = (performance.now() - began) / 1000;
  return { text, facts: facts(response, took, usage) };
}

function busy(yes) {
  $("send").disabled = yes;
  $("halt").disabled = !yes;
}

async function ask(event) {
  event.preventDefault();
  const prompt = $("prompt").value.trim();
  if (!prompt || running) return;
  say("You", prompt);
  messages.push({ role: "user", content: prompt });
  $("prompt").value = "";
  const place = say(latest?.model ?? "Answer", "…");
  running = new AbortController();
  busy(true);
  const body = { messages, max_tokens: Number($("max-tokens").value) || 200, temperature: Number($("temperature").value) || 0,
    stream: true, stream_options: { include_usage: true } };
  if (latest?.model) body.model = latest.model;
  try {
    const found = await answer(body, place);
    messages.push({ role: "assistant", content: found.text });
    if (!found.text) place.textContent = "(an empty answer)";
    $("chat").append(el("p", { class: "facts" }, found.facts));
  } catch (error) {
    messages.pop();
    const text = error.name === "AbortError" ? "Stopped." : `No answer: ${error.message}`;
    $("chat").append(el("p", { class: error.name === "AbortError" ? "facts" : "bad", role: "alert" }, text));
  } finally {
    running = null;
    busy(false);
    $("chat").scrollTop = $("chat").scrollHeight;
    $("prompt").focus();
  }
}

export function startPlayground() {
  $("ask").addEventListener("submit", ask);
  $("halt").addEventListener("click", () => running?.abort());
  $("prompt").addEventListener("keydown", (event) => {
    if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) $("ask").requestSubmit();
  });
  $("fresh").addEventListener("click", () => {
    running?.abort();
    messages = [];
    $("chat").replaceChildren(el("p", { class: "dim" }, "A new conversation."));
    $("prompt").focus();
  });
}
