"""Moving old runs to an archive: requests, memory, rows per second and bytes, beside a plain loop of one PUT per run.

The database is made first, by a process of its own. Another one offloads it, so that its memory can be told, then reads
runs back at random. The plain loop does what a script of fifty lines does: it reads a run's rows, writes them as one
gzip'd JSON object through boto3, and deletes the rows. Both work on the same S3 server on loopback, from the same rows.

Run it with ``python benchmarks/offload.py [--runs N] [--steps N] [--tenants N]``; ``--directory`` offloads to a
directory alone, without a server and without the plain loop; ``--json`` prints the figures for programs.
"""

from __future__ import annotations

import argparse
import asyncio
import gzip
import json
import random
import resource
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import closing
from datetime import timedelta
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "backend"))

from app.credentials import fixed
from app.stores.archive.contract import ObjectInfo, ObjectStore
from app.stores.archive.directory import DirectoryArchive
from app.stores.archive.r2 import R2Archive
from app.stores.archive.reader import ArchiveReader
from app.stores.archive.sqlite_ledger import SqliteLedger
from app.stores.checkpoint import rules
from app.stores.checkpoint.codec import canonical_json, decode, encode
from app.stores.checkpoint.contract import RunStatus
from app.stores.checkpoint.rows import pack_canonical
from app.stores.checkpoint.sqlite import SqliteCheckpointStore
from app.stores.checkpoint.sqlite_rows import SqliteRows
from app.stores.offload.daily import run_daily
from app.stores.sqlite import schema

RESTORES = 1_000
_OLD_MS = 1_764_000_000_000
_NO_META = encode(b"{}")


class CountingArchive:
    """An archive that counts its requests."""

    def __init__(self, inner: ObjectStore) -> None:
        self._inner = inner
        self.requests: Counter[str] = Counter()
        self.location = inner.location

    async def put_new(self, key: str, data: bytes) -> None:
        """Count it."""
        self.requests["put"] += 1
        await self._inner.put_new(key, data)

    async def get(self, key: str) -> bytes:
        """Count it."""
        self.requests["get"] += 1
        return await self._inner.get(key)

    async def get_range(self, key: str, offset: int, length: int) -> bytes:
        """Count it."""
        self.requests["get"] += 1
        return await self._inner.get_range(key, offset, length)

    async def size(self, key: str) -> int | None:
        """Count it."""
        self.requests["head"] += 1
        return await self._inner.size(key)

    async def delete(self, key: str) -> None:
        """Count it."""
        self.requests["delete"] += 1
        await self._inner.delete(key)

    async def list(self, prefix: str) -> AsyncIterator[ObjectInfo]:
        """Count it."""
        self.requests["list"] += 1
        async for info in self._inner.list(prefix):
            yield info

    async def close(self) -> None:
        """Close what is inside."""
        await self._inner.close()


def prepare(path: Path, *, runs: int, steps: int, tenants: int) -> None:
    """Fill a new database with completed runs of long ago: prose with figures in it, about 1.3 KB for each step."""
    generator = random.Random(7)
    words = ["".join(generator.choices("abcdefghijklmnopqrstuvwxyz", k=generator.randint(2, 9))) for _ in range(4_000)]
    with closing(schema.open_database(path)) as connection:
        connection.execute("PRAGMA synchronous = OFF")
        rows = SqliteRows(connection)
        for first in range(0, runs, 1_000):
            connection.execute("BEGIN")
            for number in range(first, min(first + 1_000, runs)):
                _add_run(
                    rows, generator, words, run_id=f"run-{number:07}", tenant_id=f"t{number % tenants}", steps=steps
                )
            connection.execute("COMMIT")
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")


def _add_run(
    rows: SqliteRows, generator: random.Random, words: list[str], *, run_id: str, tenant_id: str, steps: int
) -> None:
    nothing = pack_canonical(b"null")
    head = rules.created(
        tenant_id, run_id, workflow="bench", workflow_version="1", inputs_digest=nothing.digest, now_ms=_OLD_MS
    )
    new = []
    for number in range(steps):
        value = {"id": generator.randrange(10**9), "text": " ".join(generator.choices(words, k=170)), "n": number}
        output = pack_canonical(canonical_json(value))
        new.append(
            rules.NewStep(
                step_id=f"step/{number}", fingerprint=generator.randbytes(32).hex(), output=output, meta=_NO_META
            )
        )
    head, stored = rules.saved_first(head, new, status=RunStatus.COMPLETED, now_ms=_OLD_MS)
    run_no = rows.insert(head, nothing.body)
    rows.add_steps(run_no, stored)


def _archive(options: argparse.Namespace) -> CountingArchive:
    if options.endpoint is None:
        return CountingArchive(DirectoryArchive(options.database.with_name("archive")))
    return CountingArchive(
        R2Archive(
            options.bucket,
            endpoint=options.endpoint,
            access_key_id=fixed(options.access_key_id),
            secret_access_key=fixed(options.secret_access_key),
        )
    )


async def offload(options: argparse.Namespace) -> dict[str, Any]:
    """Offload the whole database, then read runs back at random; in a process of its own."""
    archive = _archive(options)
    ledger = SqliteLedger(options.database)
    begin = time.perf_counter()
    report = await run_daily(ledger, archive, idle=timedelta(days=3), retention=timedelta(days=7))
    seconds = time.perf_counter() - begin
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    requests = dict(archive.requests)
    archive.requests.clear()
    store = SqliteCheckpointStore(options.database, archive=ArchiveReader(lambda: archive, cache_bytes=0))
    generator = random.Random(11)
    begin = time.perf_counter()
    for _ in range(RESTORES):
        number = generator.randrange(options.runs)
        state = await store.load(f"run-{number:07}", tenant_id=f"t{number % options.tenants}")
        assert state is not None
        assert len(state.steps) == options.steps
        assert state.head.tier == "archived"
    restored_s = time.perf_counter() - begin
    await store.close()
    await ledger.close()
    return {
        "outcome": report.outcome,
        "runs": report.runs,
        "checkpoints": report.checkpoints,
        "purged checkpoints": report.purged_checkpoints,
        "segments": report.segments,
        "requests": requests,
        "seconds": seconds,
        "checkpoints per second": report.checkpoints / seconds,
        "bytes in the archive per checkpoint": report.bytes_stored / max(1, report.checkpoints),
        "bytes of rows per checkpoint": report.bytes_raw / max(1, report.checkpoints),
        "peak memory MB": memory / 1024,
        "restores": RESTORES,
        "gets for the restores": archive.requests["get"],
        "other requests for the restores": sum(archive.requests.values()) - archive.requests["get"],
        "ms per restore": restored_s * 1_000 / RESTORES,
    }


def plain_loop(options: argparse.Namespace) -> dict[str, Any]:
    """Put one object for each run through boto3, and delete its rows; in a process of its own."""
    import boto3
    from botocore.config import Config

    client = boto3.client(
        "s3",
        endpoint_url=options.endpoint,
        aws_access_key_id=options.access_key_id,
        aws_secret_access_key=options.secret_access_key,
        region_name="auto",
        config=Config(request_checksum_calculation="when_required", response_checksum_validation="when_required"),
    )
    begin = time.perf_counter()
    stored = checkpoints = 0
    with closing(schema.open_database(options.database)) as connection:
        runs = connection.execute("SELECT run_no, tenant_id, run_id FROM checkpoint_runs").fetchall()
        for run_no, tenant_id, run_id in runs:
            steps = connection.execute(
                "SELECT step_id, fingerprint, recorded_ms, body FROM checkpoint_steps WHERE run_no = ? ORDER BY idx",
                (run_no,),
            ).fetchall()
            lines = [
                json.dumps(
                    {"step": step[0], "fingerprint": step[1], "at": step[2], "output": json.loads(decode(step[3]))}
                )
                for step in steps
            ]
            body = gzip.compress("\n".join(lines).encode(), 6)
            client.put_object(Bucket=options.bucket, Key=f"plain/{tenant_id}/{run_id}.jsonl.gz", Body=body)
            connection.execute("DELETE FROM checkpoint_steps WHERE run_no = ?", (run_no,))
            stored += len(body)
            checkpoints += len(steps)
    seconds = time.perf_counter() - begin
    return {
        "runs": len(runs),
        "requests": {"put": len(runs)},
        "seconds": seconds,
        "checkpoints per second": checkpoints / seconds,
        "bytes in the archive per checkpoint": stored / max(1, checkpoints),
        "peak memory MB": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
    }


def _child(role: str, options: argparse.Namespace, database: Path, server: Any = None) -> dict[str, Any]:
    command = [sys.executable, __file__, "--role", role, "--database", str(database)]
    for name in ("runs", "steps", "tenants"):
        command += [f"--{name}", str(getattr(options, name))]
    if server is not None:
        command += ["--endpoint", server.endpoint, "--bucket", server.bucket]
        command += ["--access-key-id", server.access_key_id, "--secret-access-key", server.secret_access_key]
    found: dict[str, Any] = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    return found


def measure(options: argparse.Namespace, folder: Path) -> dict[str, dict[str, Any]]:
    """Make the database once, and let each side work on a copy of it."""
    made = folder / "nova.db"
    _child("prepare", options, made)
    size = made.stat().st_size
    if options.directory:
        figures = {"nova, directory": _child("offload", options, made)}
    else:
        from tests.support.servers.s3 import S3Server

        plain = folder / "plain.db"
        with closing(sqlite3.connect(made)) as source, closing(sqlite3.connect(plain)) as target:
            source.backup(target)
        with S3Server().start() as server:
            figures = {
                "nova, S3": _child("offload", options, made, server),
                "plain loop, S3": _child("plain", options, plain, server),
            }
    return {"database": {"bytes": size, "bytes per checkpoint": size / (options.runs * options.steps)}, **figures}


def main() -> None:
    """Print the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=2_000)
    parser.add_argument("--steps", type=int, default=10)
    parser.add_argument("--tenants", type=int, default=1)
    parser.add_argument("--directory", action="store_true")
    parser.add_argument("--json", action="store_true")
    for name in ("role", "database", "endpoint", "bucket", "access-key-id", "secret-access-key"):
        parser.add_argument(f"--{name}", help=argparse.SUPPRESS, type=Path if name == "database" else str)
    options = parser.parse_args()
    if options.role == "prepare":
        prepare(options.database, runs=options.runs, steps=options.steps, tenants=options.tenants)
        print("{}")
        return
    if options.role is not None:
        figures: Any = asyncio.run(offload(options)) if options.role == "offload" else plain_loop(options)
        print(json.dumps(figures))
        return
    with tempfile.TemporaryDirectory(prefix="nova-bench-") as folder:
        found = measure(options, Path(folder))
    if options.json:
        print(json.dumps(found))
        return
    print(f"{options.runs:,} runs of {options.steps} checkpoints, {options.tenants:,} tenants")
    for side, values in found.items():
        print(side)
        for name, value in values.items():
            print(f"  {name:38}{f'{value:,.1f}' if isinstance(value, float) else value}")


if __name__ == "__main__":
    main()
