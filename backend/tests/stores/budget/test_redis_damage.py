"""A value that cannot be read stops a verb before it changes anything: put right, all adds up as if nothing was."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from datetime import timedelta

import pytest
import redis

from app.credentials import fixed
from app.errors import StoreDamagedError
from app.stores.budget.contract import KEEP_CLOSED, Granted
from app.stores.budget.redis import RedisBudgetStore
from tests.support.clock import FakeClock
from tests.support.servers.valkey import ValkeyServer

from .contract import LEASE, granted, spent_and_held

COUNTERS = "nova:{default}:budget:counters"


@pytest.fixture
def client(valkey: ValkeyServer) -> Iterator[redis.Redis]:
    """Give a client of an empty server."""
    with redis.Redis.from_url(valkey.url, decode_responses=True) as client:
        yield client


@pytest.fixture
async def store(valkey: ValkeyServer, clock: FakeClock) -> AsyncIterator[RedisBudgetStore]:
    """Give a store by the test's clock."""
    store = RedisBudgetStore(fixed(valkey.url), clock=clock)
    yield store
    await store.close()


@pytest.fixture
def clock() -> FakeClock:
    """Give a clock that stands at noon."""
    return FakeClock()


async def an_ended_lease(store: RedisBudgetStore) -> timedelta:
    """Leave a hold whose owner died."""
    await granted(store, "dead", 30, "s", lease=LEASE)
    return LEASE


async def a_closed_hold(store: RedisBudgetStore) -> timedelta:
    """Leave a hold that is to be folded."""
    await granted(store, "closed", 30, "s")
    await store.settle("closed", 30)
    return KEEP_CLOSED


async def an_old_cost(store: RedisBudgetStore) -> timedelta:
    """Leave an entry that is to be folded."""
    await store.add_workflow_cost("1", 30)
    return KEEP_CLOSED


LEFT: dict[str, tuple[Callable[[RedisBudgetStore], Awaitable[timedelta]], str]] = {
    "an ended lease": (an_ended_lease, "s"),
    "a closed hold": (a_closed_hold, "s"),
    "an old cost": (an_old_cost, "run:1"),
}


@pytest.mark.parametrize("window", ["total", "month", "day"])
@pytest.mark.parametrize("left", LEFT.values(), ids=LEFT)
async def test_a_damaged_counter_is_neither_overwritten_nor_half_of_a_change(
    store: RedisBudgetStore,
    client: redis.Redis,
    clock: FakeClock,
    left: tuple[Callable[[RedisBudgetStore], Awaitable[timedelta]], str],
    window: str,
) -> None:
    """What a reserve clears away on its way stays whole: the damage stands, and once put right the books agree."""
    leave, scope = left
    due_after = await leave(store)
    before = await spent_and_held(store, scope)
    field = next(
        name
        for name in map(str, client.hkeys(COUNTERS))
        if name.startswith(f"{scope}\n") and len(name) - len(scope) - 1 == {"total": 5, "month": 7, "day": 10}[window]
    )
    value = client.hget(COUNTERS, field)
    clock.advance(due_after)
    client.hset(COUNTERS, field, "damaged")

    for number in range(3):
        with pytest.raises(StoreDamagedError):
            await store.reserve(f"later {number}", 1, ["elsewhere"], lease=LEASE)
    still = client.hget(COUNTERS, field)
    client.hset(COUNTERS, field, str(value))
    repaired = await store.reserve("later", 1, ["elsewhere"], lease=LEASE)

    assert still == "damaged"
    assert isinstance(repaired, Granted)
    assert (await store.audit()).clean
    assert sum(await spent_and_held(store, scope)) == sum(before)
