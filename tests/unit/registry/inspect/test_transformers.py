"""What Transformers itself writes passes inspection, and its own count of parameters is ours.

It comes with the engine. It is run in a process of its own, since it warns about much that is not our business.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from inferdock.registry.inspect.folder import Permissions, inspect_folder
from tests.support.model_folders import tokenizer

SIZES = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "vocab_size": 96,
    "max_position_embeddings": 64,
    "pad_token_id": 0,
}
EXPERTS = {"num_experts": 4, "num_local_experts": 4, "moe_intermediate_size": 16, "shared_expert_intermediate_size": 16}
MODELS = {
    "llama": ("llama", {}),
    "llama-tied": ("llama", {"tie_word_embeddings": True}),
    "llama-head-dim": ("llama", {"head_dim": 16, "attention_bias": True, "mlp_bias": True}),
    "mistral": ("mistral", {}),
    "qwen2": ("qwen2", {}),
    "qwen3": ("qwen3", {}),
    "gemma": ("gemma", {}),
    "gemma2": ("gemma2", {}),
    "gemma3": ("gemma3_text", {}),
    "phi3": ("phi3", {}),
    "mixtral": ("mixtral", {"num_local_experts": 4}),
    "qwen2-moe": ("qwen2_moe", EXPERTS),
    "qwen3-moe": ("qwen3_moe", {**EXPERTS, "mlp_only_layers": [0]}),
    "gpt2": ("gpt2", {"n_embd": 32, "n_layer": 2, "n_head": 4}),
    "opt": ("opt", {"ffn_dim": 48, "word_embed_proj_dim": 16}),
    "bloom": ("bloom", {"n_layer": 2, "n_head": 4}),
    "gpt-oss": ("gpt_oss", {"num_local_experts": 4}),
}
WRITE = """
import json, sys
from pathlib import Path
from transformers import AutoConfig, AutoModelForCausalLM
counts = {}
for name, (kind, sizes) in json.loads(sys.stdin.read()).items():
    model = AutoModelForCausalLM.from_config(AutoConfig.for_model(kind, **sizes))
    model.save_pretrained(Path(sys.argv[1]) / name, max_shard_size="60KB")
    counts[name] = sum(parameter.numel() for parameter in model.parameters())
Path(sys.argv[1], "counts.json").write_text(json.dumps(counts))
"""


@pytest.fixture(scope="module")
def written(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("models")
    wanted = json.dumps({name: (kind, {**SIZES, **sizes}) for name, (kind, sizes) in MODELS.items()})
    environment = {**os.environ, "HF_HUB_OFFLINE": "1"}
    command = [sys.executable, "-W", "ignore", "-c", WRITE, str(folder)]
    done = subprocess.run(command, input=wanted, capture_output=True, text=True, env=environment, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    return folder


@pytest.mark.engine
@pytest.mark.parametrize("name", MODELS)
def test_a_model_that_transformers_wrote_passes(written, name):
    (written / name / "tokenizer.json").write_text(json.dumps(tokenizer(96)))
    facts = inspect_folder(written / name, allowed=Permissions()).facts
    assert facts.parameters == json.loads((written / "counts.json").read_text())[name]
    assert (facts.layers, facts.vocabulary_size, facts.hidden_size) == (3, 96, 32)
