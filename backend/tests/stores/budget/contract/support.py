"""What the laws of the budget contract share: a back door that looks behind the verbs, and short ways to say things."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable
from datetime import timedelta
from typing import Final

import pytest

from app.stores.budget.contract import BudgetStore, Granted, Hold, Refused, Window, WindowUsage

LEASE: Final = timedelta(seconds=30)
MS: Final = timedelta(milliseconds=1)
DAY: Final = timedelta(days=1)


class BackDoor(ABC):
    """Reads and damages what a store keeps, without asking its verbs."""

    @abstractmethod
    def dump(self) -> object:
        """Return everything kept; equal where nothing changed."""

    @abstractmethod
    def add_to_counter(self, scope: str, window_id: str, *, spent: int = 0, held: int = 0) -> None:
        """Change a counter of the default tenant behind the store's back."""

    @abstractmethod
    def holds_kept(self) -> int:
        """Return how many holds of all tenants are kept."""

    @abstractmethod
    def window_ids_kept(self, scope: str) -> set[str]:
        """Return the windows of a scope of the default tenant that have a counter."""


async def granted(
    store: BudgetStore, hold_id: str = "h", amount: int = 10, *scopes: str, lease: timedelta = LEASE
) -> Hold:
    """Reserve what must be granted."""
    answer = await store.reserve(hold_id, amount, scopes or ("s",), lease=lease)
    assert isinstance(answer, Granted), answer
    return answer.hold


async def granted_for(store: BudgetStore, tenant_id: str, hold_id: str, amount: int) -> None:
    """Reserve for a tenant what must be granted."""
    assert isinstance(await store.reserve(hold_id, amount, ["s"], lease=LEASE, tenant_id=tenant_id), Granted)


async def refused(store: BudgetStore, hold_id: str = "h", amount: int = 10, *scopes: str) -> Refused:
    """Reserve what must be refused."""
    answer = await store.reserve(hold_id, amount, scopes or ("s",), lease=LEASE)
    assert isinstance(answer, Refused), answer
    return answer


async def window(store: BudgetStore, scope: str = "s", of: Window = "total", **tenant: str) -> WindowUsage:
    """Return one current window of a scope."""
    return next(usage for usage in await store.usage(scope, **tenant) if usage.window == of)


async def spent_and_held(store: BudgetStore, scope: str = "s", of: Window = "total") -> tuple[int, int]:
    """Return what one window has spent and holds."""
    usage = await window(store, scope, of)
    return usage.spent, usage.held


async def clean(store: BudgetStore) -> bool:
    """Audit."""
    return (await store.audit()).clean


Verb = Callable[[], Awaitable[object]]
Close = Callable[[BudgetStore, str], Awaitable[Hold]]
CLOSINGS: Final[dict[str, Close]] = {
    "settle": lambda store, hold_id: store.settle(hold_id, 3),
    "release": lambda store, hold_id: store.release(hold_id),
    "expire": lambda store, hold_id: store.expire(hold_id),
}
every_closing = pytest.mark.parametrize("close", CLOSINGS.values(), ids=CLOSINGS)
