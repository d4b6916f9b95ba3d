"""Begin and complete on Redis beside a script of one HINCRBY, what keys take in memory, and what large results cost.

A call without a duplicate is one ``begin`` and one ``complete`` of a result of 2 KB that does not compress. Bare means
one EVALSHA of ``return redis.call('HINCRBY', ...)`` through the same kind of connection to the same server. The sides
take turns at every call; figures are medians of rounds with the lowest and the highest, ratios are taken within a
round. What a large result costs is the time that the server is busy with it, by its own statistics, for nobody else.

Run it with ``python benchmarks/redis_keys.py [--rounds N] [--calls N] [--fsync always|everysec|no]``; ``--json`` prints
the figures for programs.
"""

from __future__ import annotations

import argparse
import asyncio
import hashlib
import json
import random
import statistics
import sys
import time
from itertools import count
from pathlib import Path
from typing import Any, Final

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "backend"))

import redis

from app.credentials import CredentialSource, fixed
from app.errors import IdempotencyStoreUnavailableError
from app.stores.holder import Holder
from app.stores.idempotency.contract import Completed, Started
from app.stores.idempotency.redis import RedisIdempotencyStore
from app.stores.redis.connection import RedisConnection
from app.stores.redis.scripts import Script
from benchmarks.support.figures import Figure, over
from tests.support.servers.valkey import ValkeyServer

RESULT_BYTES: Final = 2_048
LARGE_BYTES: Final = {"64 KiB": 64 << 10, "1 MiB": 1 << 20, "8 MiB": 8 << 20}
KEYS: Final = 10_000
FINGERPRINT: Final = hashlib.sha256(b"request").hexdigest()

_NUMBERS: Final = count()

_TEXT: Final = "return redis.call('HINCRBY', KEYS[1], ARGV[1], ARGV[2])"
BARE: Final = Script("bare", _TEXT, hashlib.sha1(_TEXT.encode(), usedforsecurity=False).hexdigest())


class Sides:
    """A store and the bare script, on connections of their own to one server."""

    def __init__(self, source: CredentialSource) -> None:
        self._store = RedisIdempotencyStore(source)
        self._bare = RedisConnection(source, unavailable=IdempotencyStoreUnavailableError)
        self._me = Holder.current()
        self._random = random.Random(5)

    async def close(self) -> None:
        """Let go of the connections."""
        await self._store.close()
        await self._bare.close()

    async def begin(self) -> tuple[str, int]:
        """Own a new key of the length that guarded calls have; return it and its token."""
        key = hashlib.sha256(str(next(_NUMBERS)).encode()).hexdigest()
        begun = await self._store.begin(key, FINGERPRINT, holder=self._me)
        assert isinstance(begun, Started)
        return key, begun.token

    async def pair(self) -> tuple[float, float]:
        """Begin and complete a key; return what each took in seconds."""
        result = self._random.randbytes(RESULT_BYTES)
        start = time.perf_counter()
        key, token = await self.begin()
        begun = time.perf_counter()
        await self._store.complete(key, token, result)
        return begun - start, time.perf_counter() - begun

    async def bare(self) -> float:
        """Run the bare script; return what it took in seconds."""
        start = time.perf_counter()
        await self._bare.run(BARE, ("nova:{bench}:counter",), ("spent", 1))
        return time.perf_counter() - start

    async def record_and_replay(self, size_bytes: int) -> None:
        """Complete a key with a result that does not compress, and replay it."""
        key, token = await self.begin()
        await self._store.complete(key, token, self._random.randbytes(size_bytes))
        assert isinstance(await self._store.begin(key, FINGERPRINT, holder=self._me), Completed)


async def measure(url: str, rounds: int, calls: int) -> dict[str, Figure]:
    """Measure in rounds, after one that warms up."""
    seen: dict[str, list[float]] = {"bare": [], "begin": [], "complete": []}
    sides = Sides(fixed(url))
    for number in range(rounds + 1):
        taken: dict[str, list[float]] = {name: [] for name in seen}
        for _ in range(calls):
            taken["bare"].append(await sides.bare())
            begun, completed = await sides.pair()
            taken["begin"].append(begun)
            taken["complete"].append(completed)
        if number > 0:
            for name, seconds in taken.items():
                seen[name].append(statistics.median(seconds) * 1_000)
    await sides.close()
    return {
        **{f"{name}, p50 ms": Figure.of(values) for name, values in seen.items()},
        "begin / bare": over(seen["begin"], seen["bare"]),
        "complete / bare": over(seen["complete"], seen["bare"]),
    }


async def weigh(url: str, client: redis.Redis) -> dict[str, Figure]:
    """Return the bytes of a key in progress, and of one that is completed with an empty result."""
    sides = Sides(fixed(url))
    await sides.begin()
    empty = _used(client)
    owned = [await sides.begin() for _ in range(KEYS)]
    in_progress = _used(client)
    for key, token in owned:
        await sides._store.complete(key, token, b"")  # noqa: SLF001 - without the time of a pair
    completed = _used(client)
    await sides.close()
    return {
        "bytes of a key in progress": Figure.of([(in_progress - empty) / KEYS]),
        "bytes of a completed key, without its result": Figure.of([(completed - empty) / KEYS]),
    }


async def large(url: str, client: redis.Redis, rounds: int) -> dict[str, Figure]:
    """Return how long the server is busy with begin, complete and a replay of large results, in ms."""
    figures = {}
    sides = Sides(fixed(url))
    for name, size_bytes in LARGE_BYTES.items():
        busy = []
        for _ in range(rounds):
            client.config_resetstat()
            await sides.record_and_replay(size_bytes)
            statistics_of: Any = client.info("commandstats")
            busy.append(statistics_of["cmdstat_evalsha"]["usec"] / 1_000)
        figures[f"server busy with {name}, ms"] = Figure.of(busy)
    await sides.close()
    return figures


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

    with ValkeyServer(appendfsync=options.fsync) as server, redis.Redis.from_url(server.url) as client:
        figures = asyncio.run(measure(server.url, options.rounds, options.calls))
        figures |= asyncio.run(weigh(server.url, client)) | asyncio.run(large(server.url, client, options.rounds))
    if options.json:
        print(json.dumps({name: figure.as_json() for name, figure in figures.items()}, indent=2))
        return
    print(f"{options.rounds} rounds of {options.calls} calls, median (lowest-highest); appendfsync {options.fsync}")
    for label, figure in figures.items():
        print(f"{label:46}{figure.show(3)}")


if __name__ == "__main__":
    main()
