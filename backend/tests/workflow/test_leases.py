"""Leases of many runs in one process: kept together, and what becomes of a run that takes its processes along."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from datetime import timedelta
from typing import Any

from app.errors import RunFinishedError
from app.stores.checkpoint.contract import RunStatus
from app.stores.checkpoint.memory import InMemoryCheckpointStore
from app.stores.holder import Holder
from app.workflow.engine import CRASH_LIMIT, Run, Runner, workflow
from tests.support.clock import FakeClock

RUNS = 6


class Counting(InMemoryCheckpointStore):
    """Remembers which runs each heartbeat was for."""

    def __init__(self) -> None:
        super().__init__()
        self.beats: list[set[str]] = []
        self.alone = 0

    async def heartbeat_all(self, tokens: Mapping[str, int], **options: Any) -> frozenset[str]:
        """Count it."""
        self.beats.append(set(tokens))
        return await super().heartbeat_all(tokens, **options)

    async def heartbeat(self, run_id: str, token: int, **options: Any) -> None:
        """Count it."""
        self.alone += 1
        await super().heartbeat(run_id, token, **options)


async def test_the_leases_of_a_process_are_kept_together() -> None:
    """Six runs side by side are one heartbeat each time; one that ends is in none of those that follow."""
    store = Counting()
    runner = Runner(checkpoints=store, lease=timedelta(milliseconds=60))
    gates = {f"r{number}": asyncio.Event() for number in range(RUNS)}

    @workflow(version="1")
    async def waits(run: Run) -> None:
        await run.step("wait", gates[run.id].wait)

    running = {run_id: asyncio.create_task(runner.start(waits, run_id=run_id)) for run_id in gates}
    while set(gates) not in store.beats:  # noqa: ASYNC110 - the heartbeats have no event
        await asyncio.sleep(0)
    gates["r0"].set()
    await running["r0"]
    before = len(store.beats)
    while len(store.beats) < before + 2:  # noqa: ASYNC110 - the heartbeats have no event
        await asyncio.sleep(0)
    for gate in gates.values():
        gate.set()
    outcomes = await asyncio.gather(*running.values())
    count = len(store.beats)
    await asyncio.sleep(0)

    assert {outcome.status for outcome in outcomes} == {RunStatus.COMPLETED}
    assert all(beat == set(gates) - {"r0"} for beat in store.beats[before : before + 2])
    assert store.alone == 0
    assert len(store.beats) == count
    assert runner._keeper._task is None


async def test_a_run_that_takes_its_processes_along_is_not_resumed_for_ever() -> None:
    """After so many processes that died of it ``resume_all`` fails the run, says so, and goes on with the others."""
    clock = FakeClock()
    store = InMemoryCheckpointStore(clock=clock)

    @workflow(version="1")
    async def quick(run: Run) -> int:
        return 7

    runner = Runner(checkpoints=store, workflows=[quick])
    for run_id in ("deadly", "healthy"):
        await runner.start(quick, run_id=f"{run_id}-before")
        head = await store.head(f"{run_id}-before")
        assert head is not None
        await store.create(run_id, workflow="quick", workflow_version="1", inputs=head.inputs)
    for number in range(CRASH_LIMIT):
        dead = Holder(host="elsewhere", boot_id="b", pid=number + 1, started="1")
        await store.claim("deadly", holder=dead, lease=timedelta(seconds=1))
        clock.advance(timedelta(seconds=1))

    reports = {report.run_id: report for report in await runner.resume_all()}

    assert isinstance(reports["deadly"].error, RunFinishedError)
    assert reports["healthy"].outcome is not None
    assert reports["healthy"].outcome.status is RunStatus.COMPLETED
    failed = await store.head("deadly")
    assert failed is not None
    assert failed.status is RunStatus.FAILED
    assert await runner.resume_all() == ()
    # Whoever found out why resumes it on request.
    assert (await runner.resume("deadly", reopen=True)).status is RunStatus.COMPLETED
