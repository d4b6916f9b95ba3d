"""The idempotency store in memory keeps the contract."""

from __future__ import annotations

from typing import Any

import pytest

from app.stores.idempotency.memory import InMemoryIdempotencyStore

from .contract import BackDoor, FakeClock, IdempotencyContract


class MemoryBackDoor(BackDoor):
    """Looks into the store's dictionary."""

    def __init__(self, store: InMemoryIdempotencyStore) -> None:
        self._store = store

    def rows(self) -> dict[tuple[str, str], tuple[Any, ...]]:
        """Return the entries."""
        return {name: (entry.record, entry.result) for name, entry in self._store._entries.items()}


class TestInMemoryIdempotencyStore(IdempotencyContract):
    """The contract on memory."""

    @pytest.fixture
    def store(self, clock: FakeClock) -> InMemoryIdempotencyStore:
        """Give an empty store."""
        return InMemoryIdempotencyStore(clock=clock)

    @pytest.fixture
    def back_door(self, store: InMemoryIdempotencyStore) -> BackDoor:
        """Give the look inside."""
        return MemoryBackDoor(store)
