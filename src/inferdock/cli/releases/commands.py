"""``inferdock release pause``, ``resume``, ``promote``, ``abort`` and ``rollback``."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import click

from inferdock.app.release import RegistryCatalog, Works, serving
from inferdock.cli.output import note, output_option, print_json
from inferdock.cli.releases.options import (
    Speaker,
    conclude,
    document,
    judging_of,
    place_of,
    platform_options,
    reason_option,
    settings_of,
    unfinished,
    with_works,
)
from inferdock.config.settings import Settings
from inferdock.domain.errors import ConfigError
from inferdock.registry.names import Reference
from inferdock.release.machine import RESTING, State
from inferdock.release.mailbox import Wish
from inferdock.release.plan import Plan, new_id
from inferdock.release.plan_text import describe
from inferdock.release.planner import make_rollback
from inferdock.release.progress import Progress


def _command(settings: Settings, port: int | None, wish: Wish, reason: str) -> Progress:
    """Have the release that is under way follow a wish; by its runner, or by one of ours where none is at work."""
    place = place_of(settings, port)
    plan = unfinished(place).plan

    async def work(works: Works) -> Progress:
        return await works.desk.command(plan.id, works.request(wish, reason))

    name, listener = plan.to.reference.partition("@")[0], Speaker(plan).listener()
    return with_works(settings, port, work, name=name, judging=judging_of(place, plan.id), listener=listener)


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
def pause(config_file: Path | None, port: int | None, state_dir: Path | None, reason: str, output: str) -> None:
    """Stop the release where it is; traffic stays divided as it is.

    \b
    Example:
      inferdock release pause --reason "looking at the answers"
    """
    _tell(_command(settings_of(config_file, state_dir), port, Wish.PAUSE, reason), output, fine=(State.PAUSED,))


@click.command()
@platform_options
@reason_option
@output_option
def resume(config_file: Path | None, port: int | None, state_dir: Path | None, reason: str, output: str) -> None:
    """Go on with a release that is paused, or whose command was interrupted or killed.

    \b
    Example:
      inferdock release resume
    """
    _tell(_command(settings_of(config_file, state_dir), port, Wish.RESUME, reason), output, fine=())


@click.command()
@platform_options
@reason_option
@output_option
def promote(config_file: Path | None, port: int | None, state_dir: Path | None, reason: str, output: str) -> None:
    """Make the new version champion now, without the gates and holds that are left.

    \b
    Example:
      inferdock release promote --reason "urgent fix"
    """
    _tell(_command(settings_of(config_file, state_dir), port, Wish.PROMOTE, reason), output, fine=())


@click.command()
@platform_options
@reason_option
@output_option
def abort(config_file: Path | None, port: int | None, state_dir: Path | None, reason: str, output: str) -> None:
    """Take the release back: all traffic to the old revision, the new one goes.

    \b
    Example:
      inferdock release abort --reason "answers are shorter"
    """
    progress = _command(settings_of(config_file, state_dir), port, Wish.ABORT, reason)
    _tell(progress, output, fine=(State.ABORTED, State.ROLLED_BACK))


@click.command()
@platform_options
@click.argument("reference", required=False, metavar="[NAME@VERSION]")
@click.option("--spare", type=click.IntRange(min=0), help="Replicas there is room for beside those that run.")
@click.option("--allow-gap", is_flag=True, help="Let nothing serve for a while where there is no room for two.")
@click.option("--dry-run", is_flag=True, help="Print the plan with its reasons, and do nothing.")
@reason_option
@output_option
def rollback(
    config_file: Path | None,
    port: int | None,
    state_dir: Path | None,
    reference: str | None,
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
      inferdock release rollback mistral-7b@1.0.0
    """
    settings = settings_of(config_file, state_dir)
    if reference is None and place_of(settings, port).journals.unfinished() is not None:
        if dry_run:
            raise ConfigError("A release is under way; its way back is not a plan of its own.")
        progress = _command(settings, port, Wish.ROLLBACK, reason)
        _tell(progress, output, fine=(State.ABORTED, State.ROLLED_BACK))
        return

    speaker = Speaker()

    async def work(works: Works) -> Progress | Plan:
        async def draft() -> Plan:
            plan = await _plan(works, reference, spare=spare, allow_gap=allow_gap)
            note(describe(plan))
            speaker.plan = plan
            return plan

        if dry_run:
            return await _plan(works, reference, spare=spare, allow_gap=allow_gap)
        return await works.desk.start(draft, works.by, reason=reason)

    name = Reference.parse(reference).name if reference else None
    found = with_works(settings, port, work, name=name, listener=speaker.listener())
    if isinstance(found, Plan):
        print(describe(found), end="")
        return
    _tell(found, output, fine=(State.COMPLETED,))


async def _plan(works: Works, reference: str | None, *, spare: int | None, allow_gap: bool) -> Plan:
    observed = await works.driver.observe()
    bad = serving(observed)
    if bad is None:
        raise ConfigError("Nothing serves here, so there is nothing to roll back.")
    name = Reference.parse(reference).name if reference else bad.reference.partition("@")[0]
    wanted = Reference.parse(reference) if reference else Reference(name, works.previous(name), None)
    to = works.target(wanted, bad.replicas)
    return make_rollback(
        id=new_id(datetime.now(UTC), f"back-to-{to.reference.partition('@')[2]}"),
        model=works.place.model,
        bad=bad,
        to=to,
        champion=await RegistryCatalog(works.registry, name).champion(),
        ready=observed.ready(to.revision),
        spare=spare,
        allow_gap=allow_gap,
    )
