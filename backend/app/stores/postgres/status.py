"""What a database says of itself and of Nova's tables, for a command line."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from app.stores.postgres import schema
from app.stores.postgres.schema import ComponentVersion

if TYPE_CHECKING:
    from app.stores.postgres.pool import Connection

__all__ = ["DatabaseStatus", "TableStatus", "read_status"]

_SERVER: Final = b"SELECT current_setting('server_version'), pg_is_in_recovery(), extract(epoch FROM clock_timestamp())"
_TABLES: Final = (
    b"SELECT c.relname, c.reltuples::bigint, pg_total_relation_size(c.oid) FROM pg_class AS c"
    b" WHERE c.relkind = 'r' AND c.relname LIKE 'nova\\_%' AND c.relnamespace = current_schema()::regnamespace"
    b" ORDER BY c.relname"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class TableStatus:
    """One of Nova's tables. ``rows`` is the server's estimate, None where it has none yet; the size is with indexes."""

    name: str
    rows: int | None
    size_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class DatabaseStatus:
    """What is known of a database at one moment.

    Attributes:
        shown: its name and host, without user and password.
        server_version: PostgreSQL's.
        read_only: it is a replica.
        ahead_s: how far its clock is ahead of this host's, in seconds; negative where it is behind.
        versions: the schema of each component in the database, and the one that this program brings.
    """

    shown: str
    server_version: str
    read_only: bool
    ahead_s: float
    versions: tuple[ComponentVersion, ...]
    tables: tuple[TableStatus, ...]

    @property
    def current(self) -> bool:
        """Whether every component's schema is the one that this program brings."""
        return all(version.applied == version.available for version in self.versions)


async def read_status(connection: Connection, *, shown: str) -> DatabaseStatus:
    """Return the state of a database; nothing in it is changed."""
    asked = time.time()
    (server,) = await (await connection.execute(_SERVER)).fetchall()
    # Its answer is from the middle of the round trip, as far as anybody knows.
    ahead_s = float(str(server[2])) - (asked + time.time()) / 2
    tables = await (await connection.execute(_TABLES)).fetchall()
    return DatabaseStatus(
        shown=shown,
        server_version=str(server[0]),
        read_only=bool(server[1]),
        ahead_s=ahead_s,
        versions=await schema.versions(connection),
        tables=tuple(
            TableStatus(name=str(name), rows=None if int(str(rows)) < 0 else int(str(rows)), size_bytes=int(str(size)))
            for name, rows, size in tables
        ),
    )
