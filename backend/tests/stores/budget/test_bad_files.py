"""A file that cannot be used: a typed error that says what to do, and nothing in it changed."""

from __future__ import annotations

import os
import resource
import sqlite3
import tempfile
from collections.abc import AsyncIterator, Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

from app.errors import BudgetStoreUnavailableError, StoreDamagedError
from app.stores.budget.sqlite import SqliteBudgetStore
from tests.support.users import ordinary_user

from .contract import LEASE, granted, spent_and_held
from .test_sqlite import SqliteBackDoor


@pytest.fixture
def path() -> Iterator[Path]:
    """Give a path in a directory that every user may enter."""
    with tempfile.TemporaryDirectory(prefix="nova-budget-") as directory:
        Path(directory).chmod(0o755)
        yield Path(directory) / "nova.db"


@pytest.fixture
async def store(path: Path) -> AsyncIterator[SqliteBudgetStore]:
    """Give a store on that path."""
    store = SqliteBudgetStore(path)
    yield store
    await store.close()


@contextmanager
def largest_file(size_bytes: int) -> Iterator[None]:
    """Let no file of this process grow beyond a size: a write to it fails, as on a broken disk."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size_bytes, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


async def test_a_file_that_is_no_database_is_left_alone(store: SqliteBudgetStore, path: Path) -> None:
    """A text file under that name is named in the error and keeps its bytes."""
    path.write_bytes(b"these are notes, not a database\n" * 100)

    with pytest.raises(StoreDamagedError, match="Name another file") as caught:
        await store.reserve("h", 1, ["s"], lease=LEASE)

    assert str(path) in str(caught.value)
    assert path.read_bytes() == b"these are notes, not a database\n" * 100


async def test_another_programs_database_is_left_alone(store: SqliteBudgetStore, path: Path) -> None:
    """A database with tables of its own gets none of ours."""
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("CREATE TABLE recipes (name TEXT)")
        connection.commit()
    before = path.read_bytes()

    with pytest.raises(StoreDamagedError, match="another program"):
        await store.set_limit("s", 1)

    assert path.read_bytes() == before


async def test_a_newer_file_is_left_alone(store: SqliteBudgetStore, path: Path) -> None:
    """A schema that this program does not know is refused, reading as well."""
    await granted(store)
    await store.close()
    back_door = SqliteBackDoor(path)
    back_door.change("INSERT INTO nova_schema (component, version, applied_at) VALUES ('budget', 999, 'later')")
    before = back_door.dump()

    with pytest.raises(StoreDamagedError, match="Upgrade Nova"):
        await store.settle("h", 1)
    with pytest.raises(StoreDamagedError, match="Upgrade Nova"):
        await store.usage("s")

    assert back_door.dump() == before


async def test_a_damaged_file_is_told(store: SqliteBudgetStore, path: Path) -> None:
    """Where pages were overwritten no verb answers as if nothing had been spent."""
    await granted(store)
    await store.close()
    content = path.read_bytes()
    # The first page, which names the tables, stays; every other one is noise.
    path.write_bytes(content[:8192] + os.urandom(len(content) - 8192))

    with pytest.raises(StoreDamagedError, match="damaged"):
        await store.usage("s")
    with pytest.raises(StoreDamagedError, match="damaged"):
        await store.reserve("g", 1, ["s"], lease=LEASE)


async def test_a_read_only_file_refuses_calls(store: SqliteBudgetStore, path: Path) -> None:
    """What cannot be written is not reserved; the error says what to allow, and all is as before afterwards."""
    await granted(store)
    await store.close()
    path.chmod(0o444)
    path.parent.chmod(0o555)

    with ordinary_user():
        with pytest.raises(BudgetStoreUnavailableError) as caught:
            await store.reserve("g", 1, ["s"], lease=LEASE)
        await store.close()
    path.parent.chmod(0o755)
    path.chmod(0o644)

    assert "read-only" in str(caught.value) or "written to" in str(caught.value)
    assert await spent_and_held(store) == (0, 10)


async def test_a_full_disk_refuses_calls_and_keeps_what_was_counted(store: SqliteBudgetStore, path: Path) -> None:
    """A reserve that does not fit on the disk changes nothing; with room again the same one is granted."""
    await granted(store)
    await store._database.write(lambda connection, _: connection.execute("PRAGMA max_page_count = 30").fetchone())
    back_door = SqliteBackDoor(path)
    scopes = [f"scope {number} {'x' * 400}" for number in range(16)]
    failure, before, number = None, None, 0

    while failure is None and number < 1_000:
        before, number = back_door.dump(), number + 1
        try:
            await granted(store, f"h{number}", 1, *(f"{scope} {number}" for scope in scopes))
        except BudgetStoreUnavailableError as error:
            failure = error

    assert "disk is full" in str(failure)
    assert back_door.dump() == before
    assert (await store.audit()).clean
    await store._database.write(lambda connection, _: connection.execute("PRAGMA max_page_count = 9999").fetchone())
    await granted(store, f"h{number}", 1, *(f"{scope} {number}" for scope in scopes))
    assert (await store.audit()).clean


async def test_a_disk_that_fails_to_write_acknowledges_nothing(store: SqliteBudgetStore, path: Path) -> None:
    """Where the write-ahead log cannot grow, a bill is not settled; later the same one is."""
    await granted(store)
    await store.settle("h", 10)
    await granted(store, "g", 1)
    size_bytes = path.with_name("nova.db-wal").stat().st_size

    with largest_file(size_bytes), pytest.raises(BudgetStoreUnavailableError, match="disk"):
        await store.settle("g", 1, detail="x" * 8_000)

    assert await spent_and_held(store) == (10, 1)
    await store.settle("g", 1)
    assert await spent_and_held(store) == (11, 0)
    assert (await store.audit()).clean
