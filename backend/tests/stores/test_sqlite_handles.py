"""Handles on a SQLite file that are opened and closed by several at once leave nothing open."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from blockbuster import BlockBuster

from app.errors import BudgetStoreUnavailableError
from app.stores.sqlite import database as module
from app.stores.sqlite.database import SqliteDatabase


@pytest.fixture
def database(tmp_path: Path) -> SqliteDatabase:
    """Give a handle on a new file."""
    return SqliteDatabase(tmp_path / "nova.db", unavailable=BudgetStoreUnavailableError)


@pytest.fixture
def threads() -> Callable[[], list[str]]:
    """Give what names the threads that serve a file, since the test began."""
    before = set(threading.enumerate())
    return lambda: [
        thread.name for thread in set(threading.enumerate()) - before if thread.name.startswith("nova-sqlite")
    ]


async def test_a_verb_that_meets_a_close_is_served_and_leaves_no_thread(
    database: SqliteDatabase,
    threads: Callable[[], list[str]],
    monkeypatch: pytest.MonkeyPatch,
    blockbuster: BlockBuster,
) -> None:
    """A handle that is closed between a verb's look at it and its work opens the file anew, and closes that too."""
    blockbuster.deactivate()
    submit, closings = module._Thread.submit, iter([database.close])

    def submit_after_a_close(thread: module._Thread, operation: Any) -> Any:
        for close in closings:
            close()
        return submit(thread, operation)

    monkeypatch.setattr(module._Thread, "submit", submit_after_a_close)

    async with asyncio.timeout(20):
        assert await database.write(lambda _connection, _now_ms: "done") == "done"
    database.close()

    assert threads() == []


def test_a_handle_that_is_first_used_by_two_threads_is_closed_by_one_close(
    database: SqliteDatabase,
    threads: Callable[[], list[str]],
    monkeypatch: pytest.MonkeyPatch,
    blockbuster: BlockBuster,
) -> None:
    """A handle counts once, whoever opened it."""
    blockbuster.deactivate()
    both = threading.Barrier(2)

    class _Meeting:
        """A lock that the two ask for at the same time."""

        lock = threading.Lock()

        def __enter__(self) -> None:
            if threading.current_thread() is not threading.main_thread():
                both.wait(timeout=60)
            self.lock.acquire()

        def __exit__(self, *_: object) -> None:
            self.lock.release()

    monkeypatch.setattr(module._Files, "_lock", _Meeting())
    done: list[str] = []

    async def write() -> None:
        done.append(await database.write(lambda _connection, _now_ms: "done"))

    users = [threading.Thread(target=lambda: asyncio.run(write())) for _ in range(2)]
    for user in users:
        user.start()
    for user in users:
        user.join()
    database.close()

    assert done == ["done", "done"]
    assert threads() == []
