"""Reserving and settling four scopes on Redis beside a script of one HINCRBY, and what holds take in memory.

A call in four scopes, two of them limited, writes a hold and twelve counters when it is reserved, and again when it is
settled. Bare means one EVALSHA of ``return redis.call('HINCRBY', ...)`` through the same connections to the same
server, with the same persistence; driver is the same script as redis-py's own client and blocking pool run it. All
sides take turns at every call; figures are medians of rounds with the lowest and the highest, ratios are taken within a
round.

Run it with ``python benchmarks/redis_verbs.py [--rounds N] [--calls N] [--fsync always|everysec|no]``; ``--json``
prints the figures for programs. ``REDIS_URL`` names another server than the one that it starts; that one is emptied.
"""

from __future__ import annotations

import argparse
import asyncio
import hashlib
import json
import os
import statistics
import sys
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import ExitStack
from datetime import timedelta
from pathlib import Path
from typing import Any, Final

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "backend"))

import redis
import redis.asyncio

from app.credentials import CredentialSource, fixed
from app.errors import BudgetStoreUnavailableError
from app.stores.budget.contract import Granted
from app.stores.budget.redis import RedisBudgetStore
from app.stores.redis.connection import RedisConnection
from app.stores.redis.scripts import Script
from benchmarks.support.figures import Figure, over
from tests.support.servers.valkey import ValkeyServer

TASKS: Final = 64
SCOPES: Final = ("run:nightly", "agent:writer", "step:notes", "tenant")
LEASE: Final = timedelta(minutes=5)
LIMIT: Final = 10**12
AMOUNT: Final = 1_000
BILL: Final = 900
HOLDS: Final = 20_000

_TEXT: Final = "return redis.call('HINCRBY', KEYS[1], ARGV[1], ARGV[2])"
BARE: Final = Script("bare", _TEXT, hashlib.sha1(_TEXT.encode(), usedforsecurity=False).hexdigest())


class Sides:
    """A store and the bare script, on connections of their own to one server."""

    def __init__(self, source: CredentialSource) -> None:
        self._store = RedisBudgetStore(source, pool_size=TASKS)
        self._bare = RedisConnection(source, unavailable=BudgetStoreUnavailableError, pool_size=TASKS)
        self._driver = redis.asyncio.Redis(
            connection_pool=redis.asyncio.BlockingConnectionPool.from_url(source().reveal(), max_connections=TASKS)
        )
        self._driver_script = self._driver.register_script(_TEXT)
        self._ids = hold_ids()

    async def open(self) -> None:
        """Set the limits."""
        await self._store.set_limit(SCOPES[0], LIMIT)
        await self._store.set_limit("tenant", LIMIT, window="day")

    async def close(self) -> None:
        """Let go of the connections."""
        await self._store.close()
        await self._bare.close()
        await self._driver.aclose()
        await self._driver.connection_pool.aclose()

    async def pair(self) -> tuple[float, float]:
        """Reserve and settle a call; return what each took in seconds."""
        hold_id = next(self._ids)
        start = time.perf_counter()
        answer = await self._store.reserve(hold_id, AMOUNT, SCOPES, lease=LEASE)
        reserved = time.perf_counter()
        await self._store.settle(hold_id, BILL)
        settled = time.perf_counter()
        assert isinstance(answer, Granted)
        return reserved - start, settled - reserved

    async def take(self, *scopes: str) -> None:
        """Reserve a call that stays open."""
        assert isinstance(await self._store.reserve(next(self._ids), AMOUNT, scopes or SCOPES, lease=LEASE), Granted)

    async def bare(self) -> float:
        """Run the bare script; return what it took in seconds."""
        start = time.perf_counter()
        await self._bare.run(BARE, ("nova:{bench}:counter",), ("spent", AMOUNT))
        return time.perf_counter() - start

    async def driver(self) -> float:
        """Run the bare script by redis-py's own client; return what it took in seconds."""
        start = time.perf_counter()
        await self._driver_script(keys=["nova:{bench}:counter"], args=["spent", AMOUNT])
        return time.perf_counter() - start


def hold_ids() -> Iterator[str]:
    """Give ids as long as those of guarded calls."""
    number = 0
    while True:
        number += 1
        yield f"default/{hashlib.md5(str(number).encode(), usedforsecurity=False).hexdigest()}/1/openai/1"


async def in_turn(sides: Sides, calls: int) -> dict[str, float]:
    """Let the sides take turns; return the p50 of each in ms."""
    taken: dict[str, list[float]] = {}
    for _ in range(calls):
        before = await sides.bare()
        driver = await sides.driver()
        reserve, settle = await sides.pair()
        for name, seconds in {"bare": before, "driver": driver, "reserve": reserve, "settle": settle}.items():
            taken.setdefault(name, []).append(seconds)
    return {name: statistics.median(seconds) * 1_000 for name, seconds in taken.items()}


async def together(once: Callable[[], Awaitable[object]], calls: int) -> float:
    """Return how many calls a second are made by 64 tasks, each of which waits for its own."""

    async def task(first: int) -> None:
        for _ in range(first, calls, TASKS):
            await once()

    start = time.perf_counter()
    async with asyncio.TaskGroup() as group:
        for first in range(TASKS):
            group.create_task(task(first))
    return calls / (time.perf_counter() - start)


async def measure(url: str, rounds: int, calls: int) -> dict[str, Figure]:
    """Measure in rounds, after one that warms up."""
    seen: dict[str, list[float]] = {}
    sides = Sides(fixed(url))
    await sides.open()
    for number in range(rounds + 1):
        medians = await in_turn(sides, calls)
        # A call is two scripts, so a side that makes as many scripts a second makes half as many calls.
        rates = {
            "scripts": 2 * await together(sides.pair, calls),
            "bare scripts": await together(sides.bare, 2 * calls),
            "driver scripts": await together(sides.driver, 2 * calls),
        }
        if number == 0:
            continue
        for name, value in {**medians, **rates}.items():
            seen.setdefault(name, []).append(value)
    await sides.close()
    return {
        "bare, p50 ms": Figure.of(seen["bare"]),
        "reserve, p50 ms": Figure.of(seen["reserve"]),
        "settle, p50 ms": Figure.of(seen["settle"]),
        "driver, p50 ms": Figure.of(seen["driver"]),
        "reserve / driver": over(seen["reserve"], seen["driver"]),
        "settle / driver": over(seen["settle"], seen["driver"]),
        "reserve / bare": over(seen["reserve"], seen["bare"]),
        "settle / bare": over(seen["settle"], seen["bare"]),
        "verbs per s, 64 tasks": Figure.of(seen["scripts"]),
        "verbs / bare, 64 tasks": over(seen["scripts"], seen["bare scripts"]),
        "verbs / driver, 64 tasks": over(seen["scripts"], seen["driver scripts"]),
    }


async def weigh(url: str) -> dict[str, Figure]:
    """Return the bytes of an open hold and of a closed one, over many of each."""
    with redis.Redis.from_url(url) as client:
        sides = Sides(fixed(url))
        await sides.open()
        await sides.pair()
        empty = _used(client)
        for _ in range(HOLDS):
            await sides.take()
        opened = _used(client)
        for _ in range(HOLDS):
            await sides.pair()
        closed = _used(client)
        for _ in range(HOLDS):
            await sides.take("run:the-same")
        in_one_scope = _used(client)
        for number in range(HOLDS):
            await sides.take(f"run:{number:08d}")
        in_many = _used(client)
        await sides.close()
    return {
        "bytes of an open hold": Figure.of([(opened - empty) / HOLDS]),
        "bytes of a closed hold": Figure.of([(closed - opened) / HOLDS]),
        "bytes of a scope": Figure.of([((in_many - in_one_scope) - (in_one_scope - closed)) / HOLDS]),
    }


def _used(client: redis.Redis) -> int:
    answer: Any = client.info("memory")
    return int(answer["used_memory_dataset"])


def main() -> None:
    """Print the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=7, help="rounds that count")
    parser.add_argument("--calls", type=int, default=500, help="calls of a round")
    parser.add_argument("--fsync", choices=("always", "everysec", "no"), default="always")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()

    with ExitStack() as stack:
        url = os.environ.get("REDIS_URL")
        if url is None:
            url = stack.enter_context(ValkeyServer(appendfsync=options.fsync)).url
        with redis.Redis.from_url(url) as client:
            client.flushdb()
            version: Any = client.info("server")
        figures = asyncio.run(measure(url, options.rounds, options.calls)) | asyncio.run(weigh(url))
    if options.json:
        print(json.dumps({name: figure.as_json() for name, figure in figures.items()}, indent=2))
        return
    name = version.get("valkey_version") or version.get("redis_version")
    print(f"{options.rounds} rounds of {options.calls} calls in {len(SCOPES)} scopes, median (lowest-highest)")
    print(f"server {name}, appendfsync {options.fsync}")
    for label, figure in figures.items():
        print(f"{label:36}{figure.show(3)}")


if __name__ == "__main__":
    main()
