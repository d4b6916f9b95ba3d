"""The contract on a real PostgreSQL server, and what is its own: plans, what a step costs, faults of the connection."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
from blockbuster import BlockBuster

from app.credentials import fixed
from app.stores.checkpoint.postgres import CheckpointStore
from app.stores.holder import Holder

from .conftest import Database
from .contract import BackDoor, CheckpointContract, FakeClock

_RUN = "run_no = (SELECT run_no FROM nova_runs WHERE tenant_id = 'default' AND run_id = %s)"


class PostgresBackDoor(BackDoor):
    """Changes the rows on a connection of its own."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def step_ids(self, run_id: str) -> list[str]:
        """Read them."""
        return [
            row[0] for row in self._database.rows(f"SELECT step_id FROM nova_steps WHERE {_RUN} ORDER BY idx", run_id)
        ]

    def set_output(self, run_id: str, step_id: str, body: bytes) -> None:
        """Change the body alone."""
        self._database.rows(f"UPDATE nova_steps SET body = %s WHERE {_RUN} AND step_id = %s", body, run_id, step_id)

    def set_fingerprint(self, run_id: str, step_id: str, fingerprint: str) -> None:
        """Change it alone."""
        self._database.rows(
            f"UPDATE nova_steps SET fingerprint = %s WHERE {_RUN} AND step_id = %s", fingerprint, run_id, step_id
        )

    def swap(self, run_id: str, first: int, second: int) -> None:
        """Exchange their indexes."""
        for before, after in ((first, -1), (second, first), (-1, second)):
            self._database.rows(f"UPDATE nova_steps SET idx = %s WHERE {_RUN} AND idx = %s", after, run_id, before)

    def drop_last(self, run_id: str, *, lower_count: bool) -> None:
        """Delete it."""
        self._database.rows(
            f"DELETE FROM nova_steps WHERE {_RUN} AND idx = (SELECT max(idx) FROM nova_steps WHERE {_RUN})",
            run_id,
            run_id,
        )
        if lower_count:
            self._database.rows(
                f"UPDATE nova_runs SET next_step_index = (SELECT count(*) FROM nova_steps WHERE {_RUN}) WHERE {_RUN}",
                run_id,
                run_id,
            )

    def set_inputs(self, run_id: str, body: bytes) -> None:
        """Change the body alone."""
        self._database.rows(f"UPDATE nova_values SET body = %s WHERE {_RUN} AND kind = 'inputs'", body, run_id)

    def rows(self) -> int:
        """Count them."""
        return sum(
            self._database.value(f"SELECT count(*) FROM {table}")
            for table in ("nova_runs", "nova_values", "nova_steps")
        )


@pytest.fixture
def clock() -> FakeClock:
    """Return the store's time."""
    return FakeClock()


@pytest.fixture
def gone() -> set[Holder]:
    """Return the holders that count as gone."""
    return set()


@pytest.fixture
async def store(
    database: Database, clock: FakeClock, gone: set[Holder], blockbuster: BlockBuster
) -> AsyncIterator[CheckpointStore]:
    """Return a store on an empty database."""
    store = CheckpointStore(fixed(database.dsn), clock=clock, is_gone=gone.__contains__)
    yield store
    await store.close()


class TestCheckpointStore(CheckpointContract):
    """The PostgreSQL backend."""

    @pytest.fixture
    def back_door(self, database: Database, blockbuster: BlockBuster) -> PostgresBackDoor:
        """Return the way around the store; it asks the server from the test's loop."""
        blockbuster.deactivate()
        return PostgresBackDoor(database)
