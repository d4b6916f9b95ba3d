"""Stores for the tests of workflows."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from pydantic import TypeAdapter

from app.stores.checkpoint.contract import CheckpointStorage
from app.stores.checkpoint.memory import InMemoryCheckpointStore
from app.stores.checkpoint.sqlite import SqliteCheckpointStore

# The first type adapter of a process looks for Pydantic's plugins on the disk, whichever test builds it.
TypeAdapter(list[int])


@pytest.fixture(params=["memory", "sqlite"])
async def checkpoints(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[CheckpointStorage]:
    """Give an empty checkpoint store of each embedded backend."""
    if request.param == "memory":
        yield InMemoryCheckpointStore()
        return
    store = SqliteCheckpointStore(tmp_path / "nova.db")
    yield store
    await store.close()
