"""A PostgreSQL database as a store uses it: one statement, one commit, one round trip for each verb.

Every statement is a transaction of its own, so it works behind a pooler that gives each transaction another server
connection (PgBouncer, Neon's ``-pooler``). Nothing relies on a session: no SET, no LISTEN, no prepared statement unless
it is asked for.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final, TypeVar

from app.errors import NovaError, StoreUnavailableError
from app.loops import LoopClients

if TYPE_CHECKING:
    import psycopg

    from app.credentials import CredentialSource
    from app.stores.postgres.pool import Lent, Pool
    from app.stores.postgres.schema import ComponentVersion
    from app.stores.postgres.statements import Statements
    from app.stores.postgres.status import DatabaseStatus

__all__ = ["DEFAULT_POOL_SIZE", "DEFAULT_TIMEOUT_S", "Execute", "PostgresDatabase", "Row"]

DEFAULT_POOL_SIZE: Final = 16
"""Of one event loop; opened as they are needed. A step takes one for a millisecond, so that sixteen serve thousands of
steps a second: sixteen runs at once record a quarter more with them than with ten (measured 2026-11), and a server of
100 connections serves six such processes.
"""

DEFAULT_TIMEOUT_S: Final = 30.0
_MIGRATION_TIMEOUT_S: Final = 600.0
_CONFLICT_TRIES: Final = 8
_CONFLICT_WAIT_S: Final = 0.005

T = TypeVar("T")
Row = tuple[Any, ...]

Execute = Callable[[str, Mapping[str, object]], Awaitable[Sequence[Row]]]
"""Runs a statement of a transaction and returns its rows."""


class PostgresDatabase:
    """A store's handle on a database; connections are opened at the first statement, in the loop that asks.

    Args:
        source: the URL; it is asked for at each new connection, and never kept.
        statements: what is run, by name; read when the first connection is made.
        unavailable: the class for "cannot be reached now": the store's own.
        pool_size: how many connections there are at most in one event loop.
        prepare: let the driver prepare statements: quicker by a sixth, and not for a pooler in transaction mode.
        auto_migrate: create and change Nova's tables at the first use.
        timeout_s: of a statement, with waiting for a connection and opening one.
    """

    def __init__(
        self,
        source: CredentialSource,
        *,
        statements: Statements,
        unavailable: type[StoreUnavailableError],
        pool_size: int = DEFAULT_POOL_SIZE,
        prepare: bool = False,
        auto_migrate: bool = True,
        timeout_s: float = DEFAULT_TIMEOUT_S,
    ) -> None:
        self._source = source
        self._statements = statements
        self._unavailable = unavailable
        self._auto_migrate = auto_migrate
        self._timeout_s = timeout_s
        self._ready = False
        self._pools: LoopClients[Pool] = LoopClients(lambda: self._pool(pool_size, prepare=prepare))

    async def run(
        self, name: str, values: Mapping[str, object], *, where: str = "", repeatable: bool = True
    ) -> Sequence[Row]:
        """Run one statement in a transaction of its own and return its rows; when it returns, they are committed.

        A connection that lay idle may have been left by the server. Where that shows only when it is used, nothing is
        known about the statement, and a ``repeatable`` one is sent once more on a new connection.

        Args:
            name: of the statement.
            values: by name.
            where: more conditions, where the statement has a place for them; constants only.
            repeatable: whether running it again after it took effect gives what the first time gave.

        Raises:
            psycopg.errors.UniqueViolation: another was quicker; nothing was changed.
            StoreUnavailableError: the store's own class; whether it took effect is not known.
            StoreDamagedError: the database is corrupt, foreign or newer.
            ConfigurationError: the URL cannot be used, or migrations are missing.
        """
        import psycopg

        try:
            async with asyncio.timeout(self._timeout_s) as limit:
                return await self._insist(name, values, limit, where=where, repeatable=repeatable)
        except psycopg.errors.UniqueViolation:
            raise
        except psycopg.Error as error:
            raise self._told(error) from error
        except TimeoutError as error:
            raise self._unavailable(
                f"the database {self._shown()} did not answer within {self._timeout_s:.0f} s; try again"
            ) from error
        except OSError as error:
            raise self._unavailable(f"the database {self._shown()} cannot be reached: {error}") from error

    async def transaction(self, work: Callable[[Execute], Awaitable[T]], *, snapshot: bool = False) -> T:
        """Run several statements in one transaction; when it returns, they are committed.

        ``work`` waits for nothing but its statements. It is run again from its beginning where the transaction was
        undone because of others, and once where its connection turned out to have been left by the server before
        anything was committed. An exception of ``work`` undoes what it did and is raised.

        Args:
            work: gets what runs a statement.
            snapshot: only read, all of it as of one moment.

        Raises:
            StoreUnavailableError: the store's own class; whether it took effect is not known.
            StoreDamagedError: the database is corrupt, foreign or newer.
            ConfigurationError: the URL cannot be used, or migrations are missing.
        """
        import psycopg

        try:
            async with asyncio.timeout(self._timeout_s) as limit:
                return await self._insist_on_all(work, limit, snapshot=snapshot)
        except psycopg.Error as error:
            raise self._told(error) from error
        except TimeoutError as error:
            raise self._unavailable(
                f"the database {self._shown()} did not answer within {self._timeout_s:.0f} s; try again"
            ) from error
        except OSError as error:
            raise self._unavailable(f"the database {self._shown()} cannot be reached: {error}") from error

    @property
    def shown(self) -> str:
        """The address without its password."""
        return self._shown()

    async def migrate(self) -> tuple[ComponentVersion, ...]:
        """Bring the database to this program's schema and return the versions; errors as for :meth:`run`."""
        from app.stores.postgres import schema

        return await self._on_connection(lambda lent: schema.migrate(lent.connection, database=self._shown()))

    async def status(self) -> DatabaseStatus:
        """Return the state of the database, and change nothing; errors as for :meth:`run`."""
        from app.stores.postgres.status import read_status

        return await self._on_connection(lambda lent: read_status(lent.connection, shown=self._shown()))

    async def close(self) -> None:
        """Close the connections of the running loop; a later statement opens them again."""
        await self._pools.aclose()

    async def _insist(
        self, name: str, values: Mapping[str, object], limit: asyncio.Timeout, *, where: str, repeatable: bool
    ) -> Sequence[Row]:
        """Run a statement until it is not undone because of others; and once more where its connection was left."""
        import psycopg

        from app.stores.postgres.failures import is_connection_loss, is_transient_conflict

        pool = await self._pools.get()
        statement = self._statements.text(name, where=where)
        fresh, conflicts = False, 0
        while True:
            async with pool.lend(fresh=fresh) as lent:
                try:
                    if not self._ready:
                        await self._make_ready(lent, limit)
                    # Binary, so that the bytes of a body come as they are.
                    cursor = await lent.connection.execute(statement, values, binary=True)
                    return () if cursor.rownumber is None else await cursor.fetchall()
                except psycopg.Error as error:
                    if is_transient_conflict(error) and conflicts < _CONFLICT_TRIES:
                        conflicts += 1
                    elif is_connection_loss(error) and lent.reused and repeatable and not fresh:
                        fresh = True
                    else:
                        raise
            if conflicts:
                await asyncio.sleep(random.uniform(0, _CONFLICT_WAIT_S * conflicts))

    async def _insist_on_all(
        self, work: Callable[[Execute], Awaitable[T]], limit: asyncio.Timeout, *, snapshot: bool
    ) -> T:
        import psycopg

        from app.stores.postgres.failures import is_connection_loss, is_transient_conflict

        pool = await self._pools.get()
        fresh, conflicts = False, 0
        while True:
            worked = False
            async with pool.lend(fresh=fresh) as lent:

                async def execute(statement: str, values: Mapping[str, object], lent: Lent = lent) -> Sequence[Row]:
                    cursor = await lent.connection.execute(statement.encode(), values, binary=True)
                    return () if cursor.rownumber is None else await cursor.fetchall()

                try:
                    if not self._ready:
                        await self._make_ready(lent, limit)
                    async with lent.connection.transaction():
                        if snapshot:
                            await execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY", {})
                        result = await work(execute)
                        worked = True
                    return result
                except psycopg.Error as error:
                    if is_transient_conflict(error) and conflicts < _CONFLICT_TRIES:
                        conflicts += 1
                    elif is_connection_loss(error) and lent.reused and not worked and not fresh:
                        fresh = True
                    else:
                        raise
            if conflicts:
                await asyncio.sleep(random.uniform(0, _CONFLICT_WAIT_S * conflicts))

    async def _make_ready(self, lent: Lent, limit: asyncio.Timeout) -> None:
        """Look at the schema once in the life of this object."""
        from app.stores.postgres import schema

        shown = self._shown()
        if await schema.is_behind(lent.connection, database=shown, auto_migrate=self._auto_migrate):
            # Changing tables that are full may take its time.
            limit.reschedule(asyncio.get_running_loop().time() + _MIGRATION_TIMEOUT_S)
            await schema.migrate(lent.connection, database=shown)
            limit.reschedule(asyncio.get_running_loop().time() + self._timeout_s)
        self._ready = True

    async def _on_connection(self, work: Callable[[Lent], Awaitable[T]]) -> T:
        """Do something that is no statement of a verb, whatever schema there is."""
        import psycopg

        pool = await self._pools.get()
        try:
            async with asyncio.timeout(_MIGRATION_TIMEOUT_S), pool.lend() as lent:
                return await work(lent)
        except psycopg.Error as error:
            raise self._told(error) from error
        except TimeoutError as error:
            raise self._unavailable(f"the database {self._shown()} did not answer in time; try again") from error

    def _told(self, error: psycopg.Error) -> NovaError:
        from app.stores.postgres.failures import translated

        return translated(error, database=self._shown(), unavailable=self._unavailable)

    def _shown(self) -> str:
        from app.stores.postgres.address import parse_address

        return parse_address(self._source().reveal()).shown

    def _pool(self, pool_size: int, *, prepare: bool) -> Pool:
        # In a thread, at the first statement: the driver is imported, and files are read.
        from app.stores.postgres import schema
        from app.stores.postgres.pool import Pool

        self._statements.load()
        schema.load()
        return Pool(self._source, size=pool_size, prepare=prepare)
