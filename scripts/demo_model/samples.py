"""Turns the corpus into training samples: conversations and plain text as token ids with labels."""

from __future__ import annotations

import random
from collections.abc import Iterator

import torch
from transformers import PreTrainedTokenizerFast

from scripts.demo_model.intents import OFF_TOPIC, Corpus
from scripts.demo_model.paraphrases import every_question, held_out_skeletons, random_question, variant
from scripts.demo_model.tokenizer import BOS, EOS, role_token

IGNORED = -100
# (token ids, labels), equally long; a label is IGNORED where nothing is to be learnt.
Sample = tuple[list[int], list[int]]
OFF_TOPIC_WEIGHT = 6.0
# The first tokens of an answer decide which answer it is; the rest is known by heart soon.
DECIDING_TOKENS = 14


class Samples:
    """An endless source of batches, the same for the same seed.

    Attributes:
        short_share: share of samples whose last answer is cut after its deciding tokens, 0-1.
    """

    def __init__(self, corpus: Corpus, tokenizer: PreTrainedTokenizerFast, *, seed: int) -> None:
        self.short_share = 0.0
        self._corpus = corpus
        self._rng = random.Random(seed)
        self._forbidden = held_out_skeletons(corpus.intents)
        self._weights = [OFF_TOPIC_WEIGHT if intent.name == OFF_TOPIC else 1.0 for intent in corpus.intents]
        self._tokenizer = tokenizer
        self._ids = tokenizer.get_vocab()
        self._bos, self._eos = self._ids[BOS], self._ids[EOS]

    def batches(self, size: int, *, pool: int = 8) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        """Yield (ids, labels), each of shape (size, longest); samples of like length share a batch."""
        while True:
            samples = sorted((self._sample() for _ in range(size * pool)), key=lambda sample: len(sample[0]))
            groups = [samples[start : start + size] for start in range(0, len(samples), size)]
            self._rng.shuffle(groups)
            yield from (padded(group, pad=self._eos) for group in groups)

    def _sample(self) -> Sample:
        if self._rng.random() < 0.06:
            return self._plain_text()
        ids, labels = [self._bos], [IGNORED]
        if self._rng.random() < 0.3:
            self._add(ids, labels, "system", self._system_prompt())
        for _ in range(self._rng.choice((1, 1, 1, 2))):
            intent = self._rng.choices(self._corpus.intents, self._weights)[0]
            question = random_question(self._corpus, intent, self._rng)
            self._add(ids, labels, "user", variant(question, self._rng, self._forbidden))
            before_answer = len(ids)
            self._add(ids, labels, "assistant", intent.answer)
        if self._rng.random() < self.short_share:
            end = before_answer + 1 + DECIDING_TOKENS
            ids, labels = ids[:end], labels[:end]
        return ids, labels

    def _plain_text(self) -> Sample:
        text = self._rng.choice(self._corpus.completions)
        if self._rng.random() < 0.3:
            text = self._rng.choice(self._corpus.intents).answer
        ids = [self._bos, *self._encode(text), self._eos]
        return ids, ids

    def _system_prompt(self) -> str:
        return " ".join(self._rng.sample(self._corpus.system_prompts, self._rng.choice((1, 1, 2))))

    def _add(self, ids: list[int], labels: list[int], role: str, content: str) -> None:
        text = [*self._encode(content), self._eos]
        ids += [self._ids[role_token(role)], *text]
        labels += [IGNORED, *(text if role == "assistant" else [IGNORED] * len(text))]

    def _encode(self, text: str) -> list[int]:
        ids: list[int] = self._tokenizer.encode(text, add_special_tokens=False)
        return ids


def padded(samples: list[Sample], *, pad: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Right-padded (ids, labels); no mask is needed, for attention is causal and padding has no label."""
    longest = max(len(ids) for ids, _ in samples)
    ids = torch.tensor([ids + [pad] * (longest - len(ids)) for ids, _ in samples])
    labels = torch.tensor([labels + [IGNORED] * (longest - len(labels)) for _, labels in samples])
    return ids, labels


def tokenizer_texts(corpus: Corpus, *, seed: int) -> list[str]:
    """What the vocabulary is learnt from: answers and plain text, questions, and variants of questions."""
    rng = random.Random(seed)
    forbidden = held_out_skeletons(corpus.intents)
    questions = [question for name, question in every_question(corpus) if name != OFF_TOPIC]
    questions = rng.sample(questions, min(6000, len(questions)))
    off_topic = [q for intent in corpus.intents if intent.name == OFF_TOPIC for q in intent.questions]
    answers = [intent.answer for intent in corpus.intents]
    texts = [*answers, *corpus.completions, *corpus.system_prompts] * 4
    return [*texts, *off_topic, *corpus.off_topic_words, *(variant(q, rng, forbidden) for q in questions)]
