"""What ``nova doctor`` looks at: each part, which backend is in force and why, whether it answers, and what to set."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Callable, Coroutine, Iterator
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final

from app.cli.archive_checks import archive_finding
from app.cli.configuration import STORE_KINDS, for_command_line
from app.cli.exits import ExitCode, explain
from app.cli.finding import Finding
from app.cli.redis_checks import redis_findings
from app.cli.secret_checks import secret_findings
from app.cli.server_checks import schema_findings
from app.errors import ConfigurationError, NovaError

if TYPE_CHECKING:
    from app.cli.session import Session
    from app.settings import Settings
    from app.stores.choice import StoreKind

__all__ = ["examine"]

CONNECT_TIMEOUT_S: Final = 3.0
_ENVIRONMENTS: Final = frozenset({"development", "dev", "test", "ci", "staging"})
"""Names that are no typing error of ``production``."""

LOW_DISK_BYTES: Final = 200 * 1024 * 1024


def examine(session: Session) -> Iterator[Finding]:
    """Look at every part, one after another; a part that fails is a finding, never an exception."""
    try:
        library = session.library_settings
    except ConfigurationError as error:
        yield _problem("settings", "not readable", error)
        return
    yield _environment(library)
    yield from secret_findings(library)
    yield _disk(session, library)
    for kind in STORE_KINDS:
        store = _store(session, kind)
        yield store
        if kind == "budget" and store.latency_ms is not None:
            yield from _stops(session)
    yield from schema_findings(session)
    yield from redis_findings(session)
    yield _language_model(session)
    yield _prices(session)
    yield archive_finding(session)


def _environment(settings: Settings) -> Finding:
    if settings.production:
        return Finding(part="environment", state="ok", in_force=settings.env, why="ENV: nothing falls back silently")
    if settings.env not in _ENVIRONMENTS:
        return Finding(
            part="environment",
            state="note",
            in_force=settings.env,
            why="ENV has a name of your own: memory and the stub stand in for what is not configured",
            remedy="only ENV=production (or prod) makes that an error",
        )
    return Finding(
        part="environment",
        state="ok",
        in_force=settings.env,
        why="memory and the stub stand in for what is not configured; ENV=production makes that an error",
    )


def _disk(session: Session, settings: Settings) -> Finding:
    folder = existing = session.data_dir or settings.data_dir
    while not existing.exists() and existing != existing.parent:
        existing = existing.parent
    why = "your user's data directory"
    if session.data_dir is not None:
        why = "--data-dir"
    elif settings.nova_data_dir is not None:
        why = "NOVA_DATA_DIR"
    if not existing.is_dir() or not os.access(existing, os.W_OK | os.X_OK):
        return Finding(
            part="data directory",
            state="problem",
            in_force=str(folder),
            why=f"{str(existing)!r} cannot be written to",
            remedy="set NOVA_DATA_DIR, or --data-dir, to a directory that you may write to",
            exit_code=ExitCode.STORE_UNAVAILABLE,
        )
    free = shutil.disk_usage(existing).free
    gigabytes = f"{free / 1e9:,.1f} GB free"
    if free < LOW_DISK_BYTES:
        return Finding(
            part="data directory",
            state="note",
            in_force=str(folder),
            why=f"{why}, only {gigabytes}",
            remedy="free some space: a full disk stops runs, and loses nothing",
        )
    return Finding(part="data directory", state="ok", in_force=str(folder), why=f"{why}, {gigabytes}")


def _store(session: Session, kind: StoreKind) -> Finding:
    from app.stores.choice import choose

    part = f"{kind} store"
    try:
        settings = for_command_line(session.library_settings, data_dir=session.data_dir)
        choice = choose(kind, settings)
    except ConfigurationError as error:
        return _problem(part, "none", error)
    at_library = choose(kind, session.library_settings)
    # The command line put SQLite where nobody had chosen: the reason is then that of the library's choice.
    why = f"{at_library.reason}: one SQLite file for the commands" if at_library.implicit else choice.reason
    library = at_library.backend if at_library.backend != choice.backend else None
    remedy = None
    if choice.backend == "memory":
        remedy = f"memory is forgotten when a command ends: unset {kind.upper()}_STORE, or set it to sqlite"
    elif library == "memory":
        remedy = f"for programs that must remember: {kind.upper()}_STORE=sqlite"
    path = settings.database_file
    if choice.backend == "sqlite" and not path.exists():
        return Finding(
            part=part,
            state="ok",
            in_force="sqlite",
            why=f"{why}; made at the first use",
            library=library,
            remedy=remedy,
        )
    try:
        latency_ms = session.execute(lambda: _timed(session, kind))
    except NovaError as error:
        return _problem(part, choice.backend, error, library=library)
    return Finding(
        part=part,
        state="note" if choice.backend == "memory" else "ok",
        in_force=choice.backend,
        why=f"{why}; it answers in {latency_ms:,.1f} ms",
        library=library,
        remedy=remedy,
        latency_ms=latency_ms,
    )


def _stops(session: Session) -> Iterator[Finding]:
    """Return a finding for each emergency stop that is in force: nothing is broken, and yet nothing is called."""
    from app.cli.budget import stops_in_force

    try:
        stops = session.execute(lambda: stops_in_force(session.budget(), session.tenant))
    except NovaError:  # it answered a moment ago, and will be found out by the next command
        return
    for tenant_id, stop in stops:
        yield Finding(
            part="emergency stop",
            state="note",
            in_force="all tenants" if tenant_id is None else f"tenant {tenant_id}",
            why=f"no call is made since {stop.since:%Y-%m-%d %H:%M:%S} UTC"
            + (f" ({stop.reason})" if stop.reason else ""),
            remedy=f"when it is safe again: {session.nova} budget go{' --all' if tenant_id is None else ''}",
        )


async def _timed(session: Session, kind: StoreKind) -> float:
    """Return how long a store takes to answer, in ms, once it is connected."""
    await _PROBES[kind](session)
    began = time.perf_counter()
    await _PROBES[kind](session)
    return (time.perf_counter() - began) * 1000


async def _probe_budget(session: Session) -> None:
    await session.budget().limits(tenant_id=session.tenant)


async def _probe_checkpoint(session: Session) -> None:
    await session.checkpoints().list_runs(limit=1, tenant_id=session.tenant)


async def _probe_idempotency(session: Session) -> None:
    """Begin and abandon a key: the contract has no verb that only reads."""
    from app.stores import get_idempotency_store
    from app.stores.holder import Holder
    from app.stores.idempotency.contract import Started

    store = get_idempotency_store(session.settings)
    begun = await store.begin(
        "nova-doctor", "probe", holder=Holder.current(instance="doctor"), tenant_id=session.tenant
    )
    if isinstance(begun, Started):
        await store.abandon("nova-doctor", begun.token, tenant_id=session.tenant)


_PROBES: Final[dict[StoreKind, Callable[[Session], Coroutine[Any, Any, None]]]] = {
    "budget": _probe_budget,
    "checkpoint": _probe_checkpoint,
    "idempotency": _probe_idempotency,
}


def _language_model(session: Session) -> Finding:
    from app.skills.adapters import choose_adapter
    from app.skills.models import end_of_life_warning

    part = "language model"
    settings = session.library_settings
    try:
        choice = choose_adapter(settings)
    except ConfigurationError as error:
        return _problem(part, "none", error)
    in_force = f"{choice.adapter_id}, {choice.default_model}"
    if choice.adapter_id == "stub":
        remedy = None
        if choice.implicit:
            remedy = "set ANTHROPIC_API_KEY, or LLM_ADAPTER=openai with OPENAI_API_KEY or OPENAI_BASE_URL"
        return Finding(
            part=part, state="note" if choice.implicit else "ok", in_force=in_force, why=choice.reason, remedy=remedy
        )
    url = _address(settings, choice.adapter_id)
    ending = None
    if url in _PROVIDERS.values():  # another address may serve whatever it likes under the name
        ending = end_of_life_warning(choice.adapter_id, choice.default_model, today=datetime.now(UTC).date())
    problem = session.execute(lambda: _unreachable(url))
    if problem is None:
        return Finding(
            part=part,
            state="ok" if ending is None else "note",
            in_force=in_force,
            why=f"{choice.reason}; its host answers",
            remedy=ending,
        )
    return Finding(
        part=part,
        state="problem",
        in_force=in_force,
        why=f"{choice.reason}; {problem}",
        remedy="check the network, and the base URL of the adapter",
        exit_code=ExitCode.PROVIDER,
    )


_PROVIDERS: Final = {"openai": "https://api.openai.com", "claude": "https://api.anthropic.com"}


def _address(settings: Settings, adapter_id: str) -> str:
    if adapter_id == "openai":
        return settings.openai_base_url or _PROVIDERS[adapter_id]
    return settings.anthropic_base_url or _PROVIDERS[adapter_id]


async def _unreachable(url: str) -> str | None:
    """Return what is wrong with the way to a host, None where it takes connections. Nothing is sent."""
    import asyncio
    from urllib.parse import urlsplit
    from urllib.request import getproxies

    parts = urlsplit(url)
    host, port = parts.hostname, parts.port or (443 if parts.scheme == "https" else 80)
    if host is None:
        return "its base URL has no host"
    if parts.scheme in getproxies():
        return None
    try:
        async with asyncio.timeout(CONNECT_TIMEOUT_S):
            _, writer = await asyncio.open_connection(host, port)
    except TimeoutError:
        return f"{host}:{port} did not answer within {CONNECT_TIMEOUT_S:.0f} s"
    except OSError as error:
        return f"{host}:{port} cannot be reached ({error.strerror or error})"
    writer.close()
    return None


def _prices(session: Session) -> Finding:
    from app.skills.adapters import choose_adapter
    from app.skills.pricing import get_price_book

    settings = session.library_settings
    try:
        choice = choose_adapter(settings)
        book = get_price_book(settings)
    except ConfigurationError as error:
        return _problem("prices", "none", error)
    source = str(settings.nova_prices_file) if settings.nova_prices_file else "built in (genai-prices)"
    price = book.price(provider=choice.adapter_id, model=choice.default_model)
    if price is not None:
        return Finding(part="prices", state="ok", in_force=source, why=f"{choice.default_model}: {price.version}")
    return Finding(
        part="prices",
        state="note",
        in_force=source,
        why=f"{choice.default_model} has no price: refused where a limit applies, unless NOVA_UNKNOWN_PRICE permits it",
        remedy="give it a price in NOVA_PRICES_FILE",
    )


def _problem(part: str, in_force: str, error: NovaError, *, library: str | None = None) -> Finding:
    explanation = explain(error)
    return Finding(
        part=part,
        state="problem",
        in_force=in_force,
        why=explanation.message,
        library=library,
        remedy=explanation.remedy,
        exit_code=explanation.exit_code,
    )
