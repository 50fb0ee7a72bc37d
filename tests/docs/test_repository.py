"""What must not stand in any file of the repository, and what must."""

import re

import pytest

from tests.docs.pages import ROOT, name_of, text_of, tracked_files

REGISTRY_HOST = re.compile(
    r"\b(?:[a-z0-9-]+\.)*(?:pypi\.org|pythonhosted\.org|deb\.debian\.org|npmjs\.(?:org|com)|proxy\.golang\.org)\b"
)
MACHINE_PATH = re.compile(r"(?<![\w.~/-])/(?:root|work|tmp/\w|home/[a-z]\w*|opt/(?:wheels|pypi))(?:/|\b)")


def offenders(pattern: re.Pattern[str]) -> list[str]:
    found = []
    for path in tracked_files():
        text = text_of(path)
        if text is None or name_of(path) == "tests/docs/test_repository.py":
            continue
        found += [f"{name_of(path)}: {match[0]}" for match in pattern.finditer(text)]
    return found


def test_no_file_names_a_package_registry():
    assert offenders(REGISTRY_HOST) == []


def test_no_file_names_a_path_of_one_machine():
    assert offenders(MACHINE_PATH) == []


@pytest.mark.parametrize(
    ("text", "found"),
    [("see /root/x", True), ("cd /work/main", True), ("~/.local/state", False), ("a/root/b", False), ("/tmp", False)],
)
def test_the_pattern_of_machine_paths_sees_what_it_should(text, found):
    assert bool(MACHINE_PATH.search(text)) is found


@pytest.mark.parametrize("name", ["README.md", "LICENSE", "CHANGELOG.md", "Makefile", ".ci/run", "pyproject.toml"])
def test_the_repository_has(name):
    assert (ROOT / name).stat().st_size > 0


@pytest.mark.parametrize("name", [".ci/run", "scripts/test.sh", "scripts/lock.sh"])
def test_scripts_may_be_run_and_stop_at_the_first_failure(name):
    path = ROOT / name
    assert path.stat().st_mode & 0o111
    assert "set -euo pipefail" in path.read_text(encoding="utf-8")
