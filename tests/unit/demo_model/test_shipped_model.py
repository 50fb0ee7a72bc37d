"""The trained model in the repository: its card tells the truth and its chat template takes every role."""

from __future__ import annotations

import hashlib
import json
import re
from pathlib import Path
from typing import Any

import pytest

MODEL = Path(__file__).parents[3] / "models" / "demo"
LARGEST_BYTES = 12_000_000


def render(messages: list[dict[str, Any]], **options: Any) -> str:
    jinja2 = pytest.importorskip("jinja2")
    environment = jinja2.Environment(trim_blocks=True, lstrip_blocks=True)
    template = environment.from_string((MODEL / "chat_template.jinja").read_text(encoding="utf-8"))
    return str(template.render(messages=messages, bos_token="<s>", eos_token="</s>", **options))


def test_the_card_names_every_file_with_its_digest() -> None:
    card = (MODEL / "README.md").read_text(encoding="utf-8")
    told = dict(re.findall(r"^\| `(\S+)` \| \d+ \| `([0-9a-f]{64})` \|$", card, re.MULTILINE))
    files = [path for path in MODEL.iterdir() if path.name != "README.md"]
    assert told == {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def test_the_model_is_small_and_holds_no_pickle() -> None:
    files = list(MODEL.iterdir())
    assert sum(path.stat().st_size for path in files) <= LARGEST_BYTES
    assert {path.suffix for path in files} <= {".json", ".jinja", ".md", ".safetensors"}


def test_generation_stops_at_the_end_token() -> None:
    settings = json.loads((MODEL / "generation_config.json").read_text())
    tokens = json.loads((MODEL / "tokenizer.json").read_text())["added_tokens"]
    assert [token["content"] for token in tokens if token["id"] == settings["eos_token_id"]] == ["</s>"]


def test_a_chat_ends_with_the_start_of_an_answer() -> None:
    chat = [{"role": "system", "content": " Be brief. "}, {"role": "user", "content": "Hi"}]
    assert render(chat, add_generation_prompt=True) == "<s><|system|>Be brief.</s><|user|>Hi</s><|assistant|>"


def test_content_may_be_a_list_of_parts() -> None:
    chat = [{"role": "user", "content": [{"type": "text", "text": "How "}, {"type": "text", "text": "now?"}]}]
    assert render(chat) == "<s><|user|>How now?</s>"


@pytest.mark.parametrize(
    "message",
    [
        {"role": "assistant", "content": None, "tool_calls": [{"function": {"name": "f", "arguments": {}}}]},
        {"role": "tool", "content": "42", "tool_call_id": "1"},
        {"role": "developer", "content": "Be brief."},
        {"role": "user", "content": ""},
    ],
    ids=["tool call", "tool result", "developer", "empty"],
)
def test_every_kind_of_message_is_rendered(message: dict[str, Any]) -> None:
    assert render([message]).endswith("</s>")
