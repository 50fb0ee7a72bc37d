"""Every metric name, ours and the engines', in one table: nothing else in the code spells a metric.

Dashboards, rules and docs are checked against this module by tests.
"""

from __future__ import annotations

from typing import Final

# -- Ours, exported by the gateway ---------------------------------------------------------------------------
REQUESTS: Final = "llm_gateway_requests_total"
IN_FLIGHT: Final = "llm_gateway_requests_in_flight"
ATTEMPTS: Final = "llm_gateway_attempts_total"
TTFT: Final = "llm_gateway_time_to_first_token_seconds"
TPOT: Final = "llm_gateway_time_per_output_token_seconds"
ITL: Final = "llm_gateway_inter_token_latency_seconds"
RESUMES: Final = "llm_gateway_stream_resumes_total"
RETRIES_REFUSED: Final = "llm_gateway_retries_refused_total"
TURNED_AWAY: Final = "llm_gateway_requests_turned_away_total"
WAITING: Final = "llm_gateway_queue_waiting"
DURATION: Final = "llm_gateway_request_duration_seconds"
PROMPT_TOKENS: Final = "llm_gateway_prompt_tokens_total"
OUTPUT_TOKENS: Final = "llm_gateway_output_tokens_total"
CANCELLED: Final = "llm_gateway_requests_cancelled_total"
CONNECTIONS: Final = "llm_gateway_client_connections"
ENDPOINT_READY: Final = "llm_gateway_endpoint_ready"
ENDPOINT_IN_FLIGHT: Final = "llm_gateway_endpoint_in_flight"
DRAINING: Final = "llm_gateway_draining"
WORKERS: Final = "llm_gateway_workers"
WORKER_DEATHS: Final = "llm_gateway_worker_deaths_total"
CONNECTIONS_LOST: Final = "llm_gateway_connections_lost_total"
REQUESTS_LOST: Final = "llm_gateway_requests_lost_total"

# -- The response cache --------------------------------------------------------------------------------------
CACHE_REQUESTS: Final = "llm_cache_requests_total"
CACHE_HITS: Final = "llm_cache_hits_total"
CACHE_BYPASSES: Final = "llm_cache_bypasses_total"
CACHE_LOOKUP: Final = "llm_cache_lookup_seconds"
CACHE_STORED: Final = "llm_cache_stored_total"
CACHE_EVICTIONS: Final = "llm_cache_evictions_total"
CACHE_SAVED_TOKENS: Final = "llm_cache_saved_tokens_total"
CACHE_SAVED_SECONDS: Final = "llm_cache_saved_seconds_total"
CACHE_PROMOTIONS: Final = "llm_cache_promotions_total"
CACHE_AUDITS: Final = "llm_cache_audited_hits_total"
CACHE_WRONG_RATIO: Final = "llm_cache_wrong_hit_ratio"
CACHE_STORE_ERRORS: Final = "llm_cache_store_errors_total"
CACHE_ENTRIES: Final = "llm_cache_entries"
CACHE_BYTES: Final = "llm_cache_bytes"
CACHE_VECTORS: Final = "llm_cache_vectors"
CACHE_REDIS_UP: Final = "llm_cache_redis_up"

# -- The engine's (vLLM 0.32) --------------------------------------------------------------------------------
ENGINE_RUNNING: Final = "vllm:num_requests_running"
ENGINE_WAITING: Final = "vllm:num_requests_waiting"
ENGINE_KV_USAGE: Final = "vllm:kv_cache_usage_perc"
ENGINE_PROMPT_TOKENS: Final = "vllm:prompt_tokens_total"
ENGINE_OUTPUT_TOKENS: Final = "vllm:generation_tokens_total"
ENGINE_PREFIX_QUERIES: Final = "vllm:prefix_cache_queries_total"
ENGINE_PREFIX_HITS: Final = "vllm:prefix_cache_hits_total"
ENGINE_TTFT: Final = "vllm:time_to_first_token_seconds"
ENGINE_ITL: Final = "vllm:inter_token_latency_seconds"
ENGINE_TPOT: Final = "vllm:request_time_per_output_token_seconds"
