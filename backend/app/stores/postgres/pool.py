"""Connections of one event loop: a semaphore and a list of idle ones, without a task in the background.

A pool with tasks of its own that is not closed before its loop ends can keep ``asyncio.run`` from returning (measured
2026-11). Here nothing runs while nobody asks: what a connection's age or the server's end did to it is found when it
is taken out, without a ping.
"""

from __future__ import annotations

import asyncio
import select
import time
from collections import deque
from dataclasses import dataclass
from typing import Final

import psycopg

from app.credentials import Credential, CredentialSource, instead_of
from app.stores.postgres.address import parse_address
from app.stores.postgres.failures import is_refused_login

__all__ = ["Connection", "Pool"]

Connection = psycopg.AsyncConnection[tuple[object, ...]]

_IDLE_S: Final = 240.0
"""Neon lets a computer sleep after 300 s, and firewalls forget a connection in about as long."""

_LIFE_S: Final = 1800.0
"""After so long a connection is made anew, so that another primary comes into use."""


@dataclass(slots=True)
class Lent:
    """A connection, with what is to be known of it while somebody uses it and while nobody does.

    Attributes:
        opened: when it was, by the monotonic clock.
        version: of the credential which it was opened with.
        end: asks this host's kernel whether its server has left.
        reused: it was idle before, so its server may have left it meanwhile.
        idle_since: when it came back the last time.
    """

    connection: Connection
    opened: float
    version: str
    end: select.poll
    reused: bool = False
    idle_since: float = 0.0


class Loan:
    """The block in which a connection is lent. A generator would do the same, in three times the time."""

    __slots__ = ("_fresh", "_lent", "_pool")

    def __init__(self, pool: Pool, *, fresh: bool) -> None:
        self._pool = pool
        self._fresh = fresh

    async def __aenter__(self) -> Lent:
        self._lent = await self._pool.take_out(fresh=self._fresh)
        return self._lent

    async def __aexit__(self, *exception: object) -> None:
        await self._pool.take_back(self._lent)


class Pool:
    """Lends connections in autocommit mode; the client of :class:`~app.loops.LoopClients`.

    Args:
        source: the URL; it is asked at each new connection.
        size: how many connections there are at most; others wait for one.
        prepare: let the driver prepare statements that it sees often; not behind a pooler that shares connections.
    """

    def __init__(self, source: CredentialSource, *, size: int, prepare: bool) -> None:
        self._source = source
        self._prepare_threshold = 5 if prepare else None
        self._slots = asyncio.Semaphore(size)
        self._idle: deque[Lent] = deque()
        self._closed = False

    def lend(self, *, fresh: bool = False) -> Loan:
        """Lend a connection; ``fresh``: a new one, and no idle one is used again, because the server left them.

        One that is broken, or whose transaction did not end, is closed when it comes back.
        """
        return Loan(self, fresh=fresh)

    async def take_out(self, *, fresh: bool) -> Lent:
        """Return a connection as soon as one may be used; what :meth:`lend` does at the beginning of its block."""
        await self._slots.acquire()
        try:
            if fresh:
                await self._close_idle()
            return self._taken_out() or await self._opened()
        except BaseException:
            self._slots.release()
            raise

    async def take_back(self, lent: Lent) -> None:
        """Take a connection back: what :meth:`lend` does at the end of its block."""
        try:
            await self._take_back(lent)
        finally:
            self._slots.release()

    async def close(self) -> None:
        """Close the idle connections; those that are lent are closed when they come back."""
        self._closed = True
        await self._close_idle()

    def _taken_out(self) -> Lent | None:
        """Return the idle connection that was used last and is not known to be dead."""
        now = time.monotonic()
        version = self._source().version
        while self._idle:
            idle = self._idle.pop()
            young = now - idle.idle_since < _IDLE_S and now - idle.opened < _LIFE_S
            if young and idle.version == version and _is_alive(idle):
                idle.reused = True
                return idle
            idle.connection.pgconn.finish()
        return None

    async def _opened(self) -> Lent:
        credential = self._source()
        try:
            return await self._opened_with(credential)
        except psycopg.OperationalError as error:
            if not is_refused_login(error):
                raise
            # It was rotated, here or at the server first. In a thread: it may ask Vault.
            another = await asyncio.to_thread(instead_of, self._source, credential)
            if another is None:
                raise
        return await self._opened_with(another)

    async def _opened_with(self, credential: Credential) -> Lent:
        address = parse_address(credential.reveal())
        try:
            connection = await psycopg.AsyncConnection.connect(
                address.conninfo, autocommit=True, prepare_threshold=self._prepare_threshold
            )
        except psycopg.OperationalError as error:
            # What the driver keeps of the connection holds the password, for whoever prints an error's attributes.
            error._pgconn = None  # noqa: SLF001 - it has no public name that can be set
            raise
        end = select.poll()
        end.register(connection.fileno(), select.POLLIN)
        return Lent(connection, time.monotonic(), credential.version, end)

    async def _take_back(self, lent: Lent) -> None:
        status = lent.connection.pgconn.transaction_status
        if self._closed or lent.connection.closed or status != psycopg.pq.TransactionStatus.IDLE:
            await lent.connection.close()
            return
        lent.idle_since = time.monotonic()
        self._idle.append(lent)
        # The one that lay longest: nobody will take it out before it is too old.
        if lent.idle_since - self._idle[0].idle_since >= _IDLE_S:
            await self._idle.popleft().connection.close()

    async def _close_idle(self) -> None:
        while self._idle:
            await self._idle.pop().connection.close()


def _is_alive(idle: Lent) -> bool:
    """Whether the server is not known to have left, asked of this host's kernel alone.

    A server says nothing to an idle connection but that it ends it, or, rarely, that a setting of its own changed.
    """
    return not idle.connection.closed and not idle.end.poll(0)
