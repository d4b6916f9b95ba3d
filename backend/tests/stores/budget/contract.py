"""The budget contract as tests: every backend runs this class, with a back door that looks behind the verbs."""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any, Final

import pytest

from app.errors import HoldConflictError, InvalidInputError, UnknownHoldError
from app.money import MAX_MICROCENTS
from app.stores.budget.contract import (
    KEEP_CLOSED,
    MAX_DETAIL_BYTES,
    MAX_LEASE,
    MAX_PAGE,
    MAX_SCOPES,
    BudgetStore,
    Granted,
    Hold,
    HoldState,
    Limit,
    Refused,
    Window,
    WindowUsage,
)
from tests.support.clock import NOON, FakeClock

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


class BudgetContract:
    """What every backend keeps. A subclass gives the fixtures ``store`` and ``back_door``, on ``clock``."""

    @pytest.fixture
    def clock(self) -> FakeClock:
        """Give a clock that stands at noon."""
        return FakeClock()

    # --- reserving --------------------------------------------------------------------------------------------------

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

    # --- closing ----------------------------------------------------------------------------------------------------

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

    # --- windows ----------------------------------------------------------------------------------------------------

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

    # --- adjustments and plain verbs --------------------------------------------------------------------------------

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

    # --- folding ----------------------------------------------------------------------------------------------------

    @every_closing
    async def test_a_closed_hold_is_known_for_seven_days(
        self, store: BudgetStore, clock: FakeClock, close: Close
    ) -> None:
        """Then no verb knows it, with or without a sweep, what it charged stays, and its id is free."""
        await granted(store)
        closed = await close(store, "h")
        clock.advance(KEEP_CLOSED - MS)
        kept = await store.hold("h")
        clock.advance(MS)

        verbs: list[Verb] = [lambda: store.hold("h"), lambda: close(store, "h")]
        for verb in verbs:
            with pytest.raises(UnknownHoldError):
                await verb()
        listed = await store.holds()
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
        """Holds of any tenant do not pile up, and the audit stays clean at every stage."""
        await asyncio.gather(*(granted(store, f"h{number}", 1) for number in range(200)))
        await asyncio.gather(*(store.settle(f"h{number}", 1) for number in range(200)))
        clock.advance(KEEP_CLOSED)

        kept = []
        for number in range(4):
            await store.reserve(f"new {number}", 1, ["s"], lease=LEASE, tenant_id="other")
            kept.append(back_door.holds_kept())
            assert await clean(store)

        assert kept[-1] == 4
        assert await spent_and_held(store) == (200, 0)

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

    # --- tenants and tasks ------------------------------------------------------------------------------------------

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

    # --- bad input --------------------------------------------------------------------------------------------------

    BAD_NAMES: Final[list[Any]] = ["", "x" * 1_048_576, "a\x00b", "a\nb", "\ud800", "é" * 257, None, 7]
    BAD_AMOUNTS: Final[list[Any]] = [-1, MAX_MICROCENTS + 1, 2**70, 1.0, "1", True, None]

    @pytest.mark.parametrize("name", BAD_NAMES)
    async def test_a_bad_name_is_refused_everywhere(self, store: BudgetStore, back_door: BackDoor, name: Any) -> None:
        """As tenant, hold, scope, run or adjustment id: a typed, short error, and nothing changed."""
        await granted(store)
        before = back_door.dump()

        verbs: list[Verb] = [
            lambda: store.reserve(name, 1, ["s"], lease=LEASE),
            lambda: store.reserve("g", 1, ["s", name], lease=LEASE),
            lambda: store.reserve("g", 1, ["s"], lease=LEASE, tenant_id=name),
            lambda: store.settle(name, 1),
            lambda: store.settle("h", 1, tenant_id=name),
            lambda: store.release(name),
            lambda: store.release("h", tenant_id=name),
            lambda: store.expire(name),
            lambda: store.expire("h", tenant_id=name),
            lambda: store.set_limit(name, 1),
            lambda: store.set_limit("s", 1, tenant_id=name),
            lambda: store.limits(tenant_id=name),
            lambda: store.usage(name),
            lambda: store.usage("s", tenant_id=name),
            lambda: store.scopes(tenant_id=name),
            lambda: store.hold(name),
            lambda: store.hold("h", tenant_id=name),
            lambda: store.holds(tenant_id=name),
            lambda: store.adjust(name, "s", 1),
            lambda: store.adjust("a", name, 1),
            lambda: store.adjust("a", "s", 1, tenant_id=name),
            lambda: store.audit(tenant_id=name),
            lambda: store.get_workflow_cost(name),
            lambda: store.add_workflow_cost(name, 1),
            lambda: store.add_workflow_cost("r", 1, tenant_id=name),
            lambda: store.add_workflow_cost_if_below(name, 1, 2),
            lambda: store.add_workflow_cost_if_below("r", 1, 2, tenant_id=name),
            lambda: store.reset_workflow_cost(name),
            lambda: store.reset_workflow_cost("r", tenant_id=name),
        ]
        for verb in verbs:
            with pytest.raises(InvalidInputError) as caught:
                await verb()
            assert len(str(caught.value)) < 300

        assert back_door.dump() == before

    @pytest.mark.parametrize("name", BAD_NAMES[:-2])
    async def test_a_bad_filter_is_refused(self, store: BudgetStore, name: str) -> None:
        """A list that is asked for with a name that cannot exist is an error, not an empty list."""
        verbs: list[Verb] = [
            lambda: store.limits(scope=name),
            lambda: store.holds(scope=name),
            lambda: store.holds(after=name),
        ]
        for verb in verbs:
            with pytest.raises(InvalidInputError):
                await verb()

    @pytest.mark.parametrize("amount", BAD_AMOUNTS)
    async def test_a_bad_amount_is_refused(self, store: BudgetStore, back_door: BackDoor, amount: Any) -> None:
        """Negative, too large, or no int: a typed error, and nothing changed."""
        await granted(store)
        before = back_door.dump()

        verbs: list[Verb] = [
            lambda: store.reserve("g", amount, ["s"], lease=LEASE),
            lambda: store.settle("h", amount),
            lambda: store.adjust("a", "s", amount if amount != -1 else -MAX_MICROCENTS - 1),
        ]
        for verb in verbs:
            with pytest.raises(InvalidInputError):
                await verb()
        if amount is not None:
            with pytest.raises(InvalidInputError):
                await store.set_limit("s", amount)

        assert back_door.dump() == before

    @pytest.mark.parametrize("cents", [-1, float("nan"), float("inf"), 1e30, "one"])
    async def test_a_bad_cost_is_refused(self, store: BudgetStore, back_door: BackDoor, cents: Any) -> None:
        """As cost or as ceiling: a typed error, and nothing changed."""
        before = back_door.dump()

        verbs: list[Verb] = [
            lambda: store.add_workflow_cost("r", cents),
            lambda: store.add_workflow_cost_if_below("r", cents, 1),
            lambda: store.add_workflow_cost_if_below("r", 1, cents),
        ]
        for verb in verbs:
            with pytest.raises(InvalidInputError):
                await verb()

        assert back_door.dump() == before

    async def test_no_counter_passes_the_largest_exact_amount(self, store: BudgetStore, back_door: BackDoor) -> None:
        """Reserve, settle, adjust and cost refuse what would, and change nothing; up to it all is exact."""
        await granted(store, "h", MAX_MICROCENTS, "run:r")
        before = back_door.dump()

        verbs: list[Verb] = [
            lambda: store.reserve("g", 1, ["run:r"], lease=LEASE),
            lambda: store.adjust("a", "run:r", 1),
            lambda: store.add_workflow_cost("r", 0.000001),
        ]
        for verb in verbs:
            with pytest.raises(InvalidInputError, match="exact"):
                await verb()
        unchanged = back_door.dump() == before
        await store.settle("h", MAX_MICROCENTS - 1)
        await granted(store, "g", 1, "run:r")
        with pytest.raises(InvalidInputError, match="exact"):
            await store.settle("g", 2)

        assert unchanged
        assert await spent_and_held(store, "run:r") == (MAX_MICROCENTS - 1, 1)

    @pytest.mark.parametrize(
        "scopes", [[], ["s"] * 2, [f"s{n}" for n in range(MAX_SCOPES + 1)], "scope", b"scope", {"s"}, None, [["s"]]]
    )
    async def test_bad_scopes_are_refused(self, store: BudgetStore, back_door: BackDoor, scopes: Any) -> None:
        """None, too many, one twice, or no list of names: a typed error, and nothing changed."""
        before = back_door.dump()

        with pytest.raises(InvalidInputError):
            await store.reserve("h", 1, scopes, lease=LEASE)

        assert back_door.dump() == before

    async def test_as_many_scopes_as_allowed_are_taken(self, store: BudgetStore) -> None:
        """The most scopes, with names of the greatest length, are one hold."""
        scopes = [f"{number:02d}".ljust(512, "é" if number == 99 else "x") for number in range(MAX_SCOPES)]

        hold = await granted(store, "h" * 512, 1, *scopes)

        assert hold.scopes == tuple(scopes)
        assert (await store.holds(scope=scopes[3]))[0] == hold

    @pytest.mark.parametrize("lease", [timedelta(0), -MS, MAX_LEASE + MS, 30, None])
    async def test_a_bad_lease_is_refused(self, store: BudgetStore, back_door: BackDoor, lease: Any) -> None:
        """A lease is positive and at most a day."""
        before = back_door.dump()

        with pytest.raises(InvalidInputError):
            await store.reserve("h", 1, ["s"], lease=lease)

        assert back_door.dump() == before

    @pytest.mark.parametrize("of_window", ["week", "", None, ["total"], 1])
    async def test_an_unknown_window_is_refused(self, store: BudgetStore, back_door: BackDoor, of_window: Any) -> None:
        """A limit has one of the four windows."""
        before = back_door.dump()

        with pytest.raises(InvalidInputError, match="total, month, day, hour"):
            await store.set_limit("s", 1, window=of_window)

        assert back_door.dump() == before

    @pytest.mark.parametrize("text", ["x" * (MAX_DETAIL_BYTES + 1), "\ud800", 7])
    async def test_a_bad_note_is_refused(self, store: BudgetStore, back_door: BackDoor, text: Any) -> None:
        """A note that is too long or cannot be stored is an error, and nothing changed."""
        await granted(store)
        before = back_door.dump()

        verbs: list[Verb] = [
            lambda: store.settle("h", 1, detail=text),
            lambda: store.release("h", detail=text),
            lambda: store.expire("h", detail=text),
            lambda: store.adjust("a", "s", 1, reason=text),
        ]
        for verb in verbs:
            with pytest.raises(InvalidInputError):
                await verb()

        assert back_door.dump() == before

    @pytest.mark.parametrize("limit", [0, -1, MAX_PAGE + 1, 1.0, True, None])
    async def test_a_bad_page_is_refused(self, store: BudgetStore, limit: Any) -> None:
        """A page has 1 to 1,000 holds."""
        with pytest.raises(InvalidInputError):
            await store.holds(limit=limit)

    async def test_a_bad_state_is_refused(self, store: BudgetStore) -> None:
        """A state that does not exist is an error, not an empty list."""
        with pytest.raises(InvalidInputError, match="held"):
            await store.holds(state="open")  # type: ignore[arg-type]  # what a caller without types may pass

    async def test_a_clock_that_steps_back_a_little_ends_no_lease_twice(
        self, store: BudgetStore, clock: FakeClock
    ) -> None:
        """Time never goes back in a store: what was expired stays so."""
        await granted(store)
        clock.advance(LEASE)
        await granted(store, "other", 0)
        clock.advance(timedelta(seconds=-2))

        hold = await store.hold("h")
        later = await granted(store, "later", 0)

        assert hold.state is HoldState.EXPIRED
        assert (await window(store)).uncertain == 10
        assert later.created_at == NOON + LEASE


async def granted_for(store: BudgetStore, tenant_id: str, hold_id: str, amount: int) -> None:
    """Reserve for a tenant what must be granted."""
    assert isinstance(await store.reserve(hold_id, amount, ["s"], lease=LEASE, tenant_id=tenant_id), Granted)


async def settled(store: BudgetStore) -> Hold:
    """Settle ``h`` and close the store."""
    hold = await store.settle("h", 7)
    await store.close()
    return hold
