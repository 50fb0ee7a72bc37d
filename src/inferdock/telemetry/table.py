"""The table of metrics: what each name of :mod:`inferdock.telemetry.names` is. Read by docs, tests and dashboards.

A row says what a person needs who writes a query. Names of samples (``_bucket``, ``_sum``, ``_count``) follow from the
kind: :meth:`Metric.samples`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal

from inferdock.telemetry import names

Kind = Literal["counter", "gauge", "histogram"]
Source = Literal["gateway", "engine", "cluster"]

_REVISION: Final = ("model", "revision")
_ENGINE: Final = ("engine", "model_name")


@dataclass(frozen=True, slots=True)
class Metric:
    """One row.

    Attributes:
        name: as in queries; of a histogram without ``_bucket``.
        kind: how it grows.
        unit: of its value; of a histogram's observations.
        labels: those that it has itself, before a Prometheus adds its own.
        meaning: one sentence.
        aliases: other versions' names for the same, newest first.
        source: who exports it.
        when: what must happen before there is a series; empty when there always is one.
    """

    name: str
    kind: Kind
    unit: str
    labels: tuple[str, ...]
    meaning: str
    aliases: tuple[Alias, ...] = ()
    source: Source = "gateway"
    when: str = ""

    def samples(self) -> tuple[str, ...]:
        """Names under which its numbers stand in the text format, aliases left out."""
        return _samples(self.name, self.kind)

    def every_sample(self) -> tuple[str, ...]:
        """The same with those of the aliases."""
        return tuple(one for name in (self.name, *(a.name for a in self.aliases)) for one in _samples(name, self.kind))


@dataclass(frozen=True, slots=True)
class Alias:
    """Another name in other versions of the engine.

    Attributes:
        name: the name there.
        versions: which versions, in words.
    """

    name: str
    versions: str


def _samples(name: str, kind: Kind) -> tuple[str, ...]:
    return tuple(name + end for end in ("_bucket", "_sum", "_count")) if kind == "histogram" else (name,)


def _counter(
    name: str, labels: tuple[str, ...], meaning: str, *, unit: str = "requests", when: str = "traffic"
) -> Metric:
    return Metric(name, "counter", unit, labels, meaning, when=when)


def _gauge(name: str, labels: tuple[str, ...], meaning: str, *, unit: str, when: str = "") -> Metric:
    return Metric(name, "gauge", unit, labels, meaning, when=when)


def _seconds(name: str, labels: tuple[str, ...], meaning: str, *, when: str = "streams") -> Metric:
    return Metric(name, "histogram", "seconds", labels, meaning, when=when)


def _engine(name: str, kind: Kind, unit: str, meaning: str, *aliases: Alias) -> Metric:
    return Metric(name, kind, unit, _ENGINE, meaning, aliases, "engine")


def _cluster(name: str, labels: tuple[str, ...], unit: str, meaning: str, when: str) -> Metric:
    return Metric(name, "gauge", unit, labels, meaning, (), "cluster", when)


GATEWAY: Final = (
    _counter(names.REQUESTS, (*_REVISION, "route", "status"), "Requests answered, by HTTP status.", when=""),
    _counter(
        names.ATTEMPTS,
        (*_REVISION, "outcome"),
        "Tries on a replica: `answered`, `failed`, `cut`, `cancelled`, `moved`, `stale`.",
        unit="attempts",
    ),
    _counter(
        names.CANCELLED, ("model",), "Requests whose client left before the answer's end.", when="a client that leaves"
    ),
    _counter(
        names.BROKEN,
        _REVISION,
        "Answers that began with a good status and ended with an error: their status says nothing of it.",
        when="a broken answer",
    ),
    _counter(
        names.PROMPT_TOKENS, _REVISION, "Prompt tokens of answered requests, those of the cache too.", unit="tokens"
    ),
    _counter(names.OUTPUT_TOKENS, _REVISION, "Output tokens sent to clients, those of the cache too.", unit="tokens"),
    _counter(
        names.TENANT_TOKENS,
        (*_REVISION, "tenant", "kind"),
        "Tokens by tenant: `prompt` and `output` that engines worked for, `spared_prompt` and `spared_output` that the"
        " response cache gave. At most 500 tenants a revision, further ones are `others`.",
        unit="tokens",
    ),
    _counter(
        names.TENANT_CACHED,
        (*_REVISION, "tenant"),
        "Of the tenant's `prompt` tokens, those that the engine's prefix cache held, as the answer's `usage` says.",
        unit="tokens",
        when="engines that say it (`--enable-prompt-tokens-details`)",
    ),
    _counter(
        names.REPLICA_SECONDS,
        (*_REVISION, "state"),
        "Time of replicas that are `unready`, `idle` or `busy`. Each gateway counts all replicas.",
        unit="seconds",
        when="an endpoint",
    ),
    _seconds(names.TTFT, _REVISION, "Streams: request received to first byte of output."),
    _seconds(names.TPOT, _REVISION, "Streams of 2 and more tokens that were answered whole: time per further token."),
    _seconds(names.ITL, _REVISION, "Streams: time between two blocks of output."),
    _seconds(names.DURATION, _REVISION, "Request received to last byte sent.", when="traffic"),
    _counter(
        names.RESUMES,
        ("model", "outcome"),
        "Streams that lost their replica: `resumed`, `impossible`, `failed`.",
        unit="streams",
        when="a replica lost under a stream",
    ),
    _counter(
        names.RETRIES_REFUSED,
        ("model",),
        "Retries that the budget did not allow.",
        unit="retries",
        when="many failures",
    ),
    _counter(
        names.TURNED_AWAY,
        ("model", "reason"),
        "Requests that got no replica: `queue_full`, `queue_timeout`, `no_ready_replica`, `bad_gateway`.",
        when="a request turned away",
    ),
    _gauge(names.WAITING, ("model",), "Requests that wait for a replica.", unit="requests", when="a known model"),
    _gauge(names.IN_FLIGHT, _REVISION, "Requests on replicas now.", unit="requests", when="an endpoint"),
    _gauge(names.ENDPOINT_READY, ("endpoint", "model"), "1 when it takes requests.", unit="1 or 0", when="an endpoint"),
    _gauge(names.ENDPOINT_IN_FLIGHT, ("endpoint", "model"), "Requests on it now.", unit="requests", when="an endpoint"),
    _gauge(names.CONNECTIONS, (), "Open client connections.", unit="connections"),
    _gauge(names.DRAINING, (), "1 while the gateway drains.", unit="1 or 0"),
    _gauge(names.WORKERS, (), "Gateway processes that serve.", unit="processes"),
    _counter(names.WORKER_DEATHS, (), "Workers that died unasked.", unit="processes", when=""),
    _counter(
        names.CONNECTIONS_LOST, (), "Client connections cut by their worker's death.", unit="connections", when=""
    ),
    _counter(names.REQUESTS_LOST, (), "Requests cut by their worker's death.", when=""),
    _counter(
        names.SHADOW_REQUESTS,
        (*_REVISION, "outcome"),
        "Copies of requests by what became of them.",
        unit="copies",
        when="a shadow",
    ),
    _counter(
        names.SHADOW_DIFFERENCES,
        (*_REVISION, "kind"),
        "Answered copies by how they differ from the client's answer.",
        unit="copies",
        when="a shadow",
    ),
    _seconds(names.SHADOW_TTFT, _REVISION, "Copied streams: copy sent to first byte of output.", when="a shadow"),
    _seconds(names.SHADOW_TPOT, _REVISION, "Copied streams: time per further token.", when="a shadow"),
    _counter(
        names.CACHE_REQUESTS,
        ("model", "outcome"),
        "Requests that met the response cache: `hit`, `miss`, `bypass`.",
        when="the cache",
    ),
    _counter(
        names.CACHE_HITS,
        ("model", "tier"),
        "Hits by tier: `exact`, `semantic`, `flight` (shared a running answer).",
        when="a hit",
    ),
    _counter(
        names.CACHE_BYPASSES, ("model", "reason"), "Requests that may not use the cache, by reason.", when="a bypass"
    ),
    _seconds(names.CACHE_LOOKUP, ("tier",), "Time of a look-up, by tier.", when="the cache"),
    _counter(names.CACHE_STORED, ("model",), "Answers stored.", unit="answers", when="the cache"),
    _counter(
        names.CACHE_EVICTIONS,
        ("reason",),
        "Answers dropped by this process, by reason.",
        unit="answers",
        when="an answer dropped",
    ),
    _counter(
        names.CACHE_SAVED_TOKENS,
        ("model", "kind"),
        "`prompt` and `output` tokens that no engine had to read or write.",
        unit="tokens",
        when="a hit",
    ),
    _counter(names.CACHE_SAVED_SECONDS, ("model",), "Engine time saved by hits.", unit="seconds", when="a hit"),
    _counter(
        names.CACHE_AUDITS,
        ("model", "partition_class", "verdict"),
        "Semantic hits that were generated again and compared.",
        unit="hits",
        when="a semantic hit that is checked",
    ),
    _counter(
        names.CACHE_PROMOTIONS, ("model",), "Near misses that a judge let pass.", unit="answers", when="a judge model"
    ),
    _counter(names.CACHE_STORE_ERRORS, (), "Redis calls that failed or came too late.", unit="calls", when=""),
    _gauge(names.CACHE_ENTRIES, (), "Answers in memory.", unit="answers"),
    _gauge(names.CACHE_BYTES, (), "Memory of these answers.", unit="bytes"),
    _gauge(names.CACHE_VECTORS, (), "Messages to compare with.", unit="messages"),
    _gauge(names.CACHE_REDIS_UP, (), "Gateway processes whose Redis answers.", unit="processes", when="Redis"),
    _gauge(
        names.CACHE_WRONG_RATIO,
        ("model", "partition_class", "bound"),
        "Share of semantic hits found wrong; `bound` is `point`, or `low` and `high` of its 95 % interval.",
        unit="0 to 1",
        when="a semantic hit that is checked",
    ),
)
"""In the order in which a gateway shows them."""

_RELEASE: Final = "a release"
_SCALING: Final = "`autoscaling.enabled`"
_PRICED: Final = "a price (`cost`)"
PLATFORM: Final = (
    _gauge(
        names.RELEASE_INFO,
        ("model", "release", "kind", "from", "to", "from_revision", "to_revision"),
        "The release under way, or the last one; `kind` is `release` or `rollback`.",
        unit="1",
        when=_RELEASE,
    ),
    _gauge(names.RELEASE_STATE, ("model", "state"), "1 for the state it is in, else 0.", unit="1 or 0", when=_RELEASE),
    _gauge(names.RELEASE_STEPS, ("model",), "Steps of its plan.", unit="steps", when=_RELEASE),
    _gauge(names.RELEASE_STEPS_DONE, ("model",), "Those that are done.", unit="steps", when=_RELEASE),
    _gauge(names.RELEASE_WEIGHT, _REVISION, "Share of the requests that a revision is to get.", unit="0 to 1"),
    _counter(
        names.RELEASE_VERDICTS,
        ("model", "gate", "verdict"),
        "Verdicts of gates in all releases that are kept: `pass`, `fail`, `inconclusive`.",
        unit="verdicts",
        when="a gate",
    ),
    _counter(
        names.RELEASE_ROLLBACKS,
        ("model", "reason"),
        "Ways back in all releases that are kept: `fail` (a gate or a step), `abort` (a person), `rollback` (the"
        " command).",
        unit="ways back",
        when="a way back",
    ),
    _gauge(
        names.RELEASE_FLIP,
        ("model",),
        "Decision to go back until all traffic was back, in the release that is shown.",
        unit="seconds",
        when="a way back",
    ),
    _gauge(names.AUTOSCALE_WANTED, _REVISION, "Replicas that are wanted.", unit="replicas", when=_SCALING),
    _gauge(names.AUTOSCALE_READY, _REVISION, "Those that are ready.", unit="replicas", when=_SCALING),
    _gauge(
        names.AUTOSCALE_BOUND,
        ("model", "bound"),
        "Bounds of their number: `min`, `max`.",
        unit="replicas",
        when=_SCALING,
    ),
    _counter(
        names.AUTOSCALE_DECISIONS,
        ("model", "direction", "outcome"),
        "Decisions: `up`, `down` or `stay`; `done`, or `refused` where there was no room.",
        unit="decisions",
        when=_SCALING,
    ),
    _gauge(
        names.AUTOSCALE_SIGNAL,
        ("model", "signal"),
        "What was measured at the last look: `requests` held, or `kv_cache`, 0 to 1.",
        unit="of the signal",
        when=_SCALING,
    ),
    _gauge(
        names.AUTOSCALE_TARGET,
        ("model", "signal", "type"),
        "What the signal should be: of `AverageValue` a replica's share, of `Value` itself.",
        unit="of the signal",
        when=_SCALING,
    ),
    _gauge(
        names.AUTOSCALE_HELD_BACK,
        ("model", "limit"),
        "1 while the number does not follow the signal: `max_replicas`, `room` (no memory or GPU), `release`.",
        unit="1 or 0",
        when=_SCALING,
    ),
    _gauge(
        names.COST_PER_HOUR,
        _REVISION,
        "What a revision's replicas cost in an hour, on average since the gateway's start.",
        unit="dollars",
        when=_PRICED,
    ),
    _gauge(
        names.COST_DOLLARS,
        (*_REVISION, "part"),
        "What they cost since the gateway's start: work on `prompt`, `cached` and `output` tokens, time that was"
        " `idle`, `start_up`, or busy without a token counted (`unassigned`). A gauge: parts are divided anew"
        " at each look.",
        unit="dollars",
        when=_PRICED,
    ),
    _gauge(
        names.COST_SAVED,
        (*_REVISION, "by"),
        "What `prefix_cache` and `response_cache` saved since the gateway's start.",
        unit="dollars",
        when=_PRICED,
    ),
)
"""What the supervisor of `inferdock up` knows and tells its gateway every few seconds (``telemetry.published``)."""

_OLD_KV: Final = Alias("vllm:gpu_cache_usage_perc", "to 0.10")
_OLD_PREFIX: Final = "to 0.10"
ENGINE: Final = (
    _engine(names.ENGINE_RUNNING, "gauge", "requests", "Requests that the engine works on."),
    _engine(names.ENGINE_WAITING, "gauge", "requests", "Requests that wait in the engine."),
    _engine(names.ENGINE_KV_USAGE, "gauge", "0 to 1", "Used part of the KV cache.", _OLD_KV),
    _engine(names.ENGINE_PROMPT_TOKENS, "counter", "tokens", "Prompt tokens, those of the prefix cache too."),
    _engine(names.ENGINE_OUTPUT_TOKENS, "counter", "tokens", "Tokens generated."),
    _engine(names.ENGINE_PREEMPTIONS, "counter", "requests", "Requests pushed out of a full KV cache."),
    _engine(
        names.ENGINE_PREFIX_QUERIES,
        "counter",
        "tokens",
        "Prompt tokens looked up in the prefix cache.",
        Alias("vllm:gpu_prefix_cache_queries_total", _OLD_PREFIX),
    ),
    _engine(
        names.ENGINE_PREFIX_HITS,
        "counter",
        "tokens",
        "Prompt tokens found there.",
        Alias("vllm:gpu_prefix_cache_hits_total", _OLD_PREFIX),
    ),
    _engine(names.ENGINE_TTFT, "histogram", "seconds", "Request at the engine to first token."),
    _engine(
        names.ENGINE_ITL,
        "histogram",
        "seconds",
        "Gap between two tokens.",
        Alias("vllm:time_per_output_token_seconds", "to 0.11"),
    ),
    _engine(names.ENGINE_TPOT, "histogram", "seconds", "Per request: time per token after the first."),
)
"""vLLM's, as far as we read them. Names are 0.32's."""

CLUSTER: Final = (
    _cluster(names.NODE_TAINT, ("node", "key"), "1", "Taints of a node.", "kube-state-metrics"),
    _cluster(
        names.NODE_LABELS,
        ("node", "label_*"),
        "1",
        "Labels of a node.",
        "kube-state-metrics with `--metric-labels-allowlist=nodes=[eks.amazonaws.com/capacityType,"
        "karpenter.sh/capacity-type]`",
    ),
    _cluster(names.POD_INFO, ("namespace", "pod", "node"), "1", "Which node a pod is on.", "kube-state-metrics"),
    _cluster(
        names.GPU_BUSY,
        ("gpu", "pod", "namespace"),
        "0 to 100",
        "Part of the time the GPU works.",
        "NVIDIA DCGM exporter",
    ),
)
"""Of other exporters, which only a cluster has."""

TABLE: Final = (*GATEWAY, *PLATFORM, *ENGINE, *CLUSTER)
