"""``inferdock release pause``, ``resume``, ``promote``, ``abort`` and ``rollback``."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from typing import Final

import click

from inferdock.app.release import RegistryCatalog, Works, serving
from inferdock.app.release_places import Place
from inferdock.cli.output import note, output_option, print_json
from inferdock.cli.releases.options import (
    Speaker,
    Where,
    at_place,
    conclude,
    document,
    judging_of,
    platform_options,
    reason_option,
    unfinished,
    works_at,
)
from inferdock.domain.errors import ConfigError
from inferdock.registry.names import Reference, Version
from inferdock.release.driver import room_for
from inferdock.release.machine import RESTING, State
from inferdock.release.plan import Plan, new_id
from inferdock.release.plan_text import describe
from inferdock.release.planner import make_rollback
from inferdock.release.progress import Progress
from inferdock.release.records.mailbox import Wish

BACK_S: Final = 120.0
"""How long a command waits until traffic is back; the runner goes on in any case."""
LOOK_S: Final = 0.2


def _command(where: Where, wish: Wish, reason: str) -> Progress:
    """Have the release that is under way follow a wish; by its runner, or by one of ours where none is at work."""

    async def work(place: Place) -> Progress:
        return await _follow(where, place, (await unfinished(place)).plan, wish, reason)

    return at_place(where, work)


async def _follow(where: Where, place: Place, plan: Plan, wish: Wish, reason: str) -> Progress:
    name, listener = plan.to.reference.partition("@")[0], Speaker(plan).listener()
    judging = await judging_of(place, plan.id)
    works = await works_at(where, place, name=name, judging=judging, listener=listener)
    progress = await works.desk.command(plan.id, works.request(wish, reason))
    return await _until_back(place, progress)


async def _until_back(place: Place, progress: Progress) -> Progress:
    """The runner that is at work has begun to go back: wait until all traffic is, for that is what was asked for."""
    end = asyncio.get_running_loop().time() + BACK_S
    while progress.state is State.ABORTING and progress.flip_s is None and asyncio.get_running_loop().time() < end:
        await asyncio.sleep(LOOK_S)
        progress = await place.journals.progress(progress.plan.id)
    return progress


def _tell(progress: Progress, output: str, *, fine: tuple[State, ...]) -> None:
    """Say where the release is now; the states of ``fine`` are what was asked for."""
    if output == "json":
        print_json(document(progress))
    if progress.state in fine or progress.state not in RESTING:
        flip = f" All traffic was back {progress.flip_s:.2f} s after the decision." if progress.flip_s else ""
        note(f"Release {progress.plan.id} is {progress.state}.{flip}")
    else:
        conclude(progress)


@click.command()
@platform_options
@reason_option
@output_option
def pause(where: Where, reason: str, output: str) -> None:
    """Stop the release where it is; traffic stays divided as it is.

    \b
    Example:
      inferdock release pause --reason "looking at the answers"
    """
    _tell(_command(where, Wish.PAUSE, reason), output, fine=(State.PAUSED,))


@click.command()
@platform_options
@reason_option
@output_option
def resume(where: Where, reason: str, output: str) -> None:
    """Go on with a release that is paused, or whose command was interrupted or killed.

    \b
    Example:
      inferdock release resume
    """
    _tell(_command(where, Wish.RESUME, reason), output, fine=())


@click.command()
@platform_options
@reason_option
@output_option
def promote(where: Where, reason: str, output: str) -> None:
    """Make the new version champion now, without the gates and holds that are left.

    \b
    Example:
      inferdock release promote --reason "urgent fix"
    """
    _tell(_command(where, Wish.PROMOTE, reason), output, fine=())


@click.command()
@platform_options
@reason_option
@output_option
def abort(where: Where, reason: str, output: str) -> None:
    """Take the release back: all traffic to the old revision, the new one goes.

    \b
    Example:
      inferdock release abort --reason "answers are shorter"
    """
    progress = _command(where, Wish.ABORT, reason)
    _tell(progress, output, fine=(State.ABORTED, State.ROLLED_BACK))


@click.command()
@platform_options
@click.argument("to", required=False, metavar="[VERSION | NAME@VERSION]")
@click.option("--spare", type=click.IntRange(min=0), help="Replicas there is room for beside those that run.")
@click.option("--allow-gap", is_flag=True, help="Let nothing serve for a while where there is no room for two.")
@click.option("--dry-run", is_flag=True, help="Print the plan with its reasons, and do nothing.")
@reason_option
@output_option
def rollback(
    where: Where,
    to: str | None,
    spare: int | None,
    allow_gap: bool,
    dry_run: bool,
    reason: str,
    output: str,
) -> None:
    """Go back: while a release bakes, to its warm predecessor at once; else to a version, or the previous champion.

    No gate stands in the way. The seconds until all traffic was back are printed and kept.

    \b
    Example:
      inferdock release rollback --reason "wrong prices in answers"
      inferdock release rollback 1.0.0
      inferdock release rollback mistral-7b@1.0.0
    """
    speaker = Speaker()

    async def work(place: Place) -> Progress | Plan:
        under_way = await place.journals.unfinished()
        reference = None if to is None else await _whole(to, place, under_way)
        if under_way is not None and _is_way_back(under_way.plan, reference):
            if dry_run:
                raise ConfigError("A release is under way; its way back is not a plan of its own.")
            return await _follow(where, place, under_way.plan, Wish.ROLLBACK, reason)
        name = Reference.parse(reference).name if reference else None
        works = await works_at(where, place, name=name, judging=None, listener=speaker.listener())
        if dry_run:
            return await _plan(works, reference, spare=spare, allow_gap=allow_gap)

        async def draft() -> Plan:
            plan = await _plan(works, reference, spare=spare, allow_gap=allow_gap)
            note(describe(plan))
            speaker.plan = plan
            return plan

        return await works.desk.start(draft, works.by, reason=reason)

    found = at_place(where, work)
    if isinstance(found, Plan):
        print(describe(found), end="")
        return
    begun_here = speaker.plan is not None
    _tell(found, output, fine=(State.COMPLETED,) if begun_here else (State.ABORTED, State.ROLLED_BACK))


async def _whole(to: str, place: Place, under_way: Progress | None) -> str:
    """A version that was named alone is one of the model that is released, or serves."""
    try:
        version = Version.parse(to)
    except ConfigError:
        return str(Reference.parse(to))
    target = under_way.plan.to if under_way is not None else serving(await place.driver.observe())
    name, at, _ = (target.reference if target is not None else "").partition("@")
    if not at:
        raise ConfigError("What serves here is no version of the registry.", cure="Write NAME@VERSION.")
    return f"{name}@{version}"


def _is_way_back(plan: Plan, reference: str | None) -> bool:
    """Whether a release goes where it came from when it is taken back to this."""
    return reference is None or (plan.stable is not None and plan.stable.reference == reference)


async def _plan(works: Works, reference: str | None, *, spare: int | None, allow_gap: bool) -> Plan:
    observed = await works.driver.observe()
    bad = serving(observed)
    if bad is None:
        raise ConfigError("Nothing serves here, so there is nothing to roll back.")
    name = Reference.parse(reference).name if reference else bad.reference.partition("@")[0]
    wanted = Reference.parse(reference) if reference else Reference(name, works.previous(name), None)
    to = works.target(wanted, bad.replicas)
    room = await room_for(works.driver, to, spare)
    return make_rollback(
        id=new_id(datetime.now(UTC), f"back-to-{to.reference.partition('@')[2]}"),
        model=works.place.model,
        bad=bad,
        to=to,
        champion=await RegistryCatalog(works.registry, name).champion(),
        ready=observed.ready(to.revision),
        spare=room.replicas,
        why=room.reason,
        allow_gap=allow_gap,
    )
