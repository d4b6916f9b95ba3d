"""What a Redis server says of itself: what it is, whether it throws keys away, and how durable its writes are."""

from __future__ import annotations

import contextlib
import time
from dataclasses import dataclass
from typing import Literal

from app.errors import StoreUnavailableError
from app.stores.redis.connection import RedisConnection

__all__ = ["RedisServer", "look_at"]


@dataclass(frozen=True, slots=True, kw_only=True)
class RedisServer:
    """One server. None is what it does not tell: managed services keep much of it to themselves.

    Attributes:
        version: its name and version, such as ``valkey 9.1.2``.
        evicts: which keys it throws away when its memory is full; ``none`` where it refuses writes instead.
        fsync: when a write is on its disk: ``always`` before it is acknowledged, ``everysec`` within a second, ``no``
            when its system likes; ``never`` where it keeps no log of writes.
        ahead_s: how far its clock is ahead of this host's, in seconds; negative where it is behind.
    """

    version: str | None
    evicts: Literal["none", "any key", "keys with an end"] | None
    fsync: str | None
    ahead_s: float | None = None


async def look_at(connection: RedisConnection) -> RedisServer:
    """Ask a server for its settings; nothing is changed.

    Raises:
        StoreUnavailableError: it does not answer, or tells this user nothing.
    """
    told: dict[str, str] = {}
    for line in (await connection.ask("INFO")).decode(errors="replace").splitlines():
        name, _, value = line.partition(":")
        told[name] = value
    fsync = None
    if told.get("aof_enabled") == "0":
        fsync = "never"
    elif told.get("aof_enabled") == "1":
        # Forbidden by most managed services, and by many access lists.
        with contextlib.suppress(StoreUnavailableError):
            _, value = await connection.ask("CONFIG", "GET", "appendfsync")
            fsync = value.decode()
    return RedisServer(version=_version(told), evicts=_evicts(told), fsync=fsync, ahead_s=await _ahead_s(connection))


async def _ahead_s(connection: RedisConnection) -> float | None:
    """Compare the clocks: the server's answer is from the middle of the round trip, as far as anybody knows."""
    asked = time.time()
    try:
        seconds, microseconds = await connection.ask("TIME")
    except StoreUnavailableError:
        return None
    return int(seconds) + int(microseconds) / 1e6 - (asked + time.time()) / 2


def _version(told: dict[str, str]) -> str | None:
    if "valkey_version" in told:
        return f"valkey {told['valkey_version']}"
    return f"redis {told['redis_version']}" if "redis_version" in told else None


def _evicts(told: dict[str, str]) -> Literal["none", "any key", "keys with an end"] | None:
    policy = told.get("maxmemory_policy")
    if policy is None:
        return None
    # Without a limit its memory is never full; Upstash has names of its own, which end in the same words.
    if policy == "noeviction" or told.get("maxmemory") == "0":
        return "none"
    return "keys with an end" if "volatile" in policy else "any key"
