"""Sharing: tenants that must not see each other, and tasks that must not overtake each other."""

from __future__ import annotations

import asyncio
from datetime import timedelta

import pytest

from app.errors import UnknownHoldError
from app.stores.budget.contract import KEEP_CLOSED, BudgetStore, Granted, Hold, HoldState
from tests.support.clock import FakeClock

from .support import LEASE, BackDoor, clean, granted, granted_for, spent_and_held, window


class Sharing:
    """One store serves many, each as if alone."""

    async def test_tenants_are_apart(self, store: BudgetStore) -> None:
        """The same ids and scopes of two tenants are different holds, limits, counters and adjustments."""
        await store.set_limit("s", 10, tenant_id="a")
        await granted_for(store, "a", "h", 10)
        await granted_for(store, "b", "h", 999)
        await store.adjust("x", "s", 1, tenant_id="a")

        await store.settle("h", 3, tenant_id="b")
        added = await store.adjust("x", "s", 2, tenant_id="b")

        assert added
        assert (await store.hold("h", tenant_id="a")).state is HoldState.HELD
        assert (await window(store, tenant_id="a")).held == 10
        assert (await window(store, tenant_id="b")).spent == 5
        assert [hold.amount for hold in await store.holds(tenant_id="a")] == [10]
        assert await store.limits(tenant_id="b") == ()
        assert await store.scopes(tenant_id="c") == ()
        with pytest.raises(UnknownHoldError):
            await store.hold("h")

    async def test_ended_leases_of_tenants_are_apart(self, store: BudgetStore, clock: FakeClock) -> None:
        """What one tenant's dead owner held is not counted for another one, before and after it is written down."""
        await granted_for(store, "a", "h", 10)
        clock.advance(LEASE)

        before = await window(store, tenant_id="b")
        await granted_for(store, "b", "h", 1)
        after = await window(store, tenant_id="b")

        assert (before.spent, before.held) == (0, 0)
        assert (after.spent, after.held) == (0, 1)
        assert (await window(store, tenant_id="a")).spent == 10

    async def test_concurrent_tasks_get_exactly_what_fits(self, store: BudgetStore) -> None:
        """Of 300 tasks that reserve 1 of 100, 100 are granted."""
        await store.set_limit("s", 100)

        answers = await asyncio.gather(
            *(store.reserve(f"h{number}", 1, ["s", f"run:{number % 7}"], lease=LEASE) for number in range(300))
        )

        assert sum(isinstance(answer, Granted) for answer in answers) == 100
        assert await spent_and_held(store) == (0, 100)
        assert await clean(store)

    async def test_one_id_of_many_tasks_is_one_hold(self, store: BudgetStore) -> None:
        """However often it is reserved and settled at once, it counts once."""
        await asyncio.gather(*(store.reserve("h", 10, ["s"], lease=LEASE) for _ in range(50)))
        holds = await asyncio.gather(*(store.settle("h", 7) for _ in range(50)))

        assert {hold.charged for hold in holds} == {7}
        assert await spent_and_held(store) == (7, 0)

    def test_a_store_works_from_several_loops(self, store: BudgetStore) -> None:
        """What one event loop reserved, the next one settles."""
        with asyncio.Runner(loop_factory=asyncio.new_event_loop) as runner:
            runner.run(granted(store))
        with asyncio.Runner(loop_factory=asyncio.new_event_loop) as runner:
            hold = runner.run(settled(store))

        assert hold.state is HoldState.SETTLED

    # --- listing ----------------------------------------------------------------------------------------------------

    async def test_holds_are_listed_in_pages_by_id(self, store: BudgetStore) -> None:
        """Every hold once, in the order of ids, however long the page is; filters keep to that."""
        ids = [f"h{number}" for number in range(7)]
        for number, hold_id in enumerate(reversed(ids)):
            await granted(store, hold_id, 1, "even" if number % 2 == 0 else "odd", "all")
        await store.settle("h3", 1)

        pages, after = [], None
        while page := await store.holds(limit=3, after=after):
            pages.append([hold.hold_id for hold in page])
            after = page[-1].hold_id

        assert pages == [ids[:3], ids[3:6], ids[6:]]
        assert [hold.hold_id for hold in await store.holds(scope="odd")] == ["h1", "h3", "h5"]
        assert [hold.hold_id for hold in await store.holds(scope="odd", state=HoldState.HELD)] == ["h1", "h5"]
        assert [hold.hold_id for hold in await store.holds(state=HoldState.SETTLED)] == ["h3"]
        assert await store.holds(scope="od") == ()

    async def test_what_is_held_is_listed_by_id_however_the_leases_end(
        self, store: BudgetStore, clock: FakeClock
    ) -> None:
        """Of one tenant, without what was closed or has ended, in pages by id; of one scope where asked."""
        for number, lease_s in enumerate([50, 30, 40, 10, 20]):
            await granted(store, f"h{number}", 1, "s", f"run:{number % 2}", lease=timedelta(seconds=lease_s))
        await granted_for(store, "other", "h9", 1)
        await store.settle("h1", 1)
        clock.advance(timedelta(seconds=10))

        first = await store.holds(state=HoldState.HELD, limit=2)
        second = await store.holds(state=HoldState.HELD, limit=2, after=first[-1].hold_id)

        assert [hold.hold_id for hold in first] == ["h0", "h2"]
        assert [hold.hold_id for hold in second] == ["h4"]
        assert await store.holds(state=HoldState.HELD, scope="run:1") == ()
        assert [hold.hold_id for hold in await store.holds(state=HoldState.HELD, scope="run:0")] == ["h0", "h2", "h4"]


class OneBookForAll:
    """What a backend keeps whose verbs may touch every tenant's rows."""

    async def test_what_is_folded_is_removed_while_other_tenants_reserve(
        self, store: BudgetStore, back_door: BackDoor, clock: FakeClock
    ) -> None:
        """A tenant that does nothing any more leaves no holds behind."""
        await asyncio.gather(*(granted(store, f"h{number}", 1) for number in range(200)))
        await asyncio.gather(*(store.settle(f"h{number}", 1) for number in range(200)))
        clock.advance(KEEP_CLOSED)

        for number in range(4):
            await granted_for(store, "other", f"new {number}", 1)

        assert back_door.holds_kept() == 4
        assert await spent_and_held(store) == (200, 0)


async def settled(store: BudgetStore) -> Hold:
    """Settle ``h`` and close the store."""
    hold = await store.settle("h", 7)
    await store.close()
    return hold
