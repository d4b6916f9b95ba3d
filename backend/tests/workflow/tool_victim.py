"""A process that runs a call with fourteen tools on SQLite, made to be killed: ``tool_victim.py DIRECTORY DELAY``.

The model calls one tool in each round and two in some; every tool takes DELAY seconds and writes a line to ``log``
before and after, and one in three makes a call of its own. The log says, as in ``victim.py``, ``ran STEP`` when a tool
begins and ``recorded STEP`` when its step is acknowledged.
"""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path

from app.errors import RunBusyError
from app.skills.guards import get_guarded_adapter
from app.skills.llm_invoke_v2 import LLMConfig
from app.stores.budget.sqlite import SqliteBudgetStore
from app.stores.checkpoint.contract import RunStatus
from app.stores.checkpoint.sqlite import SqliteCheckpointStore
from app.stores.idempotency.sqlite import SqliteIdempotencyStore
from app.workflow.engine import Run, Runner, StepContext, workflow
from tests.workflow.victim import CountedStub, Log

TOOLS = 14


def tool(number: int, log: Log, delay_s: float) -> Callable[..., Awaitable[object]]:
    """Return one of the tools."""

    async def use(place: str, context: StepContext) -> object:
        """Use it at a place."""
        log.write(f"ran {context.step_id}")
        await asyncio.sleep(delay_s)
        if number % 3 == 0:
            return (await context.llm(f"Say something of {place}.", LLMConfig(max_tokens=20))).content
        return {"number": number, "place": place}

    use.__name__ = f"tool_{number:02}"
    return use


async def live(directory: Path, delay_s: float) -> str:
    """Start the run, or take it up; return how it was left."""
    log = Log(directory / "log")
    tools = [tool(number, log, delay_s) for number in range(TOOLS)]

    @workflow(version="1")
    async def agent(run: Run) -> str:
        text = "One after another: " + " ".join(f"tool_{number:02}" for number in range(4, TOOLS))
        config = LLMConfig(parallel_tool_calls=False, reasoning_effort="low")
        await run.llm("four", "All at once: tool_00 tool_01 tool_02 tool_03", tools=tools[:4])
        last = await run.llm("ten", text, config, tools=tools[4:], max_rounds=20)
        return json.dumps([last.content, last.model])

    path = directory / "nova.db"
    budget, idempotency = SqliteBudgetStore(path), SqliteIdempotencyStore(path)
    store = SqliteCheckpointStore(path)
    runner = Runner(
        checkpoints=store,
        budget=budget,
        idempotency=idempotency,
        guarded=get_guarded_adapter(CountedStub(log, delay_s), budget_store=budget, idempotency_store=idempotency),
        workflows=[agent],
        listener=log,
    )
    try:
        head = await store.head("r")
        if head is not None and head.status is RunStatus.COMPLETED:
            return "completed before"
        outcome = await (runner.start(agent, run_id="r") if head is None else runner.resume("r", agent))
        return f"{outcome.status} {outcome.result} {outcome.error or ''}"
    except RunBusyError as busy:
        return f"busy: {busy.holder}"
    finally:
        await store.close()


if __name__ == "__main__":
    sys.stdout.write(asyncio.run(live(Path(sys.argv[1]), float(sys.argv[2]))))
