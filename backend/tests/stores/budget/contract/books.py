"""The books: adjustments, the plain verbs, and the audit that recomputes every counter."""

from __future__ import annotations

from decimal import Decimal

import pytest

from app.errors import HoldConflictError, InvalidInputError
from app.stores.budget.contract import BudgetStore
from tests.support.clock import FakeClock

from .support import DAY, LEASE, BackDoor, clean, granted, refused, spent_and_held


class Books:
    """Every counter is the sum of its entries."""

    async def test_an_adjustment_counts_once_per_id(self, store: BudgetStore, clock: FakeClock) -> None:
        """In every current window; the same again, even after a year, is a no-op."""
        await store.set_limit("s", 100, window="hour")

        first = await store.adjust("a", "s", 7, reason="a bill that was missed")
        clock.advance(365 * DAY)
        await granted(store, "h", 1, "other")
        again = await store.adjust("a", "s", 7)

        assert (first, again) == (True, False)
        assert [w.spent for w in await store.usage("s")] == [7, 0, 0, 0]
        assert await clean(store)

    @pytest.mark.parametrize(("scope", "amount"), [("s", 8), ("s", -7), ("t", 7)])
    async def test_an_adjustment_of_a_known_id_conflicts(
        self, store: BudgetStore, back_door: BackDoor, scope: str, amount: int
    ) -> None:
        """With another scope or amount it is refused and nothing changes."""
        await store.adjust("a", "s", 7)
        before = back_door.dump()

        with pytest.raises(HoldConflictError):
            await store.adjust("a", scope, amount)

        assert back_door.dump() == before

    async def test_an_adjustment_takes_no_window_below_zero(self, store: BudgetStore, clock: FakeClock) -> None:
        """What was spent yesterday cannot be taken out of today."""
        await store.adjust("yesterday", "s", 7)
        clock.advance(DAY)
        await store.adjust("today", "s", 5)

        with pytest.raises(InvalidInputError, match="negative"):
            await store.adjust("too much", "s", -6)
        await store.adjust("all of today", "s", -5)

        assert [w.spent for w in await store.usage("s")] == [7, 7, 0]
        assert await clean(store)

    async def test_a_workflow_cost_is_exact_and_rounded_up(self, store: BudgetStore) -> None:
        """Costs in cents add up without a float's error; a part of a microcent counts as a whole one."""
        first = await store.add_workflow_cost("r", 0.1)
        second = await store.add_workflow_cost("r", Decimal("0.2000001"))

        assert (first, second) == (Decimal("0.1"), Decimal("0.300001"))
        assert await store.get_workflow_cost("r") == Decimal("0.300001")
        assert await store.get_workflow_cost("other") == 0
        assert await spent_and_held(store, "run:r") == (300_001, 0)

    async def test_a_workflow_cost_below_a_ceiling_is_added_up_to_it(self, store: BudgetStore) -> None:
        """Open holds count; the ceiling itself is reached and never passed, not by a part of a microcent either."""
        await granted(store, "h", 400_000, "run:r")

        answers = [
            await store.add_workflow_cost_if_below("r", Decimal("0.5"), Decimal("0.8999999")),
            await store.add_workflow_cost_if_below("r", Decimal("0.5"), Decimal("0.9")),
            await store.add_workflow_cost_if_below("r", Decimal("0.000001"), Decimal("0.9")),
            await store.add_workflow_cost_if_below("r", 0, Decimal("0.9")),
        ]

        assert answers == [False, True, False, True]
        assert await spent_and_held(store, "run:r") == (500_000, 400_000)

    async def test_a_reset_forgives_what_is_spent_and_keeps_open_holds(
        self, store: BudgetStore, clock: FakeClock
    ) -> None:
        """Each current window reads zero, uncertain charges included; an open hold is charged when it is settled."""
        await store.add_workflow_cost("r", Decimal("0.000007"))
        clock.advance(DAY)
        await store.add_workflow_cost("r", Decimal("0.000002"))
        await granted(store, "uncertain", 5, "run:r")
        clock.advance(LEASE)
        await granted(store, "open", 3, "run:r")

        await store.reset_workflow_cost("r")

        shown = [(w.spent, w.held, w.uncertain) for w in await store.usage("run:r")]
        assert shown == [(0, 3, 0)] * 3
        await store.settle("open", 2)
        assert await store.get_workflow_cost("r") == Decimal("0.000002")
        assert await clean(store)

    async def test_a_correction_after_a_reset_gives_no_room_twice(self, store: BudgetStore, clock: FakeClock) -> None:
        """A charge that was forgiven and is then corrected downwards leaves zero spent, not less."""
        await store.set_limit("run:r", 10)
        await granted(store, "h", 10, "run:r")
        clock.advance(LEASE)
        await store.reset_workflow_cost("r")

        await store.settle("h", 4)

        assert await spent_and_held(store, "run:r") == (0, 0)
        await refused(store, "too much", 11, "run:r")
        assert await clean(store)

    # --- audit ------------------------------------------------------------------------------------------------------

    async def test_an_audit_names_what_differs(self, store: BudgetStore, back_door: BackDoor) -> None:
        """A counter that was changed behind the store's back is named, with both values; the others are not."""
        await granted(store, "open", 10)
        await granted(store, "closed", 10)
        await store.settle("closed", 4)
        await store.adjust("a", "s", 2)
        sound = await store.audit()

        back_door.add_to_counter("s", "2026-11", spent=1)
        back_door.add_to_counter("s", "total", held=-3)

        report = await store.audit()
        found = {(f.scope, f.window, f.window_id, f.counter, f.recorded, f.recomputed) for f in report.findings}
        assert sound.clean
        assert (sound.counters_checked, sound.holds_checked) == (3, 2)
        assert not report.clean
        assert found == {
            ("s", "month", "2026-11", "spent", 7, 6),
            ("s", "total", "total", "held", 7, 10),
        }
