"""Answers that keep to a JSON schema, as structured output of vLLM does: always the same short one.

Only what the OpenAI client sends is known (``response_format``), and of schemas the part that says what kind of thing
is wanted; a schema of another kind is answered with null.
"""

from __future__ import annotations

import json
from typing import Any, Final

from inferdock.sim.language import EOS, encode

DEEPEST: Final = 20
"""Schemas within schemas that are followed."""
_PLAIN: Final[dict[Any, Any]] = {"string": "text", "integer": 0, "number": 0.5, "boolean": True, "array": []}


class Script:
    """A generator that says what is written, then ends; see `language.Generator`."""

    __slots__ = ("_left",)

    def __init__(self, text: str) -> None:
        self._left = encode(text)[::-1]

    def next(self, *, may_end: bool) -> int:
        """The next token id."""
        return self._left.pop() if self._left else EOS


def script_of(data: dict[str, Any]) -> str | None:
    """What a request wants said word for word; None where it asks for free text."""
    form = data.get("response_format")
    if not isinstance(form, dict):
        return None
    if form.get("type") == "json_object":
        return "{}"
    named = form.get("json_schema")
    if form.get("type") != "json_schema" or not isinstance(named, dict):
        return None
    return json.dumps(example(named.get("schema", {})))


def example(schema: object, depth: int = 0) -> Any:
    """Something that keeps to a schema of the usual kinds."""
    if not isinstance(schema, dict) or depth > DEEPEST:
        return None
    if "const" in schema:
        return schema["const"]
    choices = schema.get("enum")
    if isinstance(choices, list) and choices:
        return choices[0]
    parts = schema.get("properties")
    if isinstance(parts, dict):
        return {str(name): example(part, depth + 1) for name, part in parts.items()}
    kind = schema.get("type")
    return {} if kind == "object" else _PLAIN.get(kind) if isinstance(kind, str) else None
