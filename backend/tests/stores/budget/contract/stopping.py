"""Stopping and repairing: what a person does when something is wrong."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from app.errors import InvalidInputError
from app.stores.budget.contract import BudgetStore, Granted, HoldState, Stopped
from tests.support.clock import NOON, FakeClock

from .support import LEASE, MS, BackDoor, Verb, clean, granted, spent_and_held


class Stopping:
    """A stop is read in the step that would grant."""

    async def test_a_stopped_tenant_is_granted_nothing(
        self, store: BudgetStore, back_door: BackDoor, clock: FakeClock
    ) -> None:
        """Neither a new hold nor the repeat of one that is held, until the stop is lifted; other tenants go on."""
        await granted(store, "held")
        stop = await store.stop(reason="runaway agent\nseen by Ada")
        before = back_door.dump()
        clock.advance(MS)

        answers = [await store.reserve(hold_id, 10, ["s"], lease=LEASE) for hold_id in ("new", "held")]
        untouched = back_door.dump()
        elsewhere = await store.reserve("new", 1, ["s"], lease=LEASE, tenant_id="other")
        await store.go()
        again = await store.reserve("new", 1, ["s"], lease=LEASE)

        assert stop == Stopped(since=NOON, reason="runaway agent\nseen by Ada")
        assert answers == [stop, stop]
        assert untouched == before
        assert isinstance(elsewhere, Granted)
        assert isinstance(again, Granted)
        assert await spent_and_held(store) == (0, 11)

    async def test_what_is_held_is_closed_while_stopped(self, store: BudgetStore) -> None:
        """A bill that comes during a stop is charged, a hold that was not used is released."""
        for hold_id in ("billed", "unsent", "unknown"):
            await granted(store, hold_id)
        await store.stop()

        await store.settle("billed", 7)
        await store.release("unsent")
        await store.expire("unknown")

        assert await spent_and_held(store) == (17, 0)
        assert (await store.hold("unknown")).state is HoldState.EXPIRED
        assert await clean(store)

    async def test_a_stop_stays_as_it_is(self, store: BudgetStore, clock: FakeClock) -> None:
        """Whoever stops again learns who was first; lifting twice is lifting once."""
        first = await store.stop(reason="first")
        clock.advance(LEASE)

        second = await store.stop(reason="second")
        shown = await store.stopped()
        await store.go()
        await store.go()

        assert first == second == shown
        assert await store.stopped() is None

    async def test_the_stop_of_all_tenants_is_apart(self, store: BudgetStore) -> None:
        """It is there for whoever asks; ``reserve`` looks at its own tenant's alone."""
        stop = await store.stop(reason="all of it", tenant_id=None)

        of_all = await store.stopped(tenant_id=None)
        own = await store.stopped()
        answer = await store.reserve("h", 1, ["s"], lease=LEASE)
        await store.go()
        still = await store.stopped(tenant_id=None)
        await store.go(tenant_id=None)

        assert of_all == still == stop
        assert own is None
        assert isinstance(answer, Granted)
        assert await store.stopped(tenant_id=None) is None

    async def test_concurrent_calls_end_at_the_stop(self, store: BudgetStore) -> None:
        """Of many tasks that reserve without end, none is granted anything once the stop has returned."""
        granted_after = 0
        stopped = asyncio.Event()

        async def calls(name: str) -> None:
            nonlocal granted_after
            for number in range(200):
                await asyncio.sleep(0)
                begun_after = stopped.is_set()
                answer = await store.reserve(f"{name}/{number}", 1, ["s"], lease=LEASE)
                if isinstance(answer, Stopped):
                    return
                granted_after += begun_after
            raise AssertionError("it was never stopped")

        async def stop() -> None:
            await store.stop()
            stopped.set()

        await asyncio.gather(*(calls(f"task {n}") for n in range(8)), stop())

        assert granted_after == 0

    @pytest.mark.parametrize("reason", ["x" * 8193, "\ud800", None, 7])
    async def test_a_bad_stop_is_refused(self, store: BudgetStore, back_door: BackDoor, reason: Any) -> None:
        """A reason that cannot be kept, or a name that cannot be: a typed error, and nothing is stopped."""
        verbs: list[Verb] = [
            lambda: store.stop(reason=reason),
            lambda: store.stop(tenant_id=""),
            lambda: store.go(tenant_id="a\nb"),
            lambda: store.stopped(tenant_id=""),
        ]
        for verb in verbs:
            with pytest.raises(InvalidInputError):
                await verb()

        assert await store.stopped() is None
        assert back_door.dump() == {}

    # --- repairing --------------------------------------------------------------------------------------------------

    async def test_a_repair_changes_what_the_audit_proved_and_nothing_else(
        self, store: BudgetStore, back_door: BackDoor
    ) -> None:
        """Each counter that differs becomes the sum of its entries; repairing again finds nothing to do."""
        await granted(store, "open", 10)
        await granted(store, "closed", 10, "s", "t")
        await store.settle("closed", 4)
        back_door.add_to_counter("s", "2026-11", spent=1)
        back_door.add_to_counter("s", "total", held=-3, spent=2)

        audited = await store.audit()
        repaired = await store.repair()
        shown = {(w.window, w.spent, w.held) for w in await store.usage("s")}
        again = await store.repair()

        assert repaired.findings == audited.findings
        assert len(repaired.findings) == 3
        assert shown == {("total", 4, 10), ("month", 4, 10), ("day", 4, 10)}
        assert again.clean
        assert await clean(store)

    async def test_concurrent_repairs_add_what_is_missing_once(self, store: BudgetStore, back_door: BackDoor) -> None:
        """However many repair at the same moment, and whoever reserves meanwhile, the counters are right."""
        await granted(store, "open", 10)
        back_door.add_to_counter("s", "total", spent=100)

        await asyncio.gather(
            *(store.repair() for _ in range(3)), *(granted(store, f"h{number}", 1) for number in range(20))
        )

        assert await spent_and_held(store) == (0, 30)
        assert await clean(store)
