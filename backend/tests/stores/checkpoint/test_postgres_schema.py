"""Migrations of PostgreSQL: applied once whoever begins, refused where the database is newer, equal to schema.sql."""

from __future__ import annotations

import asyncio
import re
from pathlib import Path
from typing import Any

import psycopg
import pytest
from blockbuster import BlockBuster

import app.stores.checkpoint
from app.credentials import fixed
from app.errors import ConfigurationError, StoreDamagedError
from app.stores.checkpoint.postgres import CheckpointStore
from app.stores.postgres import schema

from .conftest import Database

SCHEMA = Path(app.stores.checkpoint.__file__).parent / "postgres_schema"

CATALOG = [
    # Everything that makes a table what it is, but for the order in which its columns were added.
    (
        "SELECT table_name, column_name, data_type, collation_name, is_nullable, column_default, is_identity,"
        " generation_expression FROM information_schema.columns WHERE table_schema = 'public' ORDER BY 1, 2"
    ),
    "SELECT tablename, indexname, indexdef FROM pg_indexes WHERE schemaname = 'public' ORDER BY 1, 2",
    (
        "SELECT conrelid::regclass::text, contype, pg_get_constraintdef(oid) FROM pg_constraint"
        " WHERE connamespace = 'public'::regnamespace ORDER BY 1, 2, 3"
    ),
    "SELECT relname, relkind, reloptions FROM pg_class WHERE relnamespace = 'public'::regnamespace ORDER BY 1",
    (
        "SELECT attrelid::regclass::text, attname, attstorage FROM pg_attribute"
        " JOIN pg_class ON pg_class.oid = attrelid"
        " WHERE relnamespace = 'public'::regnamespace AND relkind = 'r' AND attnum > 0 AND NOT attisdropped"
        " ORDER BY 1, 2"
    ),
    (
        "SELECT t.typname, t.typbasetype::regtype::text, t.typcollation::regcollation::text,"
        " pg_get_constraintdef(c.oid)"
        " FROM pg_type AS t LEFT JOIN pg_constraint AS c ON c.contypid = t.oid"
        " WHERE t.typnamespace = 'public'::regnamespace AND t.typtype = 'd' ORDER BY 1, 4"
    ),
    "SELECT proname, pg_get_functiondef(oid) FROM pg_proc WHERE pronamespace = 'public'::regnamespace ORDER BY 1, 2",
    "SELECT component, version FROM nova_schema ORDER BY 1, 2",
]


@pytest.fixture(autouse=True)
def may_block(blockbuster: BlockBuster) -> None:
    """Let the tests ask the server from their loop."""
    blockbuster.deactivate()


def described(database: Database) -> list[list[tuple[Any, ...]]]:
    """Return everything that the catalog has of a database."""
    return [database.rows(query) for query in CATALOG]


async def test_the_schema_file_is_the_sum_of_the_migrations(database: Database, bare_database: Database) -> None:
    """Tables made by hand from schema.sql are those that the migrations make, to the last index and setting."""
    bare_database.rows((SCHEMA / "schema.sql").read_text())

    assert described(bare_database) == described(database)


async def test_the_first_use_makes_the_tables(bare_database: Database) -> None:
    """A verb on a database that nobody has used works, and the next one finds everything there."""
    store = CheckpointStore(fixed(bare_database.dsn))

    assert await store.head("r") is None
    assert (await store.create("r")).version == 0
    status = await store.database.status()

    assert status.current
    assert {table.name for table in status.tables} == {"nova_runs", "nova_schema", "nova_steps", "nova_values"} | {
        table.name for table in status.tables if table.name.startswith("nova_archive") or "tombstone" in table.name
    }
    await store.close()


@pytest.mark.parametrize("isolation", ["read committed", "repeatable read", "serializable"])
async def test_twelve_processes_that_begin_at_once_migrate_once(bare_database: Database, isolation: str) -> None:
    """Stores that meet an empty database at the same moment take turns, and all of them work."""
    bare_database.rows(f"ALTER DATABASE {bare_database.name} SET default_transaction_isolation = '{isolation}'")
    stores = [CheckpointStore(fixed(bare_database.dsn)) for _ in range(12)]

    await asyncio.gather(*(store.create(f"r{number}") for number, store in enumerate(stores)))

    available = {version.component: version.available for version in (await stores[0].database.status()).versions}
    for component, count in available.items():
        assert bare_database.value("SELECT count(*) FROM nova_schema WHERE component = %s", component) == count
    assert bare_database.value("SELECT count(*) FROM nova_runs") == 12
    for store in stores:
        await store.close()


def at_version(database: Database, version: int) -> None:
    """Make the tables as a Nova did that knew so many migrations."""
    database.rows(schema._CREATE.decode())
    for number, script in enumerate(schema._migrations("checkpoint")[:version], start=1):
        database.rows(script)
        database.rows("INSERT INTO nova_schema (component, version) VALUES ('checkpoint', %s)", number)


async def test_a_migration_hides_nothing_from_those_who_read(bare_database: Database) -> None:
    """A program with an older snapshot finds the runs afterwards, because their table is not written anew."""
    at_version(bare_database, 2)
    bare_database.rows(
        "INSERT INTO nova_runs (created_ms, updated_ms, lease_token, version, next_step_index, head_hash, tenant_id,"
        " run_id, root_run_id, workflow, workflow_version, status, inputs_digest)"
        " VALUES (0, 0, 0, 0, 0, '', 'default', 'r', 'r', '', '', 'running', '')"
    )
    store = CheckpointStore(fixed(bare_database.dsn))

    with psycopg.connect(bare_database.dsn) as reader:
        reader.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
        reader.execute("SELECT 1")
        await store.database.migrate()
        found = reader.execute("SELECT run_id FROM nova_runs").fetchall()

    assert found == [("r",)]
    assert (await store.database.status()).current
    await store.close()


async def test_tables_are_migrated_where_they_lie(bare_database: Database) -> None:
    """Whoever has a schema of their own in front of Nova's changes Nova's, and makes nothing beside it."""
    at_version(bare_database, 2)
    bare_database.rows('CREATE SCHEMA "postgres"')
    store = CheckpointStore(fixed(bare_database.dsn))

    await store.create("r")
    await store.append("r", "s", 1, expected_version=0)

    assert bare_database.value("SELECT count(*) FROM public.nova_steps") == 1
    assert bare_database.value("SELECT count(*) FROM pg_class WHERE relnamespace = 'postgres'::regnamespace") == 0
    assert bare_database.value("SELECT count(*) FROM pg_proc WHERE pronamespace = 'postgres'::regnamespace") == 0
    await store.close()


async def test_without_auto_migrate_the_tables_are_left_alone(bare_database: Database) -> None:
    """Where migrations are somebody's own business the first verb says what to run, and changes nothing."""
    store = CheckpointStore(fixed(bare_database.dsn), auto_migrate=False)

    with pytest.raises(ConfigurationError, match="nova db migrate") as caught:
        await store.create("r")

    assert caught.value.variable == "NOVA_AUTO_MIGRATE"
    assert bare_database.rows("SELECT 1 FROM pg_class WHERE relname LIKE 'nova%%'") == []
    await store.database.migrate()
    assert (await store.create("r")).version == 0
    await store.close()


async def test_a_newer_schema_is_refused_and_left_alone(bare_database: Database) -> None:
    """An older program on a newer database touches nothing, and says which is which."""
    store = CheckpointStore(fixed(bare_database.dsn))
    await store.create("r")
    await store.close()
    bare_database.rows("INSERT INTO nova_schema (component, version) VALUES ('checkpoint', 99)")
    before = described(bare_database)

    for auto_migrate in (True, False):
        older = CheckpointStore(fixed(bare_database.dsn), auto_migrate=auto_migrate)
        with pytest.raises(StoreDamagedError, match=r"newer Nova \(checkpoint schema 99, this program knows \d+\)"):
            await older.head("r")
        with pytest.raises(StoreDamagedError, match="Upgrade Nova"):
            await older.database.migrate()
        await older.close()

    assert described(bare_database) == before


async def test_a_migration_that_fails_leaves_nothing(bare_database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    """All that a database lacks is applied in one transaction."""
    whole = schema._migrations("checkpoint")
    monkeypatch.setattr(
        schema, "_migrations", lambda _component: (*whole, "CREATE TABLE nova_more (a int); SELECT 1/0")
    )
    store = CheckpointStore(fixed(bare_database.dsn))

    with pytest.raises(Exception, match="division by zero"):
        await store.create("r")

    assert bare_database.rows("SELECT 1 FROM pg_class WHERE relname LIKE 'nova%%'") == []
    await store.close()


def test_migrations_are_numbered_and_say_what_they_are_for() -> None:
    """1, 2, 3, …, each with a comment at its head."""
    files = sorted(path for path in SCHEMA.glob("*.sql") if path.name != "schema.sql")

    assert [int(path.name[:4]) for path in files] == list(range(1, len(files) + 1))
    assert all(re.match(r"-- \w", path.read_text()) for path in files)
