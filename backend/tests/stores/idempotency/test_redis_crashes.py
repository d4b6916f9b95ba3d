"""The server is killed and comes back, again and again: what it acknowledged is what everybody gets."""

from __future__ import annotations

import asyncio
import random
from collections import defaultdict
from datetime import timedelta

import pytest

from app.credentials import fixed
from app.errors import IdempotencyLeaseLostError, IdempotencyStoreUnavailableError
from app.stores.holder import Holder
from app.stores.idempotency.contract import Completed, Started
from app.stores.idempotency.redis import RedisIdempotencyStore
from tests.support.servers.valkey import ValkeyServer

TASKS = 8
LEASE = timedelta(seconds=0.3)
"""An owner whose begin was lost with the server keeps nobody waiting for longer."""


class Notes:
    """What the tasks were told, by key."""

    def __init__(self) -> None:
        self.acknowledged: dict[str, list[bytes]] = defaultdict(list)
        self.replayed: dict[str, set[bytes]] = defaultdict(set)
        self.refused = 0


async def work(store: RedisIdempotencyStore, name: int, keys: list[str], notes: Notes) -> None:
    """Go through the keys until each has given a result; whatever the server did not answer is asked again."""
    me = Holder.current(instance=str(name))
    random.Random(name).shuffle(keys)
    while keys:
        key = keys.pop(0)
        try:
            begun = await store.begin(key, "f", holder=me, lease=LEASE)
        except IdempotencyStoreUnavailableError:
            notes.refused += 1
            begun = None
        if isinstance(begun, Completed):
            notes.replayed[key].add(begun.result)
            continue
        keys.append(key)
        if isinstance(begun, Started):
            await finish(store, key, begun.token, notes)
        await asyncio.sleep(0.002)


async def finish(store: RedisIdempotencyStore, key: str, token: int, notes: Notes) -> None:
    """Complete a key, as often as the server needs to say yes or no."""
    result = str(token).encode()
    while True:
        try:
            await store.complete(key, token, result)
        except IdempotencyStoreUnavailableError:
            notes.refused += 1
            await asyncio.sleep(0.002)
        except IdempotencyLeaseLostError:
            return
        else:
            notes.acknowledged[key].append(result)
            return


@pytest.mark.parametrize(
    ("kills", "count"),
    [pytest.param(3, 60), pytest.param(150, 6_000, marks=[pytest.mark.soak, pytest.mark.timeout(3_600)])],
    ids=["some", "many"],
)
async def test_what_a_killed_server_acknowledged_is_everybodys(kills: int, count: int) -> None:
    """SIGKILL at random moments: no verb hangs, no key has two results, and no acknowledged one is lost."""
    chance = random.Random(kills)
    keys, notes = [f"key {number}" for number in range(count)], Notes()
    with await asyncio.to_thread(ValkeyServer) as server:
        stores = [RedisIdempotencyStore(fixed(server.url), timeout_s=1.0) for _ in range(2)]
        async with asyncio.TaskGroup() as group:
            for name in range(TASKS):
                group.create_task(work(stores[name % 2], name, list(keys), notes))
            for kill in range(1, kills + 1):
                while len(notes.acknowledged) < count * kill // (kills + 1):  # noqa: ASYNC110 - until enough was done
                    await asyncio.sleep(0.001)
                await asyncio.to_thread(server.kill)
                await asyncio.sleep(chance.random() / 50)
                await asyncio.to_thread(server.restart)
        replayed = {key: await stores[0].begin(key, "f", holder=Holder.current()) for key in keys}
        for store in stores:
            await store.close()

    assert notes.refused >= kills
    assert [key for key, results in notes.replayed.items() if len(results) != 1] == []
    assert [key for key, results in notes.acknowledged.items() if len(results) != 1] == []
    assert {key: Completed(result=results[0]) for key, results in notes.acknowledged.items()} == {
        key: replayed[key] for key in notes.acknowledged
    }
    assert {key: Completed(result=next(iter(results))) for key, results in notes.replayed.items()} == replayed
