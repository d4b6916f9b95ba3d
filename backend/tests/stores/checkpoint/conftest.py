"""A database of PostgreSQL for the tests of checkpoints: one for each module, empty for each test."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Final, LiteralString

import pytest

if TYPE_CHECKING:
    from tests.support.servers.postgres import PostgresServer

_names = (f"nova{number}" for number in itertools.count(1))

EMPTY: Final[LiteralString] = (
    "TRUNCATE nova_runs, nova_values, nova_steps, nova_archive_store, nova_archive_jobs, nova_archive_segments,"
    " nova_archive_frames, nova_archive_tombstones RESTART IDENTITY;"
    " UPDATE nova_archive_lease SET epoch = 0, holder = NULL, expires_ms = NULL;"
    " ALTER SEQUENCE nova_lease_token RESTART"
)


class Database:
    """A database with Nova's tables, and a connection around the store."""

    def __init__(self, server: PostgresServer, name: str) -> None:
        import psycopg

        self.server = server
        self.name = name
        self.dsn = server.create_database(name)
        self.connection = psycopg.connect(self.dsn, autocommit=True)

    def rows(self, statement: str, *values: Any) -> list[tuple[Any, ...]]:
        """Run a statement and return its rows."""
        cursor = self.connection.execute(statement.encode(), values or None)
        return cursor.fetchall() if cursor.description else []

    def value(self, statement: str, *values: Any) -> Any:
        """Run a statement and return the one value that it gives."""
        ((value,),) = self.rows(statement, *values)
        return value

    def empty(self) -> None:
        """Delete what is in Nova's tables, and begin to count anew."""
        self.connection.execute(EMPTY)

    def until_alone(self) -> None:
        """Wait until every connection of a store has ended, and with it its part of the server's statistics is in."""
        others = "SELECT count(*) FROM pg_stat_activity WHERE datname = %s AND pid <> %s"
        while self.server.execute(others, self.name, self.connection.info.backend_pid) != [(0,)]:
            continue

    def close(self) -> None:
        """Drop it."""
        self.connection.close()
        self.server.drop_database(self.name)


@pytest.fixture(scope="module")
def module_database(postgres_server: PostgresServer) -> Iterator[Database]:
    """Return a database that the tests of a module share, with Nova's tables in it."""
    import asyncio

    from app.credentials import fixed
    from app.stores.checkpoint.postgres import CheckpointStore

    database = Database(postgres_server, next(_names))

    async def migrate() -> None:
        store = CheckpointStore(fixed(database.dsn))
        await store.database.migrate()
        await store.close()

    asyncio.run(migrate())
    yield database
    database.close()


@pytest.fixture
def database(module_database: Database) -> Database:
    """Return the database of the module, empty."""
    module_database.empty()
    return module_database


@pytest.fixture
def bare_database(postgres_server: PostgresServer) -> Iterator[Database]:
    """Return a database that nobody has used."""
    database = Database(postgres_server, next(_names))
    yield database
    database.close()
