"""Processes that take turns: each waits, without using the processor, until it is told to make its calls.

The standard library only, because the same file runs in the environments of peers.
"""

from __future__ import annotations

import asyncio
import gc
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO, Any

__all__ = ["CONCURRENCY", "Call", "Caller", "Turn", "clean_environment", "script", "serve"]

CONCURRENCY = 64

Call = Callable[[str], Awaitable[str]]
"""Makes one call under a key that no other call has, and returns the text of the answer."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Turn:
    """What one turn took.

    Attributes:
        latencies_ms: of each call.
        wall_s: of all calls together.
        cpu_s: the processor time of the calling process, all of its threads.
    """

    latencies_ms: list[float]
    wall_s: float
    cpu_s: float


class Caller:
    """A participant in a process of its own, started and ended with the block.

    Args:
        command: starts the process; it calls :func:`serve`.
        environment: the variables of the process.
    """

    def __init__(self, command: Sequence[str], environment: dict[str, str]) -> None:
        self._command = command
        self._environment = environment
        self._errors: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115  # closed by __exit__
        self._process: subprocess.Popen[str] | None = None
        self.version = ""

    def __enter__(self) -> Caller:
        self._process = subprocess.Popen(
            self._command,
            env=self._environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            text=True,
        )
        self.version = str(self._line()["version"])
        return self

    def __exit__(self, *exception: object) -> None:
        process = self._process
        assert process is not None
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.close()
        try:
            process.wait(timeout=10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        process.stdout.close()
        self._errors.close()

    def take(self, *, calls: int, tasks: int) -> Turn:
        """Have so many calls made by so many tasks, after one call of each task that is not measured.

        Raises:
            RuntimeError: the process ended; the text has its last words.
        """
        assert self._process is not None
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps({"calls": calls, "tasks": tasks}) + "\n")
        self._process.stdin.flush()
        return Turn(**self._line())

    def _line(self) -> dict[str, Any]:
        assert self._process is not None
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            self._process.wait()
            self._errors.seek(0)
            words = self._errors.read().decode(errors="replace").strip()
            raise RuntimeError(f"{' '.join(self._command)} ended with {self._process.returncode}: {words[-2000:]}")
        answer: dict[str, Any] = json.loads(line)
        return answer


def serve(opened: AbstractAsyncContextManager[Call], *, version: str, expected: str) -> None:
    """Take turns until the standard input ends.

    Args:
        opened: gives the call.
        version: what the participant is, for the table.
        expected: what every answer must be.
    """
    # Libraries may print; the answers of this process go where only it writes.
    with os.fdopen(os.dup(1), "w") as answers:
        os.dup2(2, 1)
        asyncio.run(_serve(opened, answers, version=version, expected=expected))


async def _serve(opened: AbstractAsyncContextManager[Call], answers: IO[str], *, version: str, expected: str) -> None:
    async with opened as call:
        print(json.dumps({"version": version}), file=answers, flush=True)
        number = 0
        # Reading blocks the loop on purpose: who waits for the next turn does nothing.
        while line := sys.stdin.readline():
            order = json.loads(line)
            turn = await _take(call, f"turn-{os.getpid()}-{number}", expected=expected, **order)
            number += 1
            print(json.dumps(asdict(turn)), file=answers, flush=True)


async def _take(call: Call, name: str, *, expected: str, calls: int, tasks: int) -> Turn:
    latencies_ms: list[float] = []

    async def task(first: int) -> None:
        for number in range(first, calls, tasks):
            started = time.perf_counter()
            text = await call(f"{name}-{number}")
            latencies_ms.append((time.perf_counter() - started) * 1_000)
            if text != expected:
                raise RuntimeError(f"an answer was {text!r}")

    # Connections that were closed while others had their turn are opened again here.
    await asyncio.gather(*(call(f"{name}-open-{number}") for number in range(tasks)))
    gc.collect()
    cpu_s, started = time.process_time(), time.perf_counter()
    await asyncio.gather(*(task(first) for first in range(tasks)))
    wall_s, cpu_s = time.perf_counter() - started, time.process_time() - cpu_s
    return Turn(latencies_ms=latencies_ms, wall_s=wall_s, cpu_s=cpu_s)


def clean_environment(**variables: str) -> dict[str, str]:
    """Return the variables of this process without those that configure Nova, a provider or a proxy, and with more."""
    configure = (
        "NOVA_",
        "OPENAI_",
        "ANTHROPIC_",
        "LITELLM_",
        "R2_",
        "CHECKPOINT_",
        "BUDGET_",
        "IDEMPOTENCY_",
        "PYTHON",
    )
    names = {"ENV", "LLM_ADAPTER", "REDIS_URL", "DATABASE_URL"}
    kept = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(configure) and name not in names and not name.lower().endswith("_proxy")
    }
    return {**kept, **variables}


def script(name: str) -> str:
    """Return the path of a script in the folder of the benchmarks."""
    return str(Path(__file__).resolve().parents[1] / name)
