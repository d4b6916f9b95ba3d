"""A workflow whose run was archived and purged goes on as if it had never left the database, and so does its fork."""

from __future__ import annotations

import asyncio

import pytest

from app.errors import StepFailedError
from app.workflow.engine import Run, workflow
from tests.workflow.support import runner_on

from .world import OLD, World


class Weather:
    """What a step meets: it fails while the weather is bad; every call is noted."""

    def __init__(self) -> None:
        self.bad = False
        self.calls: list[int] = []


WEATHER = Weather()


@workflow(version="1")
async def survey(run: Run, sites: int) -> list[str]:
    """Visit some sites, one after another."""
    return [await run.step(f"site/{number}", visit, number) for number in range(sites)]


async def visit(number: int) -> str:
    """Visit a site."""
    await asyncio.sleep(0)
    if WEATHER.bad and number == 3:
        raise OSError("rain")
    WEATHER.calls.append(number)
    return f"seen {number}"


@pytest.fixture(autouse=True)
def weather() -> None:
    """Begin each test in good weather."""
    WEATHER.bad = False
    WEATHER.calls.clear()


async def _failed_and_archived(world: World, run_id: str) -> list[str]:
    """Let a run fail at its fourth step, and archive it; return what an undisturbed run gives."""
    runner = runner_on(world.store, workflows=[survey])
    undisturbed = (await runner.start(survey, {"sites": 6}, run_id="undisturbed")).value()
    WEATHER.bad = True
    with pytest.raises(StepFailedError):
        (await runner.start(survey, {"sites": 6}, run_id=run_id)).value()
    world.clock.advance(OLD)
    assert (await world.offload()).purged_runs == 2
    assert await world.steps_in_database() == 0
    WEATHER.bad = False
    WEATHER.calls.clear()
    return list(undisturbed)


async def test_an_archived_run_is_resumed_to_its_end(world: World) -> None:
    """It replays what the archive has, runs the rest, and gives what a run gives that was never disturbed."""
    undisturbed = await _failed_and_archived(world, "r")

    outcome = await runner_on(world.store, workflows=[survey]).resume("r", reopen=True)

    assert outcome.value() == undisturbed
    assert WEATHER.calls == [3, 4, 5]
    assert (outcome.steps_replayed, outcome.steps_run) == (3, 3)
    assert await world.store.verify("r") == 6
    world.clock.advance(OLD)
    assert (await world.offload()).outcome == "done"
    state = await world.state("r")
    assert (state.head.tier, state.head.result) == ("archived", undisturbed)


async def test_a_fork_of_an_archived_run_is_resumed_to_its_end(world: World) -> None:
    """The fork of a run in the archive goes on from the steps that it copied; the original stays where it is."""
    undisturbed = await _failed_and_archived(world, "r")

    await world.store.fork("r", "copy", steps=2)
    outcome = await runner_on(world.store, workflows=[survey]).resume("copy")

    assert outcome.value() == undisturbed
    assert WEATHER.calls == [2, 3, 4, 5]
    assert (await world.state("r")).head.tier == "archived"
