"""Crash points: a child process that ends, or is ended, at a numbered boundary of what it writes to a database.

On SQLite a boundary lies before and after every statement of a connection, BEGIN and COMMIT included; the last one,
after COMMIT, is the moment before the acknowledgement. On PostgreSQL it lies before a statement, behind its sending,
and behind its answer. Nothing in the product knows of this: the child hands the stores connections that count.

What happens at the boundary is the mode: ``kill`` (SIGKILL), ``freeze`` (SIGSTOP, until somebody did something in the
meantime, then SIGCONT), or ``cut`` (its connection to the server is shut).

A :class:`CrashLab` is a process that has imported everything and forks a child for each experiment, which takes a few
milliseconds. A scenario is an async function of a :class:`Child`; it prepares, calls :meth:`Child.arm`, acts, and
reports by :meth:`Child.say` what it was told, before the kill and through it::

    with CrashLab() as lab:
        whole = lab.run("tests.stores.budget.crash_scenarios:settle", path)
        for boundary in range(len(whole.boundaries)):
            outcome = lab.run("tests.stores.budget.crash_scenarios:settle", copy, kill_at=boundary)
"""

from __future__ import annotations

import asyncio
import importlib
import json
import os
import signal
import socket
import sqlite3
import subprocess
import sys
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Self

__all__ = ["Child", "CrashLab", "Mode", "Outcome", "Scenario"]

Mode = Literal["kill", "freeze", "cut"]


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a child ended.

    Attributes:
        said: what it reported, in order; what it said before a kill is here.
        killed: whether it reached the boundary that it was to be killed at.
        boundaries: the names of those that it passed after ``arm``; empty where it was killed.
    """

    said: list[Any]
    killed: bool
    boundaries: list[str]


class Child:
    """What a scenario gets: the database (a file, or the URL of one), a way to report, the counting of boundaries."""

    def __init__(self, database: Path | str, reports: int, kill_at: int | None, mode: Mode = "kill") -> None:
        self.database = database
        self.mode = mode
        self.boundaries: list[str] = []
        self._reports = reports
        self._kill_at = kill_at
        self._armed = False

    def say(self, what: Any) -> None:
        """Report something; it is with the parent when this returns."""
        os.write(self._reports, json.dumps(what).encode() + b"\n")

    def arm(self) -> None:
        """Count boundaries from here on."""
        self._armed = True

    def disarm(self) -> None:
        """Count no further ones."""
        self._armed = False

    def at(self, boundary: str, *, descriptor: int | None = None) -> None:
        """Pass a boundary, or do there what the mode says; ``descriptor`` is that of the connection."""
        if not self._armed:
            return
        if len(self.boundaries) == self._kill_at:
            self._interrupt(descriptor)
        self.boundaries.append(boundary)

    def _interrupt(self, descriptor: int | None) -> None:
        if self.mode == "cut":
            assert descriptor is not None
            with socket.socket(fileno=os.dup(descriptor)) as connection:
                connection.shutdown(socket.SHUT_RDWR)
        else:
            os.kill(os.getpid(), signal.SIGSTOP if self.mode == "freeze" else signal.SIGKILL)


Scenario = Callable[[Child], Awaitable[None]]


class CountingConnection:
    """A connection of SQLite whose statements are boundaries."""

    def __init__(self, inner: sqlite3.Connection, child: Child) -> None:
        self._inner = inner
        self._child = child

    def execute(self, statement: str, *values: Any) -> sqlite3.Cursor:
        """Execute between two boundaries."""
        name = " ".join(statement.split()[:3])
        self._child.at(f"before {name}")
        cursor = self._inner.execute(statement, *values)
        self._child.at(f"after {name}")
        return cursor

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)


class CrashLab:
    """A process that forks children; a context manager."""

    def __enter__(self) -> Self:
        self._server = subprocess.Popen(
            [sys.executable, "-m", "tests.support.crash"], stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
        return self

    def __exit__(self, *_: object) -> None:
        assert self._server.stdin is not None
        assert self._server.stdout is not None
        self._server.stdin.close()
        self._server.wait(timeout=60)
        self._server.stdout.close()

    def run(
        self,
        scenario: str,
        database: Path | str,
        *,
        kill_at: int | None = None,
        mode: Mode = "kill",
        meanwhile: Callable[[], None] | None = None,
    ) -> Outcome:
        """Run ``module:function`` in a new child, to its end or to a boundary; ``meanwhile`` while it is frozen.

        Raises:
            AssertionError: the scenario failed by itself; its traceback is on the standard error.
        """
        order = {
            "scenario": scenario,
            "database": str(database),
            "is_file": isinstance(database, Path),
            "kill_at": kill_at,
            "mode": mode,
        }
        answer = self._ask(order)
        while "frozen" in answer:
            try:
                if meanwhile is not None:
                    meanwhile()
            finally:
                answer = self._ask({})
        assert answer["exit"] in {0, -signal.SIGKILL}, f"{scenario} failed with {answer['exit']}"
        return Outcome(said=answer["said"], killed=answer["exit"] != 0, boundaries=answer["boundaries"])

    def _ask(self, order: dict[str, object]) -> dict[str, Any]:
        assert self._server.stdin is not None
        assert self._server.stdout is not None
        self._server.stdin.write(json.dumps(order).encode() + b"\n")
        self._server.stdin.flush()
        answer: dict[str, Any] = json.loads(self._server.stdout.readline())
        return answer


def _serve() -> None:
    """Fork a child for each line of the standard input and answer with how it ended."""
    for line in sys.stdin:
        order = json.loads(line)
        module, _, name = order["scenario"].partition(":")
        scenario: Scenario = getattr(importlib.import_module(module), name)
        if not order["is_file"]:
            importlib.import_module("app.stores.postgres.pool")  # and the driver with it: once, not in each child
        reading, writing = os.pipe()
        pid = os.fork()
        if pid == 0:
            os.close(reading)
            database = Path(order["database"]) if order["is_file"] else order["database"]
            _run_child(scenario, Child(database, writing, order["kill_at"], order["mode"]))
        os.close(writing)
        # What a child says fits into the pipe, so it is read when the child has ended.
        _, status = os.waitpid(pid, os.WUNTRACED)
        while os.WIFSTOPPED(status):
            print(json.dumps({"frozen": pid}), flush=True)  # noqa: T201 - the answer
            sys.stdin.readline()
            os.kill(pid, signal.SIGCONT)
            _, status = os.waitpid(pid, os.WUNTRACED)
        with os.fdopen(reading) as reports:
            said = [json.loads(report) for report in reports]
        code = os.waitstatus_to_exitcode(status)
        boundaries = said.pop() if code == 0 else []
        print(json.dumps({"exit": code, "said": said, "boundaries": boundaries}), flush=True)  # noqa: T201 - the answer


def _run_child(scenario: Scenario, child: Child) -> None:
    from app.stores.sqlite import schema

    opened = schema.open_database

    def open_counted(path: Path) -> CountingConnection:
        return CountingConnection(opened(path), child)

    schema.open_database = open_counted  # type: ignore[assignment]  # a stand-in, in this process only
    if isinstance(child.database, str):
        _count_statements_of_postgres(child)
    code = 1
    try:
        asyncio.run(_to_its_end(scenario, child))
        code = 0
    except BaseException:  # noqa: BLE001 - a forked child must not return into the server's loop
        sys.excepthook(*sys.exc_info())
    finally:
        os._exit(code)


def _count_statements_of_postgres(child: Child) -> None:
    """Let every connection of PostgreSQL in this process pass boundaries: before a statement, sent, answered."""
    import psycopg

    execute, wait = psycopg.AsyncConnection.execute, psycopg.AsyncConnection.wait

    async def counted_execute(self: Any, *arguments: Any, **options: Any) -> Any:
        child.at("before", descriptor=self.fileno())
        cursor = await execute(self, *arguments, **options)
        child.at("answered", descriptor=self.fileno())
        return cursor

    async def counted_wait(self: Any, generator: Any, *arguments: Any, **options: Any) -> Any:
        def counted() -> Any:
            # What the driver waits for first is the answer: the statement is with the kernel by then.
            state = next(generator)
            child.at("sent", descriptor=self.fileno())
            while True:
                ready = yield state
                try:
                    state = generator.send(ready)
                except StopIteration as end:
                    return end.value

        return await wait(self, counted(), *arguments, **options)

    psycopg.AsyncConnection.execute = counted_execute  # type: ignore[method-assign]  # in this process only
    psycopg.AsyncConnection.wait = counted_wait  # type: ignore[method-assign,assignment]  # in this process only


async def _to_its_end(scenario: Scenario, child: Child) -> None:
    await scenario(child)
    child.disarm()
    child.say(child.boundaries)


if __name__ == "__main__":
    _serve()
