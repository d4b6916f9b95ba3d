"""Participants that record runs: each is a process that, told to, runs so many runs of so many steps side by side.

The standard library only, because the same file runs in the environments of peers.
"""

from __future__ import annotations

import asyncio
import base64
import gc
import itertools
import json
import os
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import IO, Any

__all__ = ["CONTENT_BYTES", "Participant", "Recorded", "Recorder", "Steps", "contents", "serve_runs"]

CONTENT_BYTES = 2_048


def contents(count: int, *, seed: int) -> list[str]:
    """Return texts of 2,048 random bytes each, as base64: no codec finds less in them."""
    generator = random.Random(seed)
    return [base64.b64encode(generator.randbytes(CONTENT_BYTES)).decode() for _ in range(count)]


class Steps:
    """The texts that the steps of a run give, and the moments at which they are asked for.

    A step is recorded durably before the next one is asked for, so the time between two is that of a durable step,
    with all that the participant does around it.
    """

    def __init__(self, texts: Sequence[str]) -> None:
        self._texts = texts
        self.moments: list[float] = []

    def __len__(self) -> int:
        return len(self._texts)

    def next(self, number: int) -> str:
        """Return the text of a step."""
        self.moments.append(time.perf_counter())
        return self._texts[number]

    def end(self) -> list[float]:
        """Return what each step took, in ms; called when the last one is recorded."""
        moments = [*self.moments, time.perf_counter()]
        return [(later - earlier) * 1_000 for earlier, later in itertools.pairwise(moments)]


@dataclass(frozen=True, slots=True, kw_only=True)
class Recorder:
    """What a participant can do: record a run of a name, and load it again, returning how many steps there were."""

    record: Callable[[str, Steps], Awaitable[None]]
    load: Callable[[str], Awaitable[int]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Recorded:
    """What one turn took: every step in ms, all of it in s, and the loading of one of its runs in ms."""

    step_ms: list[float]
    wall_s: float
    load_ms: float


class Participant:
    """A participant in a process of its own, started and ended with the block."""

    def __init__(self, command: Sequence[str], environment: dict[str, str]) -> None:
        self._command = command
        self._environment = environment
        self._errors: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115  # closed by __exit__
        self.version = ""

    def __enter__(self) -> Participant:
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
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        try:
            self._process.wait(timeout=20)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._process.stdout.close()
        self._errors.close()

    def take(self, *, runs: int, steps: int, seed: int) -> Recorded:
        """Have so many runs recorded side by side.

        Raises:
            RuntimeError: the process ended; the text has its last words.
        """
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps({"runs": runs, "steps": steps, "seed": seed}) + "\n")
        self._process.stdin.flush()
        return Recorded(**self._line())

    def _line(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            self._process.wait()
            self._errors.seek(0)
            words = self._errors.read().decode(errors="replace").strip()
            raise RuntimeError(f"{' '.join(self._command)} ended with {self._process.returncode}: {words[-2000:]}")
        answer: dict[str, Any] = json.loads(line)
        return answer


def serve_runs(opened: AbstractAsyncContextManager[Recorder], *, version: str) -> None:
    """Take turns until the standard input ends."""
    # Libraries may print; the answers of this process go where only it writes.
    with os.fdopen(os.dup(1), "w") as answers:
        os.dup2(2, 1)
        asyncio.run(_serve(opened, answers, version=version))


async def _serve(opened: AbstractAsyncContextManager[Recorder], answers: IO[str], *, version: str) -> None:
    async with opened as recorder:
        warm = Steps(contents(5, seed=0))
        await recorder.record(f"warm-{os.getpid()}", warm)
        print(json.dumps({"version": version}), file=answers, flush=True)
        # Reading blocks a thread, so that what a participant does in the background goes on as it would.
        while line := await asyncio.to_thread(sys.stdin.readline):
            turn = await _take(recorder, **json.loads(line))
            print(json.dumps(turn), file=answers, flush=True)


async def _take(recorder: Recorder, *, runs: int, steps: int, seed: int) -> dict[str, object]:
    name = f"run-{seed}-{runs}-{steps}"
    work = [Steps(contents(steps, seed=seed * 1_000 + number)) for number in range(runs)]
    gc.collect()
    taken: list[float] = []

    async def one(number: int) -> None:
        await recorder.record(f"{name}-{number}", work[number])
        taken.extend(work[number].end())

    started = time.perf_counter()
    await asyncio.gather(*(one(number) for number in range(runs)))
    wall_s = time.perf_counter() - started
    started = time.perf_counter()
    loaded = await recorder.load(f"{name}-0")
    load_ms = (time.perf_counter() - started) * 1_000
    if loaded != steps:
        raise RuntimeError(f"{loaded} of {steps} steps were there again")
    return {"step_ms": taken, "wall_s": wall_s, "load_ms": load_ms}
