"""What is read of a gateway is what is added up."""

from __future__ import annotations

from inferdock.app.console.figures import COUNTED, total
from inferdock.telemetry import names as n
from inferdock.telemetry.samples import read_samples

TEXT = f"""\
{n.REQUESTS}{{route="/v1/completions",status="200"}} 3
{n.PROMPT_TOKENS}{{model="m"}} 30
{n.OUTPUT_TOKENS}{{model="m"}} 12
{n.CACHE_REQUESTS}{{outcome="hit"}} 2
{n.CACHE_HITS}{{tier="exact"}} 1
{n.CACHE_SAVED_TOKENS}{{kind="prompt"}} 9
"""


def test_tokens_and_the_cache_are_read_of_an_exposition_too():
    sums = total(0.0, read_samples(TEXT, COUNTED), []).sums
    expected = {
        "requests": 3, "prompt_tokens": 30, "output_tokens": 12, "cache_requests": 2, "cache_hits": 1,
        "cache_saved_tokens": 9,
    }  # fmt: skip
    assert {name: sums[name] for name in expected} == expected
