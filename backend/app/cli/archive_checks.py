"""What ``nova doctor`` says of the archive: whether it answers, whose it is, and when the offload ran last."""

from __future__ import annotations

from typing import TYPE_CHECKING
from uuid import uuid4

from app.cli.configuration import for_command_line
from app.cli.exits import ExitCode, explain
from app.cli.finding import Finding
from app.errors import NovaError

if TYPE_CHECKING:
    from app.cli.session import Session
    from app.stores.archive.contract import ObjectStore
    from app.stores.archive.ledger import ArchiveLedger

__all__ = ["archive_finding"]


def archive_finding(session: Session) -> Finding:
    """Look at the archive, and store, read and delete a probe in one that is there; what is wrong is a finding."""
    library = session.library_settings
    if library.nova_archive_dir is None and not any(map(library.plain, ("r2_endpoint", "r2_bucket"))):
        return Finding(part="archive", state="ok", in_force="none", why="nothing is set; runs stay in the database")
    in_force = "none"
    try:
        from app.stores.archive.choice import open_archive, open_ledger
        from app.stores.choice import choose

        settings = for_command_line(library, data_dir=session.data_dir)
        archive = open_archive(settings)
        in_force = archive.location
        made = choose("checkpoint", settings).backend != "sqlite" or settings.database_file.exists()
        # Opening the ledger of a file that is not there would make it.
        ledger = open_ledger(settings) if made else None
        return session.execute(lambda: _asked(archive, ledger))
    except NovaError as error:
        told = explain(error)
        return Finding(
            part="archive",
            state="problem",
            in_force=in_force,
            why=told.message,
            remedy=told.remedy,
            exit_code=told.exit_code,
        )


async def _asked(archive: ObjectStore, ledger: ArchiveLedger | None) -> Finding:
    from app.cli.output import moment
    from app.stores.clock import from_ms
    from app.stores.offload.job import read_store_id

    found = await read_store_id(archive)
    forbidden = None if found is None else await _forbidden(archive)
    await archive.close()
    known, jobs = None, []
    if ledger is not None:
        known, jobs = await ledger.store_id(), list(await ledger.jobs(limit=1))
        await ledger.close()
    if found != known:
        return Finding(
            part="archive",
            state="problem",
            in_force=archive.location,
            why="it is not the archive of this database",
            remedy="name the right bucket or directory; if the database was lost: nova offload rebuild-index",
            exit_code=ExitCode.CONFIGURATION,
        )
    if forbidden is not None:
        return Finding(
            part="archive",
            state="problem",
            in_force=archive.location,
            why=f"it answers, but a probe could not be {forbidden}",
            remedy="give its key the right to read, write and delete objects (docs/how-to/r2.md)",
            exit_code=ExitCode.CONFIGURATION,
        )
    if not jobs:
        return Finding(part="archive", state="ok", in_force=archive.location, why="it answers; no offload has run yet")
    last = jobs[0]
    ended = "did not end" if last.ended_ms is None else f"ended {last.outcome} at {moment(from_ms(last.ended_ms))}"
    well = last.outcome == "done"
    return Finding(
        part="archive",
        state="ok" if well else "note",
        in_force=archive.location,
        why=f"it answers; the last job ({last.verb}) {ended}",
        remedy=None if well else "run it again, and read what it says: nova offload",
    )


async def _forbidden(archive: ObjectStore) -> str | None:
    """Return which of storing, reading and deleting an object does not work; None where all do."""
    key, content = f"doctor/{uuid4().hex}", b"nova doctor"
    try:
        await archive.put_new(key, content)
    except NovaError as error:
        return f"stored ({error})"
    try:
        if await archive.get(key) != content:
            return "read as it was stored"
    except NovaError as error:
        return f"read ({error})"
    try:
        await archive.delete(key)
    except NovaError as error:
        return f"deleted ({error})"
    return "deleted (it is still there)" if await archive.size(key) is not None else None
