"""Recovery on PostgreSQL with nothing but the database: what crashed elsewhere is finished, each run by one process."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections import Counter
from dataclasses import replace

import pytest
from blockbuster import BlockBuster

from app.credentials import fixed
from app.errors import RunBusyError
from app.stores.checkpoint.codec import JsonValue
from app.stores.checkpoint.contract import RunStatus
from app.stores.checkpoint.postgres import CheckpointStore
from app.stores.holder import Holder
from app.workflow.engine import Run, Runner, workflow

from .conftest import Database

RUNS, STEPS, PROCESSES = 15, 4, 4
ran: Counter[tuple[str, int]] = Counter()


@pytest.fixture(autouse=True)
def may_block(blockbuster: BlockBuster) -> None:
    """Let the tests ask the server from their loop."""
    blockbuster.deactivate()


@workflow(version="1")
async def counted(run: Run, upto: int) -> int:
    """Run steps that count how often they ran."""
    for number in range(upto):
        await run.step(f"step/{number}", one, run.id, number)
    return upto


async def one(run_id: str, number: int) -> int:
    """Count."""
    ran[run_id, number] += 1
    await asyncio.sleep(0)
    return number


def a_dead_process() -> Holder:
    """Return a process of this host that has ended."""
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    return replace(Holder.current(), pid=process.pid, started="1")


async def test_several_processes_finish_what_crashed(database: Database) -> None:
    """Four that resume everything at once finish fifteen runs of a dead process; no step runs twice."""
    ran.clear()
    stores = [CheckpointStore(fixed(database.dsn)) for _ in range(PROCESSES)]
    first, dead = Runner(checkpoints=stores[0]), a_dead_process()
    await first.start(counted, {"upto": 0}, run_id="model")
    model = await stores[0].head("model")
    assert model is not None
    inputs: JsonValue = {**model.inputs, "inputs": {"upto": STEPS}} if isinstance(model.inputs, dict) else None
    for number in range(RUNS):
        await stores[0].create(f"r{number}", workflow="counted", workflow_version="1", inputs=inputs)
        await stores[0].claim(f"r{number}", holder=dead)

    reports = await asyncio.gather(
        *(Runner(checkpoints=store, workflows=[counted]).resume_all(concurrency=3) for store in stores)
    )

    heads = [await stores[0].head(f"r{number}") for number in range(RUNS)]
    assert [head.status for head in heads if head is not None] == [RunStatus.COMPLETED] * RUNS
    assert [head.result for head in heads if head is not None] == [STEPS] * RUNS
    assert set(ran.values()) == {1}
    assert len(ran) == RUNS * STEPS
    finished = Counter(each.run_id for report in reports for each in report if each.outcome is not None)
    assert finished == Counter({f"r{number}": 1 for number in range(RUNS)})
    errors = [each.error for report in reports for each in report if each.outcome is None]
    assert {type(error) for error in errors} <= {RunBusyError}
    for store in stores:
        await store.close()
