"""Windows: which moments count together, and how long what they counted is kept."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta

import pytest

from app.errors import UnknownHoldError
from app.stores.budget.contract import KEEP_CLOSED, BudgetStore, Granted, Window
from tests.support.clock import NOON, FakeClock

from .support import DAY, LEASE, MS, BackDoor, Close, Verb, clean, every_closing, granted, refused, spent_and_held


class Windows:
    """A charge belongs to the windows of its reservation, and stays counted when its entry is gone."""

    async def test_a_hold_belongs_to_the_windows_of_its_reservation(self, store: BudgetStore, clock: FakeClock) -> None:
        """Reserved before midnight of a month's last day and settled after it, it is charged to the old windows."""
        clock.advance(datetime(2026, 11, 30, 23, 59, 59, tzinfo=UTC) - NOON)
        await store.set_limit("s", 100, window="hour")
        await granted(store)
        clock.advance(timedelta(seconds=2))

        await store.settle("h", 7)

        old = await granted(store)
        assert [of_window for _, _, of_window in old.windows] == ["total", "2026-11", "2026-11-30", "2026-11-30T23"]
        again = await store.reserve("h", 10, ["s"], lease=LEASE)
        assert isinstance(again, Granted)
        assert [w.spent for w in again.windows] == [7, 7, 7, 7]
        current = await store.usage("s")
        assert [(w.window_id, w.spent, w.held) for w in current] == [
            ("total", 7, 0),
            ("2026-12", 0, 0),
            ("2026-12-01", 0, 0),
            ("2026-12-01T00", 0, 0),
        ]

    @pytest.mark.parametrize(
        ("of", "resets_at"),
        [
            ("hour", datetime(2027, 1, 1, tzinfo=UTC)),
            ("day", datetime(2027, 1, 1, tzinfo=UTC)),
            ("month", datetime(2027, 1, 1, tzinfo=UTC)),
        ],
    )
    async def test_a_new_window_begins_at_its_calendar_moment(
        self, store: BudgetStore, clock: FakeClock, of: Window, resets_at: datetime
    ) -> None:
        """A full window refuses until the millisecond at which the refusal said that it resets, and grants then."""
        clock.advance(datetime(2026, 12, 31, 23, 30, tzinfo=UTC) - NOON)
        await store.set_limit("s", 10, window=of)
        await granted(store, "h", 10)
        await store.settle("h", 10)

        answer = await refused(store, "next", 1)
        clock.advance(resets_at - MS - clock.now)
        await refused(store, "next", 1)
        clock.advance(MS)

        assert answer.blocking[0].resets_at == resets_at
        assert (await granted(store, "next", 1)).permits_call

    async def test_each_window_of_a_scope_is_held_to_its_own_limit(self, store: BudgetStore, clock: FakeClock) -> None:
        """Ten a day, thirty a month and forty in all, whatever is still open from the day before."""
        await store.set_limit("s", 40)
        await store.set_limit("s", 10, window="day")
        await store.set_limit("s", 30, window="month")
        blocking = []
        for day in range(4):
            for number, amount in enumerate((3, 4, 3)[: 3 if day < 3 else 0]):
                await granted(store, f"{day}/{number}", amount, lease=timedelta(hours=24))
            if day:
                await store.settle(f"{day - 1}/0", 3)
            blocking.append([window.window for window in (await refused(store, "more", 1)).blocking])
            for number in (1, 2):
                if day < 3:
                    await store.settle(f"{day}/{number}", (3, 4, 3)[number])
            blocking.append([window.window for window in (await refused(store, "more", 1)).blocking])
            clock.advance(timedelta(hours=23))
        clock.advance(timedelta(days=7))

        assert blocking == [["day"]] * 4 + [["month", "day"]] * 2 + [["month"]] * 2
        await granted(store, "in December", 4)
        await granted(store, "in December too", 6)
        assert await spent_and_held(store, of="month") == (0, 10)
        assert await spent_and_held(store) == (30, 10)
        clock.advance(DAY)
        await granted(store, "nothing", 0)
        assert [window.window for window in (await refused(store, "more", 1)).blocking] == ["total"]
        assert await clean(store)

    async def test_an_hour_is_held_to_its_limit_too(self, store: BudgetStore, clock: FakeClock) -> None:
        """Beside the limits of longer windows, from the first hold on."""
        await store.set_limit("s", 10, window="hour")
        await store.set_limit("s", 15)
        await granted(store, "a", 6)

        answer = await refused(store, "b", 5)
        await granted(store, "c", 4)
        await store.settle("c", 4)
        await store.settle("a", 6)
        clock.advance(timedelta(hours=1))
        await granted(store, "d", 5)

        assert [window.window for window in answer.blocking] == ["hour"]
        assert [window.window for window in (await refused(store, "e", 6)).blocking] == ["total", "hour"]
        assert await spent_and_held(store, of="hour") == (0, 5)
        assert await clean(store)

    async def test_what_ends_first_is_noticed_first(self, store: BudgetStore, clock: FakeClock) -> None:
        """A short lease that began behind a long one ends before it, and is shown so."""
        await granted(store, "long", 10, lease=timedelta(hours=24))
        await granted(store, "short", 7)
        clock.advance(LEASE)

        answer = await store.reserve("next", 1, ["s"], lease=LEASE)

        assert isinstance(answer, Granted)
        assert [(window.spent, window.held, window.uncertain) for window in answer.windows] == [(7, 11, 7)] * 3
        assert await clean(store)

    async def test_hours_are_counted_from_when_they_are_limited(self, store: BudgetStore) -> None:
        """What was reserved before counts in the day and not in the hour; settling it does not change that."""
        await granted(store, "before", 10)
        await store.set_limit("s", 5, window="hour")

        await granted(store, "after", 5)
        await store.settle("before", 10)
        await store.settle("after", 5)

        assert await spent_and_held(store, of="hour") == (5, 0)
        assert await spent_and_held(store, of="day") == (15, 0)
        assert await clean(store)

    async def test_days_and_months_are_counted_before_they_are_limited(self, store: BudgetStore) -> None:
        """A limit that is set late knows what was spent in its window."""
        await granted(store, "h", 10)
        await store.settle("h", 10)
        await store.set_limit("s", 10, window="month")

        await refused(store, "next", 1)

    async def test_usage_shows_three_windows_and_the_hour_where_it_is_limited(self, store: BudgetStore) -> None:
        """A scope that was never used reads as zero in each."""
        plain = await store.usage("s")
        await store.set_limit("s", 5, window="hour")

        hourly = await store.usage("s")

        assert [(w.window, w.spent, w.held, w.limit, w.remaining) for w in plain] == [
            ("total", 0, 0, None, None),
            ("month", 0, 0, None, None),
            ("day", 0, 0, None, None),
        ]
        assert [w.window for w in hourly] == ["total", "month", "day", "hour"]
        assert [w.resets_at for w in hourly] == [
            None,
            datetime(2026, 12, 1, tzinfo=UTC),
            datetime(2026, 11, 25, tzinfo=UTC),
            datetime(2026, 11, 24, 13, tzinfo=UTC),
        ]

    # --- folding ----------------------------------------------------------------------------------------------------

    @every_closing
    async def test_a_closed_hold_is_known_for_seven_days(
        self, store: BudgetStore, clock: FakeClock, close: Close
    ) -> None:
        """Then no verb knows it, with or without a sweep, what it charged stays, and its id is free."""
        await granted(store)
        closed = await close(store, "h")
        clock.advance(KEEP_CLOSED - MS)
        await granted(store, "meanwhile", 1, "elsewhere")
        kept = await store.hold("h")
        clock.advance(MS)

        verbs: list[Verb] = [lambda: store.hold("h"), lambda: close(store, "h")]
        for verb in verbs:
            with pytest.raises(UnknownHoldError):
                await verb()
        listed = await store.holds(scope="s")
        spent = await spent_and_held(store)
        anew = await granted(store)

        assert kept == closed
        assert listed == ()
        assert spent == (closed.charged, 0)
        assert anew.permits_call
        assert await spent_and_held(store) == (closed.charged, 10)
        assert await clean(store)

    async def test_a_hold_nobody_closed_is_known_until_seven_days_after_its_lease(
        self, store: BudgetStore, clock: FakeClock
    ) -> None:
        """A correction is possible until then, and not after."""
        await granted(store, "in time")
        await granted(store, "too late")
        clock.advance(LEASE + KEEP_CLOSED - MS)
        await store.settle("in time", 4)
        clock.advance(MS)

        with pytest.raises(UnknownHoldError):
            await store.settle("too late", 4)

        assert await spent_and_held(store) == (14, 0)
        assert await clean(store)

    async def test_what_is_folded_is_removed_while_others_reserve(
        self, store: BudgetStore, back_door: BackDoor, clock: FakeClock
    ) -> None:
        """Holds do not pile up: a reserve removes more than it adds, and the audit stays clean at every stage."""
        await asyncio.gather(*(granted(store, f"h{number}", 1) for number in range(100)))
        await asyncio.gather(*(store.settle(f"h{number}", 1) for number in range(100)))
        clock.advance(KEEP_CLOSED)

        left, new = [100], 0
        while left[-1]:
            new += 1
            await granted(store, f"new {new}", 1, "other")
            left.append(back_door.holds_kept() - new)
            assert left[-1] < max(left[-2] - 1, 1)
            assert await clean(store)

        assert await spent_and_held(store) == (100, 0)

    async def test_a_folded_id_is_free_before_it_is_removed(self, store: BudgetStore, clock: FakeClock) -> None:
        """More holds than one reserve clears away are folded at once: the id of each may be reserved anew."""
        await asyncio.gather(*(granted(store, f"h{number:03d}", 1) for number in range(150)))
        clock.advance(LEASE + KEEP_CLOSED)

        anew = await granted(store, "h149", 5)

        assert anew.permits_call
        assert await spent_and_held(store) == (150, 5)
        assert await clean(store)

    async def test_costs_and_resets_stay_counted_when_their_entries_are_folded(
        self, store: BudgetStore, clock: FakeClock
    ) -> None:
        """After seven days their sums are part of the base: the cost is the same, and the audit clean."""
        await store.add_workflow_cost("r", 3)
        await store.reset_workflow_cost("r")
        await store.add_workflow_cost("r", 2)
        clock.advance(KEEP_CLOSED)

        await granted(store, "h", 1, "other")

        assert await store.get_workflow_cost("r") == 2
        assert await clean(store)

    async def test_counters_outlive_their_window_by_35_days(
        self, store: BudgetStore, back_door: BackDoor, clock: FakeClock
    ) -> None:
        """Then they go while others reserve; total stays."""
        await store.set_limit("s", 100, window="hour")
        await granted(store)
        await store.settle("h", 10)
        every = {"total", "2026-11", "2026-11-24", "2026-11-24T12"}
        clock.advance(datetime(2026, 11, 24, 13, tzinfo=UTC) + 35 * DAY - MS - NOON)

        await granted(store, "a", 1, "other")
        before = back_door.window_ids_kept("s")
        clock.advance(MS)
        await granted(store, "b", 1, "other")
        after = back_door.window_ids_kept("s")
        clock.advance(10 * DAY)
        await granted(store, "c", 1, "other")

        assert before == every
        assert after == every - {"2026-11-24T12"}
        assert back_door.window_ids_kept("s") == {"total"}
        assert await clean(store)
