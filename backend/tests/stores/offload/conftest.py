"""What the tests of the offload get."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from .world import World


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    """Return a world whose database is not there yet."""
    world = World(tmp_path / "nova.db")
    yield world
    await world.close()
