"""Reserving: what is granted, what is refused, and the limits that decide it."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from app.errors import HoldConflictError, UnknownHoldError
from app.stores.budget.contract import BudgetStore, Granted, Hold, HoldState, Limit
from tests.support.clock import NOON, FakeClock

from .support import LEASE, BackDoor, Close, every_closing, granted, refused, spent_and_held


class Reserving:
    """A hold is taken in every scope or in none, within every limit."""

    async def test_a_granted_hold_says_what_it_took_and_where(self, store: BudgetStore) -> None:
        """A grant shows the hold and each of its counters right after it was taken, sorted by scope and window."""
        await store.set_limit("b", 100)
        await store.set_limit("b", 50, window="hour")

        answer = await store.reserve("h", 10, ["b", "a"], lease=LEASE)

        assert isinstance(answer, Granted)
        assert answer.hold == Hold(
            hold_id="h",
            tenant_id="default",
            amount=10,
            scopes=("a", "b"),
            state=HoldState.HELD,
            charged=0,
            windows=(
                ("a", "total", "total"),
                ("a", "month", "2026-11"),
                ("a", "day", "2026-11-24"),
                ("b", "total", "total"),
                ("b", "month", "2026-11"),
                ("b", "day", "2026-11-24"),
                ("b", "hour", "2026-11-24T12"),
            ),
            created_at=NOON,
            expires_at=NOON + LEASE,
        )
        assert answer.hold.permits_call
        shown = [(w.scope, w.window, w.window_id, w.spent, w.held, w.limit) for w in answer.windows]
        assert shown == [
            ("a", "total", "total", 0, 10, None),
            ("a", "month", "2026-11", 0, 10, None),
            ("a", "day", "2026-11-24", 0, 10, None),
            ("b", "total", "total", 0, 10, 100),
            ("b", "month", "2026-11", 0, 10, None),
            ("b", "day", "2026-11-24", 0, 10, None),
            ("b", "hour", "2026-11-24T12", 0, 10, 50),
        ]

    async def test_a_hold_may_fill_a_limit_and_not_pass_it(self, store: BudgetStore) -> None:
        """The last microcent is granted, the one after it refused; open holds count like spent money."""
        await store.set_limit("s", 100)
        await granted(store, "spent", 40)
        await store.settle("spent", 40)
        await granted(store, "held", 59)

        await refused(store, "too much", 2)
        await granted(store, "the last", 1)
        answer = await refused(store, "one more", 1)

        assert answer.requested == 1
        (blocking,) = answer.blocking
        assert (blocking.scope, blocking.window, blocking.limit) == ("s", "total", 100)
        assert (blocking.spent, blocking.held, blocking.remaining, blocking.resets_at) == (40, 60, 0, None)

    async def test_a_refusal_names_every_window_in_the_way_and_changes_nothing(
        self, store: BudgetStore, back_door: BackDoor
    ) -> None:
        """One scope that has room takes nothing where another has none."""
        await store.set_limit("roomy", 100)
        await store.set_limit("tight", 9)
        await store.set_limit("tight", 9, window="day")
        await store.set_limit("tight", 10, window="hour")
        before = back_door.dump()

        answer = await refused(store, "h", 10, "roomy", "tight")

        assert [(w.scope, w.window) for w in answer.blocking] == [("tight", "total"), ("tight", "day")]
        assert answer.blocking[1].resets_at == datetime(2026, 11, 25, tzinfo=UTC)
        assert back_door.dump() == before
        assert await spent_and_held(store, "roomy") == (0, 0)
        with pytest.raises(UnknownHoldError):
            await store.hold("h")

    async def test_a_refused_id_may_be_reserved_again(self, store: BudgetStore) -> None:
        """After the limit is raised the same id is granted: a waiting run goes on."""
        await store.set_limit("s", 9)
        await refused(store)

        await store.set_limit("s", 10)

        assert (await granted(store)).permits_call

    async def test_a_hold_of_nothing_is_refused_above_the_limit(self, store: BudgetStore) -> None:
        """A grant says that spent and held are within the limit, even if it adds nothing."""
        await granted(store, "h", 10)
        await store.set_limit("s", 9)

        await refused(store, "nothing", 0)
        await store.set_limit("s", 10)
        await granted(store, "nothing", 0)

    async def test_a_repeat_returns_the_hold_and_takes_nothing_more(self, store: BudgetStore, clock: FakeClock) -> None:
        """The same id, amount and scopes in another order: the hold as it is, even where no more would fit."""
        await store.set_limit("a", 10)
        first = await granted(store, "h", 10, "a", "b")
        clock.advance(timedelta(seconds=5))

        again = await store.reserve("h", 10, ["b", "a"], lease=timedelta(hours=1))

        assert isinstance(again, Granted)
        assert again.hold == first
        assert await spent_and_held(store, "a") == (0, 10)

    @every_closing
    async def test_a_repeat_of_a_closed_hold_permits_no_call(self, store: BudgetStore, close: Close) -> None:
        """Only a hold that is held permits a call: a closed one is returned as it is, and stays closed."""
        await granted(store)
        closed = await close(store, "h")

        again = await granted(store)

        assert again == closed
        assert not again.permits_call

    @pytest.mark.parametrize(("amount", "scopes"), [(11, ["s"]), (9, ["s"]), (10, ["t"]), (10, ["s", "t"])])
    async def test_an_id_used_for_something_else_conflicts(
        self, store: BudgetStore, back_door: BackDoor, amount: int, scopes: list[str]
    ) -> None:
        """A known id with another amount or other scopes is refused as a conflict, and nothing changes."""
        await granted(store)
        before = back_door.dump()

        with pytest.raises(HoldConflictError) as caught:
            await store.reserve("h", amount, scopes, lease=LEASE)

        assert caught.value.hold_id == "h"
        assert back_door.dump() == before

    # --- limits -----------------------------------------------------------------------------------------------------

    async def test_limits_are_listed_in_order(self, store: BudgetStore) -> None:
        """Sorted by scope, then total, month, day, hour; the last value of each; of one scope where asked."""
        await store.set_limit("b", 1, window="hour")
        await store.set_limit("b", 2, window="month")
        await store.set_limit("b", 3)
        await store.set_limit("a", 9, window="day")
        await store.set_limit("a", 4, window="day")

        found = await store.limits()

        in_b = (
            Limit(scope="b", window="total", amount=3),
            Limit(scope="b", window="month", amount=2),
            Limit(scope="b", window="hour", amount=1),
        )
        assert found == (Limit(scope="a", window="day", amount=4), *in_b)
        assert await store.limits(scope="b") == in_b
        assert await store.limits(scope="c") == ()

    async def test_a_limit_may_be_set_below_what_is_spent(self, store: BudgetStore) -> None:
        """The next reserve refuses, a bill is still charged, and removing the limit lets calls go on."""
        await granted(store, "h", 10)
        await store.set_limit("s", 5)

        answer = await refused(store, "next", 1)
        await store.settle("h", 10)
        await store.set_limit("s", None)

        assert answer.blocking[0].remaining == 0
        assert (await granted(store, "next", 1)).permits_call
        assert await store.limits() == ()

    async def test_scopes_are_those_with_a_limit_or_a_counter(self, store: BudgetStore) -> None:
        """Sorted; a scope that was only refused or looked at is none."""
        await store.set_limit("limited", 0)
        await granted(store, "h", 1, "used")
        await store.adjust("a", "adjusted", 1)
        await refused(store, "g", 1, "limited", "refused")
        await store.usage("looked at")

        assert await store.scopes() == ("adjusted", "limited", "used")
