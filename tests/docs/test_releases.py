"""docs/releases.md and the recorded session say what is there."""

from __future__ import annotations

import json
import re
from xml.etree import ElementTree

import pytest
from scripts import render_release_docs

from inferdock.release.machine import mermaid
from tests.docs.pages import ROOT

PAGE = (ROOT / "docs" / "releases.md").read_text(encoding="utf-8")
SESSION = (ROOT / "docs" / "release-session.md").read_text(encoding="utf-8")
WORKFLOW = (ROOT / ".github" / "workflows" / "model-release.yaml").read_text(encoding="utf-8")
CONTROL = (ROOT / "src" / "inferdock" / "supervisor" / "control.py").read_text(encoding="utf-8")


def test_the_diagram_of_states_is_up_to_date():
    assert render_release_docs.render(PAGE) == PAGE, "run `make docs` and commit the result"
    assert mermaid() in PAGE


def test_a_page_without_a_place_for_the_diagram_is_refused():
    with pytest.raises(ValueError, match="not one"):
        render_release_docs.render("# Releases\n")


def test_every_route_of_the_control_socket_is_in_the_table():
    routes = re.findall(r"app\.router\.add_(\w+)\(\"([^\"]+)\"", CONTROL)
    assert len(routes) >= 7
    for method, path in routes:
        assert f"| `{method.upper()} {path}" in PAGE, f"{method} {path}"


def test_every_code_of_a_refusal_is_named():
    sources = [CONTROL, *(path.read_text() for path in (ROOT / "src" / "inferdock" / "supervisor").glob("*.py"))]
    codes = {code for text in sources for code in re.findall(r"code=\"(\w+)\"", text)}
    assert codes
    assert {code for code in codes if f"`{code}`" not in PAGE} == set()


def test_every_variable_and_secret_of_the_workflow_is_in_the_table():
    names = set(re.findall(r"(?:vars|secrets)\.(\w+)", WORKFLOW))
    assert {name for name in names if f"`{name}`" not in PAGE} == set()
    listed = set(re.findall(r"`([A-Z_]+)`", PAGE[PAGE.index("| Where |") : PAGE.index("## The control socket")]))
    assert listed == names


def test_the_recording_is_one_and_time_goes_on_in_it():
    header, *events = (ROOT / "docs" / "release-session.cast").read_text(encoding="utf-8").splitlines()
    assert json.loads(header)["version"] == 2
    times = [json.loads(line)[0] for line in events]
    assert times == sorted(times)
    assert {json.loads(line)[1] for line in events} == {"o"}
    assert "all traffic was back" in "\n".join(events)


def test_the_picture_can_be_drawn():
    root = ElementTree.parse(ROOT / "docs" / "release-session.svg").getroot()
    assert root.tag.endswith("svg")
    assert "rolled_back" in "".join(root.itertext())


def test_the_session_as_text_tells_the_whole_story():
    story = [
        "model push", "inferdock up", "inferdock bench", "release status", "release promote", "1.1.0\n",
        "release rollback", "All traffic was back", "release history", " answered in ",
    ]  # fmt: skip
    place = 0
    for words in story:
        place = SESSION.index(words, place)
    answered = re.search(r"(\d+)/(\d+) answered in", SESSION)
    assert answered is not None
    assert answered[1] == answered[2]
