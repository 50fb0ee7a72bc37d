"""Checks of phase 3, versions of models: the registry's cloud side, pushes, rollback, the release pipeline."""

from __future__ import annotations

import asyncio
import re
import tempfile
from pathlib import Path
from typing import Any, Final

import msgspec

from inferdock.app.verify import pushing, releases, workflow
from inferdock.app.verify.chart import root
from inferdock.app.verify.commands import inferdock, inferdock_json, run
from inferdock.app.verify.drill import drill_of
from inferdock.app.verify.figures import ready_rows, status
from inferdock.app.verify.ground import LackingError, check, faultless, verdict
from inferdock.app.verify.infrastructure import validated
from inferdock.app.verify.target import Target
from inferdock.domain.errors import ConflictError
from inferdock.registry.progress import Silent
from inferdock.registry.verify import verify
from inferdock.verify.check import Check, Evidence, Need

NO_BUCKET: Final = "Needs a registry on S3: apply terraform/model-registry and set INFERDOCK_REGISTRY__URL=s3://BUCKET."
ROLLBACK: Final = "inferdock release rollback"
NO_STORE: Final = {"Cache-Control": "no-store"}
DRILL_S: Final = 1200.0
SOURCE: Final = "inferdock model push DIR --name NAME --version 1.0.0 --registry FOLDER"


# -- 3.1: bucket and table -------------------------------------------------------------------------------------------


async def module_valid(target: Target) -> Evidence:
    """Terraform accepts the module of the registry."""
    return await validated(root(target) / "terraform" / "model-registry")


async def bucket(target: Target) -> Evidence:
    """The bucket holds the manifests of the versions that the table lists."""
    _ = target
    models = await _models_on_s3()
    for model in models:
        found = await inferdock_json("model", "show", f"{model['name']}@{model['newest']}")
        return verdict(bool(found["content"]["files"]), f"{found['name']}@{found['version']} is read from the bucket.")
    raise LackingError("The registry on S3 is empty: push a model.")


async def table(target: Target) -> Evidence:
    """The table can be read."""
    _ = target
    models = await _models_on_s3()
    return verdict(True, f"The table lists {len(models)} models.", "inferdock model list", models=len(models))


async def _models_on_s3() -> list[dict[str, Any]]:
    settings = await inferdock_json("config", "show")
    if not str(settings["registry"]["url"] or "").startswith("s3://"):
        raise LackingError(NO_BUCKET)
    found: list[dict[str, Any]] = await inferdock_json("model", "list")
    return found


# -- 3.2: pushing ----------------------------------------------------------------------------------------------------


async def pushed(_: Target) -> Evidence:
    """A push stores every byte of the folder."""

    def look() -> Evidence:
        with pushing.bench() as bench:
            made = bench.push()
            ours, theirs = pushing.digests(bench.model), pushing.digests(bench.stored)
            same = made.event is not None and ours.items() <= theirs.items()
            return verdict(same, f"{len(ours)} files pushed, stored bytes are {'equal' if same else 'others'}.", SOURCE)

    return await asyncio.to_thread(look)


async def manifest(_: Target) -> Evidence:
    """The manifest has the digest of every file, as somebody else computes them."""

    def look() -> Evidence:
        with pushing.bench() as bench:
            bench.push()
            found = msgspec.json.decode((bench.stored / "MANIFEST.json").read_bytes(), type=dict[str, Any])
            said = {entry["path"]: entry["sha256"] for entry in found["content"]["files"]}
            same = said == pushing.digests(bench.model)
            sentence = f"MANIFEST.json has {len(said)} digests, {'all right' if same else 'not those of the files'}."
            return verdict(same, sentence, "sha256sum FOLDER/models/NAME/v1.0.0/*", files=len(said))

    return await asyncio.to_thread(look)


async def pushed_again(_: Target) -> Evidence:
    """The same bytes again change nothing."""

    def look() -> Evidence:
        with pushing.bench() as bench:
            bench.push()
            before = len(bench.registry.history(pushing.NAME))
            again = bench.push()
            good = again.event is None and again.sent == (0, 0) and len(bench.registry.history(pushing.NAME)) == before
            return verdict(good, f"The second push sent {again.sent[0]} files.", SOURCE, sent=again.sent[0])

    return await asyncio.to_thread(look)


async def other_bytes(_: Target) -> Evidence:
    """Other bytes under a version that exists are refused."""

    def look() -> Evidence:
        with pushing.bench() as bench:
            bench.push()
            before = pushing.digests(bench.stored)
            pushing.flip(bench.model / pushing.WEIGHTS)
            try:
                bench.push()
            except ConflictError as refusal:
                kept = pushing.digests(bench.stored) == before
                return verdict(kept, f"Refused: {refusal.message}", SOURCE)
            return verdict(False, "Other bytes were taken under a version that exists.", SOURCE)

    return await asyncio.to_thread(look)


async def flipped(_: Target) -> Evidence:
    """One wrong bit in the store is found, in its file."""

    def look() -> Evidence:
        with pushing.bench() as bench:
            bench.push()
            version = bench.registry.version(bench.reference)
            clean = verify(bench.registry, version, Silent())
            pushing.flip(bench.stored / pushing.WEIGHTS)
            found = [fault.path for fault in verify(bench.registry, version, Silent())]
            sentence = f"Before: {len(clean)} faults; with one bit changed: {', '.join(found) or 'none'}."
            return verdict(not clean and found == [pushing.WEIGHTS], sentence, "inferdock model verify NAME@1.0.0")

    return await asyncio.to_thread(look)


async def recorded(_: Target) -> Evidence:
    """The history says what was pushed, by whom and when."""

    def look() -> Evidence:
        with pushing.bench() as bench:
            made = bench.push().manifest
            released = bench.registry.resolve(bench.reference)
            good = released.push.revision == made.revision and released.push.files == len(made.content.files)
            push, event = released.push, released.event
            sentence = f"{pushing.NAME}@{push.version}: {push.files} files, by {event.actor}, {event.time}."
            return verdict(good and event.actor == "verify", sentence, "inferdock model list NAME")

    return await asyncio.to_thread(look)


async def script(target: Target) -> Evidence:
    """The upload script of the plan pushes, with the plan's arguments."""
    checkout = root(target)
    if not (checkout / ".venv" / "bin" / "inferdock").is_file():
        raise LackingError("Needs inferdock set up in the checkout: run `make setup`.")
    with tempfile.TemporaryDirectory(prefix="verify-") as name:
        model, store = Path(name) / "model", Path(name) / "registry"
        pushing.write_model(model)
        arguments = ("--model-path", model, "--version", "1.0.0", "--model-name", pushing.NAME, "--registry", store)
        python = checkout / ".venv" / "bin" / "python"
        done = await run(python, checkout / "scripts" / "upload_model.py", *arguments, folder=checkout)
        there = store / "models" / pushing.NAME / "v1.0.0"
        stored = pushing.digests(there) if there.is_dir() else {}
        good = done.code == 0 and pushing.digests(model).items() <= stored.items()
    command = "scripts/upload_model.py --model-path DIR --version 1.0.0 --model-name NAME"
    told = "the store has every byte." if good else f"the store has not what was pushed: {done.said}"
    return verdict(good, f"It ended with {done.code}, and {told}", command)


# -- 3.3: rollback ---------------------------------------------------------------------------------------------------


async def measured(target: Target) -> Evidence:
    """The rollbacks that were done here took less than a minute, as their journals say."""
    flips = [one.flip_s for one in await releases.kept(target) if one.flip_s is not None]
    if not flips:
        raise LackingError("No rollback was done here yet: `inferdock release rollback`, or --with-release.")
    sentence = f"{len(flips)} rollbacks; the slowest had all traffic back after {max(flips):.2f} s."
    return verdict(max(flips) < releases.MOST_S, sentence, "inferdock release history", slowest_s=max(flips))


async def rolled_back(target: Target) -> Evidence:
    """A rollback takes less than a minute."""
    drill = await drill_of(target)
    good = max(drill.flip_s, drill.command_s) < releases.MOST_S
    sentence = f"All traffic was back after {drill.flip_s:.2f} s, the command over after {drill.command_s:.1f} s."
    return verdict(good, sentence, ROLLBACK, flip_s=drill.flip_s, command_s=drill.command_s)


async def right_revision(target: Target) -> Evidence:
    """After a rollback the revision from before serves, and it alone."""
    await drill_of(target)
    stable = (await releases.kept(target))[-1].plan.stable
    there = {str(row["revision"]) for row in ready_rows(await status(target), target.model)}
    wanted = stable.revision if stable is not None else ""
    sentence = f"Ready after the rollback: {', '.join(sorted(there)) or 'nothing'}; wanted: {wanted}."
    return verdict(there == {wanted}, sentence, ROLLBACK)


async def healthy_after(target: Target) -> Evidence:
    """After a rollback the platform is ready, and answers."""
    await drill_of(target)
    async with target.http.get(f"{target.url}/ready") as answer:
        ready = answer.status
    body = {"model": target.model, "max_tokens": 8, "messages": [{"role": "user", "content": "Are you well?"}]}
    async with target.http.post(f"{target.url}/v1/chat/completions", json=body, headers=NO_STORE) as answer:
        asked = answer.status
        await answer.read()
    return verdict(ready == asked == 200, f"/ready answers {ready}, a chat completion {asked}.", ROLLBACK)


async def no_errors(target: Target) -> Evidence:
    """No stream fails while a version is released and taken back."""
    drill = await drill_of(target)
    faults = [f"{count} streams failed: {kind}." for kind, count in drill.errors.items()]
    faults += [f"{drill.short} streams were too short."] if drill.short else []
    faults += [] if drill.streams else ["No stream ran meanwhile."]
    return faultless(faults, f"All {drill.streams} streams ended whole.", ROLLBACK, streams=drill.streams)


async def door(target: Target) -> Evidence:
    """The script of the plan refuses to run without a version, and knows the command behind it."""
    path = root(target) / "scripts" / "rollback.sh"
    bare, told = await run("bash", path), await run("bash", path, "--help")
    good = bare.code == 2 and "Usage" in bare.err and told.code == 0 and "Usage" in told.out
    options = (await inferdock("release", "rollback", "--help")).out
    missing = [option for option in ("--reason", "--namespace", "--model", "--target") if option not in options]
    gone = ", ".join(missing) or "none"
    sentence = f"Without a version: exit {bare.code}; options that it hands on and are gone: {gone}."
    return verdict(good and not missing, sentence, "scripts/rollback.sh --help")


# -- 3.4: the pipeline -----------------------------------------------------------------------------------------------


async def started_by_tag(target: Target) -> Evidence:
    """A tag of a model starts the pipeline, whose actions are pinned."""
    found = workflow.read(root(target))
    faults = [*workflow.trigger_faults(found), *workflow.pin_faults(found)]
    used = sum("uses" in step for step in workflow.steps(found))
    return faultless(faults, f"Tags model-v* start it; {used} actions, each named by a commit.", actions=used)


async def image_once(target: Target) -> Evidence:
    """The image is built and pushed once, and named by its digest."""
    faults = workflow.image_faults(workflow.read(root(target)))
    return faultless(faults, "One image is built, pushed and named by its digest.")


async def staged(target: Target) -> Evidence:
    """Staging is released by gates before production, and what fails is taken back."""
    faults = workflow.order_faults(workflow.read(root(target)))
    return faultless(faults, "Build, staging by gates, a person, production by gates; each takes back what fails.")


async def commands_exist(target: Target) -> Evidence:
    """Every command of ours in the pipeline exists, with its options."""
    found = workflow.commands(workflow.script(workflow.read(root(target))))
    wanted: dict[tuple[str, ...], set[str]] = {}
    for words, options in found:
        wanted.setdefault(words, set()).update(options)
    faults = [] if wanted else ["It runs no command of ours."]
    for words, used in wanted.items():
        told = await inferdock(*words, "--help")
        known = set(re.findall(r"--[a-z][a-z-]*", told.out))
        if told.code != 0:
            faults.append(f"There is no `inferdock {' '.join(words)}`.")
        faults += [f"`inferdock {' '.join(words)}` has no {option}." for option in sorted(used - known)]
    sentence = f"{len(found)} calls of {len(wanted)} commands, each with options that exist."
    return faultless(faults, sentence, "inferdock release start --help", calls=len(found))


async def ran(target: Target) -> Evidence:
    """The pipeline ran on GitHub: only a person with the repository and the accounts can start it."""
    _ = target
    raise LackingError(
        "Needs the repository on GitHub, with the variables of docs/releases.md: push a tag model-v1.1.0."
    )


_DRILL: Final = (Need.TARGET, Need.ADMIN, Need.RELEASE)
CHECKS: Final[tuple[Check[Target], ...]] = (
    check("3.1.module", "Terraform accepts bucket and table", module_valid, Need.CHECKOUT, limit_s=180),
    check("3.1.bucket", "the bucket can be read", bucket, Need.AWS, limit_s=60),
    check("3.1.table", "the table can be read", table, Need.AWS, limit_s=60),
    check("3.2.push", "a push stores every byte", pushed),
    check("3.2.manifest", "the manifest has the right digests", manifest),
    check("3.2.record", "the history has version and metadata", recorded),
    check("3.2.again", "the same bytes again change nothing", pushed_again),
    check("3.2.refused", "other bytes under a version are refused", other_bytes),
    check("3.2.flipped", "one wrong bit in the store is found", flipped),
    check("3.2.script", "the upload script pushes", script, Need.CHECKOUT, limit_s=60),
    check("3.3.rollback", "a rollback takes less than 60 s", rolled_back, *_DRILL, limit_s=DRILL_S),
    check("3.3.revision", "a rollback leads to the right revision", right_revision, *_DRILL, limit_s=DRILL_S),
    check("3.3.healthy", "the platform answers after a rollback", healthy_after, *_DRILL, limit_s=DRILL_S),
    check("3.3.no-errors", "no stream fails in a rollback", no_errors, *_DRILL, limit_s=DRILL_S),
    check("3.3.measured", "rollbacks of the past took less than 60 s", measured, Need.TARGET),
    check("3.3.script", "the rollback script leads to the command", door, Need.CHECKOUT),
    check("3.4.tag", "a tag starts the pipeline", started_by_tag, Need.CHECKOUT),
    check("3.4.image", "one image, by digest", image_once, Need.CHECKOUT),
    check("3.4.stages", "staging and its gates before production", staged, Need.CHECKOUT),
    check("3.4.commands", "its commands exist", commands_exist, Need.CHECKOUT, limit_s=90),
    check("3.4.run", "it ran", ran),
)
