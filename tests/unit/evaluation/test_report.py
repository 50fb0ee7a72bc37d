"""The report: what is kept as evidence, and a page that a model's words cannot break."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from html.parser import HTMLParser

import pytest

from inferdock.evaluation.answers import Answer
from inferdock.evaluation.bootstrap import Drawing
from inferdock.evaluation.html import page
from inferdock.evaluation.limits import rules
from inferdock.evaluation.report import (
    EXAMPLES,
    SHOWN,
    Report,
    changed_words,
    differs,
    examples,
    side,
    spell,
    spell_sizes,
)
from inferdock.evaluation.texts import Texts
from inferdock.evaluation.verdict import judge, measure, overall
from tests.support.evaluation_values import RIGHT, outcome, task

TEXTS = Texts()
DRAWING = Drawing(resamples=200)
EVIL = '</style><script>alert(1)</script><img src="http://evil/x" onerror=a>&\x00\ud800'


def report(outcomes) -> Report:
    measures = measure(outcomes, (), TEXTS, DRAWING)
    findings = judge(measures, rules([]), ())
    sides = {
        name: side(outcomes, champion=name == "champion", urls=("http://h/v1",), model=EVIL[:40])
        for name in ("champion", "candidate")
    }
    return Report(
        verdict=overall(findings),
        **sides,
        tasks_name="made-up.jsonl",
        tasks_digest="0" * 64,
        tasks=len(outcomes),
        compared=len(outcomes),
        changed=sum(map(differs, outcomes)),
        measures=tuple(measures.values()),
        findings=tuple(findings),
        examples=examples(outcomes, TEXTS),
        notes=(EVIL,),
        drawing=DRAWING,
        seconds=1.5,
    )


class Seen(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.tags: set[str] = set()
        self.addresses: list[str] = []

    def handle_starttag(self, tag, attrs):
        self.tags.add(tag)
        self.addresses += [value for name, value in attrs if name in ("src", "href") or name.startswith("on")]


def test_what_models_and_files_say_stays_text_on_the_page():
    evil = task("evil", group="g", reference=EVIL, messages=None, prompt=EVIL)
    text = page(report([outcome(EVIL, EVIL + " more", task=evil), outcome(after=EVIL, candidate=Answer(error=EVIL))]))
    seen = Seen()
    seen.feed(text)
    assert not seen.tags & {"script", "img", "link", "iframe", "object"}
    assert seen.addresses == []
    assert "alert(1)" in text


def test_the_page_asks_for_nothing_and_knows_dark_screens():
    text = page(report([outcome()] * 40))
    assert "default-src 'none'" in text
    assert "prefers-color-scheme: dark" in text
    assert "all answers are equal" in text


def test_the_document_is_plain_json_with_verdict_evidence_and_method():
    lost = [outcome(RIGHT, "no" if i < 20 else RIGHT, name=str(i)) for i in range(40)]
    found = json.loads(json.dumps(report(lost).document(), allow_nan=False))
    assert (found["schema"], found["verdict"], found["changed"]) == ("inferdock.evaluation/1", "fail", 20)
    exact = next(limit for limit in found["limits"] if limit["metric"] == "exact")
    assert (exact["verdict"], exact["bound"], exact["measured"]["value"]) == ("fail", -0.05, -0.5)
    assert found["method"] == {"name": "paired bootstrap, BCa", "level": 0.95, "resamples": 200, "seed": 1}
    assert found["examples"][0]["lost"] == ["exact"]


def test_sizes_are_sentences_and_what_is_not_known_is_not_said():
    found = report([outcome(name="one")])
    assert spell_sizes(found) == []
    sized = replace(
        found,
        champion=replace(found.champion, weight_bytes=8_004_184, kv_cache_tokens=1000),
        candidate=replace(found.candidate, weight_bytes=3_705_296, kv_cache_tokens=1250),
    )
    assert spell_sizes(sized) == [
        "Weights: 8,004,184 bytes, the candidate's 3,705,296 (-53.7%).",
        "Room in the KV cache: 1,000 tokens, the candidate's 1,250 (+25.0%).",
    ]
    assert "3,705,296 (-53.7%)" in page(sized)
    assert sized.document()["candidate"]["weight_bytes"] == 3_705_296


def test_infinities_are_null_in_the_document():
    found = report([outcome("no", RIGHT, name=str(i)) for i in range(40)]).document()
    exact = next(m for m in found["measures"] if m["metric"] == "exact")
    assert exact["relative"]["value"] is None
    json.dumps(found, allow_nan=False)


def test_examples_are_few_short_and_begin_with_what_was_lost():
    long = "word " * 5_000
    alike = [outcome(f"{RIGHT} {i}", f"{RIGHT} {i + 1}", name=f"alike{i}") for i in range(30)]
    found = examples([*alike, outcome(RIGHT, long, name="lost")], TEXTS)
    assert (len(found), found[0].id, found[0].lost) == (EXAMPLES, "lost", ("exact",))
    assert max(len(example.candidate) for example in found) <= SHOWN


def test_a_task_with_one_answer_is_no_example():
    assert examples([outcome(candidate=Answer(error="HTTP 500"))], TEXTS) == ()


def test_pieces_put_together_are_the_texts():
    before, after = changed_words("the red house stands", "the green house  stands still")
    assert " ".join(text for text, _ in before) == "the red house stands"
    assert " ".join(text for text, _ in after) == "the green house  stands still"
    assert [text for text, only in before if only] == ["red"]


@pytest.mark.parametrize(
    ("value", "unit", "change", "text"),
    [
        (0.9587, "share", False, "95.9 %"),
        (-0.02, "share", True, "-2.0 %"),
        (0.004, "points", True, "0.0"),
        (-0.00001, "share", True, "0.0 %"),
        (41.26, "points", False, "41.3"),
        (0.01234, "nats", False, "0.0123"),
        (math.inf, "share", True, "–"),
    ],
)
def test_numbers_are_spelt_for_people(value, unit, change, text):
    assert spell(value, unit, change=change) == text
