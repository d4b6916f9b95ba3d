"""What ``nova doctor`` says about a Redis server: what it throws away, and what a crash of it may forget."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Final

from app.cli.configuration import STORE_KINDS
from app.cli.exits import ExitCode
from app.cli.finding import Finding
from app.cli.server_checks import clock_findings
from app.errors import ConfigurationError, NovaError, StoreUnavailableError

if TYPE_CHECKING:
    from app.cli.session import Session
    from app.stores.redis.server import RedisServer

__all__ = ["redis_findings"]

_PART: Final = "redis server"


def redis_findings(session: Session) -> Iterator[Finding]:
    """Return a finding where a store is on Redis; none where the server does not answer: its stores say so."""
    try:
        if not _is_used(session):
            return
        server = session.execute(lambda: _look(session))
    except NovaError:
        return
    yield _finding(server)
    yield from clock_findings(_PART, server.ahead_s)


def _is_used(session: Session) -> bool:
    from app.stores.choice import choose

    for kind in STORE_KINDS:
        try:
            if choose(kind, session.settings).backend == "redis":
                return True
        except ConfigurationError:  # another part says so
            continue
    return False


async def _look(session: Session) -> RedisServer:
    from app.stores.redis.connection import RedisConnection
    from app.stores.redis.server import look_at

    url = session.settings.credential("redis_url")
    assert url is not None, "choose() refuses Redis without an address"
    connection = RedisConnection(
        url, unavailable=StoreUnavailableError, pool_size=1, timeout_s=session.settings.nova_redis_timeout_s
    )
    try:
        return await look_at(connection)
    finally:
        await connection.close()


def _finding(server: RedisServer) -> Finding:
    name = server.version or "unknown"
    if server.evicts == "any key":
        return Finding(
            part=_PART,
            state="problem",
            in_force=name,
            why="it throws keys away when its memory is full: what was spent would be forgotten, and ceilings with it",
            remedy="set maxmemory-policy noeviction",
            exit_code=ExitCode.CONFIGURATION,
        )
    if server.evicts == "keys with an end":
        return Finding(
            part=_PART,
            state="note",
            in_force=name,
            why="it throws results of idempotency keys away when its memory is full: a repeat would be called again",
            remedy="set maxmemory-policy noeviction",
        )
    if server.evicts is None or server.fsync is None:
        return Finding(
            part=_PART,
            state="ok",
            in_force=name,
            why="it does not tell how it is set: see to it that eviction is off and that writes are kept on a disk",
        )
    if server.fsync != "always":
        lost = {"everysec": "the last second", "no": "the last half a minute"}.get(server.fsync, "everything")
        return Finding(
            part=_PART,
            state="note",
            in_force=name,
            why=f"it throws nothing away; a crash of it may forget {lost} of what was spent and recorded",
            remedy="set appendonly yes and appendfsync always",
        )
    return Finding(
        part=_PART, state="ok", in_force=name, why="it throws nothing away, and what it acknowledges is on its disk"
    )
