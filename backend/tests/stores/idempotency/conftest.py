"""The places at which the stores of several processes meet."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest


@pytest.fixture(params=["sqlite", "redis"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """Give the path of a file that does not exist yet, and the address of an empty server."""
    if request.param == "redis":
        yield request.getfixturevalue("valkey").url
    else:
        yield str(tmp_path / "nova.db")
