"""Writes what was drawn with matplotlib, the extra ``plot``, which this module does not import."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from inferdock.domain.errors import ResourceError


def write_picture(path: Path, figure: Any, pyplot: Any) -> None:
    """Write a figure as a PNG, and close it.

    Raises:
        ResourceError: the file cannot be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(path, dpi=110, format="png")
    except OSError as exc:
        raise ResourceError(f"Cannot write {path}: {exc.strerror}.", cure="Choose another file.") from exc
    finally:
        pyplot.close(figure)
