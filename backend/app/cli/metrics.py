"""``nova metrics``: what the ledger says, for Prometheus; and what Prometheus says, against the ledger."""

from __future__ import annotations

from collections.abc import Coroutine
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import typer

from app.cli.exits import Ended
from app.cli.session import JsonOption, Session, session_of
from app.errors import ConfigurationError

if TYPE_CHECKING:
    from app.stores.archive.ledger import ArchiveLedger

__all__ = ["group"]

T = TypeVar("T")

group = typer.Typer(name="metrics", help="Metrics of the ledger, for Prometheus.", no_args_is_help=True)

ScopeOption = Annotated[
    list[str] | None,
    typer.Option(
        "--scope", metavar="SCOPE", help="May be repeated. Default: tenant, and what has a limit and is no single run."
    ),
]

READ_TIMEOUT_S = 8.0
"""How long a scrape waits for the store; Prometheus gives a scrape 10 seconds by default."""


@group.command("serve")
def serve(
    ctx: typer.Context,
    *,
    host: Annotated[str, typer.Option("--host", help="0.0.0.0 shows them to the whole network.")] = "127.0.0.1",
    port: Annotated[int, typer.Option("--port", min=0, max=65535, help="0: any free one.")] = 9464,
    scope: ScopeOption = None,
) -> None:
    """Show what is spent, held and allowed to Prometheus, read from the store at each scrape, until it is stopped.

    One such exporter is enough for any number of processes; those show their own calls with NOVA_METRICS_PORT.

    Example:  nova metrics serve --port 9464
    """
    import asyncio
    import signal

    from prometheus_client import CollectorRegistry

    from app.exposition import expose
    from app.stores.gauges import LedgerCollector, OffloadCollector, read_ledger, read_offload

    session = session_of(ctx)
    store = session.budget()
    offloads = _offloads(session)

    async def serving() -> None:
        loop = asyncio.get_running_loop()
        ended = asyncio.Event()
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, ended.set)

        def waited_for(reading: Coroutine[Any, Any, T]) -> T:
            result = asyncio.run_coroutine_threadsafe(reading, loop)
            try:
                return result.result(READ_TIMEOUT_S)
            finally:
                result.cancel()

        registry = CollectorRegistry()
        registry.register(
            LedgerCollector(lambda: waited_for(read_ledger(store, scopes=scope, tenant_id=session.tenant)))
        )
        registry.register(OffloadCollector(lambda: None if offloads is None else waited_for(read_offload(offloads))))
        try:
            exposed = await asyncio.to_thread(expose, host=host, port=port, registry=registry)
        except OSError as error:
            raise ConfigurationError(
                f"no metrics can be shown on {host!r}, port {port}: {error.strerror or error}; "
                "name another --host or --port"
            ) from error
        session.note(f"metrics of the ledger at {exposed.url} (Ctrl-C ends it)")
        try:
            await ended.wait()
        finally:
            # In a thread: it waits for a scrape under way, which needs this loop.
            await asyncio.to_thread(exposed.close)
            if offloads is not None:
                await offloads.close()

    session.execute(serving)


@group.command("write")
def write(
    ctx: typer.Context,
    path: Annotated[Path, typer.Argument(metavar="FILE", help="For the textfile collector: its name ends in .prom.")],
    *,
    scope: ScopeOption = None,
) -> None:
    """Write the metrics of the ledger to a file once, in one step, for the textfile collector of node_exporter.

    Example:  nova metrics write /var/lib/node_exporter/nova.prom
    """
    from prometheus_client import CollectorRegistry

    from app.exposition import write_textfile
    from app.stores.gauges import (
        LedgerCollector,
        LedgerReading,
        OffloadCollector,
        OffloadReading,
        read_ledger,
        read_offload,
    )

    session = session_of(ctx)
    offloads = _offloads(session)

    async def read() -> tuple[LedgerReading, OffloadReading | None]:
        ledger = await read_ledger(session.budget(), scopes=scope, tenant_id=session.tenant)
        if offloads is None:
            return ledger, None
        try:
            return ledger, await read_offload(offloads)
        finally:
            await offloads.close()

    ledger, offload = session.execute(read)
    registry = CollectorRegistry()
    registry.register(LedgerCollector(lambda: ledger))
    registry.register(OffloadCollector(lambda: offload))
    try:
        write_textfile(path, registry=registry)
    except OSError as error:
        told = f"{str(path)!r} could not be written: {error.strerror or error}; check the path"
        raise Ended.unwritten(told) from error
    session.note(f"written to {path}")


def _offloads(session: Session) -> ArchiveLedger | None:
    """Return where the jobs on the archive are noted; None where no archive is configured."""
    from app.stores.archive.choice import open_ledger

    settings = session.settings
    if settings.nova_archive_dir is None and settings.r2_bucket is None:
        return None
    return open_ledger(settings)


@group.command("reconcile")
def reconcile(
    ctx: typer.Context,
    *,
    prometheus: Annotated[str, typer.Option("--prometheus", metavar="URL", help="Such as http://127.0.0.1:9090.")],
    last: Annotated[str, typer.Option("--last", metavar="TIME", help="How far back its series are read.")] = "30d",
    json: JsonOption = False,
) -> None:
    """Compare what Prometheus counted with the ledger, exactly, and say what the difference consists of.

    Example:  nova metrics reconcile --prometheus http://127.0.0.1:9090
    """
    from app.cli.values import parse_duration

    session = session_of(ctx, json=json)
    _reconcile(session, prometheus, parse_duration(last, option="--last"))


def _reconcile(session: Session, prometheus: str, last: timedelta) -> None:
    from app.cli.output import facts
    from app.cli.reconciling import counted_cents, reconciled
    from app.money import format_usd

    usage = session.execute(lambda: session.budget().usage("tenant", tenant_id=session.tenant))
    total = next(window for window in usage if window.window == "total")
    found = reconciled(total, counted_cents(prometheus, last=last))
    session.show(
        found.document,
        lambda: facts(
            [
                ("spent", format_usd(found.spent)),
                ("of it uncertain", format_usd(found.uncertain)),
                ("with a bill", format_usd(found.billed)),
                ("counted by Prometheus", format_usd(found.counted)),
                ("difference", found.told),
            ]
        ),
    )
