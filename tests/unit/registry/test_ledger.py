"""What may happen to a model, decided from its history."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import msgspec
import pytest

from inferdock.domain.errors import ConfigError, ConflictError, IntegrityError, RegistryError
from inferdock.domain.moment import spell
from inferdock.registry import ledger
from inferdock.registry.event import Event, Push, decode, encode
from inferdock.registry.ledger import UNSET, By, State, fold

START = datetime(2026, 1, 1, tzinfo=UTC)


def by(minutes: int = 0, reason: str = "") -> By:
    return By(actor="ada", now=START + timedelta(minutes=minutes), reason=reason)


def pushed(version: str, revision: str = "a" * 64) -> Push:
    return Push(version=version, revision=revision, manifest_sha256="b" * 64, size_bytes=1, files=1)


class Story:
    """A history that grows."""

    def __init__(self, *versions: str) -> None:
        self.events: list[Event] = []
        for version in versions:
            self.push(version)

    @property
    def state(self) -> State:
        return fold("m", self.events)

    def add(self, event: Event | None) -> None:
        assert event is not None
        self.events.append(event)

    def push(self, version: str, revision: str = "a" * 64, minutes: int = 0) -> None:
        self.add(ledger.push(self.state, pushed(version, revision), by(minutes)))

    def move(self, alias: str, to: str | None, minutes: int = 0) -> None:
        self.add(ledger.move(self.state, alias, to, by(minutes)))


def test_versions_are_in_semantic_order_whatever_the_order_of_pushes() -> None:
    assert list(Story("1.10.0", "1.9.0", "1.10.0-rc.1").state.versions) == ["1.9.0", "1.10.0-rc.1", "1.10.0"]


def test_the_same_content_again_is_nothing_to_do() -> None:
    assert ledger.push(Story("1.0.0").state, pushed("1.0.0"), by()) is None


def test_other_content_under_a_version_is_refused() -> None:
    with pytest.raises(ConflictError, match="a version never changes"):
        ledger.push(Story("1.0.0").state, pushed("1.0.0", "c" * 64), by())


def test_a_deleted_number_does_not_come_back_with_other_content() -> None:
    story = Story("1.0.0")
    story.add(ledger.delete(story.state, "1.0.0", by()))
    with pytest.raises(ConflictError, match="deleted since"):
        ledger.push(story.state, pushed("1.0.0", "c" * 64), by())
    story.push("1.0.0")
    assert list(story.state.versions) == ["1.0.0"]


def test_when_the_champion_moves_previous_takes_what_it_leaves() -> None:
    story = Story("1.0.0", "1.1.0")
    story.move("champion", "1.0.0")
    assert story.state.aliases == {"champion": "1.0.0"}
    story.move("champion", "1.1.0")
    assert story.state.aliases == {"champion": "1.1.0", "previous": "1.0.0"}
    story.move("champion", "1.0.0")
    assert story.state.aliases == {"champion": "1.0.0", "previous": "1.1.0"}


def test_an_alias_that_is_there_already_is_nothing_to_do() -> None:
    story = Story("1.0.0")
    story.move("candidate", "1.0.0")
    assert ledger.move(story.state, "candidate", "1.0.0", by()) is None


@pytest.mark.parametrize(("present", "expect"), [("1.0.0", UNSET), ("1.0.0", "1.1.0"), (None, "1.0.0")])
def test_an_alias_that_means_something_unexpected_is_not_moved(present: str | None, expect: str) -> None:
    story = Story("1.0.0", "1.1.0")
    if present:
        story.move("candidate", present)
    with pytest.raises(ConflictError, match="somebody moved it"):
        ledger.move(story.state, "candidate", "1.1.0", by(), expect=expect)


def test_an_alias_moves_when_it_means_what_is_expected() -> None:
    story = Story("1.0.0")
    story.add(ledger.move(story.state, "candidate", "1.0.0", by(), expect=UNSET))
    story.add(ledger.move(story.state, "candidate", None, by(), expect="1.0.0"))
    assert story.state.aliases == {}


def test_an_alias_means_only_what_is_there() -> None:
    with pytest.raises(RegistryError, match=r"no m@2\.0\.0"):
        ledger.move(Story("1.0.0").state, "champion", "2.0.0", by())


def test_what_an_alias_means_is_not_deleted() -> None:
    story = Story("1.0.0")
    story.move("champion", "1.0.0")
    with pytest.raises(RegistryError, match="is champion"):
        ledger.delete(story.state, "1.0.0", by())


def test_deleting_twice_is_nothing_to_do_and_deleting_nothing_is_refused() -> None:
    story = Story("1.0.0")
    story.add(ledger.delete(story.state, "1.0.0", by()))
    assert ledger.delete(story.state, "1.0.0", by()) is None
    with pytest.raises(RegistryError, match="There is no"):
        ledger.delete(story.state, "9.0.0", by())


def test_a_history_says_what_was_live_at_a_time() -> None:
    story = Story()
    story.push("1.0.0")
    story.move("champion", "1.0.0", minutes=10)
    story.push("2.0.0", "c" * 64, minutes=20)
    story.move("champion", "2.0.0", minutes=30)

    def live(minutes: int) -> str | None:
        return fold("m", story.events, until=spell(START + timedelta(minutes=minutes))).aliases.get("champion")

    assert [live(m) for m in (-1, 5, 10, 29, 30, 99)] == [None, None, "1.0.0", "1.0.0", "2.0.0", "2.0.0"]


@pytest.mark.parametrize("text", ["x" * 4097, "\udcff"], ids=["long", "not UTF-8"])
def test_a_reason_that_could_not_be_read_again_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match="reason"):
        by(reason=text)


def test_time_never_runs_backwards_even_if_a_clock_does() -> None:
    story = Story()
    story.push("1.0.0", minutes=60)
    story.push("1.1.0", minutes=0)
    assert story.events[1].time == story.events[0].time


@pytest.mark.parametrize("harm", ["changed", "lost", "swapped", "first lost", "doubled", "of another model"])
def test_a_broken_chain_is_noticed(harm: str) -> None:
    events = Story("1.0.0", "1.1.0", "1.2.0").events
    if harm == "changed":
        events[1] = msgspec.structs.replace(events[1], actor="eve")
    elif harm == "lost":
        del events[1]
    elif harm == "swapped":
        events[0], events[1] = events[1], events[0]
    elif harm == "first lost":
        del events[0]
    elif harm == "doubled":
        events.append(events[-1])
    else:
        events[0] = msgspec.structs.replace(events[0], name="n")
    with pytest.raises(IntegrityError, match="history of m is broken"):
        fold("m", events)


def test_an_event_is_read_back_as_it_was_written() -> None:
    story = Story("1.0.0")
    story.move("champion", "1.0.0")
    assert [decode(encode(event), what="it") for event in story.events] == story.events


@pytest.mark.parametrize(
    "data",
    [b"", b"{}", b"null", b"[" * 100_000, b"\xff", b'{"seq":1}', b"x" * 70_000],
    ids=["empty", "no fields", "null", "deep", "not UTF-8", "cut", "long"],
)
def test_what_is_no_event_is_refused(data: bytes) -> None:
    with pytest.raises(IntegrityError, match="is not an event"):
        decode(data, what="It")


def test_an_event_spelt_otherwise_is_refused() -> None:
    data = encode(Story("1.0.0").events[0])
    with pytest.raises(IntegrityError, match="canonical"):
        decode(data.replace(b'"actor":', b'"actor" :'), what="It")
