"""Builds the model and trains it from scratch with a fixed seed."""

from __future__ import annotations

import math
import sys
import time
from dataclasses import dataclass

import torch
from torch.nn import functional
from transformers import MistralConfig, MistralForCausalLM, PreTrainedTokenizerFast

from scripts.demo_model.intents import Corpus
from scripts.demo_model.samples import IGNORED, Samples, tokenizer_texts
from scripts.demo_model.tokenizer import MODEL_MAX_LENGTH, train_tokenizer

EMBEDDING_DROPOUT = 0.1
WARM_UP_SHARE = 0.05
# From this share of the steps on, answers are known and most samples only train which answer to give.
SHORT_FROM, SHORT_SHARE = 0.2, 0.8


@dataclass(frozen=True)
class Recipe:
    """How to train.

    Attributes:
        steps: optimiser steps.
        batch: samples per step.
        seed: of weights, samples and tokenizer texts.
        learning_rate: highest one, reached after the warm-up; falls to a hundredth along a cosine.
        threads: of torch; another number gives other rounding and so other weights of like quality.
    """

    steps: int
    batch: int
    seed: int
    threads: int
    learning_rate: float = 2e-3


def new_model(tokenizer: PreTrainedTokenizerFast) -> MistralForCausalLM:
    """A Mistral of about four million parameters."""
    config = MistralConfig(
        vocab_size=len(tokenizer),
        hidden_size=256,
        intermediate_size=704,
        num_hidden_layers=4,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=64,
        max_position_embeddings=MODEL_MAX_LENGTH,
        sliding_window=None,
        tie_word_embeddings=False,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    return MistralForCausalLM(config)  # type: ignore[no-untyped-call]


def train(corpus: Corpus, recipe: Recipe) -> tuple[MistralForCausalLM, PreTrainedTokenizerFast]:
    """Train from scratch and print progress; the model comes back in float32."""
    torch.set_num_threads(recipe.threads)
    torch.manual_seed(recipe.seed)
    tokenizer = train_tokenizer(tokenizer_texts(corpus, seed=recipe.seed))
    model = new_model(tokenizer)
    print(f"{model.num_parameters():,} parameters, {len(tokenizer)} tokens, {recipe.steps} steps", flush=True)
    optimizer = torch.optim.AdamW(
        model.parameters(), lr=recipe.learning_rate, betas=(0.9, 0.98), weight_decay=0.1
    )
    samples = Samples(corpus, tokenizer, seed=recipe.seed)
    batches = samples.batches(recipe.batch)
    progress = Progress(recipe.steps)
    fast_bfloat16 = multiplies_bfloat16()
    model.train()
    for step in range(1, recipe.steps + 1):
        samples.short_share = SHORT_SHARE if step > SHORT_FROM * recipe.steps else 0.0
        for group in optimizer.param_groups:
            group["lr"] = recipe.learning_rate * rate_at(step, recipe.steps)
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=fast_bfloat16):
            loss = loss_of(model, *next(batches))
        optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        progress.say(step, loss)
    return model, tokenizer


def multiplies_bfloat16() -> bool:
    """Whether this processor multiplies bfloat16 itself; then training takes about two thirds of the time."""
    able = torch.cpu.get_capabilities()
    return bool(able.get("avx512_bf16") or able.get("amx_bf16"))


def rate_at(step: int, steps: int) -> float:
    """Share of the highest learning rate at a step: linear warm-up, then a cosine down to 0.01."""
    warm_up = max(1.0, WARM_UP_SHARE * steps)
    if step < warm_up:
        return step / warm_up
    done = (step - warm_up) / max(1.0, steps - warm_up)
    return 0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * done))


def loss_of(model: MistralForCausalLM, ids: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Mean cross-entropy in nats over the labelled tokens; both arguments have shape (samples, length)."""
    embedded = functional.dropout(model.get_input_embeddings()(ids), EMBEDDING_DROPOUT)
    hidden = model.model(inputs_embeds=embedded, use_cache=False).last_hidden_state[:, :-1]
    following = labels[:, 1:]
    learnt = following != IGNORED
    return functional.cross_entropy(model.lm_head(hidden[learnt]), following[learnt])


class Progress:
    """Prints steps, loss and time left: on a terminal one line, elsewhere a plain line every ten seconds."""

    def __init__(self, steps: int) -> None:
        self._steps = steps
        self._terminal = sys.stdout.isatty()
        self._started = self._said = time.monotonic()

    def say(self, step: int, loss: torch.Tensor) -> None:
        """Report a finished step, unless the last report is too fresh."""
        now = time.monotonic()
        if now - self._said < (0.5 if self._terminal else 10.0) and step < self._steps:
            return
        self._said = now
        left = (now - self._started) / step * (self._steps - step)
        line = f"step {step}/{self._steps}  loss {loss.item():.4f}  {left:.0f} s left"
        end = "\r" if self._terminal and step < self._steps else "\n"
        print(f"{line:<60}" if self._terminal else line, end=end, flush=True)
