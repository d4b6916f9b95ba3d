"""Any verbs in any order, with time passing: SQLite and Redis answer what memory answers, to the word."""

from __future__ import annotations

import asyncio
import atexit
import socket
import tempfile
from collections.abc import Awaitable, Callable
from contextlib import ExitStack
from datetime import timedelta
from functools import cache
from pathlib import Path
from typing import Any, ClassVar, Final
from unittest.mock import patch

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from app.credentials import fixed
from app.errors import NovaError
from app.stores.budget import redis_book, sqlite_book
from app.stores.budget.contract import WINDOWS, BudgetStore, Granted, Hold, HoldState, Refused
from app.stores.budget.memory import InMemoryBudgetStore
from app.stores.budget.redis import RedisBudgetStore
from app.stores.budget.sqlite import SqliteBudgetStore
from app.stores.redis import batches
from tests.support.clock import FakeClock
from tests.support.servers.valkey import ValkeyServer

TENANTS: Final = ("acme", "default")
SCOPE_NAMES: Final = ("agent:a", "run:r", "tenant")

TENANT: Final = st.sampled_from(TENANTS)
HOLD_ID: Final = st.sampled_from([f"hold {n}" for n in range(6)])
SCOPE: Final = st.sampled_from(SCOPE_NAMES)
SCOPES: Final = st.lists(SCOPE, min_size=1, max_size=3, unique=True)
AMOUNT: Final = st.sampled_from([0, 1, 30, 50, 100])
LIMIT: Final = st.sampled_from([None, 0, 49, 100, 180, 2**53 - 1])
WINDOW: Final = st.sampled_from(WINDOWS)
CENTS: Final = st.sampled_from([0, 0.000001, 0.00003, 0.0000405])
LEASE: Final = st.sampled_from([timedelta(milliseconds=1), timedelta(seconds=40), timedelta(hours=24)])
PAUSE: Final = st.sampled_from(
    [
        timedelta(milliseconds=1),
        timedelta(seconds=39, milliseconds=999),
        timedelta(hours=1),
        timedelta(days=1),
        timedelta(days=7) - timedelta(milliseconds=1),
        timedelta(days=36),
        timedelta(days=70),
    ]
)
DETAIL: Final = st.sampled_from([None, "cut", "corrected"])
Verb = Callable[[BudgetStore], Awaitable[Any]]
Change = Callable[[str], Verb]
"""A verb for a tenant."""
CHANGE: Final[st.SearchStrategy[Change]] = st.one_of(
    st.builds(
        lambda hold_id, amount, scopes, lease: (
            lambda tenant: lambda store: store.reserve(hold_id, amount, scopes, lease=lease, tenant_id=tenant)
        ),
        HOLD_ID,
        AMOUNT,
        SCOPES,
        LEASE,
    ),
    st.builds(
        lambda hold_id, actual, correction, detail: (
            lambda tenant: (
                lambda store: store.settle(hold_id, actual, correction=correction, detail=detail, tenant_id=tenant)
            )
        ),
        HOLD_ID,
        AMOUNT,
        st.booleans(),
        DETAIL,
    ),
    st.builds(
        lambda hold_id, detail: lambda tenant: lambda store: store.release(hold_id, detail=detail, tenant_id=tenant),
        HOLD_ID,
        DETAIL,
    ),
    st.builds(
        lambda hold_id, detail: lambda tenant: lambda store: store.expire(hold_id, detail=detail, tenant_id=tenant),
        HOLD_ID,
        DETAIL,
    ),
)


async def _answer(store: BudgetStore, verb: Verb) -> Any:
    try:
        return await verb(store)
    except NovaError as error:
        return type(error), str(error)


class BudgetMachine(RuleBasedStateMachine):
    """Runs each verb on memory and on one of two handles of the same state, and compares what they say."""

    def __init__(self) -> None:
        super().__init__()
        self.clock = FakeClock()
        self.runner = asyncio.Runner(loop_factory=asyncio.new_event_loop)
        self.resources = ExitStack()
        self.memory = InMemoryBudgetStore(clock=self.clock)
        self.handles = self.opened()
        self.all: list[BudgetStore] = [self.memory, *self.handles]
        self.turn = 0

    def opened(self) -> list[BudgetStore]:
        """Return two handles of a state that is empty; ``resources`` closes what they need."""
        raise NotImplementedError

    def teardown(self) -> None:
        """Audit both, and close what was opened."""
        for tenant in TENANTS:
            self.audit_all(tenant)
        for handle in self.handles:
            self.answer(handle, lambda store: store.close())
        self.runner.close()
        self.resources.close()

    def answer(self, store: BudgetStore, verb: Verb) -> Any:
        """Run a verb and return its answer, or the error's class and text."""
        return self.runner.run(_answer(store, verb))

    def both(self, verb: Verb) -> Any:
        """Run a verb on memory and on the handle whose turn it is; return what both answered."""
        self.turn += 1
        expected = self.answer(self.memory, verb)
        assert self.answer(self.handles[self.turn % 2], verb) == expected
        return expected

    @rule(hold_id=HOLD_ID, amount=AMOUNT, scopes=SCOPES, lease=LEASE, tenant=TENANT)
    def reserve(self, hold_id: str, amount: int, scopes: list[str], lease: timedelta, tenant: str) -> None:
        """Whoever knows an id may reserve; a new hold never passes a limit, and a refusal has a reason."""
        known = self.answer(self.memory, lambda store: store.hold(hold_id, tenant_id=tenant))
        answer = self.both(lambda store: store.reserve(hold_id, amount, scopes, lease=lease, tenant_id=tenant))

        if isinstance(answer, Granted) and not isinstance(known, Hold):
            assert answer.hold.permits_call
            assert all(w.limit is None or w.spent + w.held <= w.limit for w in answer.windows)
        if isinstance(answer, Refused):
            assert answer.blocking
            assert all(w.limit is not None and w.spent + w.held + amount > w.limit for w in answer.blocking)

    @rule(hold_id=HOLD_ID, actual=AMOUNT, correction=st.booleans(), detail=DETAIL, tenant=TENANT)
    def settle(self, *, hold_id: str, actual: int, correction: bool, detail: str | None, tenant: str) -> None:
        """Any id may come back with a bill, in time or late, from its call or from somebody else."""
        self.both(lambda store: store.settle(hold_id, actual, correction=correction, detail=detail, tenant_id=tenant))

    @rule(hold_id=HOLD_ID, detail=DETAIL, tenant=TENANT)
    def release(self, hold_id: str, detail: str | None, tenant: str) -> None:
        """Any id may be dropped."""
        self.both(lambda store: store.release(hold_id, detail=detail, tenant_id=tenant))

    @rule(hold_id=HOLD_ID, detail=DETAIL, tenant=TENANT)
    def expire(self, hold_id: str, detail: str | None, tenant: str) -> None:
        """Any id may turn out to be of unknown outcome."""
        self.both(lambda store: store.expire(hold_id, detail=detail, tenant_id=tenant))

    @rule(changes=st.lists(CHANGE, min_size=2, max_size=8), tenant=TENANT)
    def at_one_time(self, changes: list[Change], tenant: str) -> None:
        """Several tasks ask at one time; it is as if each had waited for the one before."""

        async def one_by_one() -> list[Any]:
            return [await _answer(self.memory, change(tenant)) for change in changes]

        async def at_once(handle: BudgetStore) -> list[Any]:
            return await asyncio.gather(*(_answer(handle, change(tenant)) for change in changes))

        self.turn += 1
        expected = self.runner.run(one_by_one())
        assert self.runner.run(at_once(self.handles[self.turn % 2])) == expected

    @rule(scope=SCOPE, limit=LIMIT, window=WINDOW, tenant=TENANT)
    def set_limit(self, scope: str, limit: int | None, window: Any, tenant: str) -> None:
        """A limit changes under way."""
        self.both(lambda store: store.set_limit(scope, limit, window=window, tenant_id=tenant))

    @rule(number=st.integers(0, 2), scope=SCOPE, amount=AMOUNT, negative=st.booleans(), tenant=TENANT)
    def adjust(self, number: int, scope: str, amount: int, negative: bool, tenant: str) -> None:  # noqa: FBT001 - drawn
        """Somebody adjusts, with an id that may have been used."""
        added = -amount if negative else amount
        self.both(lambda store: store.adjust(f"adjustment {number}", scope, added, tenant_id=tenant))

    @rule(cents=CENTS, tenant=TENANT)
    def add_cost(self, cents: float, tenant: str) -> None:
        """A program counts its own costs."""
        self.both(lambda store: store.add_workflow_cost("r", cents, tenant_id=tenant))

    @rule(cents=CENTS, ceiling=st.sampled_from([0, 0.00005, 0.0001504]), tenant=TENANT)
    def add_cost_if_below(self, cents: float, ceiling: float, tenant: str) -> None:
        """A program counts its own costs below a ceiling."""
        self.both(lambda store: store.add_workflow_cost_if_below("r", cents, ceiling, tenant_id=tenant))

    @rule(tenant=TENANT)
    def reset(self, tenant: str) -> None:
        """A run's costs are forgiven."""
        self.both(lambda store: store.reset_workflow_cost("r", tenant_id=tenant))

    @rule(
        scope=st.none() | SCOPE, state=st.none() | st.sampled_from(HoldState), after=st.none() | HOLD_ID, tenant=TENANT
    )
    def list_holds(self, scope: str | None, state: HoldState | None, after: str | None, tenant: str) -> None:
        """Somebody looks at the holds, a page at a time."""
        self.both(lambda store: store.holds(scope=scope, state=state, after=after, limit=2, tenant_id=tenant))

    @rule(hold_id=HOLD_ID, tenant=TENANT)
    def look_up(self, hold_id: str, tenant: str) -> None:
        """Somebody looks at one hold."""
        self.both(lambda store: store.hold(hold_id, tenant_id=tenant))

    @rule(tenant=TENANT)
    def list_limits(self, tenant: str) -> None:
        """Somebody looks at the limits, and at the scopes."""
        self.both(lambda store: store.limits(tenant_id=tenant))
        self.both(lambda store: store.scopes(tenant_id=tenant))
        self.both(lambda store: store.get_workflow_cost("r", tenant_id=tenant))

    @rule(tenant=st.none() | TENANT, reason=DETAIL.filter(bool))
    def stop_and_go(self, tenant: str | None, reason: str) -> None:
        """Somebody stops a tenant or all, calls are refused, and it goes on."""
        self.both(lambda store: store.stop(reason=reason, tenant_id=tenant))
        self.both(lambda store: store.reserve("hold 0", 1, SCOPE_NAMES[:1], lease=timedelta(1), tenant_id="acme"))
        self.both(lambda store: store.stopped(tenant_id=tenant))
        self.both(lambda store: store.go(tenant_id=tenant))

    @rule(tenant=TENANT)
    def repair(self, tenant: str) -> None:
        """Somebody repairs what is not broken."""
        for store in self.all:
            assert self.answer(store, lambda store: store.repair(tenant_id=tenant)).clean

    @rule(tenant=TENANT)
    def audit(self, tenant: str) -> None:
        """Somebody audits."""
        self.audit_all(tenant)

    def audit_all(self, tenant: str) -> None:
        """Check that, whatever happened before, every counter is the sum of its entries."""
        for store in self.all:
            report = self.answer(store, lambda store: store.audit(tenant_id=tenant))
            assert report.clean, report.findings

    @rule(pause=PAUSE)
    def pause(self, pause: timedelta) -> None:
        """Time passes."""
        self.clock.advance(pause)

    @rule()
    def close(self) -> None:
        """The file is let go; the next verb opens it again."""
        for handle in self.handles:
            self.answer(handle, lambda store: store.close())

    @invariant()
    def usage_agrees(self) -> None:
        """Whatever happened, one scope of one tenant, each in its turn, is counted alike and never below zero."""
        scope, tenant = SCOPE_NAMES[self.turn % 3], TENANTS[self.turn % 2]
        for window in self.both(lambda store: store.usage(scope, tenant_id=tenant)):
            assert min(window.spent, window.held, window.uncertain, window.overage) >= 0


class OnSqlite(BudgetMachine):
    """Two handles of a file."""

    portion = 64

    def opened(self) -> list[BudgetStore]:
        """Open a new file twice."""
        directory = Path(self.resources.enter_context(tempfile.TemporaryDirectory(prefix="nova-budget-")))
        self.resources.enter_context(patch.object(sqlite_book, "_PORTION", self.portion))
        return [SqliteBudgetStore(directory / "nova.db", clock=self.clock) for _ in range(2)]


class SmallPortions(OnSqlite):
    """The same where a reserve clears away only one due row of each kind: how many it takes is never seen."""

    portion = 1


class OnRedis(BudgetMachine):
    """Two clients of a server."""

    portions: ClassVar[dict[str, int]] = {}

    def opened(self) -> list[BudgetStore]:
        """Empty the server that all examples share."""
        with socket.create_connection(("127.0.0.1", _server().port)) as connection:
            connection.sendall(b"FLUSHALL\r\n")
            assert connection.recv(16) == b"+OK\r\n"
        for name, portion in self.portions.items():
            self.resources.enter_context(patch.object(redis_book, name, portion))
        # Nothing goes ahead of the others on a connection of its own, so their order is known.
        self.resources.enter_context(patch.object(batches, "_AT_ONCE", 0))
        return [RedisBudgetStore(fixed(_server().url), clock=self.clock) for _ in range(2)]


class SmallPortionsOnRedis(OnRedis):
    """The same where a script writes down, clears away and reads one of each kind: how many is never seen."""

    portions: ClassVar[dict[str, int]] = {"SWEPT": 1, "SWEPT_AGAIN": 1, "CLEARED": 1, "LOOKED_AT": 1}


class SoakedOnSqlite(SmallPortions):
    """The same for long."""


class SoakedOnRedis(SmallPortionsOnRedis):
    """The same for long."""


@cache
def _server() -> ValkeyServer:
    server = ValkeyServer(durable=False).start()
    atexit.register(server.close)
    return server


TestAllDueAtOnce = OnSqlite.TestCase
TestAllDueAtOnce.settings = settings(max_examples=15, stateful_step_count=50, deadline=None)
TestOneDueAtATime = SmallPortions.TestCase
TestOneDueAtATime.settings = settings(max_examples=25, stateful_step_count=50, deadline=None)
TestOnRedis = OnRedis.TestCase
TestOnRedis.settings = settings(max_examples=15, stateful_step_count=50, deadline=None)
TestOneAtATimeOnRedis = SmallPortionsOnRedis.TestCase
TestOneAtATimeOnRedis.settings = settings(max_examples=25, stateful_step_count=50, deadline=None)
TestForLong = pytest.mark.timeout(3_600)(pytest.mark.soak(SoakedOnSqlite.TestCase))
TestForLong.settings = settings(max_examples=600, stateful_step_count=100, deadline=None)
TestForLongOnRedis = pytest.mark.timeout(3_600)(pytest.mark.soak(SoakedOnRedis.TestCase))
TestForLongOnRedis.settings = settings(max_examples=600, stateful_step_count=100, deadline=None)
