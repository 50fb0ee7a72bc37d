"""The console in a real browser, against `inferdock up` with simulated replicas."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.integration.test_release import Load, Place
from tests.support.browser import shoot, violations
from tests.support.platform import Platform

pytestmark = pytest.mark.timeout(300)
PATIENCE_MS = 60_000
VIEWS = ("live", "playground", "release", "models", "keys")
ON_THE_WAY = (
    "--gates",
    "health",
    "--weights",
    "20,100",
    "--hold",
    "900",
    "--hold-limit",
    "900",
    "--min-requests",
    "9999",
)

TILE = """([title, figure]) => [...document.querySelectorAll('.tile')].some((tile) =>
  tile.textContent.startsWith(title) && new RegExp(figure).test(tile.querySelector('.figure').textContent))"""


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    made = Place(tmp_path_factory.mktemp("console"))
    yield made
    made.platform.stop()


@pytest.fixture
def page(browser: Any, place: Place) -> Iterator[Any]:
    """The console, opened; whatever the page complains about fails the test."""
    with Opened(browser, place.platform.url) as made:
        yield made


class Opened:
    """A page at the console of a gateway."""

    def __init__(self, browser: Any, url: str, **options: Any) -> None:
        self._context = browser.new_context(viewport={"width": 1280, "height": 900}, **options)
        self._page = self._context.new_page()
        self._page.set_default_timeout(PATIENCE_MS)
        self.complaints: list[str] = []
        self.foreign: list[str] = []
        self._page.on("pageerror", lambda error: self.complaints.append(str(error)))
        self._page.on("request", lambda request: self._note(request.url, url))
        self._page.goto(f"{url}/console")

    def _note(self, asked: str, url: str) -> None:
        if not asked.startswith(url):
            self.foreign.append(asked)

    def __enter__(self) -> Any:
        return self._page

    def __exit__(self, *_: object) -> None:
        self._context.close()
        assert self.complaints == []
        assert self.foreign == []


def until(page: Any, selector: str, text: str) -> None:
    page.locator(selector).filter(has_text=re.compile(text)).first.wait_for()


def test_an_answer_streams_in_with_its_figures(page: Any) -> None:
    until(page, "#link", "live")
    page.goto(page.url.partition("#")[0] + "#playground")
    page.fill("#prompt", "hello")
    page.fill("#max-tokens", "20")
    page.keyboard.press("Tab")
    page.locator("#prompt").press("Control+Enter")
    facts = page.locator("#chat .facts")
    facts.wait_for()
    said = facts.inner_text()
    assert re.search(r"revision 1\.0\.0-\w+ · cache off · TTFT [\d.]+ m?s · \d+ tokens in, \d+ out", said), said
    assert "no price given" in said
    shoot(page, "playground")


def test_a_replica_that_is_killed_is_seen_to_go_and_come_back(page: Any, place: Place) -> None:
    until(page, "#replicas td", "ready")
    before = place.platform.state["replicas"][0]
    os.kill(before["pid"], signal.SIGKILL)
    until(page, "#happened li", f"{before['name']} (died|is starting)")
    until(page, "#happened li", f"{before['name']} is ready")
    place.platform.wait_until_ready(1, within_s=60)
    assert place.platform.state["replicas"][0]["pid"] != before["pid"]


def test_figures_move_with_the_load(page: Any, place: Place) -> None:
    load = Load(place.platform.url)
    load.start()
    try:
        page.wait_for_function(TILE, arg=["Requests per second", r"^([5-9]|\d\d)"])
        page.wait_for_function(TILE, arg=["Time to first token", r"^[\d.]+ m?s$"])
        page.wait_for_timeout(4000)
        shoot(page, "live")
    finally:
        load.end()
    assert load.failures == []


def test_a_release_is_watched_paused_resumed_and_rolled_back_from_the_page(page: Any, place: Place) -> None:
    words = place.command("release", "start", "m@1.1.0", *ON_THE_WAY)
    runner = subprocess.Popen(words, cwd=place.folder, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        page.click("nav a[href='#release']")
        until(page, "#release .share", r"m@1\.1\.0.*20 %")
        until(page, "#release td", "health")
        assert violations(page) == []
        shoot(page, "release")
        press(page, "rollback", "wrong prices", sure=False)
        assert place.status()["state"] == "running"
        press(page, "pause", "looking")
        until(page, "#release h2", "paused")
        runner.wait(60)
        press(page, "resume", "fine")
        until(page, "#release h2", "running")
        press(page, "rollback", "wrong prices")
        until(page, "#release h2", "rolled_back|aborted")
        until(page, "#commands li", "rollback done")
        until(page, "#commands li", "resume ended with 8")
    finally:
        runner.kill()
        runner.wait()
    status = place.status()
    assert status["state"] in ("aborted", "rolled_back")
    assert place.champion() == "1.0.0"
    history = place.history()
    assert any("wrong prices (console)" in str(event.get("reason")) for event in history)
    shoot(page, "rolled-back")


def press(page: Any, action: str, reason: str, *, sure: bool = True) -> None:
    """By keyboard, as the dialog begins at "No"."""
    page.fill("#reason", reason)
    page.locator(f"[data-action={action}]").focus()
    page.keyboard.press("Enter")
    page.locator("#confirm[open]").wait_for()
    assert page.evaluate("document.activeElement.id") == "confirm-no"
    if sure:
        page.keyboard.press("Shift+Tab")
    page.keyboard.press("Enter")
    page.locator("#confirm").wait_for(state="hidden")


def test_the_registry_with_versions_aliases_and_history(page: Any) -> None:
    page.click("nav a[href='#models']")
    until(page, "#models tr", r"1\.0\.0.*champion")
    page.click("#models summary")
    until(page, "#models .log li", r"1\.1\.0 was pushed")
    shoot(page, "models")


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [360, 1280])
def test_every_view_is_accessible_and_fits(browser: Any, place: Place, scheme: str, width: int) -> None:
    with Opened(browser, place.platform.url, color_scheme=scheme) as page:
        page.set_viewport_size({"width": width, "height": 780})
        until(page, "#link", "live")
        for view in VIEWS:
            page.goto(f"{place.platform.url}/console#{view}")
            page.locator(f"#view-{view}").wait_for()
            page.wait_for_timeout(300)
            assert violations(page) == [], view
            assert page.evaluate("document.documentElement.scrollWidth") <= width, view
            if view == "live" and (scheme, width) in (("dark", 1280), ("light", 360)):
                shoot(page, f"{scheme}-{width}")


def test_a_platform_that_goes_is_said_so(browser: Any, tmp_path: Path) -> None:
    platform = Platform(tmp_path / "up", "--engine", "sim")
    try:
        platform.wait_until_ready(1, within_s=60)
        with Opened(browser, platform.url) as page:
            until(page, "#link", "live")
            platform.stop()
            until(page, "#link", "no contact|draining|answer")
    finally:
        platform.kill()


def test_with_keys_nothing_is_shown_without_an_admin_key(browser: Any, tmp_path: Path) -> None:
    platform = Platform(tmp_path / "up", "--engine", "sim")
    try:
        platform.wait_until_ready(1, within_s=60)
        plain, admin = (make_key(platform, name, *more) for name, more in (("plain", ()), ("boss", ("--admin",))))
        with Opened(browser, platform.url) as page:
            page.wait_for_timeout(4000)  # the gateway looks at its key file every few seconds
            page.reload()
            page.locator("#gate").wait_for()
            assert violations(page) == []
            shoot(page, "locked")
            use_key(page, plain)
            until(page, "#gate-why", "no admin mark")
            use_key(page, admin)
            until(page, "#link", "live")
            page.click("nav a[href='#keys']")
            until(page, "#keys-list tr", "boss.*yes")
            assert plain not in page.content()
            assert admin not in page.content()
            shoot(page, "keys")
    finally:
        platform.stop()


def make_key(platform: Platform, name: str, *more: str) -> str:
    words = [
        sys.executable,
        "-m",
        "inferdock.cli.main",
        "keys",
        "create",
        "--state-dir",
        str(platform.state_dir),
        "--name",
        name,
        *more,
    ]
    return subprocess.run(words, capture_output=True, text=True, check=True, timeout=60).stdout.strip()


def use_key(page: Any, key: str) -> None:
    page.fill("#gate-key", key)
    page.click("#gate-form button")
