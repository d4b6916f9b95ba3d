"""A program that ends without closing its stores ends in order."""

from __future__ import annotations

import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

from app.stores.sqlite.schema import open_database

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


# What is registered first runs last: behind Nova's own end.
LATE_PROGRAM = """
import asyncio, atexit, sys, threading

@atexit.register
def late():
    try:
        asyncio.run(store.set_limit("tenant", 1))
    except Exception as error:
        print(error.code, *[thread.name for thread in threading.enumerate() if "nova" in thread.name])

from pathlib import Path
from app.stores.budget.sqlite import SqliteBudgetStore
from app.stores.sqlite import database

class Jitter:
    asked = threading.Event()
    def uniform(self, low, high):
        self.asked.set()
        return high

database._EXIT_PATIENCE_S, database._EXIT_MARGIN_S, database.random = 10, 9.9, Jitter()
store = SqliteBudgetStore(Path(sys.argv[1]))

async def main():
    write = asyncio.ensure_future(store.set_limit("tenant", 10**9))
    if sys.argv[2] == "locked":
        await asyncio.to_thread(Jitter.asked.wait, 30)
    else:
        await write
    sys.exit(7)

asyncio.run(main())
"""


def ended(program: str, file: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run a program on a file to its end."""
    return subprocess.run(
        [sys.executable, "-c", program, str(file), *arguments],
        env={"PYTHONPATH": str(BACKEND)},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_a_program_that_exits_in_the_middle_of_writes_ends_with_its_own_code(tmp_path: Path) -> None:
    """Its exit code is the program's, nothing is printed, and the write-ahead log was emptied by an orderly close."""
    for number in range(5):
        file = tmp_path / f"{number}.db"

        done = ended(PROGRAM, file)

        assert (done.returncode, done.stderr) == (7, "")
        assert file.exists()
        assert not file.with_name(f"{file.name}-wal").exists()


def test_a_program_that_is_ending_opens_no_file_again(tmp_path: Path) -> None:
    """A verb behind the end is refused: a thread that it started would run into the end of the interpreter."""
    done = ended(LATE_PROGRAM, tmp_path / "nova.db", "free")

    assert (done.returncode, done.stderr) == (7, "")
    assert done.stdout.split() == ["ERR_BUDGET_STORE_UNAVAILABLE"]


def test_a_program_that_is_ending_gives_up_on_a_lock(tmp_path: Path) -> None:
    """A thread that waits for another process is not left waiting: it gives up, closes the file, and ends."""
    file = tmp_path / "nova.db"
    open_database(file).close()
    with closing(sqlite3.connect(file, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")

        done = ended(LATE_PROGRAM, file, "locked")

    assert (done.returncode, done.stderr) == (7, "")
    assert done.stdout.split() == ["ERR_BUDGET_STORE_UNAVAILABLE"]
