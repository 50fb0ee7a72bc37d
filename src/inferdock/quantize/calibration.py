"""Texts that a model is calibrated on: a file of JSON lines, or the set that comes with the demo model."""

from __future__ import annotations

import hashlib
import random
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

import msgspec

from inferdock.domain.errors import ConfigError

DEMO: Final = Path(__file__).with_name("demo_calibration.jsonl")
"""From the demo model's own training text, without the questions of its evaluation."""
MAX_BYTES: Final = 256 << 20
LEAST_SAMPLES: Final = 8
LEAST_TOKENS: Final = 512
"""Below them the scales would follow a few words; papers and libraries take some 100 texts of 512 tokens and more."""
_FORM: Final = 'Write each line as {"text": "..."} or {"messages": [{"role": "user", "content": "..."}]}.'


class Message(msgspec.Struct, frozen=True, kw_only=True):
    """One turn of a conversation."""

    role: Literal["system", "user", "assistant", "tool"]
    content: str


class Sample(msgspec.Struct, frozen=True, kw_only=True):
    """One text, or one conversation that the model's own template turns into a text."""

    text: str = ""
    messages: tuple[Message, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Calibration:
    """A calibration set.

    Attributes:
        samples: in the file's order.
        digest: SHA-256 of the file, hex.
        name: of the file, for people.
    """

    samples: tuple[Sample, ...]
    digest: str
    name: str

    def choose(self, count: int, seed: int) -> tuple[Sample, ...]:
        """At most ``count`` of them, drawn by ``seed``, in the file's order."""
        if count >= len(self.samples):
            return self.samples
        places = sorted(random.Random(seed).sample(range(len(self.samples)), count))
        return tuple(self.samples[place] for place in places)


def read_calibration(path: Path) -> Calibration:
    """Read a file; empty lines do not count.

    Raises:
        ConfigError: it is not there, too large or too short, or a line is malformed; names the line.
    """
    data = _bytes(path)
    decoder = msgspec.json.Decoder(Sample)
    samples: list[Sample] = []
    for number, line in enumerate(data.splitlines(), 1):
        if not line.strip():
            continue
        try:
            sample = decoder.decode(line)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as exc:
            raise ConfigError(f"{path.name}, line {number}: {exc}.".replace("..", "."), cure=_FORM) from exc
        if bool(sample.text.strip()) == bool(sample.messages):
            raise ConfigError(f"{path.name}, line {number} has neither a text nor messages, or both.", cure=_FORM)
        samples.append(sample)
    if len(samples) < LEAST_SAMPLES:
        raise ConfigError(
            f"{path.name} has {len(samples)} texts, too few to calibrate on.",
            cure=f"Give {LEAST_SAMPLES} at the very least; 128 are usual.",
        )
    return Calibration(samples=tuple(samples), digest=hashlib.sha256(data).hexdigest(), name=path.name)


def _bytes(path: Path) -> bytes:
    try:
        if path.stat().st_size > MAX_BYTES:
            raise ConfigError(
                f"{path} is larger than {MAX_BYTES >> 20} MiB.", cure="Give a part of it: some hundred texts suffice."
            )
        return path.read_bytes()
    except OSError as exc:
        raise ConfigError(
            f"The calibration file {path} cannot be read: {exc.strerror}.",
            cure="Give a file of JSON lines, or `demo` for the set of the demo model.",
        ) from exc


def check_tokens(count: int, name: str) -> None:
    """Whether the texts together are long enough.

    Raises:
        ConfigError: they are not.
    """
    if count < LEAST_TOKENS:
        raise ConfigError(
            f"The texts of {name} make {count} tokens together, too few to calibrate on.",
            cure=f"Give at least {LEAST_TOKENS} tokens, or raise --samples and --sequence-length.",
        )
