"""Splits the bytes of a watch into lines, however the network cut them. No socket here."""

from __future__ import annotations

from inferdock.kube.errors import ApiNonsense


class LineSplitter:
    """Collects bytes and gives whole lines back, without their ends; empty lines are left out.

    Args:
        max_bytes: longest line taken.
    """

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._rest = bytearray()

    def feed(self, data: bytes) -> list[bytes]:
        """Add bytes; returns the lines that they complete.

        Raises:
            ApiNonsense: a line is longer than ``max_bytes``.
        """
        head, newline, tail = data.rpartition(b"\n")
        if not newline:
            self._keep(data)
            return []
        self._rest += head
        lines = self._rest.split(b"\n")
        self._rest.clear()
        self._keep(tail)
        if any(len(line) > self._max_bytes for line in lines):
            raise self._too_long()
        return [bytes(line) for line in lines if line]

    def _keep(self, data: bytes) -> None:
        if len(self._rest) + len(data) > self._max_bytes:
            raise self._too_long()
        self._rest += data

    def _too_long(self) -> ApiNonsense:
        return ApiNonsense(f"The Kubernetes API sent a line longer than {self._max_bytes} bytes.")
