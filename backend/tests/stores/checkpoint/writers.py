"""``python -m tests.stores.checkpoint.writers FILE NAME STEPS RUN...``: a process that records steps, in turn, in runs.

With one run for all processes each appends by version, and loads again when another was quicker; with a run of its own
it holds a lease. It answers with a JSON list: how long each acknowledged append took, in ms. Any other error ends it.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from pathlib import Path

from app.errors import CheckpointConflictError
from app.stores.checkpoint.sqlite import SqliteCheckpointStore
from app.stores.holder import Holder

__all__ = ["main"]


async def main(path: Path, name: str, steps: int, run_id: str) -> list[float]:
    """Record steps and return what each took."""
    store = SqliteCheckpointStore(path)
    times: list[float] = []
    shared = run_id == "shared"
    token = None if shared else (await store.claim(run_id, holder=Holder.current())).token
    for number in range(steps):
        while True:
            head = await store.head(run_id)
            assert head is not None
            start = time.perf_counter()
            try:
                await store.append(
                    run_id,
                    f"{name}/{number}",
                    {"by": name, "number": number},
                    token=token,
                    expected_version=head.version if shared else None,
                )
            except CheckpointConflictError:
                continue  # another was quicker
            times.append((time.perf_counter() - start) * 1_000)
            break
    await store.close()
    return times


if __name__ == "__main__":
    print(json.dumps(asyncio.run(main(Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]), sys.argv[4]))))  # noqa: T201 - its answer
