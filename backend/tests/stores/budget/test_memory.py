"""The budget store in memory keeps the contract."""

from __future__ import annotations

from copy import deepcopy

import pytest

from app.stores.budget.memory import InMemoryBudgetStore
from app.stores.budget.rules import Change
from tests.support.clock import FakeClock

from .contract import BackDoor, BudgetContract, OneBookForAll


class MemoryBackDoor(BackDoor):
    """Looks into the store's books."""

    def __init__(self, store: InMemoryBudgetStore) -> None:
        self._store = store

    def dump(self) -> object:
        """Return every book that has something in it."""
        books = self._store._books.items()
        kept = {tenant: (book.limits, book.counters, book.holds, book.named, book.unnamed) for tenant, book in books}
        stops = {"stops": self._store._stops} if self._store._stops else {}
        return deepcopy({tenant: book for tenant, book in kept.items() if any(book)} | stops)

    def add_to_counter(self, scope: str, window_id: str, *, spent: int = 0, held: int = 0) -> None:
        """Replace a counter."""
        counters = self._store._books["default"].counters
        counters[scope, window_id] = counters[scope, window_id].plus(Change(spent=spent, held=held))

    def holds_kept(self) -> int:
        """Count the holds of every book."""
        return sum(len(book.holds) for book in self._store._books.values())

    def window_ids_kept(self, scope: str) -> set[str]:
        """Read the keys of the counters."""
        return {of_window for of_scope, of_window in self._store._books["default"].counters if of_scope == scope}


class TestInMemoryBudgetStore(OneBookForAll, BudgetContract):
    """The contract on memory."""

    @pytest.fixture
    def store(self, clock: FakeClock) -> InMemoryBudgetStore:
        """Give an empty store."""
        return InMemoryBudgetStore(clock=clock)

    @pytest.fixture
    def back_door(self, store: InMemoryBudgetStore) -> MemoryBackDoor:
        """Give the look inside."""
        return MemoryBackDoor(store)
