"""What the gateway counts of the response cache."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

from inferdock.cache.entry import StoredAnswer
from inferdock.domain.interval import wilson
from inferdock.telemetry import names
from inferdock.telemetry.instruments import Counter, Gauge, Histogram, Instrument

if TYPE_CHECKING:
    from inferdock.gateway.caching.rider import Rider

LOOKUP_BUCKETS_S = (
    0.00005, 0.0001, 0.00025, 0.0005, 0.001, 0.0015, 0.002, 0.003, 0.004, 0.005, 0.0075, 0.01, 0.02, 0.05, 0.1, 0.5,
)  # fmt: skip
"""Around the goals: 0.5 ms for equal requests, 5 ms for those that mean the same."""

Samples = Iterable[tuple[tuple[str, ...], float]]


class CacheMetrics:
    """The instruments of the response cache in one process, or, in the parent of several workers, of all together.

    Attributes:
        instruments: in the order in which they are shown.
        read_size: gives (entries, bytes, vectors) of this process; set by whoever has a cache.
        read_connected: gives 1 while Redis answers.
    """

    def __init__(self) -> None:
        self.requests = Counter(names.CACHE_REQUESTS, "Requests that met the cache, by outcome.", ("model", "outcome"))
        self.hits = Counter(names.CACHE_HITS, "Requests answered from the cache, by tier.", ("model", "tier"))
        self.bypasses = Counter(names.CACHE_BYPASSES, "Requests that may not use the cache.", ("model", "reason"))
        self.lookup = Histogram(names.CACHE_LOOKUP, "Time of a look-up, by tier.", ("tier",), LOOKUP_BUCKETS_S)
        self.stored = Counter(names.CACHE_STORED, "Answers stored.", ("model",))
        self.evictions = Counter(names.CACHE_EVICTIONS, "Entries dropped by this process, by reason.", ("reason",))
        self.saved_tokens = Counter(
            names.CACHE_SAVED_TOKENS, "Tokens that no engine had to read or write.", ("model", "kind")
        )
        self.saved_seconds = Counter(names.CACHE_SAVED_SECONDS, "Engine time saved.", ("model",))
        self.audits = Counter(
            names.CACHE_AUDITS, "Semantic hits that were generated again.", ("model", "partition_class", "verdict")
        )
        self.promotions = Counter(names.CACHE_PROMOTIONS, "Near misses that a judge let pass.", ("model",))
        self.store_errors = Counter(names.CACHE_STORE_ERRORS, "Redis calls that failed or came too late.", ())
        self.store_errors.cell()
        self.read_size: Callable[[], tuple[int, int, int]] = lambda: (0, 0, 0)
        self.read_connected: Callable[[], Samples] = lambda: ()
        self.instruments: list[Instrument] = [
            self.requests,
            self.hits,
            self.bypasses,
            self.lookup,
            self.stored,
            self.evictions,
            self.saved_tokens,
            self.saved_seconds,
            self.audits,
            self.promotions,
            self.store_errors,
            Gauge(names.CACHE_ENTRIES, "Answers in memory.", (), lambda: [((), float(self.read_size()[0]))]),
            Gauge(names.CACHE_BYTES, "Memory of these answers.", (), lambda: [((), float(self.read_size()[1]))]),
            Gauge(names.CACHE_VECTORS, "Messages to compare with.", (), lambda: [((), float(self.read_size()[2]))]),
            Gauge(names.CACHE_REDIS_UP, "Processes whose Redis answers.", (), lambda: self.read_connected()),
            Gauge(
                names.CACHE_WRONG_RATIO,
                "Share of semantic hits found wrong, with the bounds of its 95 % interval.",
                ("model", "partition_class", "bound"),
                self._wrong,
                merged=False,
            ),
        ]

    def take_over(self, evictions: Iterable[tuple[str, int]], store_failures: int) -> None:
        """Figures that the stores count themselves; they only grow."""
        for reason, count in evictions:
            self.evictions.cell(reason).value = count
        self.store_errors.cell().value = store_failures

    def promoted(self, model: str) -> None:
        """A judge found that a stored answer serves another message."""
        self.promotions.cell(model).value += 1

    def _wrong(self) -> Samples:
        """Wilson intervals over all that has been checked since the start."""
        counts: dict[tuple[str, str], list[float]] = {}
        for (model, klass, verdict), (count,) in self.audits.samples():
            if verdict in ("same", "different"):
                counts.setdefault((model, klass), [0.0, 0.0])[verdict == "same"] += count
        for (model, klass), (wrong, right) in counts.items():
            interval = wilson(wrong, right)
            for bound, value in (("low", interval.low), ("point", interval.point), ("high", interval.high)):
                yield (model, klass, bound), value

    def bypassed(self, model: str, reason: str) -> None:
        """A request may not use the cache."""
        self.requests.cell(model, "bypass").value += 1
        self.bypasses.cell(model, reason).value += 1

    def looked(self, tier: str, seconds: float) -> None:
        """A look-up took so long."""
        self.lookup.cell(tier).observe(seconds)

    def hit(self, model: str, tier: str, answer: StoredAnswer, duration_s: float) -> None:
        """A request was answered from the cache."""
        self.hits.cell(model, tier).value += 1
        self._saved(model, answer.prompt_tokens, answer.output_tokens)
        self.saved_seconds.cell(model).value += duration_s

    def closed(self, rider: Rider) -> None:
        """A request that met the cache has ended."""
        outcome = "miss" if rider.cache == "miss" else "hit"
        if rider.cache == "shared":
            self.hits.cell(rider.model, "flight").value += 1
            usage, _ = rider.counts
            if usage is not None:
                self._saved(rider.model, usage.prompt_tokens, usage.completion_tokens)
        self.requests.cell(rider.model, outcome).value += 1

    def _saved(self, model: str, prompt_tokens: int, output_tokens: int) -> None:
        self.saved_tokens.cell(model, "prompt").value += prompt_tokens
        self.saved_tokens.cell(model, "output").value += output_tokens
