"""Looking after the SQLite file: what is told about it is true, and a copy is one moment of it."""

from __future__ import annotations

import asyncio
import os
import sqlite3
from collections.abc import Callable
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from app.errors import InvalidInputError, StoreDamagedError, StoreError, StoreUnavailableError
from app.stores import maintenance
from app.stores.holder import Holder
from app.stores.idempotency.contract import Completed, Started
from app.stores.idempotency.sqlite import SqliteIdempotencyStore

from .idempotency.contract import FakeClock
from .idempotency.puppet import puppets

ME = Holder.current()


@pytest.fixture
def clock() -> FakeClock:
    """Give the time of the writers."""
    return FakeClock()


@pytest.fixture
def path(tmp_path: Path, clock: FakeClock) -> Path:
    """Give a file with twelve results of a megabyte that does not compress."""
    path = tmp_path / "nova.db"
    asyncio.run(fill(path, clock))
    return path


async def fill(path: Path, clock: FakeClock) -> None:
    """Record the results."""
    store = SqliteIdempotencyStore(path, clock=clock)
    for number in range(12):
        answer = await store.begin(f"seed {number}", "f", holder=ME)
        assert isinstance(answer, Started)
        await store.complete(f"seed {number}", answer.token, os.urandom(1_000_000))
    await store.close()


def keys_in(path: Path) -> list[str]:
    """Read the keys of a file directly."""
    with closing(sqlite3.connect(path)) as connection:
        return [key for (key,) in connection.execute("SELECT key FROM idempotency_records ORDER BY key")]


class TestStatus:
    """What is told about a file."""

    def test_it_tells_what_is_there(self, path: Path, clock: FakeClock) -> None:
        """Sizes, schemas, rows, the time of the last write, and that the file is sound."""
        found = maintenance.status(path)

        assert found.size_bytes == found.pages * found.page_bytes == path.stat().st_size
        assert found.size_bytes > 12_000_000
        assert found.rows["idempotency_records"] == 12
        assert not [table for table in found.rows if table.startswith(("nova_", "sqlite_"))]
        assert found.problems == ()
        assert found.current
        assert found.latest_write == datetime.fromtimestamp(clock.now_ms / 1000, UTC)

    def test_it_changes_nothing(self, path: Path) -> None:
        """The bytes of the file are the same afterwards."""
        before = path.read_bytes()

        maintenance.status(path)

        assert path.read_bytes() == before

    def test_it_reads_beside_a_writer(self, path: Path, clock: FakeClock) -> None:
        """A file that another process has open and has just written to is read as it is, its log included."""
        with puppets(1, str(path)) as (writer,):
            writer.ask("begin", now_ms=clock.now_ms, lease_ms=1_000)

            found = maintenance.status(path)

        assert found.wal_bytes > 0
        assert found.rows["idempotency_records"] == 13

    def test_an_older_schema_is_told_and_not_migrated(self, path: Path) -> None:
        """A store whose schema this program would bring forward is shown as it is, until ``migrate``."""
        with closing(sqlite3.connect(path)) as connection:
            connection.execute("DELETE FROM nova_schema WHERE component = 'idempotency'")
            connection.execute("DROP TABLE idempotency_records")
            connection.execute("DROP TABLE idempotency_tokens")
            connection.commit()

        before = maintenance.status(path)
        after = maintenance.migrate(path)

        assert not before.current
        assert {version.component: version.applied for version in before.versions}["idempotency"] == 0
        assert all(version.applied == version.available for version in after)
        assert maintenance.status(path).current

    def test_damage_is_told(self, path: Path) -> None:
        """A file with a page overwritten is never called sound."""
        with path.open("r+b") as file:
            file.seek(3 * 8192)
            file.write(b"\xaa" * 8192)

        try:
            problems = maintenance.status(path).problems
        except StoreDamagedError as error:
            problems = (str(error),)

        assert problems


class TestMigrate:
    """Bringing a file to the schema of this program."""

    def test_it_creates_a_file(self, tmp_path: Path) -> None:
        """Where there is no file, one with every schema comes into being, in a new directory."""
        versions = maintenance.migrate(tmp_path / "new" / "nova.db")

        assert all(version.applied == version.available >= 1 for version in versions)
        assert maintenance.status(tmp_path / "new" / "nova.db").rows["idempotency_records"] == 0

    def test_a_directory_that_cannot_be_made_is_told(self, tmp_path: Path) -> None:
        """The error is Nova's and names the file."""
        (tmp_path / "file").write_text("")

        with pytest.raises(StoreUnavailableError, match=r"nova\.db"):
            maintenance.migrate(tmp_path / "file" / "nova.db")


class TestBackup:
    """A copy of the file."""

    def test_a_copy_is_one_moment_while_others_write(self, path: Path, tmp_path: Path, clock: FakeClock) -> None:
        """A process that writes between all portions is not kept waiting, and the copy holds none of its writes."""
        written: list[list[object]] = []
        target = tmp_path / "copy.db"

        with puppets(1, str(path)) as (writer,):

            def write_meanwhile(done: int, total: int) -> None:
                assert len(written) < 50, "the copy starts over at each write"
                clock.advance(timedelta(seconds=1))
                written.append(writer.ask("begin", now_ms=clock.now_ms, lease_ms=1_000))

            size = maintenance.backup(path, target, progress=write_meanwhile)

        assert [answer[0] for answer in written] == ["started"] * len(written)
        assert len(written) >= 3
        assert keys_in(target) == sorted(f"seed {number}" for number in range(12))
        assert "k" in keys_in(path)
        assert size == target.stat().st_size

    def test_a_copy_is_a_file_that_works(self, path: Path, tmp_path: Path, clock: FakeClock) -> None:
        """The results in the copy are replayed byte for byte as from the file."""
        target = tmp_path / "copy.db"
        maintenance.backup(path, target)

        replayed = [asyncio.run(replay(file, clock)) for file in (path, target)]

        assert replayed[0] == replayed[1]
        assert isinstance(replayed[0], Completed)
        assert maintenance.status(target).problems == ()

    def test_progress_counts_up_to_the_end(self, path: Path, tmp_path: Path) -> None:
        """The pages that are done grow until they are all the pages there are."""
        seen: list[tuple[int, int]] = []

        maintenance.backup(path, tmp_path / "copy.db", progress=lambda done, total: seen.append((done, total)))

        assert len(seen) >= 3
        assert [done for done, _ in seen] == sorted({done for done, _ in seen})
        assert seen[-1][0] == seen[-1][1] == maintenance.status(path).pages

    def test_an_existing_file_is_not_overwritten(self, path: Path, tmp_path: Path) -> None:
        """Whatever lies at the target stays as it is, and that is told before anything is copied."""
        copied: list[int] = []
        target = tmp_path / "copy.db"
        target.write_text("mine")

        with pytest.raises(InvalidInputError, match="not overwritten"):
            maintenance.backup(path, target, progress=lambda done, total: copied.append(done))

        assert target.read_text() == "mine"
        assert copied == []

    def test_a_file_that_appears_meanwhile_is_not_overwritten(self, path: Path, tmp_path: Path) -> None:
        """The name is taken at the end, without replacing what came there since the beginning."""
        target = tmp_path / "copy.db"

        def appear(done: int, total: int) -> None:
            target.write_text("mine")

        with pytest.raises(InvalidInputError, match="not overwritten"):
            maintenance.backup(path, target, progress=appear)

        assert target.read_text() == "mine"
        assert sorted(file.name for file in tmp_path.iterdir() if "partial" in file.name) == []

    def test_a_copy_that_was_cut_leaves_nothing(self, path: Path, tmp_path: Path) -> None:
        """An interrupt in the middle leaves neither the target nor a part of it."""

        def interrupt(done: int, total: int) -> None:
            raise KeyboardInterrupt

        (tmp_path / "backups").mkdir()
        with pytest.raises(KeyboardInterrupt):
            maintenance.backup(path, tmp_path / "backups" / "copy.db", progress=interrupt)

        assert list((tmp_path / "backups").iterdir()) == []

    def test_a_copy_is_readable_by_its_owner_alone(self, path: Path, tmp_path: Path) -> None:
        """What people asked a model is nobody else's."""
        maintenance.backup(path, tmp_path / "copy.db")

        assert (tmp_path / "copy.db").stat().st_mode & 0o777 == 0o600

    def test_a_target_without_a_directory_is_told(self, path: Path, tmp_path: Path) -> None:
        """The error names the target and the reason."""
        with pytest.raises(InvalidInputError, match=r"copy\.db.*No such file or directory"):
            maintenance.backup(path, tmp_path / "missing" / "copy.db")


class TestResetClock:
    """A clock that was wrong and is right again."""

    def test_a_file_from_the_future_takes_writes_again(self, path: Path, clock: FakeClock) -> None:
        """After a write by a clock that was a day ahead the stores refuse, until the clock of the file is reset."""
        clock.advance(timedelta(days=1))
        asyncio.run(begin(path, "ahead", clock))
        clock.advance(timedelta(days=-1))
        with pytest.raises(StoreError, match="reset-clock"):
            asyncio.run(begin(path, "refused", clock))

        before = maintenance.reset_clock(path, clock=clock)
        asyncio.run(begin(path, "taken", clock))

        assert before == datetime.fromtimestamp(clock.now_ms / 1000, UTC) + timedelta(days=1)
        assert {"ahead", "taken"} <= set(keys_in(path))
        assert "refused" not in keys_in(path)


@pytest.mark.parametrize(
    "verb",
    [maintenance.status, maintenance.reset_clock, lambda path: maintenance.backup(path, path.with_name("copy.db"))],
    ids=["status", "reset_clock", "backup"],
)
class TestWrongFiles:
    """Verbs that need a file of Nova's."""

    def test_no_file_is_created(self, verb: Callable[[Path], object], tmp_path: Path) -> None:
        """A path that names nothing is refused and stays nothing."""
        with pytest.raises(InvalidInputError, match="no database file"):
            verb(tmp_path / "absent.db")

        assert list(tmp_path.iterdir()) == []

    def test_a_foreign_database_is_refused(self, verb: Callable[[Path], object], tmp_path: Path) -> None:
        """A database of another program is not touched."""
        foreign = tmp_path / "foreign.db"
        with closing(sqlite3.connect(foreign)) as connection:
            connection.execute("CREATE TABLE theirs (a)")
            connection.commit()
        before = foreign.read_bytes()

        with pytest.raises(StoreDamagedError, match="another program"):
            verb(foreign)

        assert foreign.read_bytes() == before
        assert [file.name for file in tmp_path.iterdir()] == ["foreign.db"]

    def test_what_is_no_database_is_refused(self, verb: Callable[[Path], object], tmp_path: Path) -> None:
        """Any other file is told apart."""
        (tmp_path / "text.db").write_text("not a database, but long enough to be looked at " * 100)

        with pytest.raises(StoreDamagedError, match="not a SQLite database"):
            verb(tmp_path / "text.db")


async def begin(path: Path, key: str, clock: FakeClock) -> None:
    """Begin a key with a store of its own."""
    store = SqliteIdempotencyStore(path, clock=clock)
    try:
        await store.begin(key, "f", holder=ME)
    finally:
        await store.close()


async def replay(path: Path, clock: FakeClock) -> object:
    """Ask for one of the results with a store of its own."""
    store = SqliteIdempotencyStore(path, clock=clock)
    try:
        return await store.begin("seed 3", "f", holder=ME)
    finally:
        await store.close()
