"""Releases that are steered from the console's page in a real browser: promote, pause, abort; tabs, reloads, races."""

from __future__ import annotations

import contextlib
import subprocess
from collections.abc import Iterator
from typing import Any

import pytest

from tests.integration.console.test_console import ON_THE_WAY, Opened, press, until
from tests.integration.test_release import Place
from tests.support.browser import shoot, violations

pytestmark = pytest.mark.timeout(300)

POST = """async (body) => {
  const headers = { "x-inferdock-console": "1", "content-type": "application/json" };
  const answer = await fetch("/console/api/release", { method: "POST", headers, body: JSON.stringify(body) });
  return [answer.status, await answer.json()];
}"""
OF_A_STALE_PAGE = {"action": "rollback", "confirmed": "rollback", "over": False}
"""What a page sends that has not heard yet that the release is over."""


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    made = Place(tmp_path_factory.mktemp("console-release"))
    try:
        yield made
    finally:
        made.platform.stop()


@contextlib.contextmanager
def release(place: Place, *words: str) -> Iterator[subprocess.Popen[bytes]]:
    """A release of m@1.1.0 that waits in its canary."""
    command = place.command("release", "start", "m@1.1.0", *ON_THE_WAY, *words)
    runner = subprocess.Popen(command, cwd=place.folder, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        yield runner
    finally:
        if runner.poll() is None:
            place.run("release", "abort", "--reason", "the test is over")
        runner.kill()
        runner.wait()


def at_release(page: Any, text: str) -> None:
    page.click("nav a[href='#release']")
    until(page, "#release h2", text)


def test_two_tabs_show_the_same_and_a_reload_in_the_middle_too_and_abort_ends_it(browser: Any, place: Place) -> None:
    url = place.platform.url
    with release(place) as runner, Opened(browser, url) as one, Opened(browser, url, color_scheme="dark") as two:
        two.set_viewport_size({"width": 390, "height": 844})
        for page in (one, two):
            at_release(page, "running")
            until(page, "#release .share", r"m@1\.1\.0.*20 %")
        press(one, "pause", "looking")
        for page in (one, two):
            until(page, "#release h2", "paused")
        two.reload()
        until(two, "#release h2", "paused")
        until(two, "#release .share", r"m@1\.1\.0.*20 %")
        assert two.locator("[data-action=pause]").is_disabled()
        assert two.evaluate("document.documentElement.scrollWidth") <= 390
        assert violations(two) == []
        shoot(two, "release-phone-dark")
        press(two, "abort", "not today")
        for page in (one, two):
            until(page, "#release h2", "m@1.1.0: aborted")
            until(page, "#commands li", "abort done")
        assert one.locator("[data-action=promote]").is_disabled()
        runner.wait(60)
    assert place.status()["state"] == "aborted"
    assert place.champion() == "1.0.0"
    assert any("not today (console)" in str(event.get("reason")) for event in place.history())


def test_what_was_confirmed_too_late_is_not_done_and_said_so(browser: Any, place: Place) -> None:
    with release(place) as runner, Opened(browser, place.platform.url) as page:
        at_release(page, "running")
        before = len(place.history())
        page.click("[data-action=rollback]")
        page.locator("#confirm[open]").wait_for()
        place.must("release", "abort", "--reason", "from a terminal")
        runner.wait(60)
        until(page, "#release h2", "aborted")
        assert place.status()["state"] == "aborted"
        after = len(place.history())
        page.click("#confirm-yes")
        until(page, "#refusal", "nothing was done, since the release has meanwhile become aborted")
        page.wait_for_timeout(2500)
        until(page, "#refusal", "nothing was done")
        shoot(page, "release-too-late")
        status, said = page.evaluate(POST, {**OF_A_STALE_PAGE, "release": place.status()["id"]})
        assert (status, said["error"]["code"]) == (409, "not_that_release")
        assert "the release has meanwhile become aborted" in said["error"]["message"]
        status, said = page.evaluate(POST, {**OF_A_STALE_PAGE, "release": None})
        assert (status, said["error"]["code"]) == (409, "not_that_release")
        assert len(place.history()) == after > before


def test_a_release_is_promoted_from_the_page_by_keyboard_alone(browser: Any, place: Place) -> None:
    with release(place, "--bake", "1") as runner, Opened(browser, place.platform.url) as page:
        page.locator("nav a[href='#release']").focus()
        page.keyboard.press("Enter")
        until(page, "#release td", "health")
        until(page, "#release .share", r"m@1\.1\.0.*20 %")
        page.locator("#release summary").first.focus()
        page.keyboard.press("Enter")
        page.locator("#release details[open] pre").first.wait_for()
        press(page, "promote", "good enough")
        until(page, "#release h2", "m@1.1.0: completed")
        until(page, "#release .share", r"m@1\.1\.0.*100 %")
        shoot(page, "release-promoted")
        runner.wait(60)
    assert place.status()["state"] == "completed"
    assert place.champion() == "1.1.0"
    assert any("good enough (console)" in str(event.get("reason")) for event in place.history())
