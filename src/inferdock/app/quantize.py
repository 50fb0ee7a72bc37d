"""Quantises a model of a folder or the registry, and pushes the result with where it came from.

All that can be refused is refused before the model is loaded: the version, the source, the calibration file, memory and
disk. The result is made in a temporary folder beside the cache, and becomes a version by the same push as any other:
nothing is visible before all of it is there.
"""

from __future__ import annotations

import re
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from inferdock.app.models import find_model
from inferdock.app.registry import open_cache, open_registry
from inferdock.config.extras import load_extra
from inferdock.config.settings import ModelSettings, RegistrySettings, Settings
from inferdock.domain.errors import ConflictError, ModelError, ResourceError
from inferdock.quantize.calibration import Calibration, read_calibration
from inferdock.quantize.recipe import Recipe
from inferdock.quantize.source import LINEAR, check_memory, memory_needed, read_source
from inferdock.registry.disk import on_disk
from inferdock.registry.inspect.safetensors import read_header
from inferdock.registry.manifest import MadeFrom
from inferdock.registry.names import Reference
from inferdock.registry.progress import Progress
from inferdock.registry.push import Pushed, Request, push
from inferdock.registry.registry import Registry
from inferdock.supervisor.model_folder import DEMO, Model
from inferdock.supervisor.preflight import available_memory

BLOCKS: Final = "inferdock.quantize.blocks"
EXPORT: Final = "inferdock.quantize.export"
"""Loaded by name: they need torch, transformers and compressed-tensors, which come with the engine."""
PACKED: Final = re.compile(LINEAR.pattern.removesuffix(r"\.weight") + r"\.weight_(?:packed|scale|zero_point|shape)")
"""Parts of a quantised layer."""
_SENTENCE: Final = "Quantising needs {package}, which comes with the engine."


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """What is to be made.

    Attributes:
        source: a folder, ``demo``, or a version of the registry.
        name, version: of the result; the version is written with three numbers.
        recipe: how.
        calibration: file of texts.
        reason: why, for the history.
    """

    source: str
    name: str
    version: str
    recipe: Recipe
    calibration: Path
    reason: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sizes:
    """Bytes before and after.

    Attributes:
        linear: weights of the layers that were quantised, with scales and zero points.
        weights: all weight files.
        folder: all files.
    """

    linear: int
    weights: int
    folder: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Quantisation:
    """What was made.

    Attributes:
        pushed: the version.
        made_from: as it stands in the manifest.
        before, after: bytes.
        blocks: of each block its error, and that of rounding alone, as parts of the answers' square.
    """

    pushed: Pushed
    made_from: MadeFrom
    before: Sizes
    after: Sizes
    blocks: tuple[tuple[float, float], ...]


def quantise(
    settings: RegistrySettings,
    environment: Mapping[str, str],
    wanted: Wanted,
    progress: Progress,
    said: Callable[[str], None],
    *,
    available: Callable[[], int | None] = available_memory,
) -> Quantisation:
    """Do it.

    Args:
        settings: the registry.
        environment: variables.
        wanted: what.
        progress: of the bytes that are pulled, hashed and sent.
        said: told in a line how far the calculation is.
        available: bytes of memory that are free, None where nobody knows.

    Raises:
        ConflictError: the version is taken.
        ModelError: the source cannot be quantised so.
        ConfigError: the calibration file is wrong, or a package is missing.
        ResourceError: memory or disk is short.
        InferdockError: the source cannot be found, or the registry be reached.
    """
    registry = open_registry(settings, environment)
    refuse_taken(registry, wanted.name, wanted.version)
    calibration = read_calibration(wanted.calibration)
    parent = _find(settings, environment, wanted.source, progress)
    known = registry.version(Reference.parse(parent.reference)).manifest.content if parent.reference else None
    source = read_source(_folder_of(parent), wanted.recipe, known)
    check_memory(memory_needed(source, wanted.recipe), available())
    blocks, export = (load_extra(name, extra="vllm-cpu", sentence=_SENTENCE) for name in (BLOCKS, EXPORT))
    samples = calibration.choose(wanted.recipe.samples, wanted.recipe.seed)
    with on_disk(cache := open_cache(settings, environment).root), _beside(cache, source.folder_bytes) as folder:
        result = blocks.run(
            source.folder, samples, wanted.recipe, lambda done: said(_line(done)), name=calibration.name
        )
        export.write(source, result, wanted.recipe, folder)
        after = measure(folder)
        made_from = _made_from(parent, wanted, calibration, len(samples), result.tokens, export.library())
        pushed = push(registry, _request(wanted, folder, made_from), progress)
    return Quantisation(
        pushed=pushed,
        made_from=made_from,
        before=Sizes(linear=source.linear_bytes, weights=source.facts.weight_bytes, folder=source.folder_bytes),
        after=after,
        blocks=tuple((block.error, block.rounding_error) for block in result.blocks),
    )


def refuse_taken(registry: Registry, name: str, version: str) -> None:
    """Whether a version may still be made: known now, and not after an hour.

    Raises:
        ConflictError: it is there, or was.
    """
    if name not in registry.names():
        return
    state = registry.state(name)
    if version in state.versions or version in state.deleted:
        was = "is there already" if version in state.versions else "was there, and was deleted"
        raise ConflictError(
            f"{name}@{version} {was}, and a version never changes.", cure="Choose another number for --version."
        )


def _find(settings: RegistrySettings, environment: Mapping[str, str], source: str, progress: Progress) -> Model:
    return find_model(Settings(registry=settings, model=ModelSettings(source=source)), environment, progress)


def _folder_of(model: Model) -> Path:
    if model.folder is None:
        raise ModelError(
            f"{model.source} is not on this machine.", cure="Download it first, and give its folder or push it."
        )
    return model.folder


@contextmanager
def _beside(cache: Path, size: int) -> Iterator[Path]:
    """An empty folder that is gone afterwards, whatever happens.

    Raises:
        ResourceError: the disk has less room than the source takes.
    """
    cache.mkdir(parents=True, exist_ok=True)
    free = shutil.disk_usage(cache).free
    if size > free:
        raise ResourceError(
            f"Quantising takes up to {size / 2**30:.1f} GiB in {cache}, and {free / 2**30:.1f} are free.",
            cure="Free some, or set registry.cache_dir to a larger disk.",
        )
    with tempfile.TemporaryDirectory(prefix="quantise-", dir=cache) as made:
        yield Path(made)


def measure(folder: Path) -> Sizes:
    """Bytes of a folder that was quantised here.

    Raises:
        ModelError: its weights cannot be read.
    """
    files = [path for path in folder.iterdir() if path.is_file()]
    weights = [path for path in files if path.suffix == ".safetensors"]
    tensors = [tensor for path in weights for tensor in read_header(path)]
    return Sizes(
        linear=sum(tensor.end - tensor.begin for tensor in tensors if PACKED.fullmatch(tensor.name)),
        weights=sum(path.stat().st_size for path in weights),
        folder=sum(path.stat().st_size for path in files),
    )


def _made_from(
    parent: Model, wanted: Wanted, calibration: Calibration, samples: int, tokens: int, library: str
) -> MadeFrom:
    recipe = wanted.recipe
    return MadeFrom(
        revision=parent.digest,
        source=parent.reference or (parent.name if wanted.source == DEMO else _folder_of(parent).name),
        method=recipe.method,
        bits=recipe.bits,
        group_size=recipe.group_size,
        library=library,
        calibration=calibration.digest,
        samples=samples,
        tokens=tokens,
        seed=recipe.seed,
    )


def _request(wanted: Wanted, folder: Path, made_from: MadeFrom) -> Request:
    return Request(
        folder=folder,
        name=wanted.name,
        version=wanted.version,
        source=f"{made_from.source}, {made_from.method} with {made_from.bits} bits in groups of {made_from.group_size}",
        made_from=made_from,
        reason=wanted.reason,
    )


def _line(done: Any) -> str:
    return (
        f"block {done.number + 1}/{done.of}: error {done.error:.2e} of the answers' square "
        f"(rounding alone {done.rounding_error:.2e})"
    )
