"""SQLite's errors as Nova's: one table."""

from __future__ import annotations

import sqlite3
from pathlib import Path

from app.errors import NovaError, StoreDamagedError, StoreUnavailableError

__all__ = ["translated"]

_DAMAGED = {
    sqlite3.SQLITE_CORRUPT: "is damaged. Restore it from a backup (`nova db backup` makes one)",
    sqlite3.SQLITE_NOTADB: "is not a SQLite database. Name another file",
    sqlite3.SQLITE_FORMAT: "is not a SQLite database. Name another file",
}
_UNAVAILABLE = {
    sqlite3.SQLITE_FULL: "cannot grow: the disk is full. Nothing was changed; free some space and try again",
    sqlite3.SQLITE_READONLY: "is read-only. Give this user the right to write to the file and its directory",
    sqlite3.SQLITE_CANTOPEN: "cannot be opened. Check that its directory exists and may be written to",
    sqlite3.SQLITE_PERM: "may not be opened by this user",
    sqlite3.SQLITE_IOERR: "could not be read or written: the disk reported an error. Nothing was acknowledged",
    sqlite3.SQLITE_BUSY: "is locked by another process; try again",
    sqlite3.SQLITE_LOCKED: "is locked by another process; try again",
    sqlite3.SQLITE_NOMEM: "needs more memory than there is",
}


def translated(error: sqlite3.Error, *, path: Path, unavailable: type[StoreUnavailableError]) -> NovaError:
    """Return Nova's error for one of SQLite's, naming the file and what to do."""
    code = getattr(error, "sqlite_errorcode", 0) & 0xFF
    if code in _DAMAGED:
        return StoreDamagedError(f"the database {str(path)!r} {_DAMAGED[code]}")
    return unavailable(f"the database {str(path)!r} {_UNAVAILABLE.get(code, f'failed: {error}')}")
