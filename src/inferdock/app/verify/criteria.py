"""The success criteria of the plan: figures of one load, and of a release and its way back."""

from __future__ import annotations

from typing import Final

from inferdock.app.verify.drill import drill_of
from inferdock.app.verify.ground import LackingError, Run, check, verdict
from inferdock.app.verify.load import OUTPUT_TOKENS, PROMPT_TOKENS, load_of
from inferdock.app.verify.target import Target
from inferdock.bench.slo import Verdict, judge, parse_objective
from inferdock.verify.check import Check, Evidence, Need

TTFT: Final = "ttft_p95=500ms"
TPOT: Final = "tpot_p50=50ms"
THROUGHPUT_PER_S: Final = 10.0
DOLLARS_PER_MILLION: Final = 0.60
ROLLBACK_S: Final = 60.0
LOAD_S: Final = 3600.0
DRILL_S: Final = 1200.0


def _latency(objective: str) -> Run:
    """A check of one objective of the load."""
    wanted = parse_objective(objective)
    name = objective.partition("=")[0]

    async def look(target: Target) -> Evidence:
        summary = (await load_of(target)).summary
        found, value = judge(wanted, summary)
        if found is Verdict.INCONCLUSIVE:
            raise LackingError(f"{summary.requests} requests say too little of it: give more --load-seconds.")
        label = name.upper().replace("_P", " p")
        sentence = f"{label} {value * 1000:.1f} ms over {summary.succeeded} requests of {target.users} users."
        command = f"{_bench(target)} --slo {objective}"
        return verdict(
            found is Verdict.PASS, sentence, command, **{f"{name}_ms": value * 1000, "limit_ms": wanted.limit * 1000}
        )

    return look


async def throughput(target: Target) -> Evidence:
    """More than ten requests a second are answered."""
    summary = (await load_of(target)).summary
    sentence = f"{summary.requests_per_s:.1f} requests/s, {summary.output_tokens_per_s:.0f} output tokens/s."
    good = summary.requests_per_s > THROUGHPUT_PER_S
    return verdict(good, sentence, _bench(target), requests_per_s=summary.requests_per_s)


async def failures(target: Target) -> Evidence:
    """None of the load's requests fails."""
    summary = (await load_of(target)).summary
    failed = summary.requests - summary.succeeded
    kinds = ", ".join(f"{count} × {kind}" for kind, count in summary.errors.items())
    sentence = f"{failed} of {summary.requests} requests failed{f': {kinds}' if kinds else ''}."
    return verdict(failed == 0 < summary.requests, sentence, _bench(target), failed=failed)


def _bench(target: Target) -> str:
    tokens = f"--prompt-tokens {PROMPT_TOKENS} --output-tokens {OUTPUT_TOKENS}"
    return f"inferdock bench {target.url}/v1 --concurrency {target.users} --duration {target.load_s:g} {tokens}"


async def price(target: Target) -> Evidence:
    """A million tokens cost less than the plan's limit, at the price that was given, over the load."""
    if target.cost_per_hour is None:
        raise LackingError("Nobody has said what the machines cost: give --cost-per-hour.")
    bill = (await load_of(target)).bill or {}
    dollars = bill["total"]["dollars_per_million"]["blended"]
    if dollars is None:
        return verdict(False, "The gateway counted no tokens during the load.")
    sentence = f"${dollars:.4f} per million tokens at ${target.cost_per_hour:g} an hour under load."
    command = f"inferdock cost --cost-per-hour {target.cost_per_hour:g} --window {target.load_s:.0f}s"
    return verdict(dollars < DOLLARS_PER_MILLION, sentence, command, dollars_per_million=dollars)


async def rollback(target: Target) -> Evidence:
    """A rollback takes less than a minute, from the command to its end."""
    drill = await drill_of(target)
    good = drill.command_s < ROLLBACK_S and drill.flip_s < ROLLBACK_S and drill.state == "rolled_back"
    sentence = (
        f"Traffic was back {drill.flip_s:.2f} s after the decision, the command over after {drill.command_s:.1f} s."
    )
    state = "" if drill.state == "rolled_back" else f" The release is {drill.state}."
    return verdict(good, sentence + state, "inferdock release rollback", flip_s=drill.flip_s, command_s=drill.command_s)


async def downtime(target: Target) -> Evidence:
    """No stream is lost or cut while a version is released and taken back."""
    drill = await drill_of(target)
    lost = sum(drill.errors.values())
    kinds = ", ".join(f"{count} × {kind}" for kind, count in drill.errors.items())
    sentence = f"{lost} of {drill.streams} streams failed or were cut, {drill.short} were too short. {kinds}".strip()
    good = lost == drill.short == 0 < drill.streams
    return verdict(good, sentence, f"inferdock release start {target.candidate}", streams=drill.streams, lost=lost)


_LOAD: Final = (Need.TARGET,)
_DRILL: Final = (Need.TARGET, Need.RELEASE)
CHECKS: Final[tuple[Check[Target], ...]] = (
    check("criteria.ttft", "TTFT p95 under load is below 500 ms", _latency(TTFT), *_LOAD, limit_s=LOAD_S),
    check("criteria.tpot", "TPOT p50 under load is below 50 ms", _latency(TPOT), *_LOAD, limit_s=LOAD_S),
    check("criteria.throughput", "more than 10 requests a second", throughput, *_LOAD, limit_s=LOAD_S),
    check("criteria.failures", "no request of the load fails", failures, *_LOAD, limit_s=LOAD_S),
    check("criteria.cost", "a million tokens cost less than $0.60", price, *_LOAD, limit_s=LOAD_S),
    check("criteria.rollback", "a rollback takes less than 60 s", rollback, *_DRILL, limit_s=DRILL_S),
    check("criteria.downtime", "no stream is lost by a release and its way back", downtime, *_DRILL, limit_s=DRILL_S),
)
