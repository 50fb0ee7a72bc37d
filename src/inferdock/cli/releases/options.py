"""What the commands of ``inferdock release`` share."""

from __future__ import annotations

import os
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Annotated, Any, TypeVar

import click
import msgspec
import uvloop

from inferdock.app.release import Place, Quality, Works, working
from inferdock.cli.output import note, printable
from inferdock.cli.settings_options import config_file_option, load_settings
from inferdock.config.settings import Settings
from inferdock.domain.errors import CheckFailedError, ConfigError, ConflictError, InconclusiveError, ResourceError
from inferdock.evaluation.limits import rules
from inferdock.evaluation.tasks import DEMO, read_tasks
from inferdock.release.events import Begun, Done, Event, Judged, Turned, Way
from inferdock.release.machine import State
from inferdock.release.plan import Plan
from inferdock.release.plan_text import say
from inferdock.release.progress import Progress
from inferdock.release.runner import Listener

F = TypeVar("F", bound=Callable[..., Any])
R = TypeVar("R")


class Judging(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How a release's quality gate judges; kept beside its journal, so that `resume` judges alike.

    Attributes:
        tasks: file of tasks, or ``demo``.
        limits: as on the command line; none: the defaults.
        least_samples: tasks below which nothing is decided.
    """

    tasks: str
    limits: tuple[str, ...] = ()
    least_samples: Annotated[int, msgspec.Meta(ge=1)] = 30

    def quality(self) -> Quality:
        """For the gate.

        Raises:
            ConfigError: the tasks or a limit are malformed.
        """
        tasks = read_tasks(DEMO if self.tasks == "demo" else Path(self.tasks))
        return Quality(tasks=tasks, rules=rules(self.limits, least_samples=self.least_samples))


def platform_options(command: F) -> F:
    """Add ``-f``, ``--port`` and ``--state-dir``: which platform."""
    folder = click.Path(file_okay=False, path_type=Path)
    command = click.option("--state-dir", type=folder, help="Where `up` keeps its state.")(command)
    command = click.option("--port", type=int, help="Gateway port of the platform, where several run.")(command)
    return config_file_option(command)


def reason_option(command: F) -> F:
    """Add ``--reason``."""
    return click.option("--reason", default="", help="Why, for the history.")(command)


def settings_of(config_file: Path | None, state_dir: Path | None) -> Settings:
    """The merged configuration."""
    return load_settings(config_file, {"state_dir": ("--state-dir", state_dir)}).settings


def place_of(settings: Settings, port: int | None) -> Place:
    """The platform that runs here."""
    return Place.find(settings, os.environ, port)


def with_works(
    settings: Settings,
    port: int | None,
    work: Callable[[Works], Awaitable[R]],
    *,
    name: str | None = None,
    judging: Judging | None = None,
    listener: Listener | None = None,
) -> R:
    """Run a piece of work with all that a release needs."""

    async def run() -> R:
        quality = judging.quality() if judging is not None else None
        async with working(
            settings, os.environ, port=port, name=name, quality=quality, listener=listener or Listener()
        ) as works:
            return await work(works)

    return uvloop.run(run())


def keep_judging(place: Place, release: str, judging: Judging | None) -> None:
    """Note how a release judges, before it begins.

    Raises:
        ResourceError: the note cannot be written.
    """
    if judging is None:
        return
    path = _judging_file(place, release)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(msgspec.json.encode(judging))
    except OSError as exc:
        raise ResourceError(f"Cannot write {path}: {exc.strerror}.", cure="Choose another --state-dir.") from exc


def judging_of(place: Place, release: str) -> Judging | None:
    """How a release judges; None when it has no quality gate.

    Raises:
        ConfigError: the note is damaged.
    """
    path = _judging_file(place, release)
    try:
        return msgspec.json.decode(path.read_bytes(), type=Judging)
    except FileNotFoundError:
        return None
    except (msgspec.MsgspecError, ValueError, OSError) as exc:
        raise ConfigError(f"{path} cannot be read: {exc}.", cure="Restore it, or remove it and start anew.") from exc


def _judging_file(place: Place, release: str) -> Path:
    return place.journals.path(release).with_suffix(".judging.json")


def unfinished(place: Place) -> Progress:
    """The release that is not over.

    Raises:
        ConflictError: there is none.
    """
    found = place.journals.unfinished()
    if found is None:
        raise ConflictError("No release is under way.", cure="`inferdock release history` shows those that were.")
    return found


class Speaker:
    """Says each event of a release, on standard error.

    Attributes:
        plan: of the release, once it is known: what steps are called.
    """

    def __init__(self, plan: Plan | None = None) -> None:
        self.plan = plan
        self._waiting = ""

    def listener(self) -> Listener:
        """For the runner."""
        return Listener(event=self._event, waiting=self._wait)

    def _event(self, event: Event) -> None:
        self._waiting = ""
        if line := line_of(event, self.plan):
            note(f"{event.time[11:19]}  {line}")

    def _wait(self, text: str) -> None:
        if text != self._waiting:
            self._waiting = text
            note(f"          … {printable(text)}")


def line_of(event: Event, plan: Plan | None) -> str:
    """An event in a line, "" for what only runners care about."""
    match event.entry:
        case Turned(trigger=trigger):
            return printable(f"{trigger}: {event.reason}")
        case Judged(gate=gate, verdict=verdict):
            return printable(f"  gate {gate}: {verdict}. {event.reason}")
        case Done(seconds=seconds, flip_s=flip):
            flipped = f"; all traffic was back {flip:.2f} s after the decision" if flip is not None else ""
            return printable(f"  done in {seconds:.1f} s{flipped}")
        case Begun(way=Way.FORWARD, step=step) if plan is not None and step < len(plan.steps):
            return printable(f"{step + 1}/{len(plan.steps)} {say(plan.steps[step], names_of(plan))}")
        case Begun(way=way, step=step):
            return f"step {step + 1} {'of the way back' if way is Way.BACK else ''}".rstrip()
        case _:
            return ""


def names_of(plan: Plan) -> dict[str, str]:
    """Revision to reference, for people."""
    return {target.revision: target.reference for target in (plan.stable, plan.to) if target is not None}


def document(progress: Progress) -> dict[str, Any]:
    """A release as ``-o json`` shows it."""
    plan = progress.plan
    return {
        "id": plan.id,
        "kind": str(plan.kind),
        "model": plan.model,
        "from": plan.stable.reference if plan.stable is not None else None,
        "to": plan.to.reference,
        "state": str(progress.state),
        "outcome": progress.outcome,
        "step": say(progress.step) if progress.step is not None else None,
        "flip_seconds": progress.flip_s,
        "verdicts": [
            {"gate": e.entry.gate, "verdict": str(e.entry.verdict), "reason": e.reason, "evidence": e.entry.evidence}
            for e in progress.judged
            if isinstance(e.entry, Judged)
        ],
        "time": progress.time,
    }


def conclude(progress: Progress) -> None:
    """Say how it ended, as an exit code too.

    Raises:
        CheckFailedError: the release was aborted, rolled back, or is stuck.
        InconclusiveError: it is paused.
    """
    plan, flip = progress.plan, progress.flip_s
    seconds = f" Traffic was back {flip:.2f} s after the decision." if flip is not None else ""
    if progress.state is State.PAUSED:
        raise InconclusiveError(
            f"Release {plan.id} is paused: {progress.outcome}", cure="`inferdock release resume`, `promote` or `abort`."
        )
    if progress.state in (State.ABORTED, State.ROLLED_BACK, State.FAILED):
        raise CheckFailedError(f"Release {plan.id} is {progress.state}: {progress.outcome}{seconds}")
    note(f"Release {plan.id} is {progress.state}: {progress.outcome}.{seconds}")
