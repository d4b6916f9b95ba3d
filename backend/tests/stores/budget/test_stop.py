"""The stop of all tenants as callers see it: within a second, and refused where nobody can tell."""

from __future__ import annotations

import asyncio
import gc
import weakref
from datetime import UTC, datetime
from typing import Any

import pytest

from app.errors import BudgetStoppedError, BudgetStoreUnavailableError
from app.stores.budget.contract import Stopped
from app.stores.budget.memory import InMemoryBudgetStore
from app.stores.budget.stop import GlobalStop, global_stop

STOP = Stopped(since=datetime(2026, 11, 24, 12, 0, tzinfo=UTC), reason="drill")


class Switch:
    """A store of which only the stop is asked for: by hand open, stopped, or down."""

    def __init__(self) -> None:
        self.answer: Stopped | None = None
        self.down = False
        self.slow = False
        self.asked = 0

    async def stopped(self, *, tenant_id: str | None) -> Stopped | None:
        """Answer as told."""
        assert tenant_id is None
        self.asked += 1
        if self.slow:
            await asyncio.sleep(0)
        if self.down:
            raise BudgetStoreUnavailableError("down")
        return self.answer


class Time:
    """Seconds that a test moves."""

    now = 100.0

    def __call__(self) -> float:
        """Return them."""
        return self.now


@pytest.fixture
def switch() -> Switch:
    """Give a store without a stop."""
    return Switch()


@pytest.fixture
def time() -> Time:
    """Give a clock."""
    return Time()


@pytest.fixture
def stop(switch: Any, time: Time) -> GlobalStop:
    """Give what the callers ask."""
    return GlobalStop(switch, clock=time)


async def test_a_stop_takes_effect_within_a_second_and_ends_as_soon(
    switch: Switch, time: Time, stop: GlobalStop
) -> None:
    """Just before a second has passed an answer may be gone by, then it is asked for again."""
    await stop.check()
    switch.answer = STOP
    time.now += 0.999
    await stop.check()
    time.now += 0.001

    with pytest.raises(
        BudgetStoppedError, match=r"all tenants are stopped since 2026-11-24 12:00:00 UTC \(drill\)"
    ) as e:
        await stop.check()
    switch.answer = None
    time.now += 1
    await stop.check()

    assert (e.value.tenant_id, e.value.reason, e.value.since) == (None, "drill", STOP.since)


async def test_it_is_asked_for_once_a_second_however_many_call(switch: Switch, time: Time, stop: GlobalStop) -> None:
    """A hundred calls within a second are one question."""
    for _ in range(100):
        await stop.check()
        time.now += 0.009

    assert switch.asked == 1


async def test_calls_go_on_for_five_seconds_without_an_answer(switch: Switch, time: Time, stop: GlobalStop) -> None:
    """By the last one that there was; then they are refused, and go on with the next answer."""
    await stop.check()
    switch.down = True
    time.now += 4.999
    await stop.check()
    time.now += 0.001

    with pytest.raises(BudgetStoreUnavailableError, match="not known whether an emergency stop"):
        await stop.check()
    switch.down = False
    await stop.check()


async def test_a_known_stop_stays_while_it_cannot_be_asked_for(switch: Switch, time: Time, stop: GlobalStop) -> None:
    """A store that is down does not lift a stop."""
    switch.answer = STOP
    with pytest.raises(BudgetStoppedError):
        await stop.check()
    switch.down = True
    time.now += 2

    with pytest.raises(BudgetStoppedError):
        await stop.check()


async def test_without_any_answer_no_call_is_made(switch: Switch, stop: GlobalStop) -> None:
    """A process that starts while the store is down makes no call."""
    switch.down = True

    with pytest.raises(BudgetStoreUnavailableError):
        await stop.check()


def test_all_callers_of_a_store_share_one() -> None:
    """So that a second costs one question, not one for each guard."""
    store, other = InMemoryBudgetStore(), InMemoryBudgetStore()

    assert global_stop(store) is global_stop(store)
    assert global_stop(store) is not global_stop(other)


async def test_a_store_that_nobody_uses_any_more_is_let_go() -> None:
    """What is known of its stop goes with it."""
    store = InMemoryBudgetStore()
    await global_stop(store).check()
    gone = weakref.ref(store)

    del store
    gc.collect()

    assert gone() is None


async def test_the_first_question_may_take_its_time(
    stop: GlobalStop, switch: Switch, time: Time, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It opens a connection; the later ones may not hold a call up, which goes on with the answer that is known."""
    monkeypatch.setattr("app.stores.budget.stop._READ_S", 0.0)
    switch.slow = True
    await stop.check()
    switch.answer = STOP
    time.now += 1.0

    await stop.check()
    switch.slow = False
    with pytest.raises(BudgetStoppedError):
        await stop.check()
