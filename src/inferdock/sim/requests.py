"""Reads generation requests the way vLLM does, and refuses them with vLLM's error bodies."""

from __future__ import annotations

import json
import math
import random
from dataclasses import dataclass, field
from typing import Any

from inferdock.sim.language import BOS, VOCABULARY_SIZE, encode, render_chat
from inferdock.sim.options import SimOptions
from inferdock.sim.structured import script_of

_MOST_CHOICES = 16_384
"""vLLM's VLLM_MAX_N_SEQUENCES."""


class Refusal(Exception):
    """A request that vLLM would refuse, with its body."""

    def __init__(self, status: int, message: str, kind: str, param: str | None) -> None:
        super().__init__(message)
        self.status = status
        self.body = {"error": {"message": message, "type": kind, "param": param, "code": status}}


@dataclass(slots=True, kw_only=True)
class Generation:
    """One request, read and checked.

    Attributes:
        prompts: token ids, one list per prompt (chat has one).
        chat: chat completion, not completion.
        script: text that the answer must be; None: it is made up.
    """

    chat: bool
    prompts: list[list[int]]
    max_tokens: int
    n: int = 1
    min_tokens: int = 0
    ignore_eos: bool = False
    seed: int = 0
    stop: list[str] = field(default_factory=list)
    keep_stop: bool = False
    stream: bool = False
    include_usage: bool = False
    continuous_usage: bool = False
    token_ids: bool = False
    logprobs: int | None = None
    echo: bool = False
    script: str | None = None


def read_generation(body: bytes, content_type: str, options: SimOptions, *, chat: bool) -> Generation:
    """Decode and check a body.

    Raises:
        Refusal: as vLLM 0.32 would.
    """
    data = read_object(body, content_type)
    model = _typed(data, "model", str, "string")
    prompts = [_chat_prompt(data)] if chat else _prompts(data)
    if model is not None and model != options.model:
        raise Refusal(
            404,
            f"The model `{model}` does not exist. Valid aliases: {options.model}.",
            "NotFoundError",
            "model",
        )
    stream = bool(_typed(data, "stream", bool, "boolean"))
    include_usage, continuous_usage = _stream_options(data, stream=stream)
    temperature = _number(data, "temperature", 1.0)
    if not temperature >= 0:  # NaN too
        raise _bad(f"temperature must be non-negative, got {temperature}.", "temperature", temperature)
    max_tokens = _max_tokens(data, options, max(map(len, prompts)), chat=chat)
    return Generation(
        chat=chat,
        prompts=prompts,
        max_tokens=max_tokens,
        n=_choices(data, greedy=temperature == 0),
        min_tokens=_min_tokens(data, max_tokens),
        ignore_eos=bool(_typed(data, "ignore_eos", bool, "boolean")),
        seed=_seed(data, greedy=temperature == 0),
        stop=_stop(data),
        keep_stop=bool(_typed(data, "include_stop_str_in_output", bool, "boolean")),
        stream=stream,
        include_usage=include_usage,
        continuous_usage=continuous_usage,
        token_ids=bool(_typed(data, "return_token_ids", bool, "boolean")),
        logprobs=_logprobs(data, chat=chat),
        echo=bool(_typed(data, "echo", bool, "boolean")) and not chat,
        script=script_of(data),
    )


def read_object(body: bytes, content_type: str) -> dict[str, Any]:
    """Decode a JSON object.

    Raises:
        Refusal: it is none.
    """
    if content_type.partition(";")[0].strip().lower() != "application/json":
        text = "1 validation error:\n  Unsupported Media Type: Only 'application/json' is allowed"
        raise Refusal(400, text, "Bad Request", None)
    if not body:
        raise _invalid("missing", "body", "Field required")
    try:
        data = json.loads(body)
    except (ValueError, RecursionError):
        raise _invalid("json_invalid", "body.0", "JSON decode error") from None
    if not isinstance(data, dict):
        raise _invalid("model_attributes_type", "body", "Input should be a valid dictionary")
    return data


def _invalid(kind: str, where: str, message: str) -> Refusal:
    """A body that does not have the right types."""
    return Refusal(
        400,
        f"1 validation error:\n  {{'type': '{kind}', 'loc': '{where}', 'msg': '{message}'}}",
        "Bad Request",
        where,
    )


def _bad(message: str, param: str, value: object) -> Refusal:
    """A value of the right type that the engine refuses, naming the field."""
    return Refusal(400, f"{message} (parameter={param}, value={value})", "BadRequestError", param)


def _senseless(message: str) -> Refusal:
    """Sampling parameters that the engine refuses without naming a field."""
    return Refusal(400, message, "BadRequestError", None)


def _typed(data: dict[str, Any], name: str, kind: type, word: str) -> Any:
    """A field's value or None; ``word`` is JSON's name of the type."""
    value = data.get(name)
    if value is not None and (not isinstance(value, kind) or (kind is int and isinstance(value, bool))):
        raise _invalid(f"{kind.__name__}_type", f"body.{name}", f"Input should be a valid {word}")
    return value


def _integer(data: dict[str, Any], name: str, default: int) -> int:
    value = _typed(data, name, int, "integer")
    return default if value is None else int(value)


def _number(data: dict[str, Any], name: str, default: float) -> float:
    value = data.get(name)
    if value is None:
        return default
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise _invalid("float_type", f"body.{name}", "Input should be a valid number")
    return float(value) if abs(value) < 1e300 else math.copysign(math.inf, value)


def _stream_options(data: dict[str, Any], *, stream: bool) -> tuple[bool, bool]:
    """Whether usage is wanted at the end, and whether with every event."""
    wanted = data.get("stream_options")
    if wanted is None:
        return False, False
    if not stream:
        text = "Stream options can only be defined when `stream=True`. (parameter=stream_options)"
        raise Refusal(400, text, "BadRequestError", "stream_options")
    if not isinstance(wanted, dict):
        raise _invalid("model_attributes_type", "body.stream_options", "Input should be a valid dictionary")
    return bool(wanted.get("include_usage")), bool(wanted.get("continuous_usage_stats"))


def _choices(data: dict[str, Any], *, greedy: bool) -> int:
    n = _integer(data, "n", 1)
    if n < 1:
        raise _senseless(f"n must be at least 1, got {n}.")
    if n > 1 and greedy:
        raise _senseless(f"n must be 1 when using greedy sampling, got {n}.")
    if n > _MOST_CHOICES:
        raise _senseless(f"n must be at most {_MOST_CHOICES}, got {n}.")
    return n


def _min_tokens(data: dict[str, Any], max_tokens: int) -> int:
    asked = _integer(data, "min_tokens", 0)
    if not 0 <= asked <= max_tokens:
        raise _senseless(f"min_tokens must be less than or equal to max_tokens={max_tokens}, got {asked}.")
    return asked


def _seed(data: dict[str, Any], *, greedy: bool) -> int:
    """Of the generator: 0 for greedy answers, odd (so never 0) for sampled ones."""
    seed = _typed(data, "seed", int, "integer")
    if greedy:
        return 0
    return 2 * (random.getrandbits(48) if seed is None else int(seed)) + 1


def _stop(data: dict[str, Any]) -> list[str]:
    stop = data.get("stop")
    if stop is None:
        return []
    stops = [stop] if isinstance(stop, str) else stop
    if not isinstance(stops, list) or not all(isinstance(text, str) for text in stops):
        raise _invalid("string_type", "body.stop", "Input should be a valid string")
    if "" in stops:
        raise _senseless("stop cannot contain an empty string.")
    return stops


def _logprobs(data: dict[str, Any], *, chat: bool) -> int | None:
    if chat:
        return _integer(data, "top_logprobs", 0) if _typed(data, "logprobs", bool, "boolean") else None
    value = data.get("logprobs")
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int):
        text = f"`logprobs` must be an integer. (parameter=logprobs, value={value})"
        raise Refusal(400, text, "BadRequestError", "logprobs")
    if value < -1:
        raise _bad("`logprobs` must be a positive value or -1.", "logprobs", value)
    return value


def _max_tokens(data: dict[str, Any], options: SimOptions, prompt: int, *, chat: bool) -> int:
    room = options.max_model_len - prompt
    name = "max_completion_tokens" if data.get("max_completion_tokens") is not None else "max_tokens"
    asked = data.get(name)
    if asked is None:
        asked = options.default_max_tokens if chat else 16
    elif isinstance(asked, bool) or not isinstance(asked, int):
        raise _invalid("int_type", f"body.{name}", "Input should be a valid integer")
    elif asked > options.max_model_len:
        raise _bad(
            f"{name}={asked} cannot be greater than max_model_len={options.max_model_len}. "
            "Please request fewer output tokens.",
            name,
            asked,
        )
    elif asked < 1:
        raise _bad(f"{name} must be at least 1, got {asked}.", name, asked)
    if room < 1:
        raise _bad(
            f"This model's maximum context length is {options.max_model_len} tokens, but the prompt has {prompt}.",
            "input_tokens",
            prompt,
        )
    return min(asked, room)


def _chat_prompt(data: dict[str, Any]) -> list[int]:
    messages = data.get("messages")
    if messages is None:
        raise _invalid("missing", "body.messages", "Field required")
    if not isinstance(messages, list):
        raise _invalid("list_type", "body.messages", "Input should be a valid list")
    if not messages:
        raise _senseless("Cannot apply chat template to an empty conversation. Provide at least one message.")
    turns: list[tuple[str, str]] = []
    for message in messages:
        if not isinstance(message, dict) or not isinstance(message.get("role"), str):
            raise _invalid("missing", "body.messages", "Field required")
        turns.append((message["role"], _content(message.get("content"))))
    return render_chat(turns)


def _content(content: object) -> str:
    if isinstance(content, str):
        return content
    if isinstance(content, list):
        return "".join(str(part.get("text", "")) for part in content if isinstance(part, dict))
    return ""


def _prompts(data: dict[str, Any]) -> list[list[int]]:
    prompt = data.get("prompt")
    if prompt is None or prompt in ([], ""):
        message = "Either prompt or prompt_embeds must be provided and non-empty. (parameter=prompt)"
        raise Refusal(400, message, "BadRequestError", "prompt")
    if isinstance(prompt, str):
        return [[BOS, *encode(prompt)]]
    if isinstance(prompt, list):
        if all(isinstance(text, str) for text in prompt):
            return [[BOS, *encode(text)] for text in prompt]
        if all(_is_integer(token) for token in prompt):
            return [_known_tokens(read_tokens(prompt, "prompt"))]
        if all(isinstance(ids, list) and all(map(_is_integer, ids)) for ids in prompt):
            return [_known_tokens(read_tokens(ids, "prompt")) for ids in prompt]
    raise _invalid("list_type", "body.prompt", "Input should be a valid string or list")


def read_tokens(tokens: object, name: str) -> list[int]:
    """Check a list of token ids in the field ``name``; ids beyond the vocabulary pass.

    Raises:
        Refusal: not a list of integers of at least 0.
    """
    if not isinstance(tokens, list):
        raise _invalid("list_type", f"body.{name}", "Input should be a valid list")
    for place, token in enumerate(tokens):
        if not _is_integer(token):
            raise _invalid("int_type", f"body.{name}.{place}", "Input should be a valid integer")
        if token < 0:
            raise _invalid("greater_than_equal", f"body.{name}.{place}", "Input should be greater than or equal to 0")
    return tokens


def read_text(data: dict[str, Any]) -> list[int]:
    """Token ids of the text or conversation that ``/tokenize`` is given.

    Raises:
        Refusal: neither is there, or it is of a wrong type.
    """
    if data.get("messages") is not None:
        return _chat_prompt(data)
    prompt = _typed(data, "prompt", str, "string")
    if prompt is None:
        raise _invalid("missing", "body.prompt", "Field required")
    return [BOS, *encode(prompt)]


def _known_tokens(tokens: list[int]) -> list[int]:
    if not tokens:
        raise _senseless("The decoder prompt cannot be empty")
    unknown = next((token for token in tokens if token >= VOCABULARY_SIZE), None)
    if unknown is not None:
        raise _senseless(f"Token id {unknown} is out of vocabulary")
    return tokens


def _is_integer(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)
