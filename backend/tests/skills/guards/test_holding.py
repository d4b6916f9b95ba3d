"""Holds from the caller's side, where the store goes on after its caller was cancelled."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import Any

import pytest

from app.skills.guards.holding import HoldKeeper
from app.skills.guards.wrapper import Patience, to_the_end
from app.stores.budget.contract import HoldState
from app.stores.budget.memory import InMemoryBudgetStore
from app.stores.budget.stop import global_stop

from .fakes import until
from .ledger import all_holds


class Detached:
    """A store whose verbs run elsewhere, as in a thread or on a server: cancelling the caller does not stop them."""

    def __init__(self, inner: InMemoryBudgetStore) -> None:
        self._inner = inner
        self.under_way = 0
        self._running: set[asyncio.Future[Any]] = set()

    def __getattr__(self, verb: str) -> Any:
        async def run(*args: Any, **kwargs: Any) -> Any:
            for _ in range(20 if verb == "reserve" else 1):
                await asyncio.sleep(0)
            return await getattr(self._inner, verb)(*args, **kwargs)

        async def call(*args: Any, **kwargs: Any) -> Any:
            self.under_way += 1
            task = asyncio.ensure_future(run(*args, **kwargs))
            self._running.add(task)
            return await asyncio.shield(task)

        return call

    async def idle(self) -> None:
        """Wait until nothing runs any more."""
        await asyncio.wait(self._running)


async def test_a_cancelled_reserve_that_goes_on_is_taken_back() -> None:
    """The release comes after the reserve, not before it, so that it has something to release."""
    store = InMemoryBudgetStore()
    detached: Any = Detached(store)
    keeper = HoldKeeper(detached, Patience())
    await global_stop(detached).check()
    detached.under_way = 0
    task = asyncio.ensure_future(keeper.take("h", 100, ("tenant",), lease=timedelta(seconds=30), tenant_id="default"))
    await until(lambda: detached.under_way == 1)

    task.cancel()
    await asyncio.wait((task,))
    await detached.idle()

    assert task.cancelled()
    assert [hold.state for hold in await all_holds(store)] == [HoldState.RELEASED]


async def test_work_is_awaited_to_its_end_and_then_the_cancellation_is_raised() -> None:
    """Neither the result nor the cancellation is lost: the one takes effect, the other is heard."""
    done: list[str] = []

    async def work() -> str:
        for _ in range(5):
            await asyncio.sleep(0)
        done.append("work")
        return "result"

    calm = await to_the_end(work())
    task = asyncio.ensure_future(to_the_end(work()))
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task

    assert calm == "result"
    assert done == ["work", "work"]


async def test_a_failure_behind_a_cancellation_is_its_cause() -> None:
    """Who was cancelled still finds out that the work failed."""

    async def work() -> None:
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        raise ValueError("it failed")

    async def caller() -> BaseException | None:
        try:
            await to_the_end(work())
        except asyncio.CancelledError as error:
            return error.__cause__
        raise AssertionError("it was cancelled")

    task = asyncio.ensure_future(caller())
    await asyncio.sleep(0)
    task.cancel()

    assert isinstance(await task, ValueError)


async def test_a_failure_without_a_cancellation_is_itself() -> None:
    """Work that fails raises what it raises."""

    async def work() -> None:
        raise ValueError("it failed")

    with pytest.raises(ValueError, match="it failed"):
        await to_the_end(work())
