"""What a server says of itself is read, and what it does not say is None."""

from __future__ import annotations

import asyncio

import pytest
from redis import Redis

from app.credentials import fixed
from app.errors import StoreUnavailableError
from app.stores.redis.connection import RedisConnection
from app.stores.redis.server import RedisServer, look_at
from tests.support.servers.valkey import ValkeyServer


async def looked_at(url: str) -> RedisServer:
    """Look at a server."""
    connection = RedisConnection(fixed(url), unavailable=StoreUnavailableError)
    found = await look_at(connection)
    await connection.close()
    return found


@pytest.mark.parametrize(
    ("options", "evicts", "fsync"),
    [
        ({}, "none", "always"),
        ({"appendfsync": "everysec"}, "none", "everysec"),
        ({"appendonly": "no"}, "none", "never"),
        ({"maxmemory_policy": "allkeys-lru"}, "none", "always"),
        ({"maxmemory": "100mb"}, "none", "always"),
        ({"maxmemory": "100mb", "maxmemory_policy": "allkeys-lfu"}, "any key", "always"),
        ({"maxmemory": "100mb", "maxmemory_policy": "volatile-ttl"}, "keys with an end", "always"),
    ],
)
async def test_eviction_and_durability_are_read(options: dict[str, str], evicts: str, fsync: str) -> None:
    """A policy counts only where memory has a limit; a log of writes only where there is one."""
    with await asyncio.to_thread(lambda: ValkeyServer(durable=True, **options)) as server:
        found = await looked_at(server.url)

    assert (found.evicts, found.fsync) == (evicts, fsync)
    assert found.version is not None
    assert found.version.startswith("valkey ")


async def test_what_a_server_keeps_to_itself_is_unknown() -> None:
    """Where CONFIG is forbidden, as with managed services, only what INFO says is known."""
    with await asyncio.to_thread(ValkeyServer) as server:
        with Redis.from_url(server.url) as client:
            client.execute_command("ACL", "SETUSER", "app", "on", ">word", "~*", "+@all", "-config")
        found = await looked_at(f"redis://app:word@127.0.0.1:{server.port}/0")

    assert found.fsync is None
    assert found.evicts == "none"
