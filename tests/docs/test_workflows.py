"""Workflows do as they say: pinned, with few rights, in bounded time, without text of others in their scripts."""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import pytest
import yaml

from inferdock.cli.main import cli
from tests.docs.pages import ROOT, name_of

WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yaml"))
RELEASE = ROOT / ".github" / "workflows" / "model-release.yaml"
SCRIPTS = sorted([*(ROOT / "scripts").glob("*.sh"), ROOT / ".ci" / "run"])
PINNED = re.compile(r"uses: [\w./-]+@[0-9a-f]{40}  # v\d+(\.\d+)*$")
EVERY = pytest.mark.parametrize("path", WORKFLOWS, ids=name_of)


def read(path: Path) -> dict[Any, Any]:
    found: dict[Any, Any] = yaml.safe_load(path.read_text(encoding="utf-8"))
    return found


def steps(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """Each step with the name of its job."""
    for name, job in read(path)["jobs"].items():
        for step in job["steps"]:
            yield name, step


def scripts(path: Path) -> Iterator[str]:
    return (step["run"] for _, step in steps(path) if "run" in step)


def program(name: str) -> str:
    """A linter that is installed beside the tests or on this machine; without it the test is skipped."""
    found = shutil.which(name, path=str(Path(sys.executable).parent)) or shutil.which(name)
    if found is None:
        pytest.skip(f"{name} is not installed here")
    return found


def lint(*command: str) -> None:
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stdout + done.stderr


def test_there_is_the_workflow_of_a_release():
    assert RELEASE in WORKFLOWS


@EVERY
def test_every_action_is_pinned_to_a_commit_whose_version_stands_beside_it(path: Path):
    used = [line.strip().removeprefix("- ") for line in path.read_text().splitlines() if re.search(r"\buses:", line)]
    assert used
    assert [line for line in used if not PINNED.fullmatch(line)] == []


@EVERY
def test_a_job_has_the_rights_that_it_names_and_no_others(path: Path):
    workflow = read(path)
    assert workflow["permissions"] == {}
    allowed = {"contents": "read", "id-token": "write"}
    for name, job in workflow["jobs"].items():
        assert job["permissions"].items() <= allowed.items(), name


@EVERY
def test_every_job_ends_in_time_and_releases_do_not_meet(path: Path):
    workflow = read(path)
    assert workflow["concurrency"]["cancel-in-progress"] is False
    assert all(0 < job["timeout-minutes"] <= 360 for job in workflow["jobs"].values())


@EVERY
def test_no_script_holds_text_that_others_write_or_waits_a_guessed_time(path: Path):
    for script in scripts(path):
        assert "${{" not in script, "pass it through env and quote it"
        assert not re.search(r"\bsleep\b", script), "wait for what is to happen, not for a time"


@EVERY
def test_nothing_is_kept_that_opens_a_door(path: Path):
    text = path.read_text(encoding="utf-8")
    assert not re.search(r"AWS_(SECRET_)?ACCESS_KEY|aws-secret-access-key", text)
    for _, step in steps(path):
        if step.get("uses", "").startswith("actions/checkout@"):
            assert step["with"]["persist-credentials"] is False


def commands(script: str) -> Iterator[list[str]]:
    """Commands of ``inferdock`` in a script, as words."""
    whole = script.replace("\\\n", " ")
    for found in re.findall(r"(?:^|[\s(])inferdock ([^|\n&)]*)", whole, re.MULTILINE):
        yield shlex.split(re.sub(r"[0-9]?>.*", "", found))


@EVERY
def test_every_command_of_ours_exists_with_its_options(path: Path):
    seen = 0
    for script in scripts(path):
        for words in commands(script):
            command: click.Command | None = cli
            rest = list(words)
            while isinstance(command, click.Group):
                command = command.get_command(click.Context(command), rest.pop(0))
            assert command is not None, words
            known = {option for parameter in command.params for option in parameter.opts}
            assert {word for word in rest if word.startswith("--")} <= known, words
            seen += 1
    assert seen


def test_production_waits_for_staging_and_for_a_person():
    jobs = read(RELEASE)["jobs"]
    assert set(jobs["production"]["needs"]) == {"build", "staging"}
    assert [jobs[name]["environment"] for name in ("build", "staging", "production")] == [
        "build",
        "staging",
        "production",
    ]
    assert read(RELEASE)[True] == {"push": {"tags": ["model-v*"]}}  # YAML 1.1 reads `on` as true


@pytest.mark.parametrize("name", ["staging", "production"])
def test_what_does_not_end_well_is_taken_back(name: str):
    released = [step for job, step in steps(RELEASE) if job == name]
    start = next(n for n, step in enumerate(released) if "inferdock release start" in step.get("run", ""))
    back = next(n for n, step in enumerate(released) if "inferdock release abort" in step.get("run", ""))
    assert start < back
    assert "failure() || cancelled()" in released[back]["if"]


def test_the_image_is_built_once_and_named_by_its_digest():
    text = "\n".join(scripts(RELEASE))
    assert text.count("scripts.build_images engine") == 1
    assert "containerimage.digest" in text
    assert '--image "$IMAGE"' in text


@EVERY
def test_the_schema_of_workflows_holds(path: Path):
    lint(program("check-jsonschema"), "--builtin-schema", "vendor.github-workflows", str(path))


@EVERY
def test_actionlint_finds_nothing(path: Path):
    lint(program("actionlint"), "-no-color", str(path))


@EVERY
def test_zizmor_finds_nothing(path: Path):
    lint(program("zizmor"), "--offline", "--no-progress", "--quiet", "--persona=auditor", str(path))


@pytest.mark.parametrize("path", SCRIPTS, ids=name_of)
def test_shellcheck_finds_nothing_in_scripts(path: Path):
    lint(program("shellcheck"), str(path))


@EVERY
def test_shellcheck_finds_nothing_in_the_steps_of_workflows(path: Path, tmp_path: Path):
    found = program("shellcheck")
    for number, script in enumerate(scripts(path)):
        file = tmp_path / f"{number}.sh"
        file.write_text(f"#!/usr/bin/env bash\nset -eo pipefail\n{script}")
        lint(found, str(file))
