"""From a gateway's counters to tokens of tenants and time of replicas."""

from inferdock.cost.observed import observe
from inferdock.cost.series import Series
from inferdock.cost.usage import Tokens
from inferdock.telemetry import names


def tokens(tenant: str, kind: str, first: float, last: float, revision: str = "r1", **labels: str) -> Series:
    own = {"model": "m", "revision": revision, "tenant": tenant, "kind": kind, **labels}
    return Series(names.TENANT_TOKENS, own, [(0, first), (60, last)])


def seconds(state: str, last: float, **labels: str) -> Series:
    return Series(
        names.REPLICA_SECONDS, {"model": "m", "revision": "r1", "state": state, **labels}, [(0, 0), (60, last)]
    )


def hits(last: float, **labels: str) -> Series:
    return Series(names.ENGINE_PREFIX_HITS, {"model_name": "m", **labels}, [(0, 0), (60, last)])


def test_tokens_of_tenants_are_told_apart():
    seen = observe(
        [
            tokens("a", "prompt", 10, 30),
            tokens("a", "output", 0, 5),
            tokens("b", "spared_prompt", 0, 7),
            tokens("b", "spared_output", 0, 3),
            tokens("c", "prompt", 9, 9),
            tokens("d", "nonsense", 0, 9),
        ]
    )
    found = {one.tenant: (one.tokens, one.spared) for one in seen.usages}
    assert found == {"a": (Tokens(prompt=20, output=5), Tokens()), "b": (Tokens(), Tokens(prompt=7, output=3))}


def test_gateways_add_up_in_tokens_and_not_in_replicas():
    one, two = {"instance": "g1"}, {"instance": "g2"}
    seen = observe(
        [
            tokens("a", "prompt", 0, 10, **one),
            tokens("a", "prompt", 0, 5, **two),
            seconds("idle", 50, **one),
            seconds("busy", 10, **one),
            seconds("idle", 20, **two),
            seconds("busy", 40, **two),
        ]
    )
    assert seen.usages[0].tokens.prompt == 15
    time = seen.times["m", "r1"]
    assert (time.busy, time.idle, time.total) == (40, 20, 60)
    assert any("Several gateways" in sentence for sentence in seen.notes)


def test_cached_tokens_are_divided_among_tenants_and_never_exceed_their_prompts():
    two = [tokens("a", "prompt", 0, 30), tokens("b", "prompt", 0, 10)]
    found = {one.tenant: one.tokens for one in observe(two, [hits(20)]).usages}
    assert found == {"a": Tokens(prompt=15, cached=15), "b": Tokens(prompt=5, cached=5)}
    everything = {one.tenant: one.tokens for one in observe(two, [hits(1e9, revision="r1")]).usages}
    assert everything == {"a": Tokens(cached=30), "b": Tokens(cached=10)}
    other = {one.tenant: one.tokens for one in observe(two, [hits(20, revision="r2")]).usages}
    assert other["a"] == Tokens(prompt=30)


def cached(tenant: str, last: float, revision: str = "r1", **labels: str) -> Series:
    own = {"model": "m", "revision": revision, "tenant": tenant, **labels}
    return Series(names.TENANT_CACHED, own, [(0, 0), (60, last)])


def test_cached_tokens_that_answers_told_are_nobody_elses():
    two = [tokens("a", "prompt", 0, 30), tokens("b", "prompt", 0, 10), cached("a", 12), cached("a", 3, instance="g2")]
    for engines in ([], [hits(99, revision="r1")]):
        seen = observe(two, engines)
        assert {one.tenant: one.tokens for one in seen.usages} == {
            "a": Tokens(prompt=15, cached=15),
            "b": Tokens(prompt=10),
        }
        assert seen.prefix_cache_seen


def test_what_one_revision_tells_is_not_given_to_another_that_does_not():
    both = [
        tokens("a", "prompt", 0, 30),
        cached("a", 12),
        tokens("a", "prompt", 0, 30, "r2"),
        tokens("b", "prompt", 0, 30, "r2"),
    ]
    seen = observe(both, [hits(32)])
    assert [one.tokens.cached for one in seen.usages] == [12, 10, 10]


def test_more_cached_tokens_than_prompt_tokens_are_not_believed():
    seen = observe([tokens("a", "prompt", 0, 30), cached("a", 31)])
    assert seen.usages[0].tokens == Tokens(cached=30)


def test_without_engines_it_says_so():
    seen = observe([tokens("a", "prompt", 0, 1)])
    assert not seen.prefix_cache_seen
    assert any("prefix cache" in sentence for sentence in seen.notes)


def test_a_restart_and_nonsense_are_said():
    broken = Series(names.REPLICA_SECONDS, {"model": "m", "revision": "r1", "state": "busy"}, [(0, 9), (1, 2), (2, -1)])
    notes = " ".join(observe([broken]).notes)
    assert "began anew 1 time:" in notes
    assert "1 reading made no sense" in notes
