"""Simulated replicas give the JSON that they are asked for."""

from __future__ import annotations

import json
from typing import Any

import pytest
from aiohttp import ClientSession

from inferdock.sim.options import SimOptions
from inferdock.sim.structured import example
from inferdock.sim.testing import running_sim

CHAT = {"messages": [{"role": "user", "content": "hello"}], "max_tokens": 60, "temperature": 0}
OBJECT = {"type": "object", "properties": {"a": {"type": "integer"}, "b": {"enum": ["x", "y"]}}, "required": ["a"]}


def form(schema: object) -> dict[str, Any]:
    return {"type": "json_schema", "json_schema": {"name": "answer", "schema": schema}}


@pytest.mark.parametrize(
    ("wanted", "answer"),
    [
        (form({"type": "string", "enum": ["ready", "not ready"]}), "ready"),
        (form(OBJECT), {"a": 0, "b": "x"}),
        ({"type": "json_object"}, {}),
    ],
    ids=["choice", "object", "any object"],
)
async def test_an_answer_is_the_json_that_was_asked_for(wanted: dict[str, Any], answer: object) -> None:
    async with running_sim(SimOptions(ttft_s=0, itl_s=0)) as replica, ClientSession() as http:
        body = {**CHAT, "response_format": wanted}
        async with http.post(f"{replica.url}/v1/chat/completions", json=body) as response:
            choice = (await response.json())["choices"][0]
    assert (json.loads(choice["message"]["content"]), choice["finish_reason"]) == (answer, "stop")


@pytest.mark.parametrize("wanted", [None, {"type": "text"}, "json", {"type": "json_schema"}, []], ids=repr)
async def test_other_forms_are_free_text(wanted: object) -> None:
    async with running_sim(SimOptions(ttft_s=0, itl_s=0)) as replica, ClientSession() as http:
        body = {**CHAT, "response_format": wanted}
        async with http.post(f"{replica.url}/v1/chat/completions", json=body) as response:
            text = (await response.json())["choices"][0]["message"]["content"]
    assert text.strip()[0].isalpha()


@pytest.mark.parametrize(
    "schema",
    [None, [], 3, {"type": ["string"]}, {"enum": []}, {"properties": []}, {"type": "unheard of"}],
    ids=repr,
)
def test_what_is_no_schema_that_we_know_is_null(schema: object) -> None:
    assert example(schema) is None


def test_a_schema_has_a_bottom() -> None:
    deep: dict[str, Any] = {}
    for _ in range(500):
        deep = {"properties": {"x": deep}}
    assert len(json.dumps(example(deep))) < 500
