"""A recorded step on SQLite beside a bare ``INSERT ... COMMIT``, and what 400 steps take on the disk.

Bare means the same bytes in one row, the same pragmas and page size, one transaction each, through a thread and a queue
of its own, awaited in the same way. The two take turns; figures are medians of rounds with the lowest and the highest.

Run it with ``python benchmarks/steps.py [--rounds N] [--steps N]``; ``--json`` prints the figures for programs.
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import json
import queue
import random
import sqlite3
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Awaitable, Callable
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "backend"))

from app.stores.checkpoint.codec import canonical_json, encode
from app.stores.checkpoint.sqlite import SqliteCheckpointStore
from app.stores.holder import Holder
from app.stores.sqlite import schema

TASKS = 16
CONTENT_BYTES = 2_048
DISK_STEPS = 400

Record = Callable[[int, str], Awaitable[object]]
"""Records a text as the step of a number."""


@dataclass(frozen=True, slots=True)
class Figure:
    """The median of some rounds, and their lowest and highest."""

    median: float
    low: float
    high: float

    @classmethod
    def of(cls, values: list[float]) -> Figure:
        """Sum rounds up."""
        return cls(statistics.median(values), min(values), max(values))

    def __str__(self) -> str:
        return f"{self.median:10.3f}  ({self.low:.3f} to {self.high:.3f})"


class BareWriter:
    """One row and one commit for each call, on a thread of its own."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._queue: queue.SimpleQueue[tuple[bytes, Future[None]] | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()

    async def record(self, _number: int, text: str) -> None:
        """Insert the bytes that the store would insert."""
        future: Future[None] = Future()
        self._queue.put((encode(canonical_json(text)), future))
        await asyncio.wrap_future(future)

    def close(self) -> None:
        """End the thread."""
        self._queue.put(None)
        self._thread.join()

    def _serve(self) -> None:
        connection = schema.open_database(self._path)
        connection.execute("CREATE TABLE IF NOT EXISTS bare (id INTEGER PRIMARY KEY, body BLOB NOT NULL)")
        while (item := self._queue.get()) is not None:
            body, future = item
            connection.execute("BEGIN IMMEDIATE")
            connection.execute("INSERT INTO bare (body) VALUES (?)", (body,))
            connection.execute("COMMIT")
            future.set_result(None)
        connection.close()


def contents(count: int, *, seed: int) -> list[str]:
    """Return texts of 2,048 random bytes each, as base64: no codec finds less in them."""
    generator = random.Random(seed)
    return [base64.b64encode(generator.randbytes(CONTENT_BYTES)).decode() for _ in range(count)]


async def in_turn(records: dict[str, Record], texts: list[str]) -> dict[str, float]:
    """Return each side's p50 of a recorded text in ms; the sides take turns, so that both meet the same disk."""
    times: dict[str, list[float]] = {side: [] for side in records}
    for number, text in enumerate(texts):
        for side, record in records.items():
            start = time.perf_counter()
            await record(number, text)
            times[side].append(time.perf_counter() - start)
    return {side: statistics.median(taken) * 1_000 for side, taken in times.items()}


async def together(record: Record, texts: list[str]) -> float:
    """Return how many texts a second are recorded by 16 tasks, each of which waits for its own."""

    async def task(first: int) -> None:
        for number in range(first, len(texts), TASKS):
            await record(number, texts[number])

    start = time.perf_counter()
    async with asyncio.TaskGroup() as group:
        for first in range(TASKS):
            group.create_task(task(first))
    return len(texts) / (time.perf_counter() - start)


async def record_into(store: SqliteCheckpointStore, run_id: str, *, runs: int) -> Record:
    """Return what records into runs that this process holds; a number's run is its remainder."""
    tokens = []
    for index in range(runs):
        await store.create(f"{run_id}-{index}")
        tokens.append((await store.claim(f"{run_id}-{index}", holder=Holder.current())).token)

    async def record(number: int, text: str) -> None:
        index = number % runs
        await store.append(f"{run_id}-{index}", f"step/{number}", text, fingerprint="0" * 64, token=tokens[index])

    return record


async def measure(rounds: int, steps: int) -> dict[str, Figure]:
    """Measure both sides in alternating rounds."""
    p50: dict[str, list[float]] = {"bare": [], "nova": []}
    rate: dict[str, list[float]] = {"bare": [], "nova": []}
    with tempfile.TemporaryDirectory(prefix="nova-bench-") as directory:
        store = SqliteCheckpointStore(Path(directory) / "nova.db")
        bare = BareWriter(Path(directory) / "bare.db")
        try:
            for number in range(rounds + 1):
                texts = contents(steps, seed=number)
                alone = await record_into(store, f"alone-{number}", runs=1)
                many = await record_into(store, f"many-{number}", runs=TASKS)
                medians = await in_turn({"bare": bare.record, "nova": alone}, texts)
                rates = {"bare": await together(bare.record, texts), "nova": await together(many, texts)}
                if number == 0:  # the first round warms up
                    continue
                for side in ("bare", "nova"):
                    p50[side].append(medians[side])
                    rate[side].append(rates[side])
        finally:
            bare.close()
            await store.close()
    return {
        "bare p50 ms": Figure.of(p50["bare"]),
        "step p50 ms": Figure.of(p50["nova"]),
        "step / bare": Figure.of([nova / bare for nova, bare in zip(p50["nova"], p50["bare"], strict=True)]),
        "bare per s, 16 tasks": Figure.of(rate["bare"]),
        "steps per s, 16 tasks": Figure.of(rate["nova"]),
        "16 tasks / bare in turn": Figure.of([r * ms / 1_000 for r, ms in zip(rate["nova"], p50["bare"], strict=True)]),
        "16 tasks / bare 16 tasks": Figure.of(
            [nova / bare for nova, bare in zip(rate["nova"], rate["bare"], strict=True)]
        ),
    }


async def bytes_on_disk(path: Path, texts: list[str]) -> int:
    """Record a run of these texts into a new file and return what the file and its log take after closing."""
    store = SqliteCheckpointStore(path)
    record = await record_into(store, "run", runs=1)
    for number, text in enumerate(texts):
        await record(number, text)
    await store.close()
    return sum(file.stat().st_size for file in path.parent.glob(path.name + "*"))


def main() -> None:
    """Print the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--steps", type=int, default=400)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()

    figures = asyncio.run(measure(options.rounds, options.steps))
    with tempfile.TemporaryDirectory(prefix="nova-bench-") as directory:
        size = asyncio.run(bytes_on_disk(Path(directory) / "nova.db", contents(DISK_STEPS, seed=0)))
    ratio = size / (DISK_STEPS * CONTENT_BYTES)
    if options.json:
        shown = {name: [figure.median, figure.low, figure.high] for name, figure in figures.items()}
        print(json.dumps({**shown, "disk bytes": size, "disk / content": ratio}))
        return
    print(
        f"{options.rounds} rounds of {options.steps} steps of {CONTENT_BYTES:,} bytes; SQLite {sqlite3.sqlite_version}"
    )
    for name, figure in figures.items():
        print(f"{name:26}{figure}")
    print(f"{'disk / content':26}{ratio:10.3f}  ({size:,} bytes for {DISK_STEPS} steps)")
    print("targets: step / bare at most 1.5; 16 tasks / bare at least 2; disk / content at most 2")


if __name__ == "__main__":
    main()
