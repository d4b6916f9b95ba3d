"""The job as a program: its arguments, its progress, its summary and its exit codes."""

from __future__ import annotations

import argparse
import asyncio
import json
import signal
import sys
import time
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from enum import IntEnum
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from app import errors
from app.logs import logging_as_configured
from app.redaction import redact
from app.stores.archive.choice import open_archive, open_ledger
from app.stores.archive.contract import ObjectStore
from app.stores.archive.ledger import ArchiveLedger
from app.stores.offload.checking import COUNTED, check_all
from app.stores.offload.erasing import erase_tenant
from app.stores.offload.exporting import export_runs
from app.stores.offload.job import job
from app.stores.offload.report import OffloadReport, Outcome, Progress
from app.stores.offload.rewriting import rewrite_mostly_dead
from app.stores.offload.scanning import scan
from app.stores.offload.sweeping import sweep, write_tombstones

if TYPE_CHECKING:
    from app.settings import Settings

__all__ = ["OffloadExit", "run"]


class OffloadExit(IntEnum):
    """What the exit status means; part of the interface (``docs/offload.md``)."""

    DONE = 0
    UNEXPECTED = 1
    USAGE = 2
    BUSY = 3
    PARTIAL = 4
    UNVERIFIED = 5
    CONFIGURATION = 6
    UNAVAILABLE = 7
    INTERRUPTED = 130
    TERMINATED = 143


_OF_OUTCOME: Final[dict[Outcome, OffloadExit]] = {
    "done": OffloadExit.DONE,
    "partial": OffloadExit.PARTIAL,
    "unverified": OffloadExit.UNVERIFIED,
}
_OF_ERROR: Final[tuple[tuple[type[errors.NovaError], OffloadExit], ...]] = (
    (errors.OffloadBusyError, OffloadExit.BUSY),
    (errors.OffloadFencedError, OffloadExit.BUSY),
    (errors.ConfigurationError, OffloadExit.CONFIGURATION),
    (errors.InvalidInputError, OffloadExit.USAGE),
    (errors.RunNotFoundError, OffloadExit.USAGE),
    (errors.CheckpointCorruptError, OffloadExit.UNVERIFIED),
    (errors.StoreDamagedError, OffloadExit.UNVERIFIED),
    (errors.ArchiveObjectMissingError, OffloadExit.UNVERIFIED),
    (errors.StoreError, OffloadExit.UNAVAILABLE),
)
_PROGRESS_EVERY_S: Final = {True: 0.1, False: 10.0}
"""On a terminal a line is drawn anew; in a log each is one more."""

_PAGE: Final = 1_000


class _Stopped(BaseException):
    """SIGTERM: the job is to end in order."""


def run(arguments: Sequence[str], *, load: Callable[[], Settings] | None = None, program: str | None = None) -> int:
    """Run the program and return its exit code; results go to standard output, everything else to standard error.

    Args:
        arguments: without the program's name.
        load: gives the settings, once the arguments are read; None reads the environment.
        program: its name in help and errors.
    """
    options = _parser(program or "python3 -m app.stores.checkpoint_offload").parse_args(arguments)
    try:
        settings = (load or _load_settings)()
        with logging_as_configured(settings):
            return int(_run_stoppable(_VERBS[options.verb](options, settings)))
    except errors.NovaError as error:
        code = next((code for cls, code in _OF_ERROR if isinstance(error, cls)), OffloadExit.UNEXPECTED)
        told = redact(str(error))
        _say(f"error: {told}")
        if options.json:
            _print_json({"error": {"code": error.code, "exit_code": int(code), "message": told}})
        return int(code)
    except KeyboardInterrupt:
        _say("interrupted; what was committed stands, and the next job goes on")
        return int(OffloadExit.INTERRUPTED)
    except _Stopped:
        _say("stopped; what was committed stands, and the next job goes on")
        return int(OffloadExit.TERMINATED)


def _parser(program: str) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog=program,
        description="Copy old runs to the archive, verify them there, and purge the database of the older ones.",
        epilog=(
            "verbs: offload (the default, for a daily schedule); verify: read every segment and decode it; ls: what "
            "lies in the archive, and the latest jobs; restore: bring a run back into the database; gc: take in "
            "or delete what the database does not know, rewrite mostly dead segments; erase: remove a tenant; "
            "rebuild-index: restore the database's index from the archive; export: archived runs as JSON lines. "
            "Exit codes: 0 done, 1 unexpected, 2 usage, 3 another job has the lease, 4 partial, 5 verification failed, "
            "6 configuration, 7 database or archive did not answer. "
            f"Example: {program} --older-than 3 --retention 7"
        ),
    )
    parser.add_argument("verb", nargs="?", default="offload", choices=sorted(_VERBS), help="what to do")
    parser.add_argument("--older-than", type=float, metavar="DAYS", help="copy runs untouched for so long (3)")
    parser.add_argument("--retention", type=float, metavar="DAYS", help="purge runs untouched for so long (7)")
    parser.add_argument("--dry-run", action="store_true", help="only count what would be done")
    parser.add_argument("--max-seconds", type=float, metavar="S", help="begin nothing more after this time")
    parser.add_argument("--tenant", metavar="NAME", help="restore, erase, export, verify, ls: of this tenant")
    parser.add_argument("--run", metavar="RUN", help="restore, export: this run")
    parser.add_argument("--yes", action="store_true", help="erase: do not ask")
    parser.add_argument("--output", type=Path, metavar="FILE", help="export: into this file, which must not exist")
    parser.add_argument("--json", action="store_true", help="write one JSON document to standard output")
    return parser


# --- the verbs --------------------------------------------------------------------------------------------------------


async def _offload(options: argparse.Namespace, settings: Settings) -> OffloadExit:
    from app.stores.checkpoint_offload import offload_old_checkpoints

    report = await offload_old_checkpoints(
        options.older_than,
        retention_days=options.retention,
        dry_run=options.dry_run,
        max_seconds=options.max_seconds,
        settings=settings,
        watch=_watch(),
    )
    return _tell(options, report, report.document())


async def _verify(options: argparse.Namespace, settings: Settings) -> OffloadExit:
    async def work(ledger: ArchiveLedger, archive: ObjectStore) -> OffloadExit:
        async with job(
            "verify", ledger=ledger, archive=archive, watch=_watch(), max_seconds=options.max_seconds
        ) as running:
            right = await check_all(running, tenant_id=options.tenant)
        report = running.report()
        return _tell(options, report, report.document() | {"right": right}, f"{_counted(right, 'segment')} verified")

    return await _with_both(settings, work)


async def _ls(options: argparse.Namespace, settings: Settings) -> OffloadExit:
    async def work(ledger: ArchiveLedger, archive: ObjectStore) -> OffloadExit:
        jobs = [asdict(each) for each in await ledger.jobs(limit=10)]
        segments: list[dict[str, Any]] = []
        after = 0
        while page := await ledger.segments(states=COUNTED, tenant_id=options.tenant, after=after, limit=_PAGE):
            segments += [asdict(each) | {"sha256": None if each.sha256 is None else each.sha256.hex()} for each in page]
            after = page[-1].segment_no
        if options.json:
            _print_json({"archive": archive.location, "segments": segments, "jobs": jobs})
            return OffloadExit.DONE
        for each in segments:
            _print(
                f"{each['state']:8} {each['live_runs']:8,} of {each['runs']:8,} runs {each['size_bytes']:12,} bytes  "
                f"{each['tenant_id']}  {each['object_key']}"
            )
        for each in jobs:
            began = f"{datetime.fromtimestamp(each['started_ms'] / 1000, UTC):%Y-%m-%dT%H:%M:%SZ}"
            _print(f"job {each['epoch']:6}  {began}  {each['verb']:14} {each['outcome'] or 'not ended'}")
        return OffloadExit.DONE

    return await _with_both(settings, work)


async def _restore(options: argparse.Namespace, settings: Settings) -> OffloadExit:
    if not options.run:
        raise errors.InvalidInputError("restore needs --run RUN")
    from app.stores import get_checkpoint_store

    store: Any = get_checkpoint_store(settings, force_new=True)
    tenant_id = options.tenant or "default"
    try:
        if not hasattr(store, "restore"):
            raise errors.ConfigurationError("the checkpoints are in memory; no run of them is archived")
        restored = await store.restore(options.run, tenant_id=tenant_id)
    finally:
        await store.close()
    if options.json:
        _print_json({"run_id": options.run, "tenant_id": tenant_id, "restored": restored})
    else:
        _print(f"run {options.run} is back in the database" if restored else f"run {options.run} is in the database")
    return OffloadExit.DONE


async def _gc(options: argparse.Namespace, settings: Settings) -> OffloadExit:
    async def work(ledger: ArchiveLedger, archive: ObjectStore) -> OffloadExit:
        async with job(
            "gc", ledger=ledger, archive=archive, watch=_watch(), max_seconds=options.max_seconds
        ) as running:
            await write_tombstones(running)
            found = await scan(running)
            await rewrite_mostly_dead(running)
            await sweep(running)
        report = running.report()
        text = (
            f"{_counted(found.adopted, 'segment')} taken in; "
            f"{_counted(len(found.quarantined), 'object')} left alone, because they are no segments of this archive"
        )
        return _tell(options, report, report.document() | asdict(found), text)

    return await _with_both(settings, work)


async def _erase(options: argparse.Namespace, settings: Settings) -> OffloadExit:
    if not options.tenant:
        raise errors.InvalidInputError("erase needs --tenant NAME")
    if not options.yes:
        raise errors.InvalidInputError(
            f"erase removes every run of tenant {options.tenant!r} from the database and the archive, for good: "
            "confirm with --yes"
        )

    async def work(ledger: ArchiveLedger, archive: ObjectStore) -> OffloadExit:
        async with job("erase", ledger=ledger, archive=archive) as running:
            receipt = await erase_tenant(running, options.tenant)
        text = (
            f"tenant {receipt.tenant_id} is erased: {receipt.runs:,} runs, {receipt.checkpoints:,} checkpoints, "
            f"{len(receipt.objects):,} objects; {len(receipt.remaining):,} objects remain"
        )
        return _tell(options, running.report(), receipt.document(), text)

    return await _with_both(settings, work)


async def _rebuild_index(options: argparse.Namespace, settings: Settings) -> OffloadExit:
    async def work(ledger: ArchiveLedger, archive: ObjectStore) -> OffloadExit:
        async with job(
            "rebuild-index",
            ledger=ledger,
            archive=archive,
            watch=_watch(),
            max_seconds=options.max_seconds,
            rebuilding=True,
        ) as running:
            found = await scan(running)
        report = running.report()
        text = (
            f"{_counted(found.new_runs, 'run')} known again, {found.indexed_runs:,} in the database found their copy, "
            f"{found.buried_runs:,} stay deleted, {len(found.newer_runs):,} newer in the archive than in the database; "
            f"{_counted(len(found.quarantined), 'object')} left alone, because they are no segments of this archive"
        )
        return _tell(options, report, report.document() | asdict(found), text)

    return await _with_both(settings, work)


async def _export(options: argparse.Namespace, settings: Settings) -> OffloadExit:
    async def work(ledger: ArchiveLedger, archive: ObjectStore) -> OffloadExit:
        lines = export_runs(ledger, archive, tenant_id=options.tenant, run_id=options.run)
        if options.output is None:
            async for raw in lines:
                sys.stdout.buffer.write(raw)
            sys.stdout.buffer.flush()
            return OffloadExit.DONE
        try:
            with options.output.open("xb") as file:
                async for raw in lines:
                    await asyncio.to_thread(file.write, raw)
        except FileExistsError:
            raise errors.InvalidInputError(f"{str(options.output)!r} exists already and is not overwritten") from None
        return OffloadExit.DONE

    return await _with_both(settings, work)


_VERBS: Final[dict[str, Callable[[argparse.Namespace, Settings], Coroutine[Any, Any, OffloadExit]]]] = {
    "offload": _offload,
    "verify": _verify,
    "ls": _ls,
    "restore": _restore,
    "gc": _gc,
    "erase": _erase,
    "rebuild-index": _rebuild_index,
    "export": _export,
}


# --- what they share --------------------------------------------------------------------------------------------------


async def _with_both(
    settings: Settings, work: Callable[[ArchiveLedger, ObjectStore], Awaitable[OffloadExit]]
) -> OffloadExit:
    archive = open_archive(settings)
    ledger = open_ledger(settings)
    try:
        return await work(ledger, archive)
    finally:
        await archive.close()
        await ledger.close()


def _tell(options: argparse.Namespace, report: OffloadReport, document: dict[str, Any], text: str = "") -> OffloadExit:
    """Write the result, and return the exit code that belongs to it."""
    code = _OF_OUTCOME[report.outcome]
    if options.json:
        _print_json(document | {"exit_code": int(code)})
        return code
    _print(text or _summary(report))
    for tenant_id, run_id in report.corrupt_runs:
        _say(
            f"warning: run {run_id!r} of tenant {tenant_id!r} does not verify, or differs from its copy: left as it is"
        )
    for tenant_id, run_id in report.lost_runs:
        _say(f"warning: the only copy of run {run_id!r} of tenant {tenant_id!r} is missing or damaged")
    if report.unknown_objects:
        _say(f"warning: {report.unknown_objects:,} objects that this database does not know; `gc` takes segments in")
    if report.outcome != "done":
        _say(f"ended {report.outcome}")
    return code


def _summary(report: OffloadReport) -> str:
    if report.dry_run:
        return f"would copy {_counted(report.runs, 'run')}; would purge {report.purged_runs:,} that are archived now"
    return (
        f"copied {_counted(report.runs, 'run')} with {_counted(report.checkpoints, 'checkpoint')} into "
        f"{_counted(report.segments, 'segment')} ({report.bytes_stored:,} bytes); purged "
        f"{_counted(report.purged_runs, 'run')} with {_counted(report.purged_checkpoints, 'checkpoint')}; deleted "
        f"{_counted(report.swept, 'object')}; {report.seconds:.1f} s"
    )


def _counted(count: int, noun: str) -> str:
    """Return a number with its noun: ``1 segment``, ``2,000 segments``."""
    return f"{count:,} {noun}" if count == 1 else f"{count:,} {noun}s"


def _watch() -> Callable[[Progress], None]:
    terminal = sys.stderr.isatty()
    told = [time.monotonic()]

    def watch(progress: Progress) -> None:
        now = time.monotonic()
        if now - told[0] < _PROGRESS_EVERY_S[terminal]:
            return
        told[0] = now
        line = f"{progress.phase}: {progress.done:,} of {progress.total:,}"
        sys.stderr.write(f"\r{line}\x1b[K" if terminal else f"{line}\n")
        sys.stderr.flush()

    return watch


def _load_settings() -> Settings:
    from app.settings import load_settings

    return load_settings()


def _run_stoppable(verb: Coroutine[Any, Any, OffloadExit]) -> OffloadExit:
    before = signal.signal(signal.SIGTERM, _on_sigterm)
    try:
        return asyncio.run(verb)
    finally:
        signal.signal(signal.SIGTERM, before)


def _on_sigterm(_number: int, _frame: object) -> None:
    raise _Stopped


def _print_json(document: dict[str, Any]) -> None:
    _print(json.dumps(document, indent=2, default=str))


def _print(text: str) -> None:
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


def _say(text: str) -> None:
    sys.stderr.write(f"{text}\n")
    sys.stderr.flush()
