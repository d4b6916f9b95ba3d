"""The idempotency store in memory keeps the contract."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from app.stores.idempotency.contract import Started
from app.stores.idempotency.memory import InMemoryIdempotencyStore

from .contract import ME, BackDoor, FakeClock, IdempotencyContract


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

    async def test_a_clock_that_steps_back_brings_no_result_back(
        self, store: InMemoryIdempotencyStore, clock: FakeClock
    ) -> None:
        """A time before an earlier one reads as the earlier one: what has expired stays so."""
        begun, other = await store.begin("k", "f", holder=ME), await store.begin("other", "f", holder=ME)
        assert isinstance(begun, Started)
        assert isinstance(other, Started)
        await store.complete("k", begun.token, b"result", ttl=timedelta(seconds=1))
        clock.now_ms += 1_000
        await store.heartbeat("other", other.token)
        clock.now_ms -= 500

        assert isinstance(await store.begin("k", "f", holder=ME), Started)
