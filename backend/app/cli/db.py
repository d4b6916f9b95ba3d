"""``nova db``: the SQLite file that the commands work on, and the PostgreSQL database that the checkpoints are in."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from app.cli.exits import ExitCode
from app.cli.session import JsonOption, Session, session_of

if TYPE_CHECKING:
    from rich.console import RenderableType

    from app.stores.maintenance import FileStatus
    from app.stores.postgres.database import PostgresDatabase
    from app.stores.postgres.schema import ComponentVersion as PostgresVersion
    from app.stores.postgres.status import DatabaseStatus
    from app.stores.sqlite.schema import ComponentVersion

    Version = ComponentVersion | PostgresVersion

__all__ = ["group"]

group = typer.Typer(
    no_args_is_help=True, help="The database: its state, its schema; of the SQLite file also a copy, and its clock."
)


@group.command("status")
def status(ctx: typer.Context, *, json: JsonOption = False) -> None:
    """Show the file: its size, its schema, what it holds, and whether it is sound (exit code 31 if it is not).

    With checkpoints in PostgreSQL also that database: its schema, and the size of its tables.

    Example:  nova db status
    """
    from app.stores.maintenance import status as read_status

    session = session_of(ctx, json=json)
    path = session.settings.database_file
    database = _postgres_status(session) if _on_postgres(session) else None
    if database is not None and not path.exists():
        session.show({"postgres": _postgres_document(database)}, lambda: _postgres_view(database))
        return
    found = read_status(path)
    document = _status_document(found)
    if database is None:
        session.show(document, lambda: _status_view(found))
    else:
        document["postgres"] = _postgres_document(database)
        session.show(document, lambda: _stacked(_status_view(found), _postgres_view(database)))
    if found.problems:
        raise typer.Exit(ExitCode.STORE_DAMAGED)


@group.command("migrate")
def migrate(ctx: typer.Context, *, json: JsonOption = False) -> None:
    """Bring the file to the schema of this version, making it if it is not there. Every command does so by itself.

    With checkpoints in PostgreSQL also that database, whatever NOVA_AUTO_MIGRATE says.

    Example:  nova db migrate
    """
    from app.cli.output import facts
    from app.stores.maintenance import migrate as bring_up_to_date

    session = session_of(ctx, json=json)
    path = session.settings.database_file
    documents: dict[str, Any] = {}
    views: list[RenderableType] = []
    if _on_postgres(session):
        _postgres_migrated(session)
        database = _postgres_status(session)
        documents["postgres"] = _postgres_document(database)
        views += [facts([("database", database.shown)]), _versions_table(database.versions)]
    if not documents or _on_sqlite(session):
        versions = bring_up_to_date(path)
        documents |= {"path": str(path), "schema": _version_documents(versions)}
        views.append(_versions_table(versions))
    session.show(documents, lambda: _stacked(*views))


@group.command("backup")
def backup(
    ctx: typer.Context,
    target: Annotated[Path, typer.Argument(metavar="TARGET", help="The file to write; it must not exist.")],
    *,
    json: JsonOption = False,
) -> None:
    """Copy the file as it is at one moment, while others may go on writing to it.

    The copy is checked, and has its name only when it is whole.

    Example:  nova db backup nova-monday.db
    """
    from app.cli.output import facts
    from app.stores.maintenance import backup as copy

    session = session_of(ctx, json=json)
    path = _file(session, instead="pg_dump copies a PostgreSQL database, and Redis keeps its own files")
    with _copying(session) as progress:
        size_bytes = copy(path, target, progress=progress)
    document = {"path": str(path), "backup": str(target.absolute()), "size_bytes": size_bytes}
    session.show(
        document,
        lambda: facts([("file", str(path)), ("backup", str(target.absolute())), ("size", f"{size_bytes:,} bytes")]),
    )


@group.command("reset-clock")
def reset_clock(ctx: typer.Context, *, json: JsonOption = False) -> None:
    """Accept this host's clock after it had been ahead and was put right.

    The file refuses to be written at a time far before its latest write, so that no lease or hold ends too early.

    Example:  nova db reset-clock
    """
    from app.cli.output import facts, moment
    from app.stores.maintenance import reset_clock as reset

    session = session_of(ctx, json=json)
    path = _file(session, instead="the clocks of servers are their own, and nova doctor compares them")
    before = reset(path)
    session.show(
        {"path": str(path), "latest_write_was": moment(before, precise=True)},
        lambda: facts([("file", str(path)), ("latest write was", moment(before))]),
    )


def _on_postgres(session: Session) -> bool:
    from app.stores.choice import choose

    return choose("checkpoint", session.settings).backend == "postgres"


def _on_sqlite(session: Session) -> bool:
    from app.cli.configuration import STORE_KINDS
    from app.stores.choice import choose

    return any(choose(kind, session.settings).backend == "sqlite" for kind in STORE_KINDS)


def _file(session: Session, *, instead: str) -> Path:
    """Return the SQLite file; where no store is in one and there is none, say what serves instead."""
    from app.errors import InvalidInputError

    path = session.settings.database_file
    if not path.exists() and not _on_sqlite(session):
        raise InvalidInputError(f"no store is in a SQLite file: {instead}")
    return path


def _postgres(session: Session) -> PostgresDatabase:
    from app.stores.checkpoint.postgres import CheckpointStore

    store = session.checkpoints()
    assert isinstance(store, CheckpointStore), "asked only where the checkpoints are in PostgreSQL"
    return store.database


def _postgres_status(session: Session) -> DatabaseStatus:
    return session.execute(lambda: _postgres(session).status())


def _postgres_migrated(session: Session) -> None:
    session.execute(lambda: _postgres(session).migrate())


@contextmanager
def _copying(session: Session) -> Iterator[Callable[[int, int], None] | None]:
    """Show a bar while pages are copied, on a terminal."""
    if not session.err.is_terminal:
        yield None
        return
    from rich.progress import Progress

    with Progress(console=session.err, transient=True) as bars:
        task = bars.add_task("copying", total=None)
        yield lambda done, total: bars.update(task, completed=done, total=total)


def _status_document(found: FileStatus) -> dict[str, Any]:
    from app.cli.output import moment

    return {
        "path": str(found.path),
        "sound": not found.problems,
        "problems": list(found.problems),
        "size_bytes": found.size_bytes,
        "wal_bytes": found.wal_bytes,
        "free_bytes": found.free_pages * found.page_bytes,
        "latest_write": moment(found.latest_write, precise=True),
        "current": found.current,
        "schema": _version_documents(found.versions),
        "rows": dict(found.rows),
    }


def _status_view(found: FileStatus) -> RenderableType:
    from rich.console import Group
    from rich.text import Text

    from app.cli.output import facts, moment, table

    sound = Text("yes", style="green") if not found.problems else Text("; ".join(found.problems), style="bold red")
    head = facts(
        [
            ("file", str(found.path)),
            ("size", f"{found.size_bytes:,} bytes, and {found.wal_bytes:,} in the write-ahead log"),
            ("free inside", f"{found.free_pages * found.page_bytes:,} bytes"),
            ("latest write", moment(found.latest_write) or "none"),
            ("sound", sound),
        ]
    )
    rows = table("table", ("rows", "right"))
    for name, count in found.rows.items():
        rows.add_row(name, f"{count:,}")
    return Group(head, _versions_table(found.versions), rows)


def _version_documents(versions: Sequence[Version]) -> list[dict[str, Any]]:
    return [{"component": each.component, "applied": each.applied, "available": each.available} for each in versions]


def _versions_table(versions: Sequence[Version]) -> RenderableType:
    from app.cli.output import table

    made = table("store", ("schema", "right"), ("this version's", "right"))
    for each in versions:
        made.add_row(each.component, str(each.applied), str(each.available))
    return made


def _postgres_document(found: DatabaseStatus) -> dict[str, Any]:
    return {
        "database": found.shown,
        "server_version": found.server_version,
        "read_only": found.read_only,
        "current": found.current,
        "schema": _version_documents(found.versions),
        "tables": [{"name": each.name, "rows": each.rows, "size_bytes": each.size_bytes} for each in found.tables],
    }


def _postgres_view(found: DatabaseStatus) -> RenderableType:
    from app.cli.output import facts, table

    head = facts(
        [
            ("database", found.shown),
            ("server", f"PostgreSQL {found.server_version}" + (", a replica: read-only" if found.read_only else "")),
        ]
    )
    sizes = table("table", ("rows, about", "right"), ("bytes with indexes", "right"))
    for each in found.tables:
        sizes.add_row(each.name, "not known yet" if each.rows is None else f"{each.rows:,}", f"{each.size_bytes:,}")
    return _stacked(head, _versions_table(found.versions), sizes)


def _stacked(*views: RenderableType) -> RenderableType:
    from rich.console import Group

    return Group(*views)
