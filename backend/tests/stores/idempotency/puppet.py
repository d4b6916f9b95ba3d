"""A process that does with an idempotency store what its standard input says, one JSON line at a time.

Run as a module with the place of the store: a file's path, or the address of a server. It writes one line per
command: the answer, as a JSON list.
"""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

from app.errors import NovaError
from app.stores.holder import Holder
from app.stores.idempotency.contract import Completed, IdempotencyStore, InProgress, Started

from .places import open_store


class Puppet:
    """The parent's end: a child process that waits for commands."""

    def __init__(self, place: str) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-m", "backend.tests.stores.idempotency.puppet", place],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def send(self, verb: str, *, now_ms: int, **arguments: Any) -> None:
        """Command a verb, at a time of the puppet's clock, and do not wait."""
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps({"verb": verb, "now_ms": now_ms, **arguments}) + "\n")
        self.process.stdin.flush()

    def answer(self) -> list[Any]:
        """Wait for the answer to the oldest command that has none."""
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        assert line, "the puppet ended"
        answer: list[Any] = json.loads(line)
        return answer

    def ask(self, verb: str, *, now_ms: int, **arguments: Any) -> list[Any]:
        """Command a verb and wait for its answer."""
        self.send(verb, now_ms=now_ms, **arguments)
        return self.answer()

    def end(self) -> None:
        """Kill the process, wait for its end, and close the pipes."""
        self.process.kill()
        self.process.wait()
        for pipe in (self.process.stdin, self.process.stdout):
            assert pipe is not None
            pipe.close()


@contextmanager
def puppets(count: int, place: str) -> Iterator[list[Puppet]]:
    """Start ``count`` puppets on one store, and end them afterwards."""
    started: list[Puppet] = []
    try:
        started.extend(Puppet(place) for _ in range(count))
        yield started
    finally:
        for puppet in started:
            puppet.end()


async def serve(place: str) -> None:
    """Obey standard input until it ends."""
    now_ms = 0
    store = open_store(place, clock=lambda: now_ms)
    holder = Holder.current()
    while line := await asyncio.to_thread(sys.stdin.readline):
        command = json.loads(line)
        verb, now_ms = command.pop("verb"), command.pop("now_ms")
        try:
            answer = await obey(store, holder, verb, command)
        except NovaError as error:
            answer = ["error", type(error).__name__]
        sys.stdout.write(json.dumps(answer) + "\n")
        sys.stdout.flush()
    await store.close()


async def obey(store: IdempotencyStore, holder: Holder, verb: str, command: dict[str, Any]) -> list[Any]:
    """Run one verb on the key ``k`` and return its answer as a list."""
    if verb == "begin":
        lease = timedelta(milliseconds=command["lease_ms"])
        match await store.begin("k", "f", holder=holder, lease=lease):
            case Started() as started:
                return ["started", started.token, started.attempt]
            case InProgress() as waiting:
                return ["in progress", waiting.retry_after / timedelta(milliseconds=1)]
            case Completed() as completed:
                return ["completed", completed.result.decode()]
    if verb == "complete":
        await store.complete("k", command["token"], command["result"].encode())
    elif verb == "heartbeat":
        await store.heartbeat("k", command["token"])
    else:
        await store.abandon("k", command["token"])
    return ["done"]


if __name__ == "__main__":
    asyncio.run(serve(sys.argv[1]))
