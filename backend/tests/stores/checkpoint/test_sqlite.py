"""The contract on SQLite, and what only a file has: its plans, its size, its damage, its threads and its loops."""

from __future__ import annotations

import asyncio
import os
import random
import signal
import sqlite3
import tempfile
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import closing
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest
from blockbuster import BlockBuster

from app.errors import CheckpointStoreUnavailableError, RunExistsError, StoreDamagedError, StoreError
from app.stores.checkpoint.sqlite import SqliteCheckpointStore
from app.stores.checkpoint.sqlite_rows import STATEMENTS
from app.stores.holder import Holder
from app.stores.sqlite.database import LockTimeoutError, _Files, retry_while_locked
from benchmarks.steps import CONTENT_BYTES, DISK_STEPS, bytes_on_disk, contents
from tests.support.users import ordinary_user

from .contract import BackDoor, CheckpointContract, FakeClock


class SqliteBackDoor(BackDoor):
    """Changes the file through a connection of its own."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def step_ids(self, run_id: str) -> list[str]:
        """Read them."""
        return [
            row[0]
            for row in self._all(
                "SELECT step_id FROM checkpoint_steps s JOIN checkpoint_runs r USING (run_no)"
                " WHERE r.tenant_id = 'default' AND r.run_id = ? ORDER BY s.idx",
                run_id,
            )
        ]

    def set_output(self, run_id: str, step_id: str, body: bytes) -> None:
        """Change the body alone."""
        self._all(f"UPDATE checkpoint_steps SET body = ? WHERE {_OF_RUN} AND step_id = ?", body, run_id, step_id)

    def set_fingerprint(self, run_id: str, step_id: str, fingerprint: str) -> None:
        """Change it alone."""
        self._all(
            f"UPDATE checkpoint_steps SET fingerprint = ? WHERE {_OF_RUN} AND step_id = ?", fingerprint, run_id, step_id
        )

    def swap(self, run_id: str, first: int, second: int) -> None:
        """Exchange their numbers."""
        for old, new in ((first, -1), (second, first), (-1, second)):
            self._all(f"UPDATE checkpoint_steps SET idx = ? WHERE {_OF_RUN} AND idx = ?", new, run_id, old)

    def drop_last(self, run_id: str, *, lower_count: bool) -> None:
        """Delete it."""
        self._all(
            "DELETE FROM checkpoint_steps WHERE rowid ="
            f" (SELECT rowid FROM checkpoint_steps WHERE {_OF_RUN} ORDER BY idx DESC LIMIT 1)",
            run_id,
        )
        if lower_count:
            self._all(
                "UPDATE checkpoint_runs SET next_step_index ="
                " (SELECT count(*) FROM checkpoint_steps s WHERE s.run_no = checkpoint_runs.run_no) WHERE run_id = ?",
                run_id,
            )

    def set_inputs(self, run_id: str, body: bytes) -> None:
        """Change the body alone."""
        self._all(f"UPDATE checkpoint_values SET body = ? WHERE {_OF_RUN} AND kind = 'inputs'", body, run_id)

    def rows(self) -> int:
        """Count them."""
        if not self._path.exists():
            return 0
        tables = ("checkpoint_runs", "checkpoint_values", "checkpoint_steps")
        return sum(int(self._all(f"SELECT count(*) FROM {table}")[0][0]) for table in tables)

    def _all(self, statement: str, *values: Any) -> list[Any]:
        with closing(sqlite3.connect(self._path, isolation_level=None)) as connection:
            return connection.execute(statement, values).fetchall()


_OF_RUN = "run_no = (SELECT run_no FROM checkpoint_runs WHERE tenant_id = 'default' AND run_id = ?)"


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Return where the file will be."""
    return tmp_path / "deep" / "nova.db"


@pytest.fixture
def clock() -> FakeClock:
    """Return the store's time."""
    return FakeClock()


@pytest.fixture
def gone() -> set[Holder]:
    """Return the holders that count as gone."""
    return set()


@pytest.fixture
async def store(path: Path, clock: FakeClock, gone: set[Holder]) -> AsyncIterator[SqliteCheckpointStore]:
    """Return a store on a file that is not there yet."""
    store = SqliteCheckpointStore(path, clock=clock, is_gone=gone.__contains__)
    yield store
    await store.close()


class TestSqliteCheckpointStore(CheckpointContract):
    """The SQLite backend."""

    @pytest.fixture
    def back_door(self, path: Path, blockbuster: BlockBuster) -> SqliteBackDoor:
        """Return the way around the store; it reads the file from the test's loop."""
        blockbuster.deactivate()
        return SqliteBackDoor(path)


# --- what a step costs ------------------------------------------------------------------------------------------------


async def test_every_lookup_goes_by_an_index(
    store: SqliteCheckpointStore, path: Path, blockbuster: BlockBuster
) -> None:
    """No statement reads a whole table or sorts, so no verb gets slower with the runs or the steps that there are.

    One sorts: which of the running runs lies longest is asked of these alone.
    """
    blockbuster.deactivate()
    await store.create("r")

    with closing(sqlite3.connect(path)) as connection:
        for statement in STATEMENTS:
            values = _any_values(statement)
            plan = [row[3] for row in connection.execute(f"EXPLAIN QUERY PLAN {statement}", values)]
            assert plan, statement
            assert not [line for line in plan if line.startswith("SCAN")], (statement, plan)
            if "INDEXED BY checkpoint_runs_running" not in statement:
                assert not [line for line in plan if "TEMP B-TREE" in line], (statement, plan)


def _any_values(statement: str) -> dict[str, object] | tuple[object, ...]:
    if ":tenant" in statement:
        names = ("tenant", "from", "to", "after_ms", "after_no", "workflow", "status", "limit", "before", "now", "host")
        return dict.fromkeys(names, 1)
    return (1,) * statement.count("?")


async def test_a_step_costs_the_same_in_a_long_run(
    store: SqliteCheckpointStore, path: Path, blockbuster: BlockBuster
) -> None:
    """An append is the same eight statements, and as many pages of the log, behind 10 steps and behind 1,000."""
    blockbuster.deactivate()
    await store.save("r", 10, step_outputs={f"s{index}": index for index in range(10)})
    await store.save("long", 1000, step_outputs={f"s{index}": index for index in range(1000)})
    await store.append("r", "warm", 1, expected_version=1)
    statements: list[str] = []
    await store._database.write(lambda connection, _: connection.set_trace_callback(statements.append))

    costs = []
    for run_id, version in (("r", 2), ("long", 1)):
        before = path.with_name(path.name + "-wal").stat().st_size
        statements.clear()
        await store.append(run_id, "next", "x" * 1000, expected_version=version)
        costs.append((list(map(_verb, statements)), path.with_name(path.name + "-wal").stat().st_size - before))

    assert costs[0][0] == costs[1][0] == [
        "BEGIN", "SELECT", "SAVEPOINT", "SELECT", "INSERT", "UPDATE", "RELEASE", "COMMIT",
    ]  # fmt: skip
    # One page more at most: an entry of an index may begin a new one.
    assert abs(costs[0][1] - costs[1][1]) <= 8192 + 24


def _verb(statement: str) -> str:
    return statement.split(maxsplit=1)[0]


async def test_400_steps_take_less_than_twice_their_content(tmp_path: Path, blockbuster: BlockBuster) -> None:
    """400 steps of 2 KB that no codec makes smaller take at most twice their size, file and log together."""
    blockbuster.deactivate()

    size = await bytes_on_disk(tmp_path / "nova.db", contents(DISK_STEPS, seed=5))

    assert DISK_STEPS * CONTENT_BYTES < size <= 2 * DISK_STEPS * CONTENT_BYTES


async def test_large_inputs_are_not_written_again(
    store: SqliteCheckpointStore, path: Path, blockbuster: BlockBuster
) -> None:
    """Recording a step of a run with 1 MB of inputs writes pages for the step, not for the inputs."""
    blockbuster.deactivate()
    await store.create("r", inputs="".join(contents(400, seed=1)))
    await store.close()

    await store.append("r", "s", 1, expected_version=0)

    assert path.with_name(path.name + "-wal").stat().st_size < 100_000


# --- durability and several owners ------------------------------------------------------------------------------------


async def test_a_second_store_sees_what_was_recorded(store: SqliteCheckpointStore, path: Path) -> None:
    """What one store recorded is what another store on the file loads, before and after closing."""
    await store.create("r", inputs=[1])
    await store.append("r", "s", {"x": 1}, expected_version=0)
    other = SqliteCheckpointStore(path)

    seen = await other.load("r")
    await store.close()
    again = await other.load("r")
    await other.close()

    assert seen is not None
    assert seen.step_outputs == {"s": {"x": 1}}
    assert seen == again == await store.load("r")


def test_one_store_serves_loop_after_loop(path: Path) -> None:
    """A store works from several event loops, one after another, without being closed in between."""
    store = SqliteCheckpointStore(path)

    asyncio.run(_create(store, "first"))
    asyncio.run(_create(store, "second"))
    heads = asyncio.run(_list(store))

    assert heads == ["second", "first"]
    asyncio.run(store.close())


async def _create(store: SqliteCheckpointStore, run_id: str) -> None:
    await store.create(run_id)


async def _list(store: SqliteCheckpointStore) -> list[str]:
    return [head.run_id for head in (await store.list_runs()).heads]


def test_two_loops_at_once(path: Path) -> None:
    """Loops in two threads share the file's threads, and each gets its own answers."""
    store = SqliteCheckpointStore(path)

    async def work(name: str) -> None:
        for index in range(40):
            await store.create(f"{name}{index}")

    threads = [threading.Thread(target=lambda name=name: asyncio.run(work(name))) for name in ("a", "b")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert len(asyncio.run(_list(store))) == 80
    asyncio.run(store.close())


def test_a_forked_child_opens_the_file_itself(path: Path) -> None:
    """A child of a process that has the file open uses threads, locks and connections of its own."""
    store = SqliteCheckpointStore(path)
    asyncio.run(_create(store, "parent"))

    with _Files._lock:  # as another thread may hold it at that moment
        child = os.fork()
        if child == 0:
            signal.alarm(30)
            try:
                asyncio.run(_create(store, "child"))
                os._exit(0)
            except BaseException:  # noqa: BLE001 - a forked child must not return into the test runner
                os._exit(1)
    _, status = os.waitpid(child, 0)

    assert os.waitstatus_to_exitcode(status) == 0
    assert set(asyncio.run(_list(store))) == {"parent", "child"}
    asyncio.run(store.close())


async def test_closing_ends_the_threads_and_empties_the_log(path: Path) -> None:
    """The last store that is closed leaves no thread and no write-ahead log; it can be used again."""
    before = set(threading.enumerate())
    stores = [SqliteCheckpointStore(path) for _ in range(2)]
    for index, store in enumerate(stores):
        await store.create(f"r{index}")

    await stores[0].close()
    assert (await stores[1].head("r0")) is not None
    await stores[1].close()

    assert not [thread for thread in set(threading.enumerate()) - before if thread.name.startswith("nova-sqlite")]
    assert not path.with_name(path.name + "-wal").exists()
    assert (await stores[0].head("r1")) is not None
    await stores[0].close()


async def test_closing_empties_the_log_beside_other_processes(
    store: SqliteCheckpointStore, path: Path, blockbuster: BlockBuster
) -> None:
    """The log is emptied also while another process keeps the file open, so that it does not stay at its peak."""
    blockbuster.deactivate()
    await store.create("r")
    with closing(sqlite3.connect(path)) as other:
        other.execute("SELECT count(*) FROM checkpoint_runs").fetchall()

        await store.close()

        assert path.with_name(path.name + "-wal").stat().st_size == 0


async def test_a_refused_write_undoes_only_itself(store: SqliteCheckpointStore) -> None:
    """Writes that share a commit stand and fall alone."""
    results = await asyncio.gather(*(store.create(f"r{index % 5}") for index in range(20)), return_exceptions=True)

    made = [result for result in results if not isinstance(result, BaseException)]
    assert len(made) == 5
    assert all(isinstance(result, RunExistsError) for result in results if isinstance(result, BaseException))
    assert await _list(store) == ["r4", "r3", "r2", "r1", "r0"]


async def test_writes_that_wait_share_a_commit(store: SqliteCheckpointStore, blockbuster: BlockBuster) -> None:
    """What comes while the thread is at work is committed at once, however much it is."""
    blockbuster.deactivate()
    works, may_end = threading.Event(), threading.Event()
    statements: list[str] = []

    def hold(connection: sqlite3.Connection, _now_ms: int) -> None:
        works.set()
        may_end.wait(timeout=60)
        connection.set_trace_callback(statements.append)

    holding = asyncio.create_task(store._database.write(hold))
    await asyncio.to_thread(works.wait, 60)
    creating = [asyncio.create_task(store.create(f"r{index}")) for index in range(20)]
    await asyncio.sleep(0)
    may_end.set()
    await asyncio.gather(holding, *creating)

    # The first is that of the work that held the thread.
    assert list(map(_verb, statements)).count("COMMIT") == 2


async def test_a_broken_statement_fails_alone(store: SqliteCheckpointStore, clock: FakeClock) -> None:
    """Work that breaks a rule of the schema fails as unavailable; what shares its commit is recorded."""

    def broken(connection: sqlite3.Connection, _now_ms: int) -> None:
        connection.execute("INSERT INTO checkpoint_token (last) VALUES (7)")
        connection.execute("INSERT INTO checkpoint_token (last) VALUES (NULL)")

    results = await asyncio.gather(
        store.create("a"), store._database.write(broken), store.create("b"), return_exceptions=True
    )

    assert isinstance(results[1], CheckpointStoreUnavailableError)
    assert await _list(store) == ["b", "a"]
    await store._database.read(lambda connection, _: _assert_one_token_row(connection))


def _assert_one_token_row(connection: sqlite3.Connection) -> None:
    assert connection.execute("SELECT count(*) FROM checkpoint_token").fetchone() == (1,)


async def test_a_cancelled_writer_leaves_the_others_alone(
    store: SqliteCheckpointStore, blockbuster: BlockBuster
) -> None:
    """A task that is cancelled while its commit is under way takes nothing from those that share it."""
    blockbuster.deactivate()
    both_wait, works, may_end = threading.Event(), threading.Event(), threading.Event()

    def hold(_connection: sqlite3.Connection, _now_ms: int) -> None:
        both_wait.wait(timeout=60)

    def slow(_connection: sqlite3.Connection, _now_ms: int) -> None:
        works.set()
        may_end.wait(timeout=60)

    holding, cancelled, other = [
        asyncio.create_task(write)
        for write in (store._database.write(hold), store._database.write(slow), store.create("r"))
    ]
    await asyncio.sleep(0)
    both_wait.set()
    await asyncio.to_thread(works.wait, 60)
    cancelled.cancel()
    await asyncio.sleep(0)
    may_end.set()

    async with asyncio.timeout(60):
        await holding
        assert await other == await store.head("r")
    assert cancelled.cancelled()


async def test_a_value_is_recorded_as_it_was_handed_in(
    store: SqliteCheckpointStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A large value that another task changes, while it is packed in a thread, is recorded as it was at the call."""
    value = contents(100, seed=9)
    original = list(value)
    await store.create("r")
    changed = asyncio.Event()

    async def late(work: Callable[[], object]) -> object:
        await changed.wait()
        return work()

    with monkeypatch.context() as patch:
        patch.setattr(asyncio, "to_thread", late)
        writing = asyncio.create_task(store.append("r", "s", value, expected_version=0))  # type: ignore[arg-type]
        await asyncio.sleep(0)
        value.clear()
        changed.set()
        await writing

    state = await store.load("r")
    assert state is not None
    assert state.step_outputs == {"s": original}


# --- bad files and bad clocks -----------------------------------------------------------------------------------------


async def test_a_clock_that_jumps_back_is_refused(store: SqliteCheckpointStore, clock: FakeClock) -> None:
    """A clock far behind the last write writes nothing, and says what to do; a little behind reads as no time."""
    await store.create("r")
    clock.now_ms -= 4_000
    await store.append("r", "a", 1, expected_version=0)
    clock.now_ms -= 10_000

    with pytest.raises(StoreError, match="clock"):
        await store.append("r", "b", 2, expected_version=1)

    state = await store.load("r")
    assert state is not None
    assert state.step_outputs == {"a": 1}
    assert state.head.updated_at == state.head.created_at


@pytest.mark.parametrize("content", [b"not a database at all" * 100, b"SQLite format 3\x00" + b"\xff" * 8000])
async def test_a_file_that_is_no_database(path: Path, content: bytes, blockbuster: BlockBuster) -> None:
    """A file that is not a database is refused, and left as it is."""
    blockbuster.deactivate()
    path.parent.mkdir()
    path.write_bytes(content)
    store = SqliteCheckpointStore(path)

    with pytest.raises(StoreDamagedError, match=r"nova\.db"):
        await store.create("r")

    await store.close()
    assert path.read_bytes() == content


async def test_a_database_of_another_program(path: Path, blockbuster: BlockBuster) -> None:
    """A foreign database is refused, and gets no table."""
    blockbuster.deactivate()
    path.parent.mkdir()
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("CREATE TABLE theirs (x)")
    store = SqliteCheckpointStore(path)

    with pytest.raises(StoreDamagedError, match="another program"):
        await store.head("r")

    await store.close()
    with closing(sqlite3.connect(path)) as connection:
        assert connection.execute("SELECT name FROM sqlite_master").fetchall() == [("theirs",)]


async def test_a_database_of_a_newer_nova(store: SqliteCheckpointStore, path: Path, blockbuster: BlockBuster) -> None:
    """A file with migrations that this program does not know is refused."""
    blockbuster.deactivate()
    await store.create("r")
    await store.close()
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute("INSERT INTO nova_schema VALUES ('checkpoint', 99, 'later')")

    with pytest.raises(StoreDamagedError, match="newer"):
        await store.head("r")


async def test_a_directory_without_the_right_to_write() -> None:
    """A place that cannot be written to is unavailable, and the message says what to check."""
    # Not tmp_path: an ordinary user may not enter the folders above it.
    with tempfile.TemporaryDirectory(prefix="nova-checkpoint-") as directory:
        Path(directory).chmod(0o555)
        store = SqliteCheckpointStore(Path(directory) / "nova.db")

        with ordinary_user():
            with pytest.raises(CheckpointStoreUnavailableError, match=r"nova\.db"):
                await store.create("r")
            await store.close()


async def test_a_path_that_is_a_directory(tmp_path: Path) -> None:
    """A path that cannot be opened is unavailable, and names the file."""
    store = SqliteCheckpointStore(tmp_path)

    with pytest.raises(CheckpointStoreUnavailableError, match="cannot be opened"):
        await store.create("r")

    await store.close()


async def test_a_full_disk_changes_nothing(store: SqliteCheckpointStore, blockbuster: BlockBuster) -> None:
    """Where the file cannot grow, every write of a commit is unavailable, and none of them stands."""
    blockbuster.deactivate()
    await store.create("r")
    big = "".join(contents(20, seed=3))
    works, both_wait = threading.Event(), threading.Event()

    def fill(connection: sqlite3.Connection, _now_ms: int) -> None:
        works.set()
        both_wait.wait(timeout=60)
        connection.execute("PRAGMA max_page_count = 1").fetchall()

    filling = asyncio.create_task(store._database.write(fill))
    await asyncio.to_thread(works.wait, 60)
    tasks = [
        asyncio.create_task(write)
        for write in (store.append("r", "a", big, expected_version=0), store.create("other", inputs=big))
    ]
    await asyncio.sleep(0)
    both_wait.set()
    await filling
    results = await asyncio.gather(*tasks, return_exceptions=True)

    assert [type(result) for result in results] == [CheckpointStoreUnavailableError] * 2
    assert "the disk is full" in str(results[0])
    state = await store.load("r")
    assert state is not None
    assert (state.version, state.steps, await store.head("other")) == (0, (), None)
    assert (await store.append("r", "a", big, expected_version=0)).version == 1


async def test_a_lock_is_waited_for(store: SqliteCheckpointStore, path: Path, blockbuster: BlockBuster) -> None:
    """A write while another process holds the lock waits, and succeeds when the lock is free."""
    blockbuster.deactivate()
    await store.create("r")
    refused = threading.Event()

    def pause(shortest: float, _longest: float) -> float:
        refused.set()
        return shortest

    with closing(sqlite3.connect(path, isolation_level=None)) as other, patch.object(random, "uniform", pause):
        other.execute("BEGIN IMMEDIATE")
        waiting = asyncio.create_task(store.append("r", "a", 1, expected_version=0))
        reading = await store.head("r")
        assert reading is not None
        seen = asyncio.create_task(asyncio.to_thread(refused.wait, 30))
        await asyncio.wait({waiting, seen}, return_when=asyncio.FIRST_COMPLETED)
        refused.set()
        assert await seen
        assert not waiting.done()
        other.execute("COMMIT")

        assert (await waiting).version == 1


def test_a_lock_that_is_never_free_is_an_error() -> None:
    """Waiting for a lock ends at its deadline; other errors are not waited for."""
    calls = []

    def locked() -> None:
        calls.append(1)
        error = sqlite3.OperationalError("database is locked")
        error.sqlite_errorcode = sqlite3.SQLITE_BUSY if len(calls) < 4 else sqlite3.SQLITE_FULL
        raise error

    with pytest.raises(sqlite3.OperationalError) as caught:
        retry_while_locked(locked, deadline_s=60)
    assert (len(calls), caught.value.sqlite_errorcode) == (4, sqlite3.SQLITE_FULL)

    calls.clear()
    with pytest.raises(LockTimeoutError):
        retry_while_locked(locked, deadline_s=0)
    assert len(calls) == 1


async def test_building_opens_nothing(path: Path) -> None:
    """A store makes neither file nor thread before its first verb."""
    SqliteCheckpointStore(path)

    assert not path.parent.exists()
