"""DBOS as a participant: ``dbos_recorder.py DSN``. A workflow that calls a step again and again."""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from importlib.metadata import version
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from benchmarks.support.recording import Recorder, Steps, serve_runs


@asynccontextmanager
async def recorder(dsn: str) -> AsyncIterator[Recorder]:
    """Its defaults, with a pool of sixteen connections, as Nova has."""
    from dbos import DBOS, DBOSConfig, SetWorkflowID

    config: DBOSConfig = {
        "name": "bench",
        "system_database_url": dsn,
        "sys_db_pool_size": 16,
        "log_level": "ERROR",
    }
    DBOS(config=config)
    work: dict[str, Steps] = {}

    @DBOS.step()
    async def step(name: str, number: int) -> str:
        return work[name].next(number)

    @DBOS.workflow()
    async def record_all(name: str) -> int:
        for number in range(len(work[name])):
            await step(name, number)
        return len(work[name])

    DBOS.launch()

    async def record(name: str, steps: Steps) -> None:
        work[name] = steps
        with SetWorkflowID(name):
            await record_all(name)

    async def load(name: str) -> int:
        return len(await DBOS.list_workflow_steps_async(name))

    yield Recorder(record=record, load=load)
    DBOS.destroy()


if __name__ == "__main__":
    serve_runs(recorder(sys.argv[1]), version=f"dbos {version('dbos')}")
