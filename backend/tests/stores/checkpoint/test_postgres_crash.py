"""Processes that are killed, frozen or cut from PostgreSQL at every boundary; a server that is killed; the rules."""

from __future__ import annotations

import asyncio
import random
import threading
from collections.abc import Iterator
from typing import Any

import pytest
from blockbuster import BlockBuster

from app.credentials import fixed
from app.errors import (
    CheckpointStoreUnavailableError,
    RunBusyError,
    RunExistsError,
    RunFinishedError,
    RunNotFoundError,
)
from app.stores.checkpoint.contract import Appended, Claim, RunStatus
from app.stores.checkpoint.memory import InMemoryCheckpointStore
from app.stores.checkpoint.postgres import CheckpointStore
from app.stores.holder import Holder
from app.workflow.engine import Run, Runner, workflow
from tests.support.crash import CrashLab, Mode, Outcome
from tests.support.servers.postgres import PostgresServer

from .conftest import Database
from .crash_scenarios import NEW, OUTPUTS
from .test_crash_points import SCENARIOS, VERBS, AfterCrash

OTHER = Holder(host="third", boot_id="b", pid=2, started="1")


@pytest.fixture(scope="module")
def lab() -> Iterator[CrashLab]:
    """Return what forks children."""
    with CrashLab() as lab:
        yield lab


@pytest.fixture(autouse=True)
def may_block(blockbuster: BlockBuster) -> None:
    """Let the tests wait for their children."""
    blockbuster.deactivate()


@pytest.mark.parametrize("mode", ["kill", "cut", "freeze"])
@pytest.mark.parametrize("verb", VERBS)
def test_every_boundary(lab: CrashLab, database: Database, verb: str, mode: Mode) -> None:
    """Whatever befalls a process at any boundary of a verb, the run is as before it or as after it."""
    assert campaign(lab, database, verb, mode, sample=None if mode == "kill" else 3) >= 3


@pytest.mark.soak
@pytest.mark.timeout(3600)
def test_a_thousand_crashes(lab: CrashLab, database: Database) -> None:
    """The same at least a thousand times, in each mode, with bursts of appends that overtake each other."""
    crashes = dict.fromkeys(("kill", "cut", "freeze"), 0)
    while sum(crashes.values()) < 1_000:
        for mode in ("kill", "cut", "freeze"):
            for verb in VERBS:
                crashes[mode] += campaign(lab, database, verb, mode)
        crashes["kill"] += campaign(lab, database, "burst", "kill", sample=12, seed=crashes["kill"])

    print(f"\n{sum(crashes.values())} crashes: {crashes}")  # noqa: T201 - a report
    assert min(crashes.values()) > 100


def campaign(
    lab: CrashLab, database: Database, verb: str, mode: Mode, *, sample: int | None = None, seed: int = 0
) -> int:
    """Interrupt a verb at each of its boundaries, or at some; return how often."""
    scenario = f"{SCENARIOS}:{verb}"
    database.empty()
    whole = lab.run(scenario, database.dsn)
    assert whole.said[-1][0] == verb
    assert {"before", "sent", "answered"} <= set(whole.boundaries)
    points = list(range(len(whole.boundaries)))
    if sample is not None:
        points = sorted(random.Random(seed).sample(points, min(sample, len(points))))
    for point in points:
        database.empty()
        if mode == "freeze":
            frozen(lab, database, verb, scenario, point)
        else:
            outcome = lab.run(scenario, database.dsn, kill_at=point, mode=mode)
            assert outcome.killed == (mode == "kill")
            database.until_alone()
            asyncio.run(check(database, verb, outcome))
    return len(points)


async def check(database: Database, verb: str, outcome: Outcome) -> None:
    """Assert the rules of the contract on what a process left behind."""
    store = CheckpointStore(fixed(database.dsn))
    try:
        said = dict(outcome.said) if verb != "burst" else {"token": outcome.said[0][1]}
        assert said.get("refused") in {None, "ERR_CHECKPOINT_STORE_UNAVAILABLE"}

        async def rows() -> int:
            tables = ("nova_runs", "nova_values", "nova_steps")
            return sum(database.value(f"SELECT count(*) FROM {table}") for table in tables)

        after = AfterCrash(store, outcome, said["token"], acknowledged=said.get(verb), rows=rows)
        await getattr(after, verb)()
    finally:
        await store.close()


def frozen(lab: CrashLab, database: Database, verb: str, scenario: str, point: int) -> None:
    """Freeze a process past its lease, let another take the run over and go on, wake it, and hold it to the rules."""
    seen: dict[str, Any] = {}

    async def take_over() -> None:
        store = CheckpointStore(fixed(database.dsn))
        try:
            claim = await store.claim("r", holder=OTHER, steal=True)
        except (RunFinishedError, RunNotFoundError) as error:
            seen["over"] = type(error)
        else:
            seen["token"] = claim.token
            await store.append("r", "other", "by another", token=claim.token)
        state = await store.load("r")
        seen["state"] = None if state is None else (state.step_outputs, state.head.status, state.head.result)
        await store.close()

    outcome = lab.run(scenario, database.dsn, kill_at=point, mode="freeze", meanwhile=lambda: asyncio.run(take_over()))

    async def afterwards() -> None:
        store = CheckpointStore(fixed(database.dsn))
        state = await store.load("r")
        if state is not None:
            assert await store.verify("r") == len(state.steps)
            if "token" in seen:
                await store.append("r", "more", 1, token=seen["token"])  # its holder goes on
        await store.close()
        now = None if state is None else (state.step_outputs, state.head.status, state.head.result)
        assert now == seen["state"]

    asyncio.run(afterwards())
    said = dict(outcome.said)
    assert not outcome.killed
    if "token" in seen:
        assert seen["token"] > said["token"]
        outputs = seen["state"][0]
        assert {step: outputs[step] for step in OUTPUTS} == OUTPUTS
        assert outputs["other"] == "by another"
        if verb == "append":
            # Recorded before the takeover, or never; and told accordingly.
            assert ("append" in said) <= (outputs.get("new") == NEW)
            assert ("new" in outputs) or said["refused"] == "ERR_LEASE_LOST"
        if verb == "finish":
            assert said["refused"] == "ERR_LEASE_LOST"
        if verb == "claim" and "claim" in said:
            assert said["claim"] < seen["token"]
    else:
        assert (verb, seen["over"]) in {("finish", RunFinishedError), ("delete", RunNotFoundError)}


# --- the server ------------------------------------------------------------------------------------------------------

RUNS, STEPS = 16, 25


@workflow(version="1")
async def tally(run: Run, start: int) -> int:
    """Add up, a step at a time."""
    total = start
    for number in range(STEPS):
        total = await run.step(f"add/{number}", add, total, number)
    return total


async def add(total: int, number: int) -> int:
    """Add."""
    return total * 3 + number


class Noting(CheckpointStore):
    """Notes what was acknowledged."""

    def __init__(self, dsn: str) -> None:
        super().__init__(fixed(dsn))
        self.acknowledged: dict[tuple[str, str], Any] = {}
        self.tokens: dict[str, list[int]] = {}

    async def append(self, run_id: str, step_id: str, output: Any, **options: Any) -> Appended:
        """Note the step when it stands."""
        appended = await super().append(run_id, step_id, output, **options)
        assert self.acknowledged.setdefault((run_id, step_id), output) == output
        return appended

    async def claim(self, run_id: str, **options: Any) -> Claim:
        """Note the token."""
        claim = await super().claim(run_id, **options)
        self.tokens.setdefault(run_id, []).append(claim.token)
        return claim


@pytest.mark.parametrize("kills", [2, pytest.param(25, marks=[pytest.mark.soak, pytest.mark.timeout(1800)])])
def test_a_server_killed_under_sixteen_runs(kills: int) -> None:
    """After each SIGKILL of the server every acknowledged step is there; the runs go on as if nothing had happened."""
    with PostgresServer() as server:
        store = asyncio.run(sixteen_runs(server, kills=kills))
        asyncio.run(check_runs(server, store))


async def sixteen_runs(server: PostgresServer, *, kills: int) -> Noting:
    """Run sixteen workflows while the server is killed and started again, and resume them until they are complete."""
    store = Noting(server.dsn())
    await store.head("warm")
    runner = Runner(checkpoints=store)
    done = threading.Event()

    def crash_server() -> None:
        for number in range(kills):
            goal = (number + 1) * RUNS * STEPS // (kills + 1)
            while len(store.acknowledged) < goal and not done.is_set():
                done.wait(0.001)
            server.kill()
            while True:
                try:
                    server.restart()
                except RuntimeError:  # the old server's children have not ended yet
                    continue
                break

    async def whole(number: int) -> int:
        run_id, begun = f"r{number}", False
        while True:
            try:
                if not begun:
                    outcome = await runner.start(tally, {"start": number}, run_id=run_id)
                else:
                    outcome = await runner.resume(run_id, tally, steal=True)
                return int(outcome.value())
            except (CheckpointStoreUnavailableError, RunBusyError):
                begun = begun or await there(run_id)
                await asyncio.sleep(0.01)
            except RunExistsError:
                begun = True  # its creation was committed, and the answer was lost with the server

    async def there(run_id: str) -> bool:
        try:
            return await store.head(run_id) is not None
        except CheckpointStoreUnavailableError:
            return False

    crashing = asyncio.create_task(asyncio.to_thread(crash_server))
    try:
        results = await asyncio.gather(*(whole(number) for number in range(RUNS)))
    finally:
        done.set()
        await crashing
    memory = Runner(checkpoints=InMemoryCheckpointStore())
    assert results == [
        (await memory.start(tally, {"start": number}, run_id=f"r{number}")).result for number in range(RUNS)
    ]
    await store.close()
    return store


async def check_runs(server: PostgresServer, noted: Noting) -> None:
    """Hold the runs against what was acknowledged, and against the same runs without a crash."""
    store = CheckpointStore(fixed(server.dsn()))
    memory = InMemoryCheckpointStore()
    runner = Runner(checkpoints=memory)
    for number in range(RUNS):
        run_id = f"r{number}"
        state = await store.load(run_id)
        await runner.start(tally, {"start": number}, run_id=run_id)
        undisturbed = await memory.load(run_id)
        assert state is not None
        assert undisturbed is not None
        assert await store.verify(run_id) == STEPS
        assert state.head.status is RunStatus.COMPLETED
        assert state.step_outputs == undisturbed.step_outputs
        assert state.head.result == undisturbed.head.result
        assert state.head.head_hash == undisturbed.head.head_hash
        acknowledged = {step: output for (run, step), output in noted.acknowledged.items() if run == run_id}
        assert acknowledged.items() <= state.step_outputs.items()
        # No run stopped: its writes were tried again until the server was back.
        assert len(noted.tokens[run_id]) == 1
    await store.close()
