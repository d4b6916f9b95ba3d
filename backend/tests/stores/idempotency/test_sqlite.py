"""The idempotency store in SQLite keeps the contract, and what only a file can promise."""

from __future__ import annotations

import os
import sqlite3
import threading
from collections.abc import AsyncIterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from app.errors import IdempotencyStoreUnavailableError, StoreDamagedError
from app.stores.idempotency import results, sqlite
from app.stores.idempotency.contract import Completed, InProgress
from app.stores.idempotency.sqlite import SqliteIdempotencyStore

from .contract import ME, BackDoor, FakeClock, IdempotencyContract, started


class SqliteBackDoor(BackDoor):
    """Opens the file with a connection of its own."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def rows(self) -> dict[tuple[str, str], tuple[Any, ...]]:
        """Return the rows of the records' table."""
        if not self._path.exists():
            return {}
        with closing(sqlite3.connect(self._path)) as connection:
            rows = connection.execute("SELECT * FROM idempotency_records").fetchall()
        return {(tenant, key): tuple(values) for tenant, key, *values in rows}

    def change(self, statement: str, *values: object) -> None:
        """Run a statement on the file and commit it."""
        with closing(sqlite3.connect(self._path)) as connection:
            connection.execute(statement, values)
            connection.commit()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Give the path of a file that does not exist yet."""
    return tmp_path / "state" / "nova.db"


class TestSqliteIdempotencyStore(IdempotencyContract):
    """The contract on a file, and more."""

    @pytest.fixture
    async def store(self, path: Path, clock: FakeClock) -> AsyncIterator[SqliteIdempotencyStore]:
        """Give a store on an empty file."""
        store = SqliteIdempotencyStore(path, clock=clock)
        yield store
        await store.close()

    @pytest.fixture
    def back_door(self, path: Path) -> SqliteBackDoor:
        """Give the look into the file."""
        return SqliteBackDoor(path)

    async def test_building_a_store_touches_no_file(self, store: SqliteIdempotencyStore, path: Path) -> None:
        """The file and its directory come into being with the first verb."""
        before = path.parent.exists()

        await started(store)

        assert not before
        assert path.exists()

    async def test_two_stores_on_one_file_are_one(
        self, store: SqliteIdempotencyStore, path: Path, clock: FakeClock
    ) -> None:
        """What one store object records, another one on the same file sees at once, and after both are closed."""
        token = (await started(store)).token
        second = SqliteIdempotencyStore(path, clock=clock)

        waiting = await second.begin("k", "f", holder=ME)
        await second.complete("k", token, b"r")
        await store.close()
        await second.close()

        assert isinstance(waiting, InProgress)
        assert await store.begin("k", "f", holder=ME) == Completed(result=b"r")

    async def test_results_are_compressed(self, store: SqliteIdempotencyStore, back_door: SqliteBackDoor) -> None:
        """A result of repeated text takes a small part of its size on the disk."""
        result = b"the same words again and again " * 10_000
        token = (await started(store)).token

        await store.complete("k", token, result)

        (row,) = back_door.rows().values()
        assert len(row[-1]) < len(result) / 100

    @pytest.mark.parametrize(("size_bytes", "aside"), [(1_000, False), (1_000_000, True)])
    async def test_a_large_result_is_packed_aside(
        self, store: SqliteIdempotencyStore, monkeypatch: pytest.MonkeyPatch, size_bytes: int, *, aside: bool
    ) -> None:
        """The loop goes on while megabytes are packed; for little ones no thread is troubled."""
        threads: list[int] = []
        pack = results.pack

        def noting(result: bytes) -> bytes:
            threads.append(threading.get_ident())
            return pack(result)

        monkeypatch.setattr("app.stores.idempotency.sqlite.pack", noting)
        token = (await started(store)).token

        await store.complete("k", token, os.urandom(size_bytes))

        assert [thread != threading.get_ident() for thread in threads] == [aside]

    @pytest.mark.parametrize(
        "damage",
        [
            "UPDATE idempotency_records SET result = x'00'",
            "UPDATE idempotency_records SET result = zeroblob(length(result))",
            "UPDATE idempotency_records SET digest = zeroblob(32)",
            "UPDATE idempotency_records SET holder = 'nobody'",
        ],
    )
    async def test_a_damaged_record_is_told_and_never_replayed(
        self, store: SqliteIdempotencyStore, back_door: SqliteBackDoor, damage: str
    ) -> None:
        """A stored result that does not verify is an error that names the key; it is neither replayed nor redone."""
        token = (await started(store)).token
        await store.complete("k", token, b"a result of some length " * 10)
        back_door.change(damage)

        with pytest.raises(StoreDamagedError, match="'k'"):
            await store.begin("k", "f", holder=ME)

    async def test_the_look_for_expired_rows_uses_its_index(
        self, store: SqliteIdempotencyStore, back_door: SqliteBackDoor, path: Path
    ) -> None:
        """Removing a portion costs the same however many records there are."""
        await started(store)

        with closing(sqlite3.connect(path)) as connection:
            plan = str(connection.execute(f"EXPLAIN QUERY PLAN {sqlite._REMOVE_EXPIRED}", (0, 8)).fetchall())
        assert "idempotency_records_by_expiry" in plan
        assert "SCAN" not in plan

    async def test_a_file_that_cannot_be_opened_refuses_the_call(self, tmp_path: Path) -> None:
        """A store that is down never answers "go on": begin raises."""
        (tmp_path / "file").write_text("")
        store = SqliteIdempotencyStore(tmp_path / "file" / "nova.db")

        with pytest.raises(IdempotencyStoreUnavailableError):
            await store.begin("k", "f", holder=ME)
        await store.close()
