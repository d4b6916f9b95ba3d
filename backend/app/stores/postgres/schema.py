"""How a database becomes Nova's: numbered migrations of each component, in one transaction under a lock.

A component is a store with a folder of ``NNNN_name.sql`` files. Which of them a database has is in ``nova_schema``. The
lock belongs to the transaction, so it works behind a pooler that shares connections, and a process that dies lets go
of it. ``schema.sql`` in the same folder is the sum of the files, for people who create the tables by hand.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from importlib import resources
from typing import TYPE_CHECKING, Final

from app.errors import ConfigurationError, StoreDamagedError

if TYPE_CHECKING:
    from app.stores.postgres.pool import Connection

__all__ = ["COMPONENTS", "ComponentVersion", "is_behind", "load", "migrate", "versions"]

COMPONENTS: Final = ("checkpoint",)

_LOCK: Final = 0x4E4F5641
"""``NOVA``: the key of the advisory lock that migrations take."""

_NUMBERED: Final = re.compile(r"^(\d{4})_\w+\.sql$")
_EXISTS: Final = b"SELECT to_regclass('nova_schema') IS NOT NULL"
_APPLIED: Final = b"SELECT component, max(version) FROM nova_schema GROUP BY component"
_CREATE: Final = (
    b"CREATE TABLE IF NOT EXISTS nova_schema (component text NOT NULL, version integer NOT NULL,"
    b" applied_at timestamptz NOT NULL DEFAULT now(), PRIMARY KEY (component, version))"
)
_ISOLATED: Final = b"SET TRANSACTION ISOLATION LEVEL READ COMMITTED"
"""Where the user's default is another, what is read after waiting for the lock would be as it was before."""

_WHERE_IT_IS: Final = (
    b"SELECT set_config('search_path', quote_ident(n.nspname) || ', ' || current_setting('search_path'), true)"
    b" FROM pg_class AS c JOIN pg_namespace AS n ON n.oid = c.relnamespace WHERE c.oid = to_regclass('nova_schema')"
)
"""Tables that are found are changed where they are, not made anew in a schema that stands before theirs."""

_RECORD: Final = b"INSERT INTO nova_schema (component, version) VALUES (%s, %s)"


@dataclass(frozen=True, slots=True, kw_only=True)
class ComponentVersion:
    """The schema version of one component in a database, and the one that this program brings."""

    component: str
    applied: int
    available: int


async def versions(connection: Connection) -> tuple[ComponentVersion, ...]:
    """Return the versions of every component of a database; nothing is changed."""
    applied = await _applied(connection)
    return tuple(
        ComponentVersion(component=name, applied=applied.get(name, 0), available=len(_migrations(name)))
        for name in COMPONENTS
    )


async def migrate(connection: Connection, *, database: str) -> tuple[ComponentVersion, ...]:
    """Apply what a database lacks, all of it or nothing, and return its versions.

    Processes that do so at the same moment take turns; one that comes later finds it done.

    Raises:
        StoreDamagedError: a newer Nova wrote to the database; nothing was changed.
    """
    async with connection.transaction():
        await connection.execute(_ISOLATED)
        await connection.execute("SELECT pg_advisory_xact_lock(%s)", (_LOCK,))
        await connection.execute(_WHERE_IT_IS)
        await connection.execute(_CREATE)
        for found in await versions(connection):
            _refuse_newer(found, database=database)
            scripts = _migrations(found.component)
            for version in range(found.applied + 1, found.available + 1):
                await connection.execute(scripts[version - 1].encode())
                await connection.execute(_RECORD, (found.component, version))
        return await versions(connection)


async def is_behind(connection: Connection, *, database: str, auto_migrate: bool) -> bool:
    """Whether a database lacks migrations, which are then to be applied.

    Raises:
        ConfigurationError: it lacks some, and they are not to be applied automatically.
        StoreDamagedError: a newer Nova wrote to it.
    """
    found = await versions(connection)
    for version in found:
        _refuse_newer(version, database=database)
    behind = next((version for version in found if version.applied < version.available), None)
    if behind is not None and not auto_migrate:
        raise ConfigurationError(
            f"the database {database} has version {behind.applied} of the {behind.component} schema, and this program "
            f"needs {behind.available}. Run `nova db migrate`, or leave NOVA_AUTO_MIGRATE out",
            variable="NOVA_AUTO_MIGRATE",
        )
    return behind is not None


def _refuse_newer(version: ComponentVersion, *, database: str) -> None:
    if version.applied > version.available:
        raise StoreDamagedError(
            f"the database {database} was written by a newer Nova ({version.component} schema {version.applied}, this "
            f"program knows {version.available}); nothing was changed. Upgrade Nova"
        )


async def _applied(connection: Connection) -> Mapping[str, int]:
    cursor = await connection.execute(_EXISTS)
    row = await cursor.fetchone()
    if row is None or not row[0]:
        return {}
    rows: Iterable[tuple[object, ...]] = await (await connection.execute(_APPLIED)).fetchall()
    return {str(component): int(str(version)) for component, version in rows}


def load() -> None:
    """Read the migrations of every component; again is a no-op. It blocks, so an event loop calls it in a thread."""
    for component in COMPONENTS:
        _migrations(component)


@lru_cache(maxsize=len(COMPONENTS))
def _migrations(component: str) -> tuple[str, ...]:
    """Return the scripts of a component, in the order of their numbers, which must be 1, 2, 3, …"""
    folder = resources.files("app.stores") / component / "postgres_schema"
    numbered = sorted(
        (int(match.group(1)), entry) for entry in folder.iterdir() if (match := _NUMBERED.match(entry.name)) is not None
    )
    if [number for number, _ in numbered] != list(range(1, len(numbered) + 1)):
        raise StoreDamagedError(f"the migrations of {component} are not numbered 1, 2, 3, …: reinstall Nova")
    return tuple(entry.read_text(encoding="utf-8") for _, entry in numbered)
