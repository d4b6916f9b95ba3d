"""A process that runs forty steps on SQLite with real guards, made to be killed: ``victim.py DIRECTORY DELAY``.

It starts the run ``r`` or takes it up, and says how it was left. It writes a line to ``log`` for each thing it did,
before it goes on: ``ran STEP`` when a call begins, ``recorded STEP`` when the step is acknowledged. A call takes DELAY
seconds.
"""

from __future__ import annotations

import asyncio
import os
import sys
from pathlib import Path
from typing import Any

from app.errors import RunBusyError
from app.skills.adapters.stub_adapter import StubAdapter
from app.skills.guards import get_guarded_adapter
from app.skills.llm_invoke_v2 import CallContext, LLMConfig, LLMResponse, Prompt
from app.stores.budget.sqlite import SqliteBudgetStore
from app.stores.checkpoint.contract import RunStatus
from app.stores.checkpoint.sqlite import SqliteCheckpointStore
from app.stores.idempotency.sqlite import SqliteIdempotencyStore
from app.workflow.engine import Run, RunListener, Runner, RunOutcome, StepContext, workflow

CONFIG = LLMConfig(max_tokens=40)


class Log(RunListener):
    """Writes a line for each event, in one write each: what is in the file had happened before the kill."""

    def __init__(self, path: Path) -> None:
        self._file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND)

    def write(self, line: str) -> None:
        """Write a line."""
        os.write(self._file, f"{line}\n".encode())

    def run_started(self, **facts: Any) -> None:
        """Write it."""
        self.write("begin")

    def step_recorded(self, *, run_id: str, step_id: str, attempts: int, cost: int | None) -> None:
        """Write it."""
        self.write(f"recorded {step_id}")


class CountedStub(StubAdapter):
    """The stub, a little slower, and each of its calls is written down: it stands for a provider that bills."""

    def __init__(self, log: Log, delay_s: float) -> None:
        super().__init__()
        self._log = log
        self._delay_s = delay_s

    async def invoke(
        self, prompt: Prompt, config: LLMConfig | None = None, *, context: CallContext | None = None
    ) -> LLMResponse:
        """Count, wait and answer."""
        assert context is not None
        self._log.write(f"ran {context.step_id}")
        await asyncio.sleep(self._delay_s)
        return await super().invoke(prompt, config, context=context)


async def note(topic: str, context: StepContext) -> str:
    """Ask for a note."""
    return (await context.llm(f"Take a note on {topic}, which is a long story of its own.", CONFIG)).content


async def join(notes: list[str]) -> str:
    """Put the notes together."""
    return "\n".join(notes)


@workflow(version="1")
async def forty(run: Run, topics: list[str]) -> str:
    """Call thirty times in parallel and nine times in a row, each on what came before; one step between makes forty."""
    notes = await run.map("notes", note, topics, concurrency=4)
    text = await run.step("join", join, notes)
    for number in range(9):
        text = (await run.llm(f"turn/{number}", f"Go on: {text[-200:]}", CONFIG)).content
    return text


def runner_in(directory: Path, log: Log, delay_s: float) -> Runner:
    """Return a runner on the SQLite file of a directory."""
    path = directory / "nova.db"
    budget, idempotency = SqliteBudgetStore(path), SqliteIdempotencyStore(path)
    guarded = get_guarded_adapter(CountedStub(log, delay_s), budget_store=budget, idempotency_store=idempotency)
    return Runner(
        checkpoints=SqliteCheckpointStore(path),
        budget=budget,
        idempotency=idempotency,
        guarded=guarded,
        workflows=[forty],
        listener=log,
    )


async def live(directory: Path, delay_s: float) -> RunOutcome | str:
    """Start the run, or take it up; return its outcome, or who has it."""
    log = Log(directory / "log")
    runner = runner_in(directory, log, delay_s)
    store = SqliteCheckpointStore(directory / "nova.db")
    try:
        head = await store.head("r")
        if head is not None and head.status is RunStatus.COMPLETED:
            return "completed before"
        if head is None:
            return await runner.start(forty, {"topics": [f"topic {number}" for number in range(30)]}, run_id="r")
        return await runner.resume("r")
    except RunBusyError as busy:
        return f"busy: {busy.holder}"
    finally:
        await store.close()


if __name__ == "__main__":
    left = asyncio.run(live(Path(sys.argv[1]), float(sys.argv[2])))
    sys.stdout.write(left if isinstance(left, str) else f"{left.status} {left.result}")
