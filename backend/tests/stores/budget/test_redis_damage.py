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

BOOK = "nova:{default}:budget:book"
ENDED = "nova:{default}:budget:ended"


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


def in_the_book(value: str) -> str:
    """Damage the numbers of a scope."""
    return "damaged" + value


def in_its_last_line(value: str) -> str:
    """Damage what hardly a verb changes."""
    return value + "x"


@pytest.mark.parametrize("damage", [in_the_book, in_its_last_line])
@pytest.mark.parametrize("left", LEFT.values(), ids=LEFT)
async def test_a_damaged_scope_is_neither_overwritten_nor_half_of_a_change(
    store: RedisBudgetStore,
    client: redis.Redis,
    clock: FakeClock,
    left: tuple[Callable[[RedisBudgetStore], Awaitable[timedelta]], str],
    damage: Callable[[str], str],
) -> None:
    """What a reserve clears away on its way stays whole: the damage stands, and once put right the books agree."""
    leave, scope = left
    due_after = await leave(store)
    before = await spent_and_held(store, scope)
    clock.advance(due_after)
    await expect_damage(store, client, BOOK, scope, damage)

    assert (await store.audit()).clean
    assert sum(await spent_and_held(store, scope)) == sum(before)


@pytest.mark.parametrize("window", ["month", "day"])
@pytest.mark.parametrize("left", LEFT.values(), ids=LEFT)
async def test_a_damaged_counter_of_a_window_that_ended_stops_what_is_due(
    store: RedisBudgetStore,
    client: redis.Redis,
    clock: FakeClock,
    left: tuple[Callable[[RedisBudgetStore], Awaitable[timedelta]], str],
    window: str,
) -> None:
    """A counter that made room for the next one is kept as carefully as those in the book."""
    leave, scope = left
    clock.advance(timedelta(days=6, hours=11, minutes=59, seconds=59))
    due_after = await leave(store)
    clock.advance(timedelta(seconds=1))
    await store.reserve("of December", 5, [scope], lease=LEASE)
    before = await spent_and_held(store, scope)
    clock.advance(due_after)
    field = next(
        name
        for name in map(str, client.hkeys(ENDED))
        if name.startswith(f"{scope}\n") and len(name) - len(scope) - 1 == {"month": 7, "day": 10}[window]
    )
    await expect_damage(store, client, ENDED, field, in_the_book)

    assert (await store.audit()).clean
    assert sum(await spent_and_held(store, scope)) == sum(before)


async def expect_damage(
    store: RedisBudgetStore, client: redis.Redis, key: str, field: str, damage: Callable[[str], str]
) -> None:
    """Damage a value: nothing that is due is done, and it stays as it is; then put it right, and all goes on."""
    value = str(client.hget(key, field))
    client.hset(key, field, damage(value))

    for number in range(3):
        with pytest.raises(StoreDamagedError):
            await store.reserve(f"later {number}", 1, ["elsewhere"], lease=LEASE)
    still = client.hget(key, field)
    client.hset(key, field, value)
    repaired = await store.reserve("later", 1, ["elsewhere"], lease=LEASE)

    assert still == damage(value)
    assert isinstance(repaired, Granted)
