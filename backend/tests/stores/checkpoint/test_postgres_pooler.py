"""PgBouncer in transaction mode, with the default constructor: runs side by side on a few server connections."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterator

import pytest
from blockbuster import BlockBuster

from app.credentials import fixed
from app.stores.checkpoint.contract import RunStatus
from app.stores.checkpoint.postgres import CheckpointStore
from app.workflow.engine import Run, Runner, workflow
from tests.support.servers.pgbouncer import PgBouncer, why_no_pgbouncer
from tests.support.servers.postgres import PostgresServer

from .conftest import Database

RUNS, STEPS, PROGRAMS, SERVER_CONNECTIONS = 24, 12, 4, 5


@pytest.fixture(autouse=True)
def may_block(blockbuster: BlockBuster) -> None:
    """Let the tests ask the server from their loop."""
    blockbuster.deactivate()


@pytest.fixture(scope="module")
def pooler(postgres_server: PostgresServer) -> Iterator[PgBouncer]:
    """Return a pooler; a machine without PgBouncer skips by name, CI fails."""
    reason = why_no_pgbouncer()
    if reason is not None and "CI" not in os.environ:
        pytest.skip(reason)
    with PgBouncer(postgres_server, pool_size=SERVER_CONNECTIONS) as pooler:
        yield pooler


@workflow(version="1")
async def count(run: Run, start: int) -> int:
    """Add up, a step at a time."""
    total = start
    for number in range(STEPS):
        total = await run.step(f"add/{number}", add, total, number)
    return total


async def add(total: int, number: int) -> int:
    """Add."""
    return total + number


async def test_twenty_four_runs_through_a_pooler_complete(pooler: PgBouncer, database: Database) -> None:
    """Four programs with six runs each share five connections of the server; every run completes and verifies."""
    stores = [CheckpointStore(fixed(pooler.dsn(database.name))) for _ in range(PROGRAMS)]
    runners = [Runner(checkpoints=store) for store in stores]

    outcomes = await asyncio.gather(
        *(runners[n % PROGRAMS].start(count, {"start": n}, run_id=f"r{n}") for n in range(RUNS))
    )

    connections = database.value(
        "SELECT count(*) FROM pg_stat_activity WHERE datname = %s AND pid <> pg_backend_pid()", database.name
    )
    assert [outcome.status for outcome in outcomes] == [RunStatus.COMPLETED] * RUNS
    assert [outcome.result for outcome in outcomes] == [n + sum(range(STEPS)) for n in range(RUNS)]
    assert [await stores[0].verify(f"r{n}") for n in range(RUNS)] == [STEPS] * RUNS
    assert connections <= SERVER_CONNECTIONS
    for store in stores:
        await store.close()


async def test_a_pooler_that_restarts_is_no_trouble(pooler: PgBouncer, database: Database) -> None:
    """Connections that the pooler left are noticed, and the next verb goes through its successor."""
    store = CheckpointStore(fixed(pooler.dsn(database.name)))
    await store.create("r")
    token = (await store.claim("r", holder=Runner(checkpoints=store)._holder)).token
    await store.append("r", "a", 1, token=token)

    await asyncio.to_thread(pooler.kill)
    await asyncio.to_thread(pooler.restart)

    assert (await store.append("r", "b", 2, token=token)).next_step_index == 2
    assert await store.verify("r") == 2
    await store.close()


async def test_the_first_use_through_a_pooler_makes_the_tables(pooler: PgBouncer, bare_database: Database) -> None:
    """Migrations need no session either: their lock belongs to the transaction."""
    stores = [CheckpointStore(fixed(pooler.dsn(bare_database.name))) for _ in range(8)]

    await asyncio.gather(*(store.create(f"r{number}") for number, store in enumerate(stores)))

    assert bare_database.value("SELECT count(*) FROM nova_runs") == 8
    for store in stores:
        await store.close()
