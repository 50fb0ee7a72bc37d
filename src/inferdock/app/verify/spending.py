"""What a million tokens cost: the bill held against a calculation by hand, the dashboard, the rules and the alert."""

from __future__ import annotations

import asyncio
import json
import re
import secrets
import tempfile
from collections.abc import Iterable, Mapping
from fractions import Fraction
from pathlib import Path
from typing import Any, Final

import yaml

from inferdock.app.cost import Where, metrics_text, over_window, report
from inferdock.app.verify.cached import Asker
from inferdock.app.verify.chart import KNOWN, root
from inferdock.app.verify.commands import program, run
from inferdock.app.verify.figures import exposition, ready_rows, status
from inferdock.app.verify.ground import LackingError, faultless, verdict
from inferdock.app.verify.target import Target
from inferdock.config.settings import CostSettings
from inferdock.telemetry.names import CACHE_REQUESTS
from inferdock.telemetry.table import ENGINE, GATEWAY
from inferdock.verify.check import Evidence

PANELS: Final = ("Cost per 1M tokens", "Spot and on-demand", "Cache hit rate", "GPU utilisation beside cost")
BOARD: Final = Path("grafana", "dashboards", "cost.json")
CACHE: Final = CACHE_REQUESTS.removesuffix("requests_total")
"""How the names of the response cache's metrics begin."""
RULES: Final = Path("prometheus", "rules")
ALERT: Final = "InferdockCostHigh"
PROMTOOL: Final = "it comes with Prometheus (Debian: apt-get install prometheus)."
TOLERANCE: Final = 0.02
WINDOW_S: Final = 5.0
AT_ONCE: Final = 4
NO_STORE: Final = {"Cache-Control": "no-store"}
_NAMES: Final = re.compile(r"\b(?:(?:inferdock|vllm):[\w:]+|llm_\w+|kube_\w+|DCGM_\w+)")
_TEST: Final = """
evaluation_interval: 1m
rule_files: [{rules}]
tests:
  - interval: 1m
    input_series:
      - {{series: 'inferdock:cost_blended:dollars_per_million_tokens{{model="dear"}}', values: '2x120'}}
      - {{series: 'inferdock:cost_blended:dollars_per_million_tokens{{model="cheap"}}', values: '0.5x120'}}
    promql_expr_test:
      - expr: count by (model) (ALERTS{{alertname="{alert}", alertstate="firing"}})
        eval_time: 100m
        exp_samples: [{{labels: '{{model="dear"}}', value: 1}}]
"""


# -- The dashboard ---------------------------------------------------------------------------------------------------


async def board(target: Target) -> Evidence:
    """The plan's panels are there, and every metric behind them exists."""
    checkout = root(target)
    document = json.loads((checkout / BOARD).read_text(encoding="utf-8"))
    faults = board_faults(document, recorded(checkout))
    return faultless(faults, f"{len(document['panels'])} panels; every metric behind them exists.", str(BOARD))


async def board_fed(target: Target) -> Evidence:
    """The target's gateway gives the metrics behind the panels, once something was asked."""
    caches = await _asked_twice(target)
    used = _used(target)
    known = [metric for metric in GATEWAY if caches or not metric.name.startswith(CACHE)]
    wanted = [metric for metric in known if set(metric.samples()) & used]
    there = names_in(await exposition(target))
    faults = [f"The target has no {metric.name}." for metric in wanted if not there & set(metric.samples())]
    faults += [] if wanted else ["The panels ask for nothing that a gateway has."]
    off = "" if caches else " The response cache is off, and its panel empty."
    sentence = f"The gateway gives {len(wanted)} metrics that the panels need.{off}"
    return faultless(faults, sentence, f"curl {target.url}/metrics", metrics=len(wanted))


async def _asked_twice(target: Target) -> bool:
    """Ask the same twice, so that there is something to count; whether the target has a response cache."""
    asker = Asker(target)
    try:
        for _ in range(2):
            await asker.ask("What does a token cost?")
    except LackingError:
        return False
    return True


async def engines_feed(target: Target) -> Evidence:
    """The target's engines give theirs."""
    used = _used(target)
    wanted = [metric for metric in ENGINE if set(metric.every_sample()) & used]
    faults = [] if wanted else ["The panels ask for nothing that an engine has."]
    rows = ready_rows(await status(target), target.model)
    for row in rows:
        there = names_in(await metrics_text(target.http, f"{row['url']}/metrics"))
        faults += [
            f"{row['name']} has no {metric.name}." for metric in wanted if not there & set(metric.every_sample())
        ]
    faults += [] if rows else ["No engine is ready."]
    sentence = f"{len(rows)} engines give {len(wanted)} metrics that the panels need."
    return faultless(faults, sentence, metrics=len(wanted), engines=len(rows))


def _used(target: Target) -> set[str]:
    """Metrics behind the panels."""
    checkout = root(target)
    document = json.loads((checkout / BOARD).read_text(encoding="utf-8"))
    return behind(board_names(document), recorded(checkout))


def names_in(text: str) -> set[str]:
    """Names of the samples of an exposition."""
    lines = (line for line in text.splitlines() if line and not line.startswith("#"))
    return {re.split(r"[{ ]", line, maxsplit=1)[0] for line in lines}


def recorded(checkout: Path) -> dict[str, str]:
    """Expression of each recording rule, by its name."""
    found: dict[str, str] = {}
    for path in sorted((checkout / RULES).glob("*.yaml")):
        for group in yaml.safe_load(path.read_text(encoding="utf-8"))["groups"]:
            for rule in group["rules"]:
                if "record" in rule:
                    found[rule["record"]] = f"{found.get(rule['record'], '')} {rule['expr']}"
    return found


def board_names(document: Mapping[str, Any]) -> set[str]:
    """Metrics and rules that the panels ask for."""
    return {
        name for panel in document["panels"] for query in panel["targets"] for name in _NAMES.findall(query["expr"])
    }


def behind(asked: Iterable[str], rules: Mapping[str, str]) -> set[str]:
    """The metrics that rules are made of, however deep; a rule that is not there stands for itself."""
    found, open_ = set[str](), list(asked)
    seen = set[str]()
    while open_:
        name = open_.pop()
        if name in seen:
            continue
        seen.add(name)
        if name in rules:
            open_ += _NAMES.findall(rules[name])
        else:
            found.add(name)
    return found


def board_faults(document: Mapping[str, Any], rules: Mapping[str, str]) -> list[str]:
    """Panels of the plan that are missing, and names that nobody exports."""
    titles = {panel["title"] for panel in document["panels"]}
    faults = [f"There is no panel {title!r}." for title in PANELS if title not in titles]
    others = behind(board_names(document), rules) - KNOWN
    # The price is the operator's own rule, which may yield to another.
    return faults + [
        f"Nobody exports {name}." for name in sorted(others) if not name.startswith("inferdock:replica_price")
    ]


# -- Rules and the alert ---------------------------------------------------------------------------------------------


async def rules_valid(target: Target) -> Evidence:
    """Prometheus takes the rules."""
    promtool = program("promtool", PROMTOOL)
    files = sorted((root(target) / RULES).glob("*.yaml"))
    done = await run(promtool, "check", "rules", *files)
    sentence = f"promtool finds nothing wrong in {len(files)} files." if done.code == 0 else done.said
    return verdict(done.code == 0 and bool(files), sentence, f"promtool check rules {RULES}/*.yaml", files=len(files))


async def alerted(target: Target) -> Evidence:
    """Prometheus' own test of the rules: the alert fires above a dollar, and not below."""
    promtool = program("promtool", PROMTOOL)
    rules = root(target) / RULES / "alerts.yaml"
    with tempfile.TemporaryDirectory(prefix="verify-") as name:
        test = Path(name) / "test.yaml"
        await asyncio.to_thread(test.write_text, _TEST.format(rules=json.dumps(str(rules)), alert=ALERT))
        done = await run(promtool, "test", "rules", test)
    sentence = f"{ALERT} fires at $2 per million tokens, and not at $0.50." if done.code == 0 else done.said
    return verdict(done.code == 0, sentence, f"promtool test rules (on {rules.name})")


# -- The calculation -------------------------------------------------------------------------------------------------


async def by_hand(target: Target) -> Evidence:
    """`inferdock cost` over a window agrees with price x time / tokens."""
    if target.cost_per_hour is None:
        raise LackingError("Nobody has said what the machines cost: give --cost-per-hour.")
    used = [0]

    async def traffic(window_s: float) -> None:
        """In place of waiting: ask, and count the tokens."""
        until = asyncio.get_running_loop().time() + window_s
        used[0] = sum(await asyncio.gather(*(_ask_until(target, until) for _ in range(AT_ONCE))))

    where = Where(url=target.admin_url or target.url)
    figures = await over_window(target.http, where, WINDOW_S, sleep=traffic)
    document = report(CostSettings(cost_per_hour=target.cost_per_hour), figures)
    return judged_bill(document["total"], figures.elapsed, target.cost_per_hour, used[0])


def judged_bill(found: Mapping[str, Any], elapsed: Fraction, per_hour: float, ours: int) -> Evidence:
    """Hold a bill against a calculation by hand, and its tokens against those that clients were told."""
    dollars, tokens = per_hour * float(elapsed) / 3600, sum(found["tokens"].values())
    blended = found["dollars_per_million"]["blended"]
    if not tokens or not ours or blended is None:
        return verdict(False, f"The bill counts {tokens} tokens, and clients got {ours}.")
    wanted = dollars / tokens * 1e6
    faults = [] if tokens >= ours else [f"The bill counts {tokens} tokens, and clients got {ours}."]
    if not _near(found["dollars"], dollars):
        faults.append(f"The bill says ${found['dollars']:.6f}, and price times time is ${dollars:.6f}.")
    if not _near(blended, wanted):
        faults.append(f"The bill says ${blended:.4f} per million tokens, and by hand it is ${wanted:.4f}.")
    sentence = f"${blended:.4f} per million tokens over {float(elapsed):.1f} s, by hand ${wanted:.4f}; {tokens} tokens."
    command = f"inferdock cost --cost-per-hour {per_hour:g} --window {WINDOW_S:g}s"
    return faultless(faults, sentence, command, dollars_per_million=blended, tokens=tokens)


def _near(value: float, wanted: float) -> bool:
    return abs(value - wanted) <= TOLERANCE * wanted


async def _ask_until(target: Target, until: float) -> int:
    """Tokens of all answers that were given before a time of the loop's clock."""
    counted = 0
    while not counted or asyncio.get_running_loop().time() < until:
        message = {"role": "user", "content": f"What does a token cost? {secrets.token_hex(4)}"}
        body = {"model": target.model, "max_tokens": 32, "temperature": 0, "messages": [message]}
        async with target.http.post(f"{target.url}/v1/chat/completions", json=body, headers=NO_STORE) as answer:
            answer.raise_for_status()
            usage = (await answer.json())["usage"]
        counted += usage["prompt_tokens"] + usage["completion_tokens"]
    return counted
