"""``inferdock release start``."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import click

from inferdock.app.release import RegistryCatalog, Works, serving
from inferdock.cli.output import note, output_option, print_json
from inferdock.cli.releases.options import (
    Judging,
    Speaker,
    Where,
    conclude,
    document,
    keep_judging,
    platform_options,
    reason_option,
    with_works,
)
from inferdock.domain.errors import ConfigError
from inferdock.registry.names import Reference
from inferdock.release.driver import room_for
from inferdock.release.plan import Plan, new_id
from inferdock.release.plan_text import describe
from inferdock.release.planner import make_release
from inferdock.release.progress import Progress
from inferdock.release.steps import Limits, Rules, Shadow

SECONDS = click.FloatRange(min=0)


def parse_weights(text: str) -> tuple[float, ...]:
    """Read ``0.1,0.5,1`` or ``10,50,100`` (percent, where a number is above 1).

    Raises:
        ConfigError: they are no shares.
    """
    try:
        numbers = [float(part) for part in text.split(",")]
    except ValueError as exc:
        raise ConfigError(f"--weights {text[:60]!r} are no numbers.", cure="For instance 0.1,0.5,1.") from exc
    if any(number > 1 for number in numbers):
        numbers = [number / 100 for number in numbers]
    if not all(0 < number <= 1 for number in numbers):
        raise ConfigError(f"--weights {text[:60]!r} are no shares.", cure="For instance 0.1,0.5,1.")
    return tuple(numbers)


@click.command(context_settings={"show_default": True})
@platform_options
@click.argument("reference", metavar="NAME@VERSION")
@click.option("--replicas", type=click.IntRange(min=1), help="Of the new revision; default: as many as serve now.")
@click.option("--weights", default="0.1,0.5,1", help="Shares of the canary, growing.")
@click.option("--gates", default="health,smoke,quality", help="To be passed before it gets traffic.")
@click.option("--tasks", metavar="FILE", help="Tasks of the quality gate, or `demo`; without: no quality gate.")
@click.option("--limit", "limits", multiple=True, metavar="LIMIT", help="Of the quality gate, as in `inferdock eval`.")
@click.option(
    "--shadow",
    type=click.FloatRange(0, 1, min_open=True),
    metavar="SHARE",
    help="First copy this share of the requests (0-1) to the new revision, whose answers nobody gets.",
)
@click.option("--shadow-hold", type=SECONDS, default=60.0, help="Seconds of that, at least.")
@click.option(
    "--max-difference", type=click.FloatRange(0, 1), help="Share of such answers that may differ; without: not judged."
)
@click.option("--hold", type=SECONDS, default=60.0, help="Seconds at each weight, at least.")
@click.option("--hold-limit", type=SECONDS, default=600.0, help="Seconds at each weight, at most.")
@click.option("--bake", type=SECONDS, default=600.0, help="Seconds that the old revision stays warm.")
@click.option("--min-requests", type=click.IntRange(min=1), default=50, help="Fewer say nothing good about it.")
@click.option(
    "--max-errors", type=click.FloatRange(0, 1, min_open=True), default=0.02, help="Failed share, and its growth."
)
@click.option("--ttft-p95", type=SECONDS, default=0.5, help="Seconds; 0: TTFT is not judged.")
@click.option("--tpot-p50", type=SECONDS, default=0.05, help="Seconds; 0: TPOT is not judged.")
@click.option(
    "--spare", type=click.IntRange(min=0), help="Replicas there is room for beside those that run; the platform knows."
)
@click.option("--allow-gap", is_flag=True, help="Let nothing serve for a while where there is no room for two.")
@click.option("--dry-run", is_flag=True, help="Print the plan with its reasons, and do nothing.")
@reason_option
@output_option
def start(where: Where, output: str, **given: Any) -> None:
    """Release a version: check, start, gates, canary by weight, promotion, bake, and the old revision goes.

    Where the platform has room for both revisions, the old one keeps its replicas; else it gives them up one by one.
    The plan says which, and why.

    A gate that fails takes everything back (exit code 8); one that cannot tell pauses (exit code 12). Ctrl-C leaves the
    platform as it stands: `resume` goes on.

    \b
    Example:
      inferdock release start mistral-7b@1.1.0 --tasks tasks.jsonl --dry-run
      inferdock release start mistral-7b@1.1.0 --tasks tasks.jsonl --weights 10,50,100 --hold 120
    """
    reference = Reference.parse(given["reference"])
    judging = Judging(tasks=_absolute(given["tasks"]), limits=given["limits"]) if given["tasks"] else None

    speaker = Speaker()

    async def work(works: Works) -> Progress | Plan:
        async def draft() -> Plan:
            plan = await _plan(works, reference, given, with_quality=judging is not None)
            note(describe(plan))
            speaker.plan = plan
            await keep_judging(works.place, plan.id, judging)
            return plan

        if given["dry_run"]:
            return await _plan(works, reference, given, with_quality=judging is not None)
        return await works.desk.start(draft, works.by, reason=given["reason"])

    found = with_works(where, work, name=reference.name, judging=judging, listener=speaker.listener())
    if isinstance(found, Plan):
        print(describe(found), end="")
        return
    if output == "json":
        print_json(document(found))
    conclude(found)


async def _plan(works: Works, reference: Reference, given: dict[str, Any], *, with_quality: bool) -> Plan:
    stable = serving(await works.driver.observe())
    to = works.target(reference, given["replicas"] or (stable.replicas if stable is not None else 1))
    gates = tuple(gate.strip() for gate in given["gates"].split(",") if gate.strip())
    if not with_quality and "quality" in gates:
        note("note: without --tasks there is no quality gate.")
        gates = tuple(gate for gate in gates if gate != "quality")
    if unknown := set(gates) - {"health", "smoke", "quality"}:
        raise ConfigError(f"There is no gate `{min(unknown)}`.", cure="Choose among health, smoke, quality.")
    limits = Limits(
        error_rate=given["max_errors"] if given["max_errors"] < 1 else None,
        error_increase=given["max_errors"] if given["max_errors"] < 1 else None,
        ttft_p95_s=given["ttft_p95"] or None,
        tpot_p50_s=given["tpot_p50"] or None,
        ttft_ratio=Limits().ttft_ratio if given["ttft_p95"] else None,
        tpot_ratio=Limits().tpot_ratio if given["tpot_p50"] else None,
        min_requests=given["min_requests"],
        min_to_fail=min(10, given["min_requests"]),
    )
    rules = Rules(
        weights=parse_weights(given["weights"]),
        gates=gates,
        hold_s=given["hold"],
        hold_limit_s=max(given["hold"], given["hold_limit"]),
        bake_s=given["bake"],
        limits=limits,
        shadow=_shadow(given),
    )
    room = await room_for(works.driver, to, given["spare"])
    return make_release(
        id=new_id(datetime.now(UTC), to.reference.partition("@")[2]),
        model=works.place.model,
        stable=stable,
        to=to,
        rules=rules,
        champion=await RegistryCatalog(works.registry, reference.name).champion(),
        spare=room.replicas,
        why=room.reason,
        allow_gap=given["allow_gap"],
    )


def _shadow(given: dict[str, Any]) -> Shadow | None:
    if given["shadow"] is None:
        if given["max_difference"] is not None:
            raise ConfigError("--max-difference is about copies of requests.", cure="Ask for them with --shadow 0.1.")
        return None
    return Shadow(
        share=given["shadow"],
        hold_s=given["shadow_hold"],
        hold_limit_s=max(given["shadow_hold"], given["hold_limit"]),
        max_difference=given["max_difference"],
        min_samples=given["min_requests"],
    )


def _absolute(tasks: str) -> str:
    """A path that `resume` finds from any folder."""
    return tasks if tasks == "demo" else str(Path(tasks).absolute())
