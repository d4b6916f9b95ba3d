"""Looking after the SQLite file: its state, its schema, a copy of it, its clock.

Plain functions for a command line; they block, so an event loop calls them on a thread. Each may run while other
processes read and write the file.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import sqlite3
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Final, TypeAlias
from urllib.parse import quote

from app.errors import InvalidInputError, StoreDamagedError, StoreUnavailableError
from app.stores.clock import Clock, system_clock
from app.stores.sqlite import schema
from app.stores.sqlite.database import LockTimeoutError, retry_while_locked
from app.stores.sqlite.failures import translated
from app.stores.sqlite.schema import ComponentVersion

__all__ = ["FileStatus", "Progress", "backup", "migrate", "reset_clock", "status"]

Progress: TypeAlias = Callable[[int, int], None]
"""Called with the pages that are copied and the pages that there are."""

_BACKUP_PAGES: Final = 512
"""How many pages are copied between two reports of progress: 4 MB."""

_READ_TIMEOUT_S: Final = 5.0


@dataclass(frozen=True, slots=True, kw_only=True)
class FileStatus:
    """What is known of a file at one moment.

    Attributes:
        wal_bytes: the size of the write-ahead log beside it, 0 where there is none.
        free_pages: pages of ``pages`` that hold nothing and will be used again.
        versions: the schema of each store in the file, and the one that this program brings.
        latest_write: the time of the last write, None in a file without one.
        rows: how many rows each table of the stores has, by the table's name.
        problems: what SQLite's integrity check found, at most ten lines; empty where the file is sound.
    """

    path: Path
    size_bytes: int
    wal_bytes: int
    page_bytes: int
    pages: int
    free_pages: int
    versions: tuple[ComponentVersion, ...]
    latest_write: datetime | None
    rows: Mapping[str, int]
    problems: tuple[str, ...]

    @property
    def current(self) -> bool:
        """Whether every store's schema is the one that this program brings."""
        return all(version.applied == version.available for version in self.versions)


def status(path: Path) -> FileStatus:
    """Return the state of a file; it is read whole, and nothing in it is changed, not even its schema.

    Raises:
        InvalidInputError: there is no such file.
        StoreDamagedError: it is not Nova's, or too damaged to be read.
        StoreUnavailableError: it cannot be opened now.
    """
    with _told(path), _snapshot(path) as connection:
        checked = [str(line) for (line,) in connection.execute("PRAGMA integrity_check(10)")]
        latest_ms = schema.latest_time(connection)
        return FileStatus(
            path=path,
            size_bytes=path.stat().st_size,
            wal_bytes=_size_bytes(path.with_name(path.name + "-wal")),
            page_bytes=_pragma(connection, "page_size"),
            pages=_pragma(connection, "page_count"),
            free_pages=_pragma(connection, "freelist_count"),
            versions=schema.versions(connection),
            latest_write=datetime.fromtimestamp(latest_ms / 1000, UTC) if latest_ms else None,
            rows=_rows(connection),
            problems=() if checked == ["ok"] else tuple(checked),
        )


def migrate(path: Path) -> tuple[ComponentVersion, ...]:
    """Bring a file to the schema of this program, creating it if it is not there, and return the versions.

    Every store does this by itself when it opens the file.

    Raises:
        StoreDamagedError: the file is foreign, damaged, or was written by a newer Nova; nothing was changed.
        StoreUnavailableError: it cannot be opened, or was locked for too long.
    """
    with _told(path), _writable(path) as connection:
        return schema.versions(connection)


def backup(path: Path, target: Path, *, progress: Progress | None = None) -> int:
    """Copy a file as it is at this moment to ``target``, and return the size of the copy in bytes.

    The copy is one moment of the file, also while others write; they are not kept waiting. It is checked and on the
    disk before it gets its name, so ``target`` is either whole or absent. An existing file is never overwritten.

    Raises:
        InvalidInputError: there is no such file, ``target`` exists, or cannot be written to.
        StoreDamagedError: the file is not Nova's, or its copy does not pass the integrity check.
        StoreUnavailableError: the file cannot be opened, or the disk is full.
    """
    _check_exists(path)
    if target.exists():
        raise InvalidInputError(f"{str(target)!r} exists already and is not overwritten; name another file")
    partial = target.with_name(f".{target.name}.{secrets.token_hex(4)}.partial")
    try:
        os.close(os.open(partial, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))
        with _told(path, writing=target), _snapshot(path) as source:
            _copy(source, partial, path=path, progress=progress)
        _fsync(partial)
        _name_without_overwriting(partial, target)
        _fsync(target.parent)
        return target.stat().st_size
    except FileExistsError:
        raise InvalidInputError(f"{str(target)!r} appeared meanwhile and is not overwritten") from None
    except OSError as error:
        raise InvalidInputError(f"the backup {str(target)!r} cannot be written: {error.strerror}") from error
    finally:
        for leftover in ("", "-wal", "-shm", "-journal"):
            with contextlib.suppress(OSError):
                partial.with_name(partial.name + leftover).unlink(missing_ok=True)


def reset_clock(path: Path, *, clock: Clock = system_clock) -> datetime:
    """Make the present time the latest of the file, and return the one that it had.

    For a host whose clock was ahead when it wrote and is right now: the stores refuse to write at a time far before
    the file's latest one. Leases that were taken while the clock was ahead end by that clock.

    Raises:
        InvalidInputError: there is no such file.
        StoreDamagedError: it is foreign, damaged, or was written by a newer Nova.
        StoreUnavailableError: it cannot be opened, or was locked for too long.
    """
    _check_exists(path)
    with _told(path), _writable(path) as connection:
        retry_while_locked(lambda: connection.execute("BEGIN IMMEDIATE"))
        before_ms = schema.latest_time(connection)
        schema.reset_time(connection, clock())
        connection.execute("COMMIT")
        return datetime.fromtimestamp(before_ms / 1000, UTC)


@contextlib.contextmanager
def _snapshot(path: Path) -> Iterator[sqlite3.Connection]:
    """Open a file for reading only, and hold one moment of it: without that, each write of others restarts a copy."""
    _check_exists(path)
    uri = f"file:{quote(str(path.absolute()))}?mode=ro"
    with contextlib.closing(
        sqlite3.connect(uri, uri=True, timeout=_READ_TIMEOUT_S, isolation_level=None)
    ) as connection:
        if not schema.is_nova(connection):
            raise StoreDamagedError(f"the database {str(path)!r} belongs to another program. Name another file")
        connection.execute("BEGIN")
        connection.execute("SELECT latest_ms FROM nova_clock").fetchone()
        yield connection


@contextlib.contextmanager
def _writable(path: Path) -> Iterator[sqlite3.Connection]:
    try:
        connection = retry_while_locked(lambda: schema.open_database(path))
    except OSError as error:
        raise StoreUnavailableError(f"the database {str(path)!r} cannot be opened: {error.strerror}") from error
    with contextlib.closing(connection):
        yield connection


@contextlib.contextmanager
def _told(path: Path, *, writing: Path | None = None) -> Iterator[None]:
    """Turn SQLite's errors into Nova's: damage is that of ``path``, what else fails that of the file being written."""
    try:
        yield
    except sqlite3.Error as error:
        told = translated(error, path=path, unavailable=StoreUnavailableError)
        if writing is not None and not isinstance(told, StoreDamagedError):
            told = translated(error, path=writing, unavailable=StoreUnavailableError)
        raise told from error
    except LockTimeoutError as error:
        raise StoreUnavailableError(f"the database {str(path)!r} is locked by another process; try again") from error


def _copy(source: sqlite3.Connection, partial: Path, *, path: Path, progress: Progress | None) -> None:
    def report(_: int, remaining: int, total: int) -> None:
        if progress is not None:
            progress(total - remaining, total)

    with contextlib.closing(sqlite3.connect(partial, isolation_level=None)) as copy:
        # The file is synced once, whole, before it gets its name.
        copy.execute("PRAGMA synchronous = OFF")
        source.backup(copy, pages=_BACKUP_PAGES, progress=report)
        found = copy.execute("PRAGMA integrity_check(1)").fetchone()[0]
    if found != "ok":
        raise StoreDamagedError(f"the database {str(path)!r} is damaged ({found}); no backup was made")


def _name_without_overwriting(partial: Path, target: Path) -> None:
    """Give a file its name, or raise FileExistsError: a rename would replace what came there meanwhile."""
    try:
        target.hardlink_to(partial)
    except FileExistsError:
        raise
    except OSError:
        # A file system without hard links, such as exFAT: the look and the rename are two steps there.
        if target.exists():
            raise FileExistsError(str(target)) from None
        partial.rename(target)


def _check_exists(path: Path) -> None:
    if not path.is_file():
        raise InvalidInputError(f"there is no database file {str(path)!r}")


def _rows(connection: sqlite3.Connection) -> dict[str, int]:
    tables = connection.execute(
        "SELECT name FROM sqlite_master WHERE type = 'table' AND name NOT LIKE 'nova#_%' ESCAPE '#'"
        " AND name NOT LIKE 'sqlite#_%' ESCAPE '#' ORDER BY name"
    ).fetchall()
    return {name: connection.execute(f'SELECT count(*) FROM "{name}"').fetchone()[0] for (name,) in tables}


def _pragma(connection: sqlite3.Connection, name: str) -> int:
    return int(connection.execute(f"PRAGMA {name}").fetchone()[0])


def _size_bytes(path: Path) -> int:
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0


def _fsync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
