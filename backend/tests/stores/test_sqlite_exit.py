"""A program that ends without closing its stores ends in order."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

BACKEND = Path(__file__).parents[2]

PROGRAM = """
import asyncio, sys
from datetime import timedelta
from pathlib import Path
from app.stores.budget.sqlite import SqliteBudgetStore

async def main():
    store = SqliteBudgetStore(Path(sys.argv[1]))
    await store.set_limit("tenant", 10**9)
    for number in range(200):
        asyncio.ensure_future(store.reserve(f"h{number}", 1, ["tenant"], lease=timedelta(seconds=60)))
    await asyncio.sleep(0)
    sys.exit(7)

asyncio.run(main())
"""


def test_a_program_that_exits_in_the_middle_of_writes_ends_with_its_own_code(tmp_path: Path) -> None:
    """Its exit code is the program's, nothing is printed, and the write-ahead log was emptied by an orderly close."""
    for number in range(5):
        file = tmp_path / f"{number}.db"

        done = subprocess.run(
            [sys.executable, "-c", PROGRAM, str(file)],
            env={"PYTHONPATH": str(BACKEND)},
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )

        assert (done.returncode, done.stderr) == (7, "")
        assert file.exists()
        assert not file.with_name(f"{file.name}-wal").exists()
