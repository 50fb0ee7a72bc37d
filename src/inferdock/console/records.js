// Models of the registry, and keys. Read when their view is opened.

import { $, bytes, count, el, notice, put, table, when } from "./dom.js";
import { get } from "./server.js";

function model(one) {
  if (one.problem) return el("div", {}, el("h2", {}, one.name), notice(one.problem, "bad"));
  const versions = one.versions.length ? table(`Versions of ${one.name}`, [
    ["Version", (row) => row.version],
    ["Aliases", (row) => row.aliases.join(", ") || null],
    ["Revision", (row) => el("code", {}, row.revision)],
    ["Size", (row) => bytes(row.size_bytes), true],
    ["Files", (row) => count(row.files), true],
    ["Signed", (row) => row.signed ? "yes" : "no"],
    ["Pushed", (row) => when(row.time)],
    ["By", (row) => row.actor],
  ], one.versions) : notice("It has no version.");
  const history = el("details", { "data-name": one.name }, el("summary", {}, "History"), el("ol", { class: "log" }, ...one.history.map((event) =>
    el("li", {}, `${when(event.time)}  ${event.text}${event.reason ? `: ${event.reason}` : ""} (${event.actor})`))));
  return el("div", {}, el("h2", {}, one.name), versions, history);
}

export async function showModels() {
  try {
    const { models, left_out: left } = await get("registry");
    const more = left ? notice(`${left} further models are not shown.`) : null;
    put($("models"), ...(models.length ? models.map(model) : [notice("The registry is empty. Put a model into it with inferdock model push.")]), more);
  } catch (error) {
    put($("models"), notice(`The registry cannot be read: ${error.message}`, "bad"));
  }
}

export async function showKeys() {
  try {
    const { keys } = await get("keys");
    put($("keys-list"), keys.length ? table("Keys", [
      ["Id", (one) => el("code", {}, one.id)],
      ["Name", (one) => one.name],
      ["State", (one) => el("span", { class: one.state === "live" ? "good" : "warn" }, one.state)],
      ["Models", (one) => one.models.join(", ") || "all"],
      ["Requests/min", (one) => one.requests_per_minute == null ? null : count(one.requests_per_minute), true],
      ["Tokens/min", (one) => one.tokens_per_minute == null ? null : count(one.tokens_per_minute), true],
      ["Streams", (one) => one.concurrent_streams == null ? null : count(one.concurrent_streams), true],
      ["Priority", (one) => String(one.priority), true],
      ["Tenant", (one) => one.tenant],
      ["Admin", (one) => one.admin ? "yes" : "no"],
      ["Expires", (one) => one.expires ? when(one.expires) : "never"],
    ], keys) : notice("There are no keys: everybody on this machine may ask."));
  } catch (error) {
    put($("keys-list"), notice(`The keys cannot be read: ${error.message}`, "bad"));
  }
}
