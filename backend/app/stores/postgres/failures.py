"""PostgreSQL's errors as Nova's: one table by SQLSTATE, one by what a refused connection says."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from app.errors import NovaError, StoreDamagedError, StoreUnavailableError

if TYPE_CHECKING:
    import psycopg

__all__ = ["is_connection_loss", "is_refused_login", "is_transient_conflict", "translated"]

_DAMAGED: Final = {
    "42P01": "lacks a table of Nova's. Run `nova db migrate`, or correct the search_path",
    "42703": "has tables of another version of Nova. Run `nova db migrate`",
    "42883": "lacks a function: it is older than PostgreSQL 13, or has no nova_append in its search_path",
    "XX001": "is damaged. Restore it from a backup",
    "XX002": "has a damaged index. Rebuild it with REINDEX",
}
_UNAVAILABLE: Final = {
    "22021": "cannot store this text: its encoding must be UTF8",
    "22P05": "cannot store this text: its encoding must be UTF8",
    "25006": "is read-only: this is a replica, or its disk is full. Name the primary, or add "
    "target_session_attrs=read-write to the URL",
    "26000": "lost a prepared statement, as behind a pooler: leave prepared statements off",
    "28000": "refuses this user. Check DATABASE_URL, and pg_hba.conf",
    "28P01": "refuses this user's password. Check DATABASE_URL",
    "3D000": "does not exist. Create it, or name another one in DATABASE_URL",
    "42501": "does not permit this to its user. Grant the user the right to use Nova's tables",
    "53100": "cannot grow: the disk is full. Nothing was changed; free some space and try again",
    "53200": "needs more memory than its server has",
    "53300": "has no connection left. Use a pooler, lower the number of processes, or raise max_connections",
    "53400": "reached a limit of its configuration",
    "55P03": "did not give a lock in time; try again",
    "57014": "cancelled the statement: its statement_timeout ended, or somebody cancelled it. Nothing was changed",
    "57P01": "is being shut down, or its administrator ended the connection; try again",
    "57P02": "crashed and is recovering; try again",
    "57P03": "is starting up, or shutting down; try again",
    "57P05": "ended a connection that was idle for long; try again",
}
_CLASSES: Final = {
    "08": "broke the connection; try again",
    "40": "was changed by others at the same moment, over and over; try again",
    "53": "lacks a resource",
    "57": "was interrupted by its operator; try again",
    "58": "had an error of its operating system. Nothing was acknowledged",
    "XX": "had an internal error. Nothing was acknowledged",
}
_AT_CONNECTION: Final = (
    # A refused connection comes without a SQLSTATE; its words are the server's, or libpq's.
    ("password authentication failed", "28P01"),
    ("no pg_hba.conf entry", "28000"),
    ("is not permitted to log in", "28000"),
    ("too many connections", "53300"),
    ("too many clients", "53300"),
    ("remaining connection slots", "53300"),
    ("no more connections allowed", "53300"),
    ("starting up", "57P03"),
    ("shutting down", "57P03"),
    ("recovery mode", "57P03"),
    ("not yet accepting connections", "57P03"),
    ("not accept any more connections", "57P03"),
)
_LOST: Final = frozenset({"57P01", "57P02", "57P03", "57P05"})


def is_refused_login(error: psycopg.Error) -> bool:
    """Whether the server refused the user or the password."""
    return _state_of(error) in {"28000", "28P01"}


def translated(error: psycopg.Error, *, database: str, unavailable: type[StoreUnavailableError]) -> NovaError:
    """Return Nova's error for one of the driver's, naming the database and what to do.

    The server's detail is left out, because it quotes rows; the error itself is kept as the cause by the caller.
    """
    state = _state_of(error)
    where = f"the database {database}"
    if state in _DAMAGED:
        return StoreDamagedError(f"{where} {_DAMAGED[state]}")
    known = _UNAVAILABLE.get(state) or _CLASSES.get(state[:2])
    if known is not None:
        return unavailable(f"{where} {known}")
    if state:
        said = error.diag.message_primary or type(error).__name__
        return unavailable(f"{where} failed with SQLSTATE {state}: {said}")
    return unavailable(
        f"{where} cannot be reached: {_first_line(error)}. Check DATABASE_URL, and that the server runs there"
    )


def is_connection_loss(error: psycopg.Error) -> bool:
    """Whether the connection is gone, so that nothing is known about the statement."""
    import psycopg

    state = error.sqlstate
    if state is None:
        return isinstance(error, psycopg.OperationalError | psycopg.InterfaceError)
    return state in _LOST or state.startswith("08")


def is_transient_conflict(error: psycopg.Error) -> bool:
    """Whether the statement was undone because of others: a serialization failure or a deadlock."""
    return error.sqlstate in {"40001", "40P01"}


def _state_of(error: psycopg.Error) -> str:
    if error.sqlstate is not None:
        return error.sqlstate
    words = str(error)
    if "does not exist" in words:
        if 'database "' in words:
            return "3D000"
        if 'role "' in words:
            return "28000"
    return next((state for said, state in _AT_CONNECTION if said in words), "")


def _first_line(error: psycopg.Error) -> str:
    return (str(error).strip().splitlines() or ["no reason was given"])[0][:300]
