"""Closing: by a bill, without a charge, as uncertain, or by the end of the lease."""

from __future__ import annotations

import asyncio
from datetime import timedelta

import pytest

from app.errors import HoldConflictError, UnknownHoldError
from app.stores.budget.contract import BudgetStore, Granted, HoldState
from tests.support.clock import NOON, FakeClock

from .support import LEASE, MS, BackDoor, Close, Verb, clean, every_closing, granted, refused, spent_and_held, window


class Closing:
    """A hold is closed once, and counts for what it cost."""

    async def test_a_bill_replaces_the_hold(self, store: BudgetStore, clock: FakeClock) -> None:
        """Settling charges the bill and frees the rest, in every window of every scope."""
        await granted(store, "h", 10, "a", "b")
        clock.advance(MS)

        hold = await store.settle("h", 7, detail="200 OK")

        assert (hold.state, hold.charged, hold.detail) == (HoldState.SETTLED, 7, "200 OK")
        assert hold.closed_at == NOON + MS
        for scope in ("a", "b"):
            assert [(w.spent, w.held, w.overage) for w in await store.usage(scope)] == [(7, 0, 0)] * 3

    async def test_a_bill_above_its_hold_is_charged_in_full(self, store: BudgetStore) -> None:
        """The excess is recorded as overage, and the next reserve refuses."""
        await store.set_limit("s", 20)
        await granted(store, "h", 10)

        await store.settle("h", 25)

        usage = await window(store)
        assert (usage.spent, usage.held, usage.overage, usage.remaining) == (25, 0, 5 + 10, 0)
        await refused(store, "next", 0)

    async def test_a_released_hold_costs_nothing(self, store: BudgetStore) -> None:
        """Releasing frees all of it."""
        await granted(store)

        hold = await store.release("h", detail="not sent")

        assert (hold.state, hold.charged, hold.detail) == (HoldState.RELEASED, 0, "not sent")
        assert await spent_and_held(store) == (0, 0)

    async def test_a_hold_of_unknown_outcome_is_charged_in_full(self, store: BudgetStore) -> None:
        """Expiring charges the hold now, as uncertain."""
        await granted(store)

        hold = await store.expire("h", detail="timeout")

        usage = await window(store)
        assert (hold.state, hold.charged, hold.detail, hold.closed_at) == (HoldState.EXPIRED, 10, "timeout", NOON)
        assert (usage.spent, usage.held, usage.uncertain) == (10, 0, 10)

    @every_closing
    async def test_closing_again_the_same_way_changes_nothing(
        self,
        store: BudgetStore,
        back_door: BackDoor,
        clock: FakeClock,
        close: Close,
    ) -> None:
        """A verb whose answer was lost may be repeated, later too."""
        await granted(store)
        closed = await close(store, "h")
        before = back_door.dump()
        clock.advance(timedelta(hours=1))

        again = await close(store, "h")

        assert again == closed
        assert back_door.dump() == before

    async def test_settled_and_released_are_final(self, store: BudgetStore, back_door: BackDoor) -> None:
        """Every other verb, and another bill, conflicts and changes nothing."""
        await granted(store, "settled")
        await store.settle("settled", 3)
        await granted(store, "released")
        await store.release("released")
        before = back_door.dump()

        verbs: list[Verb] = [
            lambda: store.settle("settled", 4),
            lambda: store.release("settled"),
            lambda: store.expire("settled"),
            lambda: store.settle("released", 0),
            lambda: store.expire("released"),
        ]
        for verb in verbs:
            with pytest.raises(HoldConflictError):
                await verb()

        assert back_door.dump() == before

    async def test_a_correction_waits_until_no_call_can_bring_its_own_bill(
        self, store: BudgetStore, back_door: BackDoor, clock: FakeClock
    ) -> None:
        """Who did not make the call settles an expired hold, never a held one; the call itself settles both."""
        for hold_id in ("corrected", "billed"):
            await granted(store, hold_id)
        before = back_door.dump()

        with pytest.raises(HoldConflictError, match="may still be under way"):
            await store.settle("corrected", 3, correction=True)
        untouched = back_door.dump()
        await store.settle("billed", 3)
        clock.advance(LEASE)
        corrected = await store.settle("corrected", 3, correction=True)
        again = await store.settle("billed", 3, correction=True)

        assert untouched == before
        assert (corrected.state, corrected.charged) == (HoldState.SETTLED, 3)
        assert (again.state, again.charged) == (HoldState.SETTLED, 3)

    @every_closing
    async def test_an_unknown_hold_charges_nothing(self, store: BudgetStore, back_door: BackDoor, close: Close) -> None:
        """Closing an id that was never reserved is an error."""
        before = back_door.dump()

        with pytest.raises(UnknownHoldError) as caught:
            await close(store, "h")

        assert caught.value.hold_id == "h"
        assert back_door.dump() == before

    # --- expiry -----------------------------------------------------------------------------------------------------

    async def test_a_hold_past_its_lease_counts_as_spent(self, store: BudgetStore, clock: FakeClock) -> None:
        """At the end of its lease, with nobody doing anything, every verb that reads says it is expired."""
        await granted(store)
        clock.advance(LEASE - MS)
        in_time = await window(store)
        clock.advance(MS)

        usage = await window(store)
        hold = await store.hold("h")

        assert (in_time.spent, in_time.held, in_time.uncertain) == (0, 10, 0)
        assert (usage.spent, usage.held, usage.uncertain) == (10, 0, 10)
        assert (hold.state, hold.charged, hold.closed_at) == (HoldState.EXPIRED, 10, NOON + LEASE)
        assert await store.holds(state=HoldState.HELD) == ()
        assert await store.holds(state=HoldState.EXPIRED) == (hold,)
        assert not (await granted(store)).permits_call

    async def test_the_end_of_a_lease_frees_nothing(self, store: BudgetStore, clock: FakeClock) -> None:
        """What a dead owner held stays taken, and a refusal shows it as spent."""
        await store.set_limit("s", 10)
        await granted(store)
        clock.advance(LEASE)

        answer = await refused(store, "next", 1)

        (blocking,) = answer.blocking
        assert (blocking.spent, blocking.held, blocking.uncertain) == (10, 0, 10)

    async def test_many_ended_leases_are_counted_whether_or_not_they_were_written_down(
        self, store: BudgetStore, clock: FakeClock
    ) -> None:
        """More leases than one reserve clears away end at once: grants, usage and audit are right all the same."""
        await asyncio.gather(*(granted(store, f"h{number}", 1) for number in range(150)))
        clock.advance(LEASE)

        answer = await store.reserve("next", 1, ["s"], lease=LEASE)

        assert isinstance(answer, Granted)
        total = answer.windows[0]
        assert (total.spent, total.held, total.uncertain) == (150, 1, 150)
        assert await window(store) == total
        assert await clean(store)

    @pytest.mark.parametrize("written_down", [True, False])
    @pytest.mark.parametrize("bill", [0, 4, 10, 15])
    async def test_a_late_bill_corrects_the_charge(
        self, store: BudgetStore, clock: FakeClock, bill: int, *, written_down: bool
    ) -> None:
        """Settling an expired hold corrects it, up or down, whether or not its end was written down before."""
        await granted(store)
        clock.advance(LEASE + MS)
        if written_down:
            await granted(store, "other", 0)

        hold = await store.settle("h", bill)

        usage = await window(store)
        assert (hold.state, hold.charged, hold.closed_at) == (HoldState.SETTLED, bill, NOON + LEASE)
        assert (usage.spent, usage.held, usage.uncertain, usage.overage) == (bill, 0, 0, max(0, bill - 10))
        assert await clean(store)

    async def test_an_expired_hold_may_be_released(self, store: BudgetStore, clock: FakeClock) -> None:
        """Where it turns out that the call was not billed, the charge is dropped."""
        await granted(store)
        clock.advance(LEASE)

        hold = await store.release("h")

        usage = await window(store)
        assert hold.state is HoldState.RELEASED
        assert (usage.spent, usage.held, usage.uncertain) == (0, 0, 0)
        assert await clean(store)

    async def test_the_first_note_about_an_expired_hold_is_kept(self, store: BudgetStore, clock: FakeClock) -> None:
        """The end of a lease leaves no note: one may be added afterwards, and is not overwritten by a repeat."""
        await granted(store)
        clock.advance(LEASE)

        await store.expire("h", detail="cut")
        await store.expire("h", detail="again")

        assert (await store.hold("h")).detail == "cut"

    @pytest.mark.parametrize("written_down", [True, False])
    async def test_a_clock_that_steps_back_a_little_ends_no_lease_twice(
        self, store: BudgetStore, clock: FakeClock, *, written_down: bool
    ) -> None:
        """Time never goes back in a store: what was expired stays so, whether or not that was written down."""
        await granted(store)
        clock.advance(LEASE)
        if written_down:
            await granted(store, "other", 0)
        else:
            await store.set_limit("other", 1)
        clock.advance(timedelta(seconds=-2))

        hold = await store.hold("h")
        usage = await window(store)
        later = await granted(store, "later", 0)

        assert hold.state is HoldState.EXPIRED
        assert (usage.held, usage.uncertain) == (0, 10)
        assert later.created_at == NOON + LEASE

    @pytest.mark.parametrize("verb", ["reserve", "settle"])
    async def test_time_goes_on_with_every_verb(self, store: BudgetStore, clock: FakeClock, verb: str) -> None:
        """Whoever has seen a moment, nothing begins before it."""
        await granted(store)
        clock.advance(timedelta(seconds=2))
        await (granted(store, "next") if verb == "reserve" else store.settle("h", 1))
        clock.advance(timedelta(seconds=-2))

        later = await granted(store, "later")

        assert later.created_at == NOON + timedelta(seconds=2)
