"""What a drill makes of a platform that never had a release, or that says nothing."""

from __future__ import annotations

from typing import Any

import pytest

from inferdock.app.verify import drill


@pytest.mark.parametrize(("said", "expected"), [(None, {}), ({"id": "1"}, {"id": "1"}), (RuntimeError("no"), {})])
async def test_the_newest_release(monkeypatch: pytest.MonkeyPatch, said: Any, expected: dict[str, Any]) -> None:
    async def asked(*_: str) -> Any:
        if isinstance(said, Exception):
            raise said
        return said

    monkeypatch.setattr(drill, "inferdock_json", asked)
    assert await drill._status(()) == expected
