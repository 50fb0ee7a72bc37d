"""What ``inferdock status`` draws of a look: a function of the look, the size, and nothing else."""

from __future__ import annotations

import copy
import io
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.cells import cell_len
from rich.console import Console

from inferdock.app.status import Seen
from inferdock.cli.status.figures import age, dollars, rate, share, span, sparkline
from inferdock.cli.status.view import picture, plain

RELEASE = {
    "id": "r1",
    "from": "answers@1.0.0",
    "to": "answers@1.1.0",
    "state": "running",
    "over": False,
    "outcome": "",
    "names": {"1.0.0-aaa": "answers@1.0.0", "1.1.0-bbb": "answers@1.1.0"},
    "next": 2,
    "steps": [{"text": "start", "reason": ""}, {"text": "check", "reason": ""}, {"text": "traffic", "reason": ""}],
    "step": "traffic answers@1.1.0 10 %",
}


def replica(index: int, **more: object) -> dict[str, Any]:
    found = {"name": f"replica-{index}", "revision": "1.0.0-aaa", "state": "ready", "since_s": 65.0, "restarts": 0}
    return {**found, "problem": "", "in_flight": 2, "running": 3, "waiting": 1, "kv_cache_usage_ratio": 0.25, **more}


def look(number: int = 2, **live: object) -> Seen:
    """A platform under load."""
    rows = [replica(index) for index in range(number)]
    figures = {
        "requests_total": 12345.0,
        "failed_total": 6.0,
        "output_tokens_total": 45678.0,
        "prompt_tokens_total": 98765.0,
        "requests_per_s": 12.34,
        "output_tokens_per_s": 1543.2,
        "waiting": 4.0,
        "ttft_s": {"p50": 0.035, "p95": 0.41, "p99": 0.6},
        "tpot_s": {"p50": 0.008, "p95": 0.012, "p99": 0.02},
        "prefix_cache_ratio": 0.625,
        "cache": {"requests": 353.0, "hits": 120.0, "saved_tokens": 4803.0, "saved_s": 61.0},
    }
    cost = {
        "price": True,
        "dollars_per_hour": 1.2,
        "dollars_per_million": {"blended": 0.41, "output": 1.13, "with_cache": 0.3},
        "saved_dollars": {"response_cache": 0.02, "prefix_cache": 0.01},
    }
    document = {
        "time": 1795943140.0,
        "model": "answers",
        "revision": "1.0.0-aaa",
        "weights": {"1.0.0-aaa": 1.0},
        "stopping": False,
        "replicas": rows,
        "in_flight": 7,
        "uptime_s": 200.0,
        "figures": figures,
        "cost": cost,
        "release": None,
    }
    written = [{"name": row["name"], "url": "http://127.0.0.1:8101", "log": "logs/replica.log"} for row in rows]
    state = {"url": "http://127.0.0.1:8080", "engine": "vllm", "admin_url": "http://127.0.0.1:1", "replicas": written}
    return Seen(state=state, gateway={"endpoints": []}, live={**document, **live})


def drawn(seen: Seen, width: int = 80, height: int = 24, *, lost: str = "", color: bool = False) -> list[str]:
    out = io.StringIO()
    console = Console(
        width=width, height=height, file=out, force_terminal=color, color_system="truecolor" if color else None
    )
    past = {"requests": [1.0, 5.0, None, 9.0], "tokens": [0.0] * 80}
    console.print(picture(seen, past, width=width, height=height, lost=lost))
    return out.getvalue().splitlines()


def without(document: Any, path: tuple[str, ...]) -> Any:
    """The document without one part."""
    changed = copy.deepcopy(document)
    place = changed
    for name in path[:-1]:
        place = place[name]
    del place[path[-1]]
    return changed


def paths(document: Any, before: tuple[str, ...] = ()) -> list[tuple[str, ...]]:
    """All parts of a document."""
    found = []
    for name, value in document.items():
        found.append((*before, name))
        if isinstance(value, dict):
            found += paths(value, (*before, name))
    return found


PARTS = paths(look(release=RELEASE).live)
SIZES = [(80, 24), (200, 50), (118, 30), (72, 20), (60, 24), (80, 10), (20, 5)]


@pytest.mark.parametrize(("width", "height"), SIZES, ids=str)
def test_it_fits_the_terminal(width: int, height: int) -> None:
    ill = [replica(9, state="waiting", problem="It ended with status 137. " * 9, restarts=3)]
    for seen in (look(), look(64), look(2, release=RELEASE, replicas=[*look().live["replicas"], *ill])):
        lines = drawn(seen, width, height, lost="No platform is running here.")
        assert len(lines) <= height
        assert max(cell_len(line) for line in lines) <= width


@pytest.mark.parametrize(("width", "height"), SIZES[:3], ids=str)
def test_everything_important_is_there(width: int, height: int) -> None:
    text = "\n".join(drawn(look(release=RELEASE, weights={"1.0.0-aaa": 0.9, "1.1.0-bbb": 0.1}), width, height))
    for word in (
        *("answers", "12 /s", "1,543 /s", "in flight", "queued", "35 ms", "410 ms", "8.0 ms", "12 ms", "25 %", "62 %"),
        *("34 %", "120 of 353 hit", "4,803", "$1.20", "$0.410", "$1.13", "answers@1.0.0 → answers@1.1.0: running"),
        *("step 3 of 3: traffic answers@1.1.0 10 %", "90 %", "replica-0", "replica-1", "ready", "8101", "q quits"),
        *("12,345 requests, 6 failed", "http://127.0.0.1:8080/v1"),
    ):
        assert word in text, (word, text)


@pytest.mark.parametrize("path", PARTS, ids=".".join)
def test_a_missing_part_is_no_error_and_no_zero(path: tuple[str, ...]) -> None:
    whole = look(release=RELEASE)
    seen = Seen(state=whole.state, gateway=whole.gateway, live=without(whole.live, path))
    assert len(drawn(seen)) <= 24
    assert "\n".join(plain(seen)).count("None") == 0


@pytest.mark.parametrize("path", PARTS, ids=".".join)
@pytest.mark.parametrize("value", [None, "x", float("nan")], ids=repr)
def test_nor_is_a_part_that_makes_no_sense(path: tuple[str, ...], value: object) -> None:
    whole = look(release=RELEASE)
    live = copy.deepcopy(whole.live)
    place = live
    for name in path[:-1]:
        place = place[name]
    place[path[-1]] = value
    seen = Seen(state=whole.state, gateway=None, live=live)
    assert len(drawn(seen)) <= 24
    assert plain(seen)


def test_a_look_at_nothing_at_all_can_be_drawn() -> None:
    assert "There is no replica." in "\n".join(drawn(Seen(state={}, gateway=None, live={})))


IDLE = {"requests_per_s": 0.0, "ttft_s": {"p50": None}, "tpot_s": {"p50": None}, "cache": {"requests": 0.0}}
CASES = {
    "nobody asks": (look(figures=IDLE, in_flight=0), "No request in the last minute."),
    "nobody was answered": (look(figures=IDLE, in_flight=3), "No answer in the last minute."),
    "the gateway is silent": (look(figures=None), "The gateway gives no figures just now."),
    "no price": (look(cost={"price": None, "given": False, "why": "Nobody has said it."}), "Set cost.cost_per_hour."),
    "no bill": (look(cost={"price": None, "why": "It cannot be made."}), "It cannot be made."),
    "no replica": (look(0), "There is no replica."),
    "an empty list": (look(replicas=[]), "There is no replica."),
    "all start": (look(0, replicas=[replica(0, state="starting")]), "No replica is ready"),
    "draining": (look(stopping=True), "Draining: open requests finish"),
    "a damaged journal": (look(release={"problem": "Its journal is damaged."}), "Its journal is damaged."),
    "a release that has ended": (look(release={**RELEASE, "over": True, "outcome": "all went well"}), "all went well"),
    "shares without a release": (look(weights={"a": 0.9, "b": 0.1}), "Several revisions share the requests"),
    "an engine died": (look(0, replicas=[replica(0, problem="It ran out of memory.")]), "replica-0: It ran out"),
    "no response cache": (look(figures={**look().live["figures"], "cache": {"requests": 0.0}}), "off, or not asked"),
}


@pytest.mark.parametrize(("seen", "sentence"), CASES.values(), ids=CASES)
def test_what_there_is_to_say_is_said_in_both_forms(seen: Seen, sentence: str) -> None:
    assert sentence in " ".join(" ".join(drawn(seen, 200, 50)).replace("│", " ").split())
    assert sentence in "\n".join(plain(seen))


def test_the_gateways_own_minute_comes_before_what_a_viewer_has_seen() -> None:
    own = {"ttft_p50_s": 0.1, "ttft_p95_s": 0.2, "tpot_p50_s": None, "tpot_p95_s": None}
    seen = look()
    text = "\n".join(plain(Seen(state=seen.state, gateway=own, live=seen.live)))
    assert "p50 100 ms  p95 200 ms" in text
    assert "p50 8.0 ms  p95 12 ms" in text


def test_of_many_replicas_those_that_are_not_ready_are_shown_first() -> None:
    rows = [replica(index) for index in range(63)] + [replica(63, state="waiting", problem="It died.")]
    text = "\n".join(drawn(look(0, replicas=rows)))
    assert "replica-63" in text
    assert "more, " in text
    assert "of them ready" in text


def test_replicas_of_several_revisions_are_told_apart() -> None:
    rows = [replica(0), replica(1, revision="1.1.0-bbb")]
    assert "1.1.0-bbb" in "\n".join(drawn(look(0, replicas=rows)))


def test_a_last_look_that_is_old_says_so() -> None:
    assert "No contact since" in drawn(look(), lost="It is gone.")[1]


def test_nothing_that_replicas_or_people_say_steers_the_terminal() -> None:
    evil = "\x1b]0;x\x07[red]\x1b[2J"
    seen = look(0, model=evil, revision=evil, replicas=[replica(0, name=evil, revision=evil, problem=evil, state=evil)])
    seen.live["release"] = {**RELEASE, "to": evil, "step": evil, "names": {"1.0.0-aaa": evil}}
    seen.live["cost"] = {"price": None, "why": evil}
    for text in ("\n".join(drawn(seen, 200, 50)), "\n".join(drawn(seen, 60, 24)), "\n".join(plain(seen))):
        assert "\x1b" not in text
        assert "\x07" not in text
        assert "[red]" in text


def test_states_are_words_where_colours_are_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_COLOR", "1")
    text = "\n".join(drawn(look(0, replicas=[replica(0, state="waiting")]), color=True))
    assert "waiting" in text
    assert not any(f"\x1b[{code}" in text for code in ("31", "32", "33", "36", "38"))


@given(st.integers(1, 250), st.integers(1, 80), st.integers(0, 70))
def test_no_size_and_no_number_of_replicas_breaks_it(width: int, height: int, replicas: int) -> None:
    lines = drawn(look(replicas, release=RELEASE), width, height)
    assert len(lines) <= max(height, 2)
    assert max(cell_len(line) for line in lines) <= width


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (rate(None), "–"),
        (rate(0.0), "0.0"),
        (rate(9.94), "9.9"),
        (rate(1234.4), "1,234"),
        (share(0.0), "0 %"),
        (share(0.004), "0.4 %"),
        (share(True), "–"),
        (span(0), "0 s"),
        (span(0.0042), "4.2 ms"),
        (span(0.25), "250 ms"),
        (span(1.5), "1.50 s"),
        (span(400), "7 min"),
        (span(7300), "2.0 h"),
        (age(65.0), "65 s"),
        (dollars(0), "$0"),
        (dollars(0.00123), "$0.0012"),
        (dollars(2.5e-7), "$0.00000025"),
        (dollars(0.41), "$0.410"),
        (dollars(12), "$12.00"),
        (dollars(1234.5), "$1,234"),
        (dollars(float("nan")), "–"),
        (sparkline([1], 10), ""),
        (sparkline([0, 0], 10), "▁▁"),
        (sparkline([0, 4, None, 8], 3), "▅▁█"),
    ],
)
def test_figures_read_well(text: str, expected: str) -> None:
    assert text == expected
