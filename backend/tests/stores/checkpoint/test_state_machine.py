"""SQLite and PostgreSQL beside memory: any sequence of verbs, owners, tenants and times gives the same answers.

A third opinion, that shares no code with either, is a list of what was acknowledged: it may never change or vanish.
"""

from __future__ import annotations

import asyncio
import shutil
import tempfile
from collections.abc import Awaitable, Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule, run_state_machine_as_test

from app.credentials import fixed
from app.errors import NovaError
from app.stores.checkpoint.contract import CheckpointStorage, RunFilter, RunStatus
from app.stores.checkpoint.memory import InMemoryCheckpointStore
from app.stores.checkpoint.postgres import CheckpointStore
from app.stores.checkpoint.sqlite import SqliteCheckpointStore
from app.stores.holder import Holder

from .conftest import Database
from .contract import FakeClock, holder

HOLDERS = [holder(name) for name in "ab"]
RUNS = st.sampled_from(["r1", "r2", "r3"])
TENANTS = st.sampled_from(["default", "other"])
STEPS = st.sampled_from(["s1", "s2", "s3", "s4"])
OUTPUTS = st.sampled_from([None, 1, "x" * 300, {"b": [1.5, "ü"], "a": True}])
FINGERPRINTS = st.sampled_from(["", "f", "g"])
STATUSES = st.sampled_from(list(RunStatus))
OFFSETS = st.sampled_from([0, 0, 0, 0, -1, 1])
"""How far a writer's idea of version or token is from the truth: mostly not at all."""

Verb = Callable[[CheckpointStorage], Awaitable[Any]]


class BesideMemory(RuleBasedStateMachine):
    """Runs each verb on memory and on another backend, and compares what they answer or raise."""

    def __init__(self) -> None:
        super().__init__()
        self.clock = FakeClock()
        self.gone: set[Holder] = set()
        self.loop = asyncio.new_event_loop()
        self.memory = InMemoryCheckpointStore(clock=self.clock, is_gone=self.gone.__contains__)
        self.other = self.opened()
        self.acknowledged: dict[tuple[str, str], dict[str, Any]] = {}
        self.tokens: dict[tuple[str, str], int] = {}

    def opened(self) -> CheckpointStorage:
        """Return an empty store of the other backend."""
        raise NotImplementedError

    def teardown(self) -> None:
        """Close the other backend and the loop."""
        self.loop.run_until_complete(self.other.close())
        self.loop.run_until_complete(self.loop.shutdown_default_executor())
        self.loop.close()

    def both(self, verb: Verb) -> Any:
        """Return the answer of both, or the error; they must be the same."""
        answers = [self.loop.run_until_complete(_outcome(verb, store)) for store in (self.memory, self.other)]
        assert answers[0] == answers[1]
        return answers[0]

    def loaded(self, run_id: str, tenant_id: str) -> Any:
        """Return a run's state."""
        return self.both(lambda store: store.load(run_id, tenant_id=tenant_id))

    def page(self, where: RunFilter, cursors: list[str | None], limit: int, tenant_id: str) -> tuple[Any, list[Any]]:
        """Return the heads of a page of a list, and where each backend goes on: a cursor is its own."""
        stores = (self.memory, self.other)
        pages = [
            self.loop.run_until_complete(store.list_runs(where, cursor=cursor, limit=limit, tenant_id=tenant_id))
            for store, cursor in zip(stores, cursors, strict=True)
        ]
        assert pages[0].heads == pages[1].heads
        assert (pages[0].cursor is None) == (pages[1].cursor is None)
        return pages[0].heads, [page.cursor for page in pages]

    def version(self, run_id: str, tenant_id: str) -> int:
        """Return a run's true version, 0 where there is none."""
        head = self.loop.run_until_complete(self.memory.head(run_id, tenant_id=tenant_id))
        return 0 if head is None else head.version

    def writer(self, run_id: str, tenant_id: str, *, leased: bool, offset: int) -> dict[str, int]:
        """Return by what right somebody writes."""
        if leased:
            return {"token": max(1, self.tokens.get((tenant_id, run_id), 1) + offset)}
        return {"expected_version": max(0, self.version(run_id, tenant_id) + offset)}

    @rule(run_id=RUNS, tenant_id=TENANTS, inputs=OUTPUTS)
    def create(self, run_id: str, tenant_id: str, inputs: Any) -> None:
        """Create a run."""
        self.both(lambda store: store.create(run_id, workflow=run_id, inputs=inputs, tenant_id=tenant_id))

    @rule(
        run_id=RUNS,
        tenant_id=TENANTS,
        who=st.sampled_from(HOLDERS),
        steal=st.booleans(),
        reopen=st.booleans(),
        limit=st.sampled_from([None, None, 1, 2]),
    )
    def claim(self, *, run_id: str, tenant_id: str, who: Holder, steal: bool, reopen: bool, limit: int | None) -> None:
        """Claim a run."""
        answer = self.both(
            lambda store: store.claim(
                run_id, holder=who, steal=steal, reopen=reopen, crash_limit=limit, tenant_id=tenant_id
            )
        )
        if not isinstance(answer, tuple):
            assert answer.token > max(self.tokens.values(), default=0)
            self.tokens[tenant_id, run_id] = answer.token

    @rule(
        tenant_id=TENANTS,
        who=st.sampled_from(HOLDERS),
        seconds=st.sampled_from([0, 1, 30]),
        workflow=st.sampled_from([None, None, "r2"]),
        limit=st.sampled_from([None, 2]),
    )
    def claim_any(self, tenant_id: str, who: Holder, seconds: int, workflow: str | None, limit: int | None) -> None:
        """Claim what lies longest."""
        answer = self.both(
            lambda store: store.claim_any(
                holder=who,
                idle=timedelta(seconds=seconds),
                workflow=workflow,
                crash_limit=limit,
                tenant_id=tenant_id,
            )
        )
        if answer is not None:
            assert answer.token > max(self.tokens.values(), default=0)
            self.tokens[tenant_id, answer.head.run_id] = answer.token

    @rule(tenant_id=TENANTS, offset=OFFSETS)
    def heartbeat_all(self, tenant_id: str, offset: int) -> None:
        """Prolong every lease."""
        tokens = {run: max(1, token + offset) for (tenant, run), token in self.tokens.items() if tenant == tenant_id}
        self.both(lambda store: store.heartbeat_all(tokens, tenant_id=tenant_id))

    @rule(run_id=RUNS, tenant_id=TENANTS, offset=OFFSETS, release=st.booleans())
    def lease(self, run_id: str, tenant_id: str, offset: int, *, release: bool) -> None:
        """Prolong or release a lease."""
        token = max(1, self.tokens.get((tenant_id, run_id), 1) + offset)
        if release:
            self.both(lambda store: store.release(run_id, token, tenant_id=tenant_id))
        else:
            self.both(lambda store: store.heartbeat(run_id, token, tenant_id=tenant_id))

    @rule(
        run_id=RUNS,
        tenant_id=TENANTS,
        step_id=STEPS,
        output=OUTPUTS,
        fingerprint=FINGERPRINTS,
        leased=st.booleans(),
        offset=OFFSETS,
    )
    def append(
        self, run_id: str, tenant_id: str, step_id: str, output: Any, fingerprint: str, *, leased: bool, offset: int
    ) -> None:
        """Append a step."""
        writer = self.writer(run_id, tenant_id, leased=leased, offset=offset)
        answer = self.both(
            lambda store: store.append(
                run_id, step_id, output, fingerprint=fingerprint, meta={"m": 1}, tenant_id=tenant_id, **writer
            )
        )
        if not isinstance(answer, tuple):
            recorded = self.acknowledged.setdefault((tenant_id, run_id), {})
            assert answer.replayed == (step_id in recorded)
            assert recorded.setdefault(step_id, output) == output

    @rule(
        run_id=RUNS,
        tenant_id=TENANTS,
        outputs=st.dictionaries(STEPS, OUTPUTS, max_size=3),
        keep=st.booleans(),
        status=STATUSES,
        leased=st.sampled_from([None, True, False]),
        offset=OFFSETS,
    )
    def save(
        self,
        *,
        run_id: str,
        tenant_id: str,
        outputs: dict[str, Any],
        keep: bool,
        status: RunStatus,
        leased: bool | None,
        offset: int,
    ) -> None:
        """Save a whole state: mostly one that keeps what is recorded."""
        recorded = self.acknowledged.get((tenant_id, run_id), {})
        whole = {**outputs, **recorded} if keep else outputs
        writer: dict[str, Any] = {} if leased is None else self.writer(run_id, tenant_id, leased=leased, offset=offset)
        answer = self.both(
            lambda store: store.save(
                run_id, len(whole), step_outputs=whole, status=status, tenant_id=tenant_id, **writer
            )
        )
        if not isinstance(answer, tuple):
            assert recorded.items() <= whole.items()
            self.acknowledged[tenant_id, run_id] = dict(whole)

    @rule(
        run_id=RUNS,
        tenant_id=TENANTS,
        status=st.sampled_from([status for status in RunStatus if status is not RunStatus.RUNNING]),
        value=OUTPUTS,
        leased=st.booleans(),
        offset=OFFSETS,
    )
    def finish(self, run_id: str, tenant_id: str, status: RunStatus, value: Any, *, leased: bool, offset: int) -> None:
        """End or park a run."""
        with_: dict[str, Any] = self.writer(run_id, tenant_id, leased=leased, offset=offset)
        if status is RunStatus.COMPLETED:
            with_["result"] = value
        elif status is RunStatus.WAITING:
            with_["waiting_for"] = "budget"
        self.both(lambda store: store.finish(run_id, status, tenant_id=tenant_id, **with_))

    @rule(run_id=RUNS, tenant_id=TENANTS)
    def abort(self, run_id: str, tenant_id: str) -> None:
        """Abort a run."""
        self.both(lambda store: store.abort(run_id, reason="why", tenant_id=tenant_id))

    @rule(run_id=RUNS, new=RUNS, tenant_id=TENANTS, steps=st.sampled_from([None, 0, 1, 2, 5]))
    def fork(self, run_id: str, new: str, tenant_id: str, steps: int | None) -> None:
        """Fork a run."""
        answer = self.both(lambda store: store.fork(run_id, new, steps=steps, tenant_id=tenant_id))
        if not isinstance(answer, tuple):
            source = self.acknowledged.get((tenant_id, run_id), {})
            state = self.both(lambda store: store.load(new, tenant_id=tenant_id))
            assert state.step_outputs.items() <= source.items()
            assert len(state.steps) == (len(source) if steps is None else steps)
            self.acknowledged[tenant_id, new] = dict(state.step_outputs)

    @rule(run_id=RUNS, tenant_id=TENANTS)
    def delete(self, run_id: str, tenant_id: str) -> None:
        """Delete a run."""
        if self.both(lambda store: store.delete(run_id, tenant_id=tenant_id)) is True:
            self.acknowledged.pop((tenant_id, run_id), None)

    @rule(
        tenant_id=TENANTS,
        limit=st.integers(1, 3),
        workflow=st.sampled_from([None, "r1"]),
        status=st.none() | STATUSES,
    )
    def list_runs(self, tenant_id: str, limit: int, workflow: str | None, status: RunStatus | None) -> None:
        """Walk a list to its end."""
        where = RunFilter(workflow=workflow, status=status)
        seen: list[str] = []
        cursors: list[str | None] = [None, None]
        while True:
            heads, cursors = self.page(where, cursors, limit, tenant_id)
            seen += [head.run_id for head in heads]
            if cursors[0] is None:
                break
        assert len(seen) == len(set(seen))

    @rule(run_id=RUNS, tenant_id=TENANTS, after=st.integers(-1, 3), limit=st.integers(1, 3))
    def history(self, run_id: str, tenant_id: str, after: int, limit: int) -> None:
        """Read a page of steps."""
        self.both(lambda store: store.history(run_id, after_index=after, limit=limit, tenant_id=tenant_id))

    @rule(seconds=st.sampled_from([0.001, 1, 29.999, 30, 31]))
    def pass_time(self, seconds: float) -> None:
        """Let time pass."""
        self.clock.pass_(timedelta(seconds=seconds))

    @rule(who=st.sampled_from(HOLDERS))
    def die_or_return(self, who: Holder) -> None:
        """Let a holder's process end, or another begin."""
        self.gone.symmetric_difference_update({who})

    @rule()
    def reopen(self) -> None:
        """Close the other backend; the next verb opens it."""
        self.loop.run_until_complete(self.other.close())

    @invariant()
    def everything_acknowledged_stands(self) -> None:
        """Both load the same, every run verifies, and it has exactly what was acknowledged."""
        for tenant_id in ("default", "other"):
            for run_id in ("r1", "r2", "r3"):
                state = self.loaded(run_id, tenant_id)
                recorded = {} if state is None else state.step_outputs
                assert recorded == self.acknowledged.get((tenant_id, run_id), {})


class SqliteBesideMemory(BesideMemory):
    """A file for each sequence."""

    def opened(self) -> CheckpointStorage:
        """Return a store on a file that is not there yet."""
        self.directory = Path(tempfile.mkdtemp(prefix="nova-state-"))
        return SqliteCheckpointStore(self.directory / "nova.db", clock=self.clock, is_gone=self.gone.__contains__)

    def teardown(self) -> None:
        """Delete the file."""
        super().teardown()
        shutil.rmtree(self.directory)


class PostgresBesideMemory(BesideMemory):
    """A database that is emptied for each sequence."""

    database: Database

    def opened(self) -> CheckpointStorage:
        """Return a store on the empty database."""
        self.database.empty()
        return CheckpointStore(fixed(self.database.dsn), clock=self.clock, is_gone=self.gone.__contains__)


async def _outcome(verb: Verb, store: CheckpointStorage) -> Any:
    """Return what a verb answers, or its error as a tuple of all that it says."""
    try:
        return await verb(store)
    except NovaError as error:
        return (type(error), str(error), vars(error))


def _run(machine: type[BesideMemory], examples: int, steps: int) -> None:
    run_state_machine_as_test(
        machine,
        settings=settings(
            max_examples=examples,
            stateful_step_count=steps,
            deadline=None,
            suppress_health_check=list(HealthCheck),
        ),
    )


def test_sqlite_beside_memory() -> None:
    """Any sequence of verbs gives the same from SQLite as from memory."""
    _run(SqliteBesideMemory, examples=25, steps=40)


def test_postgres_beside_memory(database: Database) -> None:
    """Any sequence of verbs gives the same from PostgreSQL as from memory."""
    PostgresBesideMemory.database = database
    _run(PostgresBesideMemory, examples=15, steps=40)


@pytest.mark.soak
@pytest.mark.timeout(3600)
def test_sqlite_beside_memory_for_long() -> None:
    """The same over tens of thousands of verbs."""
    _run(SqliteBesideMemory, examples=300, steps=80)


@pytest.mark.soak
@pytest.mark.timeout(3600)
def test_postgres_beside_memory_for_long(database: Database) -> None:
    """The same over tens of thousands of verbs."""
    PostgresBesideMemory.database = database
    _run(PostgresBesideMemory, examples=300, steps=80)
