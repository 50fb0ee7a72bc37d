"""Looks at what runs: which of them have rates in them."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from typing import Any

import pytest

from inferdock.app.console.figures import Totals, recent
from inferdock.app.status import Seen, settled
from inferdock.domain.errors import UnreachableError


class Told:
    """A source of given figures."""

    def __init__(self, *figures: dict[str, Any] | None) -> None:
        self.given = 0
        self._figures = figures

    async def looks(self) -> AsyncGenerator[Seen]:
        for one in self._figures:
            self.given += 1
            yield Seen(state={}, gateway=None, live={"figures": one})


@pytest.mark.parametrize(
    ("figures", "looks"),
    [
        ([{"requests_per_s": None}, {"requests_per_s": 2.0}], 2),
        ([{"requests_per_s": 3.0}, {"requests_per_s": 2.0}], 1),
        ([None, None], 1),
    ],
    ids=["nobody has looked before", "somebody has", "the gateway is silent"],
)
async def test_a_single_look_waits_for_rates_only_where_there_are_none_yet(figures: list[Any], looks: int) -> None:
    source = Told(*figures)
    seen = await settled(source)
    assert (source.given, seen.live["figures"]) == (looks, figures[looks - 1])


async def test_nothing_to_look_at_is_a_sentence() -> None:
    with pytest.raises(UnreachableError):
        await settled(Told())


def test_a_rate_is_not_averaged_over_a_pause_in_which_nobody_looked() -> None:
    def at(seconds: float, requests: float) -> Totals:
        names = ("waiting", "failed", "output_tokens", "prompt_tokens", "cache_hits", "cache_requests")
        sums = dict.fromkeys((*names, "cache_saved_tokens", "cache_saved_s"), 0.0)
        return Totals(seconds, sums={**sums, "requests": requests})

    past = [at(0.0, 0.0), at(50.0, 10.0)]
    assert recent(past, past[-1])["requests_per_s"] is None
    past.append(at(51.0, 30.0))
    assert recent(past, past[-1])["requests_per_s"] == pytest.approx(20.0)
