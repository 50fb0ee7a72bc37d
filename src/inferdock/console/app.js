// Views, the key, and the feed that keeps everything fresh.

import { $ } from "./dom.js";
import { showLive } from "./live.js";
import { playgroundKnows, startPlayground } from "./playground.js";
import { showKeys, showModels } from "./records.js";
import { showRelease, showReleases, startRelease } from "./release.js";
import { feed, events, key, useKey } from "./server.js";

const VIEWS = ["live", "playground", "release", "models", "keys"];
const OPENED = { models: showModels, keys: showKeys, release: showReleases };
const STALE_MS = 6000;
let wanted = false;
let follow = null;

function view() {
  const name = location.hash.slice(1);
  return VIEWS.includes(name) ? name : "live";
}

function show() {
  const now = view();
  $("gate").hidden = !wanted;
  for (const name of VIEWS) $(`view-${name}`).hidden = wanted || name !== now;
  for (const link of document.querySelectorAll("nav a")) {
    link.getAttribute("href") === `#${now}` ? link.setAttribute("aria-current", "page") : link.removeAttribute("aria-current");
  }
  document.title = `${$(`${now}-title`).textContent} – Inferdock console`;
  if (!wanted) OPENED[now]?.();
}

function state(text, kind) {
  const place = $("link");
  if (place.textContent !== text) place.textContent = text;
  place.className = `link ${kind}`;
}

function ask(why) {
  wanted = true;
  $("gate-why").textContent = why;
  state("locked", "warn");
  show();
  $("gate-key").focus();
}

function fresh(now) {
  if (wanted) { wanted = false; show(); }
  $("scope").textContent = now.scope ?? "";
  $("scope").hidden = !now.scope;
  $("what").textContent = `${now.models?.length > 1 ? now.models.join(", ") : now.model} · ${now.revision}${now.stopping ? " · draining" : ""}`;
  state("live", "good");
  playgroundKnows(now);
  showLive(now);
  showRelease(now);
}

async function once() {
  // One feed until it ends, is refused, or says nothing for too long.
  follow = new AbortController();
  let timer = setTimeout(() => follow.abort(), STALE_MS);
  try {
    for await (const data of events(await feed(follow.signal))) {
      clearTimeout(timer);
      timer = setTimeout(() => follow.abort(), STALE_MS);
      fresh(JSON.parse(data));
    }
  } finally {
    clearTimeout(timer);
    follow.abort();
  }
}

async function run() {
  for (;;) {
    try {
      await once();
      state("no contact, trying again", "bad");
    } catch (error) {
      if (error.status === 401 || error.status === 403) {
        ask(key() || error.status === 403 ? error.message : "This platform checks keys.");
        return;
      }
      const text = error.name === "AbortError" || error instanceof TypeError ? "no contact, trying again" : error.message;
      state(text, "bad");
    }
    await new Promise((resolve) => setTimeout(resolve, 1000));
  }
}

$("gate-form").addEventListener("submit", (event) => {
  event.preventDefault();
  useKey($("gate-key").value.trim());
  $("gate-key").value = "";
  run();
});
addEventListener("hashchange", () => { show(); $("main").focus({ preventScroll: true }); scrollTo(0, 0); });
startPlayground();
startRelease();
show();
run();
