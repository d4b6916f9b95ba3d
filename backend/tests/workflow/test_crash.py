"""Wherever a run dies, it ends as if it had not, and no recorded step runs again.

Death stands here at every verb of the store, before it takes effect or unacknowledged after it, over workflows of any
shape; `test_kill.py` does the same with processes and SIGKILL.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter
from dataclasses import dataclass
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from app.stores.checkpoint.contract import RunStatus
from app.workflow.engine import Run, Workflow, workflow

from .support import MortalStore, ProcessDiedError, ScriptedAdapter, forgiving_store, refused, runner_on


@dataclass(frozen=True)
class Part:
    """One part of a workflow: a step, a call, or a map of ``width`` items; ``flaky`` fails its first attempt."""

    kind: str
    width: int = 1
    concurrency: int = 1
    flaky: bool = False


parts = st.lists(
    st.one_of(
        st.builds(Part, kind=st.sampled_from(["step", "llm"]), flaky=st.booleans()),
        st.builds(
            Part, kind=st.just("map"), width=st.integers(0, 6), concurrency=st.integers(1, 4), flaky=st.booleans()
        ),
    ),
    min_size=1,
    max_size=5,
)


class World:
    """What happens outside of the record: how often each step ran, and which had been acknowledged when it did."""

    def __init__(self) -> None:
        self.runs: Counter[str] = Counter()
        self.acknowledged: set[str] = set()
        self.again: list[str] = []

    def ran(self, name: str) -> int:
        """Note that a step ran, and return how often it has."""
        if name in self.acknowledged:
            self.again.append(name)
        self.runs[name] += 1
        return self.runs[name]


class Witness:
    """A store that notes which steps it acknowledged."""

    def __init__(self, inner: Any, world: World) -> None:
        self._inner = inner
        self._world = world

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)

    async def append(self, run_id: str, step_id: str, output: Any, **options: Any) -> Any:
        """Append, and note it."""
        done = await self._inner.append(run_id, step_id, output, **options)
        self._world.acknowledged.add(step_id)
        return done


def built_of(shape: list[Part], world: World) -> Workflow[str]:
    """Return a workflow of these parts; each output depends on all before it."""

    @workflow(version="1", name="built")
    async def built(run: Run, text: str) -> str:
        for number, part in enumerate(shape):
            name = f"{part.kind}{number}"

            async def work(item: str, name: str = name, part: Part = part) -> str:
                step_id = name if part.kind == "step" else f"{name}/{item.rpartition('-')[2]}"
                await asyncio.sleep(0)
                if world.ran(step_id) == 1 and part.flaky:
                    raise ConnectionError("not yet")
                return f"{item}>"

            if part.kind == "step":
                text = await run.step(name, work, text, retries=1)
            elif part.kind == "llm":
                text = (await run.llm(name, text)).content.swapcase() + "."
            else:
                items = [f"{text}-{position}" for position in range(part.width)]
                text += "".join(await run.map(name, work, items, concurrency=part.concurrency, retries=1))[-40:]
        return text

    return built


async def run_through(shape: list[Part], deaths: list[tuple[int, bool]], world: World) -> tuple[Any, list[str], Any]:
    """Run a workflow whose process dies again and again; return its result, its steps, and what its calls were."""
    store, adapter = forgiving_store(), ScriptedAdapter()
    code = built_of(shape, world)
    for dies_at, after_effect in deaths:
        with contextlib.suppress(ProcessDiedError, BaseExceptionGroup):
            await _life(MortalStore(store, dies_at=dies_at, after_effect=after_effect), store, code, adapter, world)
    result = await _life(store, store, code, adapter, world)
    return result, await _steps(store), adapter.calls


async def _life(mortal: Any, store: Any, code: Workflow[str], adapter: ScriptedAdapter, world: World) -> Any:
    """Be one process: start the run, or take it up; return its result."""
    runner = runner_on(Witness(mortal, world), guarded=adapter)
    head = await store.head("r")
    if head is None:
        return (await runner.start(code, {"text": "t"}, run_id="r")).value()
    if head.status is RunStatus.COMPLETED:
        return head.result
    return (await runner.resume("r", code)).value()


async def _steps(store: Any) -> list[str]:
    assert await store.verify("r") >= 0
    return sorted(record.step_id for record in await store.history("r"))


@given(parts, st.lists(st.tuples(st.integers(1, 14), st.booleans()), max_size=6))
async def test_a_run_that_dies_anywhere_ends_like_one_that_does_not(
    shape: list[Part], deaths: list[tuple[int, bool]]
) -> None:
    """After any deaths result, steps and calls are those of an uninterrupted run; no acknowledged step ran again."""
    quiet, world = World(), World()

    expected = await run_through(shape, [], quiet)
    found = await run_through(shape, deaths, world)

    assert found[:2] == expected[:2]
    assert world.again == []
    assert len(found[2]) == len(expected[2])


async def test_every_death_of_one_run() -> None:
    """A run of every kind of part survives death at each of its verbs, and at each of the verbs of its resume."""
    shape = [
        Part("step"),
        Part("map", width=5, concurrency=2),
        Part("llm"),
        Part("map", width=3, concurrency=3),
        Part("step"),
    ]
    expected = await run_through(shape, [], World())

    died = 0
    for first in range(1, 20):
        for after_effect in (False, True):
            for second in (2, 4, 6):
                world = World()
                found = await run_through(shape, [(first, after_effect), (second, not after_effect)], world)
                died += 1
                assert found[:2] == expected[:2]
                assert world.again == []

    assert died == 114


async def test_a_run_that_is_parked_again_and_again_ends_like_one_that_is_not() -> None:
    """A budget that permits two more steps each time parks the run each time; every step ran once in the end."""
    world = World()
    allowed = 0

    async def paid(item: str) -> str:
        nonlocal allowed
        if allowed == 0:
            raise refused()
        allowed -= 1
        world.ran(item)
        return item

    @workflow(version="1")
    async def parked(run: Run) -> list[str]:
        return await run.map("paid", paid, [str(number) for number in range(20)], concurrency=3)

    store = forgiving_store()
    runner = runner_on(Witness(store, world), workflows=[parked])
    outcome = await runner.start(parked, run_id="r")
    resumes = 0
    while outcome.status is RunStatus.WAITING:
        allowed = 2
        resumes += 1
        outcome = await runner.resume("r")

    assert outcome.value() == [str(number) for number in range(20)]
    assert resumes == 10
    assert world.runs == Counter(str(number) for number in range(20))
