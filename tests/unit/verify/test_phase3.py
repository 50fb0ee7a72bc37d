"""Checks of phase 3 pass on what is right, and fail on each thing that is not."""

from __future__ import annotations

import copy
import dataclasses
import shutil
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from inferdock.app.verify import infrastructure, phase3, pushing, releases, workflow
from inferdock.app.verify.drill import NAME, Drill
from inferdock.app.verify.phase3 import CHECKS
from inferdock.registry.push import Pushed
from tests.support.chart import ROOT
from tests.support.verify_scripts import REVISION, ScriptedPlatform, evidence, lone_target, outcome, served

PUSHES = ("3.2.push", "3.2.manifest", "3.2.record", "3.2.again", "3.2.refused", "3.2.flipped")
_PUSH = pushing.Bench.push


# -- 3.1 -------------------------------------------------------------------------------------------------------------


@pytest.fixture
def terraform(tmp_path, monkeypatch) -> Callable[[str, str], Path]:
    """Puts a program in Terraform's place: what `init` and `validate` do, as shell commands."""

    def put(init: str, validate: str) -> Path:
        path = tmp_path / "terraform"
        path.write_text(f'#!/bin/sh\ncase "$1" in init) {init};; validate) {validate};; esac\n')
        path.chmod(0o755)
        monkeypatch.setattr(infrastructure, "program", lambda *_: str(path))
        return path

    return put


@pytest.mark.parametrize(
    ("init", "validate", "expected"),
    [
        ("exit 0", "test -f main.tf", "pass"),
        ("exit 0", "echo 'Error: no such argument' >&2; exit 1", "fail"),
        ("echo 'Error: Unclosed block' >&2; exit 1", "exit 0", "fail"),
        ("echo 'Error: Failed to query available provider packages' >&2; exit 1", "exit 0", "needs"),
    ],
)
async def test_terraform_has_the_word(terraform, init: str, validate: str, expected: str):
    terraform(init, validate)
    async with lone_target(checkout=ROOT) as target:
        assert await outcome(CHECKS, "3.1.module", target) == expected


def _cloud(monkeypatch: pytest.MonkeyPatch, url: str | None, models: list[str], files: list[str]) -> None:
    async def say(*words: str) -> Any:
        match words[:2]:
            case ("config", "show"):
                return {"registry": {"url": url}}
            case ("model", "list"):
                return [{"name": name, "newest": "1.0.0"} for name in models]
            case _:
                return {"name": models[0], "version": "1.0.0", "content": {"files": files}}

    monkeypatch.setattr(phase3, "inferdock_json", say)


@pytest.mark.parametrize(
    ("url", "models", "files", "expected"),
    [
        ("s3://b", ["m"], ["config.json"], ("pass", "pass")),
        ("s3://b", ["m"], [], ("fail", "pass")),
        ("s3://b", [], [], ("needs", "pass")),
        (None, [], [], ("needs", "needs")),
    ],
)
async def test_bucket_and_table_are_read(monkeypatch, url, models, files, expected):
    _cloud(monkeypatch, url, models, files)
    async with lone_target() as target:
        assert tuple([await outcome(CHECKS, name, target) for name in ("3.1.bucket", "3.1.table")]) == expected


# -- 3.2 -------------------------------------------------------------------------------------------------------------


async def _pushes() -> set[str]:
    """Checks of pushes that do not pass."""
    async with lone_target() as target:
        return {name for name in PUSHES if await outcome(CHECKS, name, target) != "pass"}


async def test_pushes_are_as_they_should_be():
    assert await _pushes() == set()


def _losing(bench: pushing.Bench) -> Pushed:
    made = _PUSH(bench)
    pushing.flip(bench.stored / "config.json")
    return made


def _lying(bench: pushing.Bench) -> Pushed:
    made = _PUSH(bench)
    path = bench.stored / "MANIFEST.json"
    path.chmod(0o644)
    path.write_bytes(path.read_bytes().replace(made.manifest.content.files[0].sha256.encode(), b"0" * 64))
    return made


def _sending_again(bench: pushing.Bench) -> Pushed:
    return dataclasses.replace(_PUSH(bench), sent=(3, 3))


@pytest.mark.parametrize(
    ("broken", "expected"),
    [
        (_losing, {"3.2.push", "3.2.flipped"}),
        (_lying, {"3.2.manifest", "3.2.flipped"}),
        (_sending_again, {"3.2.again"}),
    ],
)
async def test_a_store_that_loses_or_lies_is_found(monkeypatch, broken, expected: set[str]):
    monkeypatch.setattr(pushing.Bench, "push", broken)
    assert await _pushes() == expected


async def test_a_registry_that_takes_other_bytes_is_found(monkeypatch):
    monkeypatch.setattr(pushing, "flip", lambda _: None)
    assert await _pushes() == {"3.2.refused", "3.2.flipped"}


async def test_a_history_with_another_name_in_it_is_found(monkeypatch):
    settings = pushing.RegistrySettings
    monkeypatch.setattr(pushing, "RegistrySettings", lambda **words: settings(**words | {"actor": "somebody"}))
    assert await _pushes() == {"3.2.record"}


@pytest.fixture
def checkout(tmp_path) -> Path:
    """Scripts and the workflow, to be changed, with what is installed here."""
    for part in ("scripts/upload_model.py", "scripts/rollback.sh", str(workflow.FILE)):
        (tmp_path / part).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / part, tmp_path / part)
    return tmp_path


async def test_the_upload_script_pushes_or_is_found_out(checkout):
    async with lone_target(checkout=checkout) as target:
        assert await outcome(CHECKS, "3.2.script", target) == "needs"
        if not (ROOT / ".venv" / "bin" / "inferdock").is_file():
            pytest.skip("inferdock is not set up in the checkout")
        (checkout / ".venv").symlink_to(ROOT / ".venv")
        assert await outcome(CHECKS, "3.2.script", target) == "pass"
        (checkout / "scripts" / "upload_model.py").write_text("")
        assert await outcome(CHECKS, "3.2.script", target) == "fail"


# -- 3.3 -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("flips", "expected"), [([0.2, None], "pass"), ([0.2, 61.0], "fail"), ([None], "needs"), ([], "needs")]
)
async def test_rollbacks_of_the_past(monkeypatch, flips: list[float | None], expected: str):
    async def kept(_: Any) -> list[Any]:
        return [SimpleNamespace(flip_s=flip) for flip in flips]

    monkeypatch.setattr(releases, "kept", kept)
    async with lone_target() as target:
        assert await outcome(CHECKS, "3.3.measured", target) == expected


async def test_journals_are_those_of_the_platform_here(tmp_path):
    folder = tmp_path / "up-8080"
    folder.mkdir()
    (folder / "state.json").write_text('{"model": "m"}')
    async with lone_target(state=folder / "state.json") as target:
        assert "No rollback" in (await evidence(CHECKS, "3.3.measured", target)).sentence
    async with lone_target() as target:
        assert "inferdock up" in (await evidence(CHECKS, "3.3.measured", target)).sentence


DRILLED = ("3.3.rollback", "3.3.revision", "3.3.healthy", "3.3.no-errors")
GOOD = Drill(flip_s=0.1, command_s=2.0, state="rolled_back", streams=10, errors={}, short=0)


@pytest.mark.parametrize(
    ("changed", "revision", "refuses", "broken"),
    [
        ({}, REVISION, 200, set()),
        ({"flip_s": 61.0}, REVISION, 200, {"3.3.rollback"}),
        ({"command_s": 90.0}, REVISION, 200, {"3.3.rollback"}),
        ({}, "another", 200, {"3.3.revision"}),
        ({}, REVISION, 503, {"3.3.healthy"}),
        ({"errors": {"status 502": 1}}, REVISION, 200, {"3.3.no-errors"}),
        ({"short": 1}, REVISION, 200, {"3.3.no-errors"}),
        ({"streams": 0}, REVISION, 200, {"3.3.no-errors"}),
    ],
)
async def test_a_rollback_is_judged(
    monkeypatch, changed: dict[str, Any], revision: str, refuses: int, broken: set[str]
):
    async def kept(_: Any) -> list[Any]:
        return [SimpleNamespace(plan=SimpleNamespace(stable=SimpleNamespace(revision=revision)))]

    monkeypatch.setattr(releases, "kept", kept)
    async with served(ScriptedPlatform(refuses=refuses)) as target:
        target.measured[NAME] = dataclasses.replace(GOOD, **changed)
        assert {name for name in DRILLED if await outcome(CHECKS, name, target) != "pass"} == broken


async def test_the_rollback_script_leads_to_the_command(checkout):
    async with lone_target(checkout=checkout) as target:
        assert await outcome(CHECKS, "3.3.script", target) == "pass"
        (checkout / "scripts" / "rollback.sh").write_text("echo Usage\n")
        assert await outcome(CHECKS, "3.3.script", target) == "fail"


# -- 3.4 -------------------------------------------------------------------------------------------------------------

WORKFLOW = workflow.read(ROOT)


def _changed(change: Callable[[dict[Any, Any]], Any]) -> dict[Any, Any]:
    made: dict[Any, Any] = copy.deepcopy(dict(WORKFLOW))
    change(made)
    return made


def _replace(job: str, old: str, new: str) -> Callable[[dict[Any, Any]], None]:
    def change(made: dict[Any, Any]) -> None:
        for step in made["jobs"][job]["steps"]:
            step.update({key: step[key].replace(old, new) for key in ("run", "uses") if key in step})

    return change


def test_the_workflow_is_without_fault():
    for look in (workflow.trigger_faults, workflow.pin_faults, workflow.image_faults, workflow.order_faults):
        assert look(WORKFLOW) == []


@pytest.mark.parametrize(
    ("look", "change"),
    [
        (workflow.trigger_faults, lambda made: made[True]["push"].update(tags=["v*"])),
        (workflow.trigger_faults, lambda made: made[True].update(pull_request_target={})),
        (workflow.pin_faults, lambda made: made["jobs"]["build"]["steps"][0].update(uses="actions/checkout@v4")),
        (workflow.image_faults, _replace("build", "--push", "")),
        (workflow.image_faults, _replace("build", "containerimage.digest", "tag")),
        (workflow.order_faults, lambda made: made["jobs"].pop("staging")),
        (workflow.order_faults, lambda made: made["jobs"]["production"].update(needs="build")),
        (workflow.order_faults, _replace("staging", "inferdock release start", "true")),
        (workflow.order_faults, _replace("production", "inferdock release abort", "true")),
        (workflow.order_faults, lambda made: made["jobs"]["production"].pop("environment")),
    ],
)
def test_a_broken_workflow_is_told(look, change):
    assert look(_changed(change)) != []


async def test_what_reads_the_workflow_passes_here():
    async with lone_target(checkout=ROOT) as target:
        for name in ("3.4.tag", "3.4.image", "3.4.stages"):
            assert await outcome(CHECKS, name, target) == "pass", name
        assert await outcome(CHECKS, "3.4.run", target) == "needs"


@pytest.mark.parametrize(
    ("script", "expected"),
    [
        ("inferdock model verify m@1.0.0 \\\n  --registry s3://b > log 2>&1", "pass"),
        ("inferdock model verify m@1.0.0 --registri s3://b", "fail"),
        ("inferdock model frobnicate m", "fail"),
        ("true", "fail"),
    ],
)
async def test_commands_of_the_workflow_must_exist(checkout, script: str, expected: str):
    text = {"jobs": {"build": {"steps": [{"run": script}]}}}
    (checkout / workflow.FILE).write_text(str(text))
    async with lone_target(checkout=checkout) as target:
        assert await outcome(CHECKS, "3.4.commands", target) == expected
