"""A process that reserves and settles calls of 1 microcent until its budget refuses, as fast as it can.

Run as a module with the file's path, its name, the time in ms at which its clock stands, and after how many seconds it
kills itself (0: never). It begins at a line on its standard input and prints the id of each hold that was granted.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import threading
from datetime import timedelta
from pathlib import Path

from app.stores.budget.contract import Refused
from app.stores.budget.sqlite import SqliteBudgetStore


async def work(path: Path, name: str, now_ms: int, *, dies: bool) -> None:
    """Call until the budget refuses; whoever is to die waits for it."""
    store = SqliteBudgetStore(path, clock=lambda: now_ms)
    for number in range(1_000):
        hold_id = f"{name}/{number}"
        answer = await store.reserve(hold_id, 1, ["tenant", f"run:{name}"], lease=timedelta(seconds=30))
        if isinstance(answer, Refused):
            break
        sys.stdout.write(f"{hold_id}\n")
        sys.stdout.flush()
        await store.settle(hold_id, 1)
    if dies:
        await asyncio.Event().wait()
    await store.close()


def die() -> None:
    """End as by `kill -9`."""
    os.kill(os.getpid(), signal.SIGKILL)


if __name__ == "__main__":
    dies_after_s = float(sys.argv[4])
    sys.stdin.readline()
    if dies_after_s:
        threading.Timer(dies_after_s, die).start()
    asyncio.run(work(Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]), dies=bool(dies_after_s)))
