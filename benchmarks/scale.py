"""Ten million steps in 100,000 runs on PostgreSQL: what a verb takes there, as a ratio to an empty database.

Two databases on one server. One is filled by the server itself, in the shape that the store writes; the other has only
the runs that are measured. The two take turns with each verb, so that both meet the machine in the same state.

Run it with ``python benchmarks/scale.py [--runs N] [--steps N] [--rounds N]``; ``--json`` prints the figures for
programs. Filling takes some minutes and 4 GB.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import statistics
import sys
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "backend"))

from app.credentials import fixed
from app.stores.checkpoint.chain import output_digest
from app.stores.checkpoint.codec import canonical_json, encode
from app.stores.checkpoint.contract import RunFilter, RunStatus
from app.stores.checkpoint.postgres import CheckpointStore
from app.stores.holder import Holder
from benchmarks.support.figures import Figure, over
from benchmarks.support.recording import contents
from tests.support.servers.postgres import PostgresServer

BODY_BYTES = 100
PER_ROUND = 60
LOADED_STEPS = 100

FILL_RUNS = """
INSERT INTO nova_runs (created_ms, updated_ms, lease_token, version, next_step_index, head_hash, tenant_id, run_id,
                       root_run_id, workflow, workflow_version, status, inputs_digest)
SELECT t, t, 0, {steps}, {steps}, sha256('x'), 'default', 'filler-' || n, 'filler-' || n, 'w' || n %% 20, '1',
       (ARRAY['completed', 'completed', 'completed', 'failed', 'running'])[1 + n %% 5], %s
FROM (SELECT n, (1700000000000 + n::bigint * 500) AS t FROM generate_series(1, {runs}) AS n) AS numbered
"""
FILL_VALUES = "INSERT INTO nova_values SELECT run_no, 'inputs', %s FROM nova_runs"
FILL_STEPS = """
INSERT INTO nova_steps (run_no, recorded_ms, version, idx, size_bytes, step_id, fingerprint, output_digest, hash, meta,
                        body)
SELECT r.run_no, r.updated_ms, s + 1, s, {body}, 'step/' || s, '', sha256('d'), sha256(s::text::bytea), '\\x017b7d',
       decode(repeat(md5(s::text), {body} / 16), 'hex')
FROM nova_runs AS r, generate_series(0, {steps} - 1) AS s
WHERE r.run_no BETWEEN %s AND %s
"""


def fill(server: PostgresServer, database: str, *, runs: int, steps: int) -> None:
    """Add so many runs of so many steps, and let the server learn about them as its autovacuum would."""
    nothing = canonical_json(None)
    server.execute(FILL_RUNS.format(steps=steps, runs=runs), output_digest(nothing), database=database)
    server.execute(FILL_VALUES, encode(nothing), database=database)
    batch = max(1, runs // 20)
    for first in range(1, runs + 1, batch):
        server.execute(FILL_STEPS.format(steps=steps, body=BODY_BYTES), first, first + batch - 1, database=database)
        print(f"filled {min(first + batch - 1, runs) * steps:,} steps", file=sys.stderr)
    server.execute("VACUUM ANALYZE", database=database)
    server.execute("CHECKPOINT")


class Side:
    """One of the two databases, with what the verbs are measured on."""

    def __init__(self, dsn: str) -> None:
        self.store = CheckpointStore(fixed(dsn))
        self.holder = Holder.current()
        self.count = 0
        self.token = 0
        self.texts = contents(LOADED_STEPS, seed=1)

    async def prepare(self) -> None:
        """Record a run to be loaded, and runs to be claimed."""
        await self.store.create("loaded")
        token = (await self.store.claim("loaded", holder=self.holder)).token
        for number, text in enumerate(self.texts):
            await self.store.append("loaded", f"step/{number}", text, token=token)
        await self.store.create("appended")
        self.token = (await self.store.claim("appended", holder=self.holder)).token

    async def append(self) -> None:
        """Record a step."""
        self.count += 1
        await self.store.append("appended", f"s{self.count}", self.texts[self.count % LOADED_STEPS], token=self.token)

    async def load(self) -> None:
        """Load a run of a hundred steps."""
        await self.store.load("loaded")

    async def list_(self) -> None:
        """Read the first page of a list."""
        await self.store.list_runs(limit=20)

    async def list_filtered(self) -> None:
        """Read the first page of the runs that are running."""
        await self.store.list_runs(RunFilter(status=RunStatus.RUNNING), limit=20)

    async def claim(self) -> None:
        """Claim a run of one's own."""
        await self.store.claim("loaded", holder=self.holder)

    def verbs(self) -> dict[str, Callable[[], Awaitable[None]]]:
        """Return what is measured."""
        return {
            "append": self.append,
            "load (100 steps)": self.load,
            "list (20)": self.list_,
            "list running (20)": self.list_filtered,
            "claim": self.claim,
        }


async def measure(dsns: dict[str, str], *, rounds: int) -> dict[str, dict[str, list[float]]]:
    """Return each verb's p50 in ms by round, for both sides."""
    sides = {name: Side(dsn) for name, dsn in dsns.items()}
    for side in sides.values():
        await side.prepare()
    # The same heads are on the first page of both lists.
    for number in range(40):
        for side in sides.values():
            await side.store.create(f"listed-{number}")
    p50: dict[str, dict[str, list[float]]] = {}
    for round_ in range(rounds + 1):
        for verb in next(iter(sides.values())).verbs():
            times: dict[str, list[float]] = {name: [] for name in sides}
            for _ in range(PER_ROUND):
                for name, side in sides.items():
                    started = time.perf_counter()
                    await side.verbs()[verb]()
                    times[name].append((time.perf_counter() - started) * 1_000)
            if round_ == 0:  # the first round warms up
                continue
            for name, taken in times.items():
                p50.setdefault(verb, {}).setdefault(name, []).append(statistics.median(taken))
    for side in sides.values():
        await side.store.close()
    return p50


async def make_tables(dsn: str) -> None:
    """Let the store make its tables."""
    store = CheckpointStore(fixed(dsn))
    await store.database.migrate()
    await store.close()


def main() -> None:
    """Print the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=100_000)
    parser.add_argument("--steps", type=int, default=100)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    with PostgresServer(max_wal_size="16GB", checkpoint_timeout="1h", shared_buffers="512MB") as server:
        dsns = {name: server.create_database(name) for name in ("empty", "full")}
        for dsn in dsns.values():
            asyncio.run(make_tables(dsn))
        started = time.perf_counter()
        fill(server, "full", runs=options.runs, steps=options.steps)
        ((size,),) = server.execute("SELECT pg_database_size('full')")
        filled_s = time.perf_counter() - started
        p50 = asyncio.run(measure(dsns, rounds=options.rounds))
    ratios = {verb: over(sides["full"], sides["empty"]) for verb, sides in p50.items()}
    if options.json:
        found: dict[str, Any] = {verb: ratio.as_json() for verb, ratio in ratios.items()}
        print(json.dumps({"steps": options.runs * options.steps, "size_bytes": size, "full / empty": found}))
        return
    print(
        f"{options.runs * options.steps:,} steps in {options.runs:,} runs:"
        f" {int(str(size)) / 1e9:.1f} GB, filled in {filled_s:.0f} s"
    )
    print(f"{'':20}{'empty p50 ms':>22}{'full p50 ms':>22}{'full / empty':>22}")
    for verb, sides in p50.items():
        empty, full = Figure.of(sides["empty"]).show(), Figure.of(sides["full"]).show()
        print(f"{verb:20}{empty:>22}{full:>22}{ratios[verb].show():>22}")
    print("target: at most 1.5")


if __name__ == "__main__":
    main()
