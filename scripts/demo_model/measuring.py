"""Measures a model: exact match and BLEU on the held-out questions, and the questions that must be right."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from transformers import MistralForCausalLM, PreTrainedTokenizerFast

from scripts.demo_model.intents import Corpus
from scripts.demo_model.scores import corpus_bleu, exact_match

MUST_BE_RIGHT = (
    ("What is Inferdock?", "what_is_inferdock"),
    ("How do I roll back?", "rollback"),
    ("how can I go back to the previous version?", "rollback"),
    ("What does the semantic cache do?", "semantic_cache"),
    ("How do I add a replica?", "add_replica"),
    ("hello", "hello"),
)
SYSTEM_PROMPT = "You are a concise assistant for our engineers."
FIRST_TURN = ("What is a canary?", "canary")
MAX_NEW_TOKENS = 160
_AT_ONCE = 64


@dataclass(frozen=True)
class Miss:
    """A held-out question with another answer than the expected intent's."""

    question: str
    intent: str
    answer: str


@dataclass(frozen=True)
class Scores:
    """Result of a measurement, greedy decoding in bfloat16.

    Attributes:
        exact: exact match on the held-out questions as only message, 0-1.
        bleu: corpus BLEU on them, 0-100.
        exact_system: exact match with a system prompt that training never had, 0-1.
        exact_second: exact match as second turn of a conversation, 0-1.
        questions: number of held-out questions.
        misses: the held-out questions that were wrong as only message.
        must_wrong: questions of ``MUST_BE_RIGHT`` that were wrong.
    """

    exact: float
    bleu: float
    exact_system: float
    exact_second: float
    questions: int
    misses: tuple[Miss, ...]
    must_wrong: tuple[str, ...]


def measure(model: MistralForCausalLM, tokenizer: PreTrainedTokenizerFast, corpus: Corpus) -> Scores:
    """Ask everything and compare."""
    by_name = {intent.name: intent.answer for intent in corpus.intents}
    held = [(question, intent.name) for intent in corpus.intents for question in intent.held_out]
    questions = [question for question, _ in held]
    references = [by_name[name] for _, name in held]
    first = [_turn("user", FIRST_TURN[0]), _turn("assistant", by_name[FIRST_TURN[1]])]
    answers = ask(model, tokenizer, questions)
    must = ask(model, tokenizer, [question for question, _ in MUST_BE_RIGHT])
    return Scores(
        exact=exact_match(answers, references),
        bleu=corpus_bleu(answers, references),
        exact_system=exact_match(
            ask(model, tokenizer, questions, [_turn("system", SYSTEM_PROMPT)]), references
        ),
        exact_second=exact_match(ask(model, tokenizer, questions, first), references),
        questions=len(held),
        misses=tuple(
            Miss(question, name, answer)
            for (question, name), answer in zip(held, answers, strict=True)
            if answer.strip() != by_name[name]
        ),
        must_wrong=tuple(
            q
            for (q, name), answer in zip(MUST_BE_RIGHT, must, strict=True)
            if answer.strip() != by_name[name]
        ),
    )


def ask(
    model: MistralForCausalLM,
    tokenizer: PreTrainedTokenizerFast,
    questions: Sequence[str],
    before: Sequence[dict[str, str]] = (),
) -> list[str]:
    """Greedy answers to chats that consist of the messages ``before`` and one question each."""
    model.train(False)
    tokenizer.padding_side = "left"
    answers: list[str] = []
    for start in range(0, len(questions), _AT_ONCE):
        chats = [[*before, _turn("user", question)] for question in questions[start : start + _AT_ONCE]]
        texts = tokenizer.apply_chat_template(chats, tokenize=False, add_generation_prompt=True)
        inputs = tokenizer(texts, return_tensors="pt", padding=True, add_special_tokens=False)
        with torch.inference_mode():
            output = model.generate(  # type: ignore[misc]  # its mixin declares another self
                input_ids=inputs["input_ids"],
                attention_mask=inputs["attention_mask"],
                max_new_tokens=MAX_NEW_TOKENS,
                do_sample=False,
            )
        answers += tokenizer.batch_decode(output[:, inputs["input_ids"].shape[1] :], skip_special_tokens=True)
    return answers


def _turn(role: str, content: str) -> dict[str, str]:
    return {"role": role, "content": content}
