"""A map does its items in parallel, bounded, and loses nothing of what was done when one fails."""

from __future__ import annotations

import asyncio
from collections import Counter

import pytest

from app.errors import InvalidInputError, StepFailedError
from app.stores.checkpoint.contract import CheckpointStorage, RunStatus
from app.workflow.engine import Run, workflow

from .support import Memory, runner_on


class Crowd:
    """A step function that knows how many of it are under way."""

    def __init__(self, *, fails: frozenset[int] = frozenset()) -> None:
        self.now = 0
        self.most = 0
        self.runs: Counter[int] = Counter()
        self.fails = fails

    async def double(self, number: int) -> int:
        """Double a number, after others had their turn."""
        self.now += 1
        self.most = max(self.most, self.now)
        self.runs[number] += 1
        for _ in range(3 + number % 4):
            await asyncio.sleep(0)
        self.now -= 1
        if number in self.fails:
            raise RuntimeError(f"no {number}")
        return 2 * number


@pytest.mark.parametrize("concurrency", [1, 3, 256])
async def test_outputs_are_in_the_order_of_items_and_tasks_are_bounded(
    checkpoints: CheckpointStorage, concurrency: int
) -> None:
    """Whatever ends first, outputs are in the order of the items; never more than `concurrency` are under way."""
    crowd = Crowd()
    tasks: list[int] = []

    async def counted(number: int) -> int:
        tasks.append(len(asyncio.all_tasks()))
        return await crowd.double(number)

    @workflow(version="1")
    async def doubled(run: Run, numbers: list[int]) -> list[int]:
        return await run.map("double", counted, numbers, concurrency=concurrency)

    outcome = await runner_on(checkpoints).start(doubled, {"numbers": list(range(30))}, run_id="r")

    assert outcome.result == [2 * number for number in range(30)]
    assert crowd.most == min(concurrency, 30)
    # Beside the workers: this test, the workflow, the heartbeat, the stop, and an append with its wait for each worker.
    assert max(tasks) <= 2 * min(concurrency, 30) + 8
    assert {record.step_id for record in await checkpoints.history("r")} == {f"double/{n}" for n in range(30)}


async def test_a_failing_item_stops_new_ones_and_keeps_those_under_way(checkpoints: CheckpointStorage) -> None:
    """When an item fails, the others under way are recorded, no further one begins, and the first failure is raised."""
    crowd = Crowd(fails=frozenset({2, 3}))

    @workflow(version="1")
    async def doubled(run: Run) -> list[int]:
        return await run.map("double", crowd.double, range(100), concurrency=4)

    runner = runner_on(checkpoints)
    failed = await runner.start(doubled, run_id="r")
    recorded = {record.step_id for record in await checkpoints.history("r")}
    begun = dict(crowd.runs)
    crowd.fails = frozenset()
    repaired = await runner.resume("r", doubled, reopen=True)

    assert isinstance(failed.error, StepFailedError)
    assert failed.error.step_id == "double/2"
    assert {"double/0", "double/1"} <= recorded
    assert len(begun) <= 8
    assert recorded == {f"double/{number}" for number in begun if number not in {2, 3}}
    assert repaired.result == [2 * number for number in range(100)]
    assert crowd.runs == Counter(range(100)) + Counter({2: 1, 3: 1})


async def test_a_map_of_nothing_and_a_map_of_an_iterator(checkpoints: CheckpointStorage) -> None:
    """No items give no steps; an iterator is as good as a list; a concurrency without meaning is refused."""
    crowd, listener = Crowd(), Memory()

    @workflow(version="1")
    async def doubled(run: Run) -> list[int]:
        nothing = await run.map("nothing", crowd.double, [])
        some = await run.map("some", crowd.double, (n for n in (5, 6)))
        for wrong in (0, 257, True, 2.0):
            with pytest.raises(InvalidInputError, match="from 1 to 256"):
                await run.map("wrong", crowd.double, [1], concurrency=wrong)  # type: ignore[arg-type]  # wrong on purpose
        return nothing + some

    outcome = await runner_on(checkpoints, listener=listener).start(doubled, run_id="r")

    assert (outcome.status, outcome.result) == (RunStatus.COMPLETED, [10, 12])
