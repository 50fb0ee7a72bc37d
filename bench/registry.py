"""What push and pull cost beside ``sha256sum`` and ``cp`` of the same files, in turns, in one run.

Makes a folder of sharded safetensors (4 GB unless told), and in each round measures: hashing and copying with the
standard tools, a push into an empty store, a push again, a pull into an empty cache, and a verification. Reports
medians of the ratios within a round, and the largest memory of each process. Run by ``make bench-registry``; writes
``bench/results/registry.json``.

Before each command a copy of the folder is made and removed: where memory comes from a hypervisor, pages that were not
used lately cost several times as much as the copy itself, and whoever comes second would win. ``sha256sum`` hashes
without the processor's instructions for it on many systems, so ``openssl dgst`` stands beside it.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import statistics
import struct
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from inferdock.bench.report import machine, write_json

INFERDOCK: Final = (sys.executable, "-m", "inferdock.cli.main")
HIDDEN: Final = 4096
VOCABULARY: Final = 32_768
FEED_FORWARD: Final = 11_008
BLOCK: Final = 16 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class Took:
    """Seconds by the clock, seconds of processor, and the largest resident memory in MB, of one command."""

    seconds: float
    processor: float
    memory_mb: float


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--gigabytes", type=float, default=4.0)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--folder", type=Path, help="where to work; default: a temporary folder")
    parser.add_argument("--out", type=Path, default=Path(__file__).with_name("results") / "registry.json")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=args.folder, prefix="inferdock-bench-") as name:
        work = Path(name)
        model = work / "model"
        write_model(model, int(args.gigabytes * 1e9))
        size = sum(path.stat().st_size for path in model.iterdir())
        rounds = [one_round(model, work, number) for number in range(args.rounds)]
    ratios = {key: statistics.median(ratio(found)[key] for found in rounds) for key in ratio(rounds[0])}
    configuration = {"gigabytes": size / 1e9, "rounds": args.rounds, "threads": 8, "store": "directory"}
    document = {
        "configuration": configuration,
        "machine": machine(),
        "rounds": [{key: vars_of(took) for key, took in found.items()} for found in rounds],
        "ratios_median": ratios,
        "memory_mb_max": {key: max(found[key].memory_mb for found in rounds) for key in rounds[0]},
    }
    write_json(args.out, document)
    print(json.dumps({key: document[key] for key in ("configuration", "ratios_median", "memory_mb_max")}, indent=1))


def vars_of(took: Took) -> dict[str, float]:
    """As JSON shows it."""
    return {"seconds": took.seconds, "processor_s": took.processor, "memory_mb": took.memory_mb}


def ratio(found: dict[str, Took]) -> dict[str, float]:
    """What the issue asks for, of one round."""
    hashing, copying = found["sha256sum"].seconds, found["cp"].seconds
    durable, quick = found["cp and sync"].seconds, found["openssl dgst"].seconds
    return {
        "push / (sha256sum + cp)": found["push"].seconds / (hashing + copying),
        "push / (sha256sum + cp + sync)": found["push"].seconds / (hashing + durable),
        "push / (openssl dgst + cp + sync)": found["push"].seconds / (quick + durable),
        "push again / sha256sum": found["push again"].seconds / hashing,
        "push again / openssl dgst": found["push again"].seconds / quick,
        "pull / (sha256sum + cp)": found["pull"].seconds / (hashing + copying),
        "pull / (openssl dgst + cp)": found["pull"].seconds / (quick + copying),
        "verify / sha256sum": found["verify"].seconds / hashing,
    }


def one_round(model: Path, work: Path, number: int) -> dict[str, Took]:
    """Everything once, each into empty folders, with nothing left to write when it begins."""
    store, cache, copy = work / "store", work / "cache", work / "copy"
    environment = {**os.environ, "INFERDOCK_REGISTRY__URL": str(store), "INFERDOCK_REGISTRY__CACHE_DIR": str(cache)}
    files = sorted(str(path) for path in model.iterdir())
    push = (*INFERDOCK, "model", "push", str(model), "--name", "bench", "--version", "1.0.0")
    commands: dict[str, Sequence[str]] = {
        "sha256sum": ("sha256sum", *files),
        "openssl dgst": ("openssl", "dgst", "-sha256", *files),
        "cp": ("cp", "-r", str(model), str(copy)),
        "cp and sync": ("sh", "-c", 'cp -r "$0" "$1" && sync -f "$1"', str(model), str(copy)),
        "push": push,
        "push again": push,
        "pull": (*INFERDOCK, "model", "pull", "bench@1.0.0"),
        "verify": (*INFERDOCK, "model", "verify", "bench@1.0.0"),
    }
    found = {}
    for name, command in commands.items():
        shutil.rmtree(copy, ignore_errors=True)
        shutil.copytree(model, copy)
        shutil.rmtree(copy)
        os.sync()
        found[name] = measure(command, environment)
        took = found[name]
        print(
            f"round {number + 1}: {name:<12} {took.seconds:6.2f} s, {took.memory_mb:5.0f} MB",
            file=sys.stderr,
            flush=True,
        )
    for folder in (store, cache, copy):
        shutil.rmtree(folder, ignore_errors=True)
    return found


def measure(command: Sequence[str], environment: dict[str, str]) -> Took:
    """Run a command that must succeed."""
    began = time.perf_counter()
    with subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE) as process:
        assert process.stderr is not None
        peak = _Peak(process.pid)
        said = process.stderr.read()
        peak.join()
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        sys.exit(f"{' '.join(command)} failed:\n{said.decode()}")
    return Took(time.perf_counter() - began, usage.ru_utime + usage.ru_stime, peak.megabytes)


class _Peak(threading.Thread):
    """Looks at a process's largest memory until it ends; `wait4` would count that of the parent it came from."""

    def __init__(self, pid: int) -> None:
        super().__init__(daemon=True)
        self.megabytes = 0.0
        self._status = Path(f"/proc/{pid}/status")
        self.start()

    def run(self) -> None:
        while True:
            lines = dict(line.split(":", 1) for line in self._status.read_text().splitlines())
            if "VmHWM" not in lines:  # it has ended, and waits to be collected
                return
            self.megabytes = int(lines["VmHWM"].split()[0]) / 1024
            time.sleep(0.02)


def write_model(folder: Path, total: int) -> None:
    """A Llama of about ``total`` bytes in shards of at most eight layers, with random weights."""
    folder.mkdir()
    layer = (4 * HIDDEN * HIDDEN + 3 * HIDDEN * FEED_FORWARD + 2 * HIDDEN) * 2
    layers = max(1, round((total - 2 * 2 * VOCABULARY * HIDDEN) / layer))
    shapes = {"model.embed_tokens.weight": (VOCABULARY, HIDDEN), "lm_head.weight": (VOCABULARY, HIDDEN)}
    shapes["model.norm.weight"] = (HIDDEN,)
    groups: list[dict[str, tuple[int, ...]]] = [shapes]
    for number in range(layers):
        if number % 2 == 0:
            groups.append({})
        groups[-1] |= layer_shapes(f"model.layers.{number}.")
    index: dict[str, str] = {}
    for number, group in enumerate(groups, start=1):
        name = f"model-{number:05d}-of-{len(groups):05d}.safetensors"
        write_shard(folder / name, group, seed=number)
        index |= dict.fromkeys(group, name)
    weights = {"metadata": {}, "weight_map": index}
    (folder / "model.safetensors.index.json").write_text(json.dumps(weights))
    config = {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "hidden_size": HIDDEN,
        "intermediate_size": FEED_FORWARD,
        "num_hidden_layers": layers,
        "num_attention_heads": 32,
        "num_key_value_heads": 32,
        "vocab_size": VOCABULARY,
        "max_position_embeddings": 4096,
        "tie_word_embeddings": False,
        "torch_dtype": "bfloat16",
    }
    (folder / "config.json").write_text(json.dumps(config))
    tokenizer = {"version": "1.0", "model": {"type": "BPE", "vocab": {"a": 0, "b": 1}, "merges": []}}
    (folder / "tokenizer.json").write_text(json.dumps(tokenizer))


def layer_shapes(prefix: str) -> dict[str, tuple[int, ...]]:
    """Tensors of one block."""
    square = {f"{prefix}self_attn.{part}_proj.weight": (HIDDEN, HIDDEN) for part in "qkvo"}
    wide = {f"{prefix}mlp.{part}_proj.weight": (FEED_FORWARD, HIDDEN) for part in ("gate", "up")}
    norms = {f"{prefix}{part}_layernorm.weight": (HIDDEN,) for part in ("input", "post_attention")}
    return {**square, **wide, f"{prefix}mlp.down_proj.weight": (HIDDEN, FEED_FORWARD), **norms}


def write_shard(path: Path, shapes: dict[str, tuple[int, ...]], *, seed: int) -> None:
    """One file of bfloat16 tensors; its bytes are random, and other ones in each shard."""
    header, end = {}, 0
    for name, shape in shapes.items():
        begin, end = end, end + 2 * shape[0] * (shape[1] if len(shape) > 1 else 1)
        header[name] = {"dtype": "BF16", "shape": list(shape), "data_offsets": [begin, end]}
    text = json.dumps(header).encode()
    noise = random.Random(seed).randbytes(BLOCK)
    with path.open("wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        for at in range(0, end, BLOCK):
            # The block's number within it: no two blocks are the same, and making them costs no more than writing.
            file.write((struct.pack("<Q", at) + noise)[: min(BLOCK, end - at)])


if __name__ == "__main__":
    main()
