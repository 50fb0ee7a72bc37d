"""What the commands of ``inferdock release`` share."""

from __future__ import annotations

import contextlib
import functools
import os
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Final, TypeVar, cast

import click
import msgspec
import uvloop

from inferdock.app.release import Quality, Works, working
from inferdock.app.release_cluster import Cluster, cluster_place
from inferdock.app.release_places import Place, local_place
from inferdock.cli.output import note, printable
from inferdock.cli.settings_options import config_file_option, load_settings
from inferdock.config.settings import Settings
from inferdock.domain.errors import CheckFailedError, ConfigError, ConflictError, InconclusiveError
from inferdock.evaluation.limits import rules
from inferdock.evaluation.tasks import DEMO, read_tasks
from inferdock.release.events import Begun, Done, Event, Judged, Turned, Way
from inferdock.release.machine import State
from inferdock.release.plan import Plan
from inferdock.release.plan_text import say
from inferdock.release.progress import Progress
from inferdock.release.runner import Listener

JUDGING: Final = "judging"
"""Name of the note that says how a quality gate judges."""

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


@dataclass(frozen=True, slots=True, kw_only=True)
class Where:
    """Which platform a command is about, and how this program is set up.

    Attributes:
        settings: the merged configuration.
        port: gateway port of a platform on this machine; None: the only one.
        cluster: a model in a cluster; None: this machine's platform.
    """

    settings: Settings
    port: int | None
    cluster: Cluster | None

    def place(self) -> contextlib.AbstractAsyncContextManager[Place]:
        """Where the model serves."""
        if self.cluster is not None:
            return cluster_place(self.settings, os.environ, self.cluster)
        return local_place(self.settings, os.environ, self.port)


_PLATFORM = (
    click.option("--port", type=int, help="Gateway port of the platform, where several run here."),
    click.option("--state-dir", type=click.Path(file_okay=False, path_type=Path), help="Where `up` keeps its state."),
    click.option(
        "--target",
        type=click.Choice(["local", "kubernetes"]),
        default="local",
        show_default=True,
        help="This machine's platform, or a model in a cluster.",
    ),
    click.option(
        "--model", metavar="NAME", help="With --target kubernetes: which model, by the name that clients use."
    ),
    click.option(
        "-n", "--namespace", help="With --target kubernetes: where it is; default: kubectl's, or the pod's own."
    ),
    click.option("--kube-context", help="With --target kubernetes: context of kubectl's configuration."),
    click.option(
        "--kube-api", metavar="URL", help="With --target kubernetes: address of the API server, without kubectl."
    ),
    click.option(
        "--take-over",
        is_flag=True,
        help="With --target kubernetes: set numbers of replicas even where somebody else has.",
    ),
)


def platform_options(command: F) -> F:
    """Add ``-f``, ``--port``, ``--target`` and so on: which platform. The command gets it as ``where``."""

    @functools.wraps(command)
    def placed(**given: Any) -> Any:
        return command(where=_where(given), **given)

    wrapped: Any = placed
    for option in reversed(_PLATFORM):
        wrapped = option(wrapped)
    return cast("F", config_file_option(wrapped))


def _where(given: dict[str, Any]) -> Where:
    """Take the options of :func:`platform_options` out of what was given.

    Raises:
        ConfigError: they do not go together.
    """
    flags = {"state_dir": ("--state-dir", given.pop("state_dir"))}
    settings = load_settings(given.pop("config_file"), flags).settings
    port, wanted = given.pop("port"), given.pop("target") == "kubernetes"
    cluster = {name: given.pop(name) for name in ("model", "namespace", "kube_context", "kube_api", "take_over")}
    if not wanted:
        if stray := next((name for name, value in cluster.items() if value), None):
            raise ConfigError(f"--{stray.replace('_', '-')} is about a cluster.", cure="Give --target kubernetes too.")
        return Where(settings=settings, port=port, cluster=None)
    if port is not None:
        raise ConfigError(
            "--port is about this machine's platform.", cure="Leave it out, or leave --target kubernetes out."
        )
    if not cluster["model"]:
        raise ConfigError("Which model?", cure="Give --model NAME, by the name that clients use.")
    return Where(
        settings=settings,
        port=None,
        cluster=Cluster(
            model=cluster["model"],
            namespace=cluster["namespace"],
            context=cluster["kube_context"],
            api_url=cluster["kube_api"],
            take_over=cluster["take_over"],
        ),
    )


def reason_option(command: F) -> F:
    """Add ``--reason``."""
    return click.option("--reason", default="", help="Why, for the history.")(command)


def at_place(where: Where, work: Callable[[Place], Awaitable[R]]) -> R:
    """Run a piece of work that needs no registry."""

    async def run() -> R:
        async with where.place() as place:
            return await work(place)

    return uvloop.run(run())


def with_works(
    where: Where,
    work: Callable[[Works], Awaitable[R]],
    *,
    name: str | None = None,
    judging: Judging | None = None,
    listener: Listener | None = None,
) -> R:
    """Run a piece of work with all that a release needs."""

    async def run(place: Place) -> R:
        return await work(await works_at(where, place, name=name, judging=judging, listener=listener))

    return at_place(where, run)


async def works_at(
    where: Where, place: Place, *, name: str | None, judging: Judging | None, listener: Listener | None
) -> Works:
    """All that a release needs at a place."""
    quality = judging.quality() if judging is not None else None
    return await working(where.settings, os.environ, place, name=name, quality=quality, listener=listener or Listener())


async def keep_judging(place: Place, release: str, judging: Judging | None) -> None:
    """Note how a release judges, before it begins.

    Raises:
        ResourceError, UnreachableError: the note cannot be written.
    """
    if judging is not None:
        await place.notes.keep(release, JUDGING, msgspec.json.encode(judging))


async def judging_of(place: Place, release: str) -> Judging | None:
    """How a release judges; None when it has no quality gate.

    Raises:
        ConfigError: the note is damaged.
    """
    data = await place.notes.read(release, JUDGING)
    try:
        return msgspec.json.decode(data, type=Judging) if data is not None else None
    except (msgspec.MsgspecError, ValueError, RecursionError) as exc:
        raise ConfigError(
            f"How release {release} judges cannot be read: {exc}.", cure="Restore the note, or start anew."
        ) from exc


async def unfinished(place: Place) -> Progress:
    """The release that is not over.

    Raises:
        ConflictError: there is none.
    """
    found = await place.journals.unfinished()
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
            return printable(f"{'back ' if way is Way.BACK else ''}{step + 1}: {event.reason}").rstrip(": ")
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
