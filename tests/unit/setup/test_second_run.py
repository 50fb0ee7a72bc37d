"""``scripts/test.sh`` runs few failed tests a second time, says so, and still fails for what fails twice."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.docs.pages import ROOT

FAILS_ONCE = """
from pathlib import Path
import pytest

{mark}
@pytest.mark.parametrize("case", {cases})
def test_{name}(case):
    been = Path(f"{name}-{{case}}")
    first = not been.exists()
    been.touch()
    assert not first
"""


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A checkout with the script, this environment, one test that passes and no programs to install."""
    (tmp_path / "scripts").mkdir()
    shutil.copy(ROOT / "scripts/test.sh", tmp_path / "scripts/test.sh")
    (tmp_path / "scripts/test_programs.py").touch()
    (tmp_path / ".venv").symlink_to(sys.prefix)
    (tmp_path / "pytest.ini").write_text("[pytest]\nmarkers = alone: by itself\n")
    (tmp_path / "test_steady.py").write_text("def test_steady():\n    pass\n")
    return tmp_path


def run(checkout: Path) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1", "PYTEST_ADDOPTS": "-p xdist"}
    environment.pop("COVERAGE", None)
    return subprocess.run(
        ["scripts/test.sh"], cwd=checkout, env=environment, capture_output=True, text=True, timeout=100
    )


def fails_once(checkout: Path, name: str, cases: int = 1, mark: str = "") -> None:
    text = FAILS_ONCE.format(name=name, cases=[f"{number} [x y]" for number in range(cases)], mark=mark)
    (checkout / f"test_{name}.py").write_text(text)


def by_itself(checkout: Path) -> None:
    (checkout / "test_alone.py").write_text("import pytest\n@pytest.mark.alone\ndef test_alone():\n    pass\n")


def test_what_passes_the_second_time_is_named_and_does_not_fail_the_whole(checkout: Path) -> None:
    fails_once(checkout, "beside_others")
    fails_once(checkout, "by_itself", mark="@pytest.mark.alone")
    done = run(checkout)
    assert done.returncode == 0, done.stdout
    unsteady = ["test_beside_others.py::test_beside_others[0 [x y]]", "test_by_itself.py::test_by_itself[0 [x y]]"]
    assert (checkout / "out/unsteady.txt").read_text().splitlines() == unsteady
    assert done.stdout.splitlines()[-2:] == [f"  {name}" for name in unsteady]


def test_what_fails_twice_fails_the_whole(checkout: Path) -> None:
    fails_once(checkout, "beside_others")
    (checkout / "test_broken.py").write_text("def test_broken():\n    assert False\n")
    by_itself(checkout)
    done = run(checkout)
    assert done.returncode == 1
    assert (checkout / "out/unsteady.txt").read_text() == ""
    assert "1 failed, 1 passed" in done.stdout.splitlines()[-2]
    assert "1 passed" in done.stdout.splitlines()[-1]


def test_many_failures_are_no_chance_and_are_not_run_again(checkout: Path) -> None:
    fails_once(checkout, "beside_others", cases=11)
    by_itself(checkout)
    done = run(checkout)
    assert done.returncode == 1
    assert "A second run" not in done.stdout


def test_a_file_that_cannot_be_read_fails_the_whole(checkout: Path) -> None:
    (checkout / "test_broken.py").write_text("import nothing_of_this_name\n")
    by_itself(checkout)
    assert run(checkout).returncode != 0
