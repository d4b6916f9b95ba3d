"""How a file becomes Nova's: its settings, and the numbered migrations of each store.

A component is a store with a folder of ``NNNN_name.sql`` files. Each is applied once, in order, in one transaction with
the row that records it, when the file is opened.
"""

from __future__ import annotations

import re
import sqlite3
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Final

from app.errors import StoreDamagedError

__all__ = [
    "COMPONENTS",
    "ComponentVersion",
    "is_nova",
    "latest_time",
    "open_database",
    "reset_time",
    "set_latest_time",
    "versions",
]

COMPONENTS: Final = ("budget", "checkpoint", "idempotency")

_APPLICATION_ID: Final = 0x4E4F5641
"""``NOVA``; marks the file, so that a foreign one is never written to."""

_SETTINGS: Final = (
    "PRAGMA synchronous = FULL",
    "PRAGMA foreign_keys = ON",
    "PRAGMA trusted_schema = OFF",
    "PRAGMA journal_size_limit = 16777216",
    "PRAGMA wal_autocheckpoint = 500",
)
_NUMBERED: Final = re.compile(r"^(\d{4})_\w+\.sql$")


@dataclass(frozen=True, slots=True, kw_only=True)
class ComponentVersion:
    """The schema version of one store in a file, and the one that this program brings."""

    component: str
    applied: int
    available: int


def open_database(path: Path) -> sqlite3.Connection:
    """Open or create a file, with every migration applied; the caller retries while it is locked.

    Raises:
        StoreDamagedError: the file belongs to another program, or a newer Nova wrote it.
        sqlite3.Error: it cannot be opened.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    # autocommit: every transaction is written out; threads: a connection stays on the thread that made it.
    connection = sqlite3.connect(path, timeout=0, isolation_level=None)
    try:
        _mark(connection, path)
        for setting in _SETTINGS:
            connection.execute(setting)
        _migrate(connection, path)
    except BaseException:
        connection.close()
        raise
    return connection


def is_nova(connection: sqlite3.Connection) -> bool:
    """Whether an open file is marked as Nova's."""
    return bool(connection.execute("PRAGMA application_id").fetchone()[0] == _APPLICATION_ID)


def versions(connection: sqlite3.Connection) -> tuple[ComponentVersion, ...]:
    """Return the versions of every component of an open file."""
    applied = _applied(connection)
    return tuple(
        ComponentVersion(component=name, applied=applied.get(name, 0), available=len(_migrations(name)))
        for name in COMPONENTS
    )


def latest_time(connection: sqlite3.Connection) -> int:
    """Return the highest time, in ms, that a write to the file had; 0 in a new one."""
    row = connection.execute("SELECT latest_ms FROM nova_clock").fetchone()
    return int(row[0]) if row else 0


def set_latest_time(connection: sqlite3.Connection, now_ms: int) -> None:
    """Record the time of a write."""
    connection.execute("UPDATE nova_clock SET latest_ms = ?", (now_ms,))


def reset_time(connection: sqlite3.Connection, now_ms: int) -> None:
    """Accept a clock that went back, after its owner said that it is right now."""
    set_latest_time(connection, now_ms)


def _mark(connection: sqlite3.Connection, path: Path) -> None:
    mark = connection.execute("PRAGMA application_id").fetchone()[0]
    if mark != 0 or connection.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]:
        # Asked last: since the mark was read another process may have made the new file Nova's.
        if is_nova(connection):
            return
        raise StoreDamagedError(
            f"the database {str(path)!r} belongs to another program; nothing was changed. Name another file"
        )
    # Of 4 to 16 KiB pages, 8 KiB keep 400 steps of 2 KB at 1.42x their size (4 KiB: 2.05x; measured 2026-11).
    connection.execute("PRAGMA page_size = 8192")
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("BEGIN IMMEDIATE")
    try:
        connection.execute(f"PRAGMA application_id = {_APPLICATION_ID}")
        connection.execute(
            "CREATE TABLE IF NOT EXISTS nova_schema ("
            " component TEXT NOT NULL, version INTEGER NOT NULL, applied_at TEXT NOT NULL,"
            " PRIMARY KEY (component, version)) WITHOUT ROWID"
        )
        connection.execute("CREATE TABLE IF NOT EXISTS nova_clock (latest_ms INTEGER NOT NULL)")
        connection.execute("INSERT INTO nova_clock (latest_ms) SELECT 0 WHERE NOT EXISTS (SELECT 1 FROM nova_clock)")
        connection.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise


def _migrate(connection: sqlite3.Connection, path: Path) -> None:
    for component in COMPONENTS:
        migrations = _migrations(component)
        applied = _applied(connection).get(component, 0)
        if applied > len(migrations):
            raise StoreDamagedError(
                f"the database {str(path)!r} was written by a newer Nova ({component} schema {applied}, this program "
                f"knows {len(migrations)}); nothing was changed. Upgrade Nova"
            )
        for version in range(applied + 1, len(migrations) + 1):
            _apply(connection, component, version, migrations[version - 1])


def _apply(connection: sqlite3.Connection, component: str, version: int, script: str) -> None:
    connection.execute("BEGIN IMMEDIATE")
    try:
        if _applied(connection).get(component, 0) < version:  # another process may have been quicker
            for statement in _statements(script):
                connection.execute(statement)
            connection.execute(
                "INSERT INTO nova_schema (component, version, applied_at) VALUES (?, ?, datetime('now'))",
                (component, version),
            )
        connection.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise


def _applied(connection: sqlite3.Connection) -> dict[str, int]:
    rows = connection.execute("SELECT component, max(version) FROM nova_schema GROUP BY component")
    return {str(component): int(version) for component, version in rows}


def _migrations(component: str) -> list[str]:
    """Return the scripts of a component, in the order of their numbers, which must be 1, 2, 3, …"""
    folder = resources.files("app.stores") / component / "sqlite_schema"
    numbered = sorted(
        (int(match.group(1)), entry) for entry in folder.iterdir() if (match := _NUMBERED.match(entry.name)) is not None
    )
    if [number for number, _ in numbered] != list(range(1, len(numbered) + 1)):
        raise StoreDamagedError(f"the migrations of {component} are not numbered 1, 2, 3, …: reinstall Nova")
    return [entry.read_text(encoding="utf-8") for _, entry in numbered]


def _statements(script: str) -> list[str]:
    """Split a script at the semicolons that end statements (``executescript`` would commit on its own)."""
    statements: list[str] = []
    pending = ""
    for line in script.splitlines(keepends=True):
        pending += line
        if sqlite3.complete_statement(pending):
            statements.append(pending)
            pending = ""
    if pending.strip() and not all(line.startswith("--") or not line.strip() for line in pending.splitlines()):
        raise StoreDamagedError(f"a migration ends inside a statement: {pending.strip()[:80]!r}")
    return statements
