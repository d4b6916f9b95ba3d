"""What ``nova doctor`` says about databases and clocks: the schema that they have, and the time that they go by."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Final

from app.cli.exits import ExitCode
from app.cli.finding import Finding
from app.errors import NovaError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from app.cli.session import Session
    from app.stores.postgres.schema import ComponentVersion as PostgresVersion
    from app.stores.postgres.status import DatabaseStatus
    from app.stores.sqlite.schema import ComponentVersion

__all__ = ["clock_findings", "schema_findings"]

MOST_SKEW_S: Final = 2.0
"""Clocks that are kept by NTP differ by milliseconds."""


def clock_findings(part: str, ahead_s: float | None) -> Iterator[Finding]:
    """Return a finding where the clock of a server and that of this host differ by more than two seconds."""
    if ahead_s is None or abs(ahead_s) <= MOST_SKEW_S:
        return
    way = "ahead of" if ahead_s > 0 else "behind"
    yield Finding(
        part=f"{part}: clock",
        state="note",
        in_force=f"{abs(ahead_s):,.0f} s {way} this host",
        why="leases and windows of budgets go by the server's clock, log lines and metrics by this host's",
        remedy="let both be set by NTP",
    )


def schema_findings(session: Session) -> Iterator[Finding]:
    """Return a finding for the schema of each database that is there; its stores say where one does not answer."""
    from app.stores.choice import choose

    try:
        settings = session.settings
        backends = {choose(kind, settings).backend for kind in ("budget", "checkpoint", "idempotency")}
        if "sqlite" in backends and settings.database_file.exists():
            yield _schema("database file", str(settings.database_file), _sqlite_versions(session))
        if "postgres" in backends:
            status = session.execute(lambda: _postgres_status(session))
            yield _schema("postgres", f"{status.shown}, PostgreSQL {status.server_version}", status.versions)
            yield from clock_findings("postgres", status.ahead_s)
    except (NovaError, OSError):
        return


def _schema(part: str, where: str, versions: Sequence[ComponentVersion | PostgresVersion]) -> Finding:
    told = ", ".join(f"{each.component} {each.applied}" for each in versions)
    newer = [each for each in versions if each.applied > each.available]
    older = [each for each in versions if each.applied < each.available]
    if newer:
        return Finding(
            part=part,
            state="problem",
            in_force=where,
            why=f"its schema is of a newer Nova: {told}",
            remedy="use that version here too",
            exit_code=ExitCode.STORE_DAMAGED,
        )
    if older:
        return Finding(
            part=part,
            state="note",
            in_force=where,
            why=f"its schema is of an older Nova: {told}",
            remedy="nova db migrate",
        )
    return Finding(part=part, state="ok", in_force=where, why=f"its schema is this version's: {told}")


def _sqlite_versions(session: Session) -> Sequence[ComponentVersion]:
    import sqlite3
    from contextlib import closing

    from app.stores.sqlite import schema

    try:
        # Read only: looking makes nothing, not even the file beside it.
        address = f"{session.settings.database_file.absolute().as_uri()}?mode=ro"
        with closing(sqlite3.connect(address, uri=True)) as connection:
            return schema.versions(connection)
    except sqlite3.Error as error:
        raise OSError(str(error)) from error


async def _postgres_status(session: Session) -> DatabaseStatus:
    from app.stores.checkpoint.postgres import CheckpointStore

    store = session.checkpoints()
    assert isinstance(store, CheckpointStore), "asked only where the checkpoints are in PostgreSQL"
    return await store.database.status()
