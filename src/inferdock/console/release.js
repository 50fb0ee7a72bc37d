// The release that is under way: where it is, what its gates said, and the buttons that steer it.

import { $, clock, el, notice, put, share, span, table, when } from "./dom.js";
import { get, post } from "./server.js";

const ACTIONS = {
  pause: ["Pause", "Pause the release?", "Traffic stays divided as it is until somebody goes on.", "Yes, pause"],
  resume: ["Resume", "Go on with the release?", "It goes on with the step that is next.", "Yes, go on"],
  promote: ["Promote", "Promote the new version now?", "Gates and holds that are left are passed over.", "Yes, promote"],
  abort: ["Abort", "Abort the release?", "All traffic goes back to the old revision.", "Yes, abort"],
  rollback: ["Roll back", "Roll back?", "All traffic goes back: to the warm predecessor of this release, or, where none is under way, to the champion before. No gate stands in the way.", "Yes, roll back"],
};
const RESULT = { pass: "good", passed: "good", fail: "bad", failed: "bad" };
let current = null;
let instead = null;

function possible(action) {
  if (instead) return false;
  if (action === "rollback") return true;
  if (!current || current.over || current.problem) return false;
  if (action === "pause") return current.state !== "paused";
  return action !== "resume" || current.state === "paused";
}

function confirmed(action) {
  const [, title, text, yes] = ACTIONS[action];
  const dialog = $("confirm");
  $("confirm-title").textContent = title;
  $("confirm-text").textContent = current && !current.over ? `${current.from ?? "nothing"} → ${current.to}. ${text}` : text;
  $("confirm-yes").textContent = yes;
  dialog.returnValue = "";
  dialog.showModal();
  $("confirm-no").focus();
  return new Promise((resolve) => {
    dialog.addEventListener("close", () => resolve(dialog.returnValue === "yes"), { once: true });
  });
}

async function act(action) {
  const [name] = ACTIONS[action];
  const meant = current?.id, over = current?.over;
  refuse(null);
  if (!(await confirmed(action))) return;
  if (current?.id !== meant || current?.over !== over || !possible(action)) {
    // What was confirmed was about another state: a rollback, for one, would now undo something else.
    refuse(`${name}: nothing was done, since ${current?.id === meant ? `the release has meanwhile become ${current?.state}` : "another release is shown by now"}. Look again, and decide anew.`);
    return;
  }
  try {
    await post("release", { action, confirmed: action, release: meant ?? null, over: over ?? true, reason: $("reason").value });
    $("reason").value = "";
  } catch (error) {
    refuse(`${name}: ${error.message}`);
  }
}

function refuse(text) {
  // A place of its own: that of the commands is drawn anew every second.
  $("refusal").replaceChildren(...(text ? [notice(text, "bad")] : []));
}

function commands(rows) {
  if (!rows?.length) return [];
  return [el("h2", {}, "Commands of this console"), el("ol", { class: "log" }, ...rows.map((one) => {
    const state = one.code == null ? "at work" : one.code === 0 ? "done" : `ended with ${one.code}`;
    const kind = one.code == null ? "warn" : one.code === 0 ? "good" : "bad";
    return el("li", {}, `${clock(1000 * one.began)}  ${one.action} `, el("span", { class: kind }, state), one.said ? el("pre", {}, one.said) : null);
  }))];
}

function orders(lines) {
  // Where this page has no say: what to run instead.
  return [el("p", {}, "This page shows releases and does not steer them. Run one of these:"), el("pre", {}, lines.join("\n"))];
}

function weights(now) {
  const rows = Object.entries(now.weights ?? {});
  if (!rows.length) return null;
  return el("div", {}, el("h2", {}, "Traffic"), ...rows.map(([revision, weight]) => {
    const name = current?.names?.[revision] ?? revision;
    return el("div", { class: "share" }, el("span", {}, name), el("progress", { max: "1", value: String(weight), "aria-label": `share of ${name}` }), el("span", {}, share(weight)));
  }));
}

function steps(release) {
  return el("ol", { class: "steps" }, ...release.steps.map((step, at) => {
    const done = at < release.next, now = at === release.next && !release.over;
    return el("li", { class: now ? "now" : done ? "good" : "dim", "aria-current": now ? "step" : null }, `${step.text}${done ? " ✓" : ""}`);
  }));
}

function verdicts(rows) {
  if (!rows.length) return el("p", { class: "dim" }, "No gate has judged yet.");
  return table("Gates", [
    ["Gate", (one) => one.gate],
    ["Verdict", (one) => el("span", { class: RESULT[one.verdict] ?? "warn" }, one.verdict)],
    ["Why", (one) => one.reason],
    ["Evidence", (one) => el("details", { "data-name": `${one.gate}${one.reason}` }, el("summary", {}, "figures"), el("pre", {}, JSON.stringify(one.evidence, null, 1)))],
  ], rows);
}

function picture(release, now) {
  if (!release) return [notice("No release was made here yet. Begin one with inferdock release start NAME@VERSION."), weights(now)];
  if (release.problem) return [notice(release.problem, release.kind ?? "bad"), weights(now)];
  const flip = release.flip_s == null ? null : el("p", {}, `Traffic was back ${span(release.flip_s)} after the decision.`);
  return [
    el("div", { class: "card" }, el("h2", {}, `${release.from ?? "nothing"} → ${release.to}: ${release.state}`),
      el("p", {}, release.outcome), flip, el("p", { class: "dim" }, release.step && !release.over ? `Next: ${release.step}` : release.id), weights(now)),
    el("h2", {}, "Steps"), steps(release), el("h2", {}, "Gates"), verdicts(release.verdicts),
    el("h2", {}, "Journal"), el("ol", { class: "log" }, ...release.events.slice().reverse().map((one) =>
      el("li", {}, `${clock(one.time)}  ${one.text}${one.actor ? ` (${one.actor})` : ""}`))),
  ];
}

export function showRelease(now) {
  const before = current?.over;
  current = now.release;
  instead = now.instead ?? null;
  $("steer").hidden = Boolean(instead);
  for (const button of $("buttons").children) button.disabled = !possible(button.dataset.action);
  put($("commands"), ...(instead ? orders(instead) : commands(now.commands)));
  put($("release"), ...picture(current, now));
  if (before !== current?.over) showReleases();
}

export async function showReleases() {
  try {
    const { releases } = await get("releases");
    put($("releases"), releases.length ? table("Releases", [
      ["Release", (one) => one.id], ["From", (one) => one.from], ["To", (one) => one.to],
      ["State", (one) => one.state], ["Outcome", (one) => one.outcome], ["Last event", (one) => when(one.time)],
    ], releases) : notice("None yet."));
  } catch (error) {
    put($("releases"), notice(error.message, instead ? "warn" : "bad"));
  }
}

export function startRelease() {
  for (const [action, [name]] of Object.entries(ACTIONS)) {
    const kind = action === "abort" || action === "rollback" ? "danger" : action === "promote" ? null : "quiet";
    $("buttons").append(el("button", { type: "button", class: kind, "data-action": action, disabled: true, onclick: () => act(action) }, name));
  }
  $("confirm-yes").addEventListener("click", () => $("confirm").close("yes"));
  $("confirm-no").addEventListener("click", () => $("confirm").close(""));
}
