"""How one simulated replica behaves."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

MOST_WEIGHTS: Final = 9999


@dataclass(frozen=True, slots=True, kw_only=True)
class SimOptions:
    """Options of one replica; times in seconds, sizes in tokens.

    Attributes:
        model: name that clients ask for.
        host, port: where it listens; port 0 takes a free one.
        ttft_s: request to first token on an idle replica.
        itl_s: between successive tokens of one request.
        max_num_seqs: requests that run at once; more wait.
        kv_cache_tokens: tokens that the KV cache holds.
        max_model_len: longest prompt plus answer.
        startup_s: until the replica listens.
        shutdown_timeout_s: how long open requests may go on after SIGTERM.
        default_max_tokens: answer length limit when the request names none.
        weights: which made-up weights, 0 to ``MOST_WEIGHTS``; others answer differently.
    """

    model: str = "sim"
    host: str = "127.0.0.1"
    port: int = 0
    ttft_s: float = 0.05
    itl_s: float = 0.01
    max_num_seqs: int = 256
    kv_cache_tokens: int = 100_000
    max_model_len: int = 4096
    startup_s: float = 0.0
    shutdown_timeout_s: float = 0.0
    default_max_tokens: int = 256
    weights: int = 0
