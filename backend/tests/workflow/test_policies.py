"""What may be spent by role: a step, a run, an agent and the tenant are each held to their own limit."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest

from app.credentials import fixed
from app.errors import BudgetExceededError, BudgetStoppedError, ConfigurationError, InvalidInputError
from app.money import parse_usd
from app.skills.adapters.stub_adapter import StubAdapter
from app.skills.llm_invoke_v2 import LLMConfig
from app.stores.budget.contract import BudgetStore, Limit
from app.stores.budget.memory import InMemoryBudgetStore
from app.stores.budget.redis import RedisBudgetStore
from app.stores.budget.sqlite import SqliteBudgetStore
from app.stores.checkpoint.contract import RunStatus
from app.stores.idempotency.memory import InMemoryIdempotencyStore
from app.workflow import policies
from app.workflow.engine import Run, Runner, StepContext, workflow
from app.workflow.policies import SpendPolicy, agent_scope
from tests.support.servers.valkey import ValkeyServer

from .support import forgiving_store

CONFIG = LLMConfig(max_tokens=50)
LITTLE = parse_usd("$0.0002")
PLENTY = parse_usd("$1")


@pytest.fixture(scope="module")
def server() -> Iterator[ValkeyServer]:
    """Give a server for this module."""
    with ValkeyServer(durable=False) as server:
        yield server


@pytest.fixture(params=["memory", "sqlite", "redis"])
async def budget(request: pytest.FixtureRequest, server: ValkeyServer, tmp_path: Path) -> AsyncIterator[BudgetStore]:
    """Give an empty budget store of each backend."""
    store: BudgetStore
    if request.param == "memory":
        store = InMemoryBudgetStore()
    elif request.param == "sqlite":
        store = SqliteBudgetStore(tmp_path / "nova.db")
    else:
        server.restart()
        store = RedisBudgetStore(fixed(server.url))
    yield store
    await store.close()


@workflow(version="1")
async def ask(run: Run, count: int) -> int:
    """Let one step ask so many times as the agent ``writer``, and another one once."""

    async def talk(context: StepContext) -> int:
        for number in range(count):
            await context.llm(f"What about the number {number}?", CONFIG, scopes=(agent_scope("writer"),))
        return count

    asked = await run.step("talk", talk)
    await run.llm("sum up", "And in all?", CONFIG)
    return asked


def runner(budget: BudgetStore | None, policy: SpendPolicy) -> Runner:
    """Return a runner with real guards around the stub."""
    guards: dict[str, Any] = {"idempotency": InMemoryIdempotencyStore(), "adapter": StubAdapter()}
    return Runner(checkpoints=forgiving_store(), budget=budget, workflows=[ask], policy=policy, **guards)


@pytest.mark.parametrize(
    ("policy", "scope", "window"),
    [
        (SpendPolicy(step=LITTLE, run=PLENTY), "step:r/talk/", "total"),
        (SpendPolicy(run=LITTLE), "run:r", "total"),
        (SpendPolicy(run=PLENTY, agents={"writer": {"day": LITTLE}}), "agent:writer", "day"),
        (SpendPolicy(run=PLENTY, tenant={"month": LITTLE, "total": PLENTY}), "tenant", "month"),
    ],
    ids=["step", "run", "agent", "tenant"],
)
async def test_each_role_is_held_to_its_limit(
    budget: BudgetStore, policy: SpendPolicy, scope: str, window: str
) -> None:
    """The run is parked by the narrowest of them, whose error says what was spent and held, and when it resets."""
    parked = await runner(budget, policy).start(ask, {"count": 30}, run_id="r")

    error = parked.error
    assert parked.status is RunStatus.WAITING
    assert isinstance(error, BudgetExceededError)
    assert error.scope.startswith(scope)
    assert (error.window, error.limit) == (window, LITTLE)
    assert 0 < error.spent + error.held <= LITTLE < error.spent + error.held + error.requested
    assert (error.resets_at is None) == (window == "total")
    for named in await budget.scopes():
        for usage in await budget.usage(named):
            assert usage.limit is None or usage.spent + usage.held <= usage.limit


async def test_a_step_has_its_own_limit_beside_the_others(budget: BudgetStore) -> None:
    """What one step has spent is not taken from the next one's limit."""
    done = await runner(budget, SpendPolicy(step=LITTLE)).start(ask, {"count": 1}, run_id="r")

    limits = {limit.scope: limit.amount for limit in await budget.limits() if limit.scope.startswith("step:r/")}
    assert done.status is RunStatus.COMPLETED
    assert set(limits.values()) == {LITTLE}
    assert len(limits) == 2


async def test_what_somebody_sets_later_holds(budget: BudgetStore) -> None:
    """A limit that a person raised or removed is not set again by the next run, or by the same one resumed."""
    policy = SpendPolicy(step=LITTLE, agents={"writer": {"total": LITTLE}}, tenant={"day": LITTLE})
    engine = runner(budget, policy)
    parked = await engine.start(ask, {"count": 30}, run_id="r")
    for limit in await budget.limits():
        await budget.set_limit(limit.scope, None if limit.scope == "tenant" else PLENTY, window=limit.window)

    done = await engine.resume("r")
    again = await engine.start(ask, {"count": 1}, run_id="again")

    assert (parked.status, done.status, again.status) == (RunStatus.WAITING, RunStatus.COMPLETED, RunStatus.COMPLETED)
    assert await budget.limits(scope="tenant") == ()
    assert await budget.limits(scope="agent:writer") == (Limit(scope="agent:writer", window="total", amount=PLENTY),)


async def test_a_policy_that_comes_after_the_spending_says_that_it_is_not_in_force(
    budget: BudgetStore, caplog: pytest.LogCaptureFixture
) -> None:
    """The log names the command that sets the limit, once; a limit that is in force is not spoken of."""
    await runner(budget, SpendPolicy()).start(ask, {"count": 1}, run_id="before")
    policies._warn_once.cache_clear()

    for run_id in ("one", "two"):
        policy = SpendPolicy(agents={"reader": {"day": PLENTY}}, tenant={"month": PLENTY})
        await runner(budget, policy).start(ask, {"count": 1}, run_id=run_id)

    (said,) = [record.getMessage() for record in caplog.records if record.name == "app.workflow.policies"]
    assert said.endswith("nova budget set tenant '$1.00' --window month")
    assert [limit.scope for limit in await budget.limits()] == ["agent:reader"]


@pytest.mark.parametrize("tenant_id", ["default", None], ids=["its tenant", "all tenants"])
async def test_an_emergency_stop_parks_a_run_and_it_goes_on_afterwards(
    budget: BudgetStore, tenant_id: str | None
) -> None:
    """Nothing is spent under the stop, nothing of the run is lost, and it is resumed when the stop is lifted."""
    await budget.stop(reason="drill", tenant_id=tenant_id)
    engine = runner(budget, SpendPolicy(run=PLENTY))

    parked = await engine.start(ask, {"count": 2}, run_id="r")
    spent = (await budget.usage("run:r"))[0].spent
    await budget.go(tenant_id=tenant_id)
    fresh = Runner(
        checkpoints=engine._checkpoints,
        budget=SameStore(budget) if tenant_id is None else budget,
        idempotency=InMemoryIdempotencyStore(),
        adapter=StubAdapter(),
        workflows=[ask],
    )
    done = await fresh.resume("r")

    assert (parked.status, parked.waiting_for) == (RunStatus.WAITING, "budget")
    assert isinstance(parked.error, BudgetStoppedError)
    assert spent == 0
    assert done.status is RunStatus.COMPLETED


class SameStore:
    """The same store as another process has it: what one knows of the stop of all tenants, the other does not."""

    def __init__(self, inner: BudgetStore) -> None:
        self._inner = inner

    def __getattr__(self, verb: str) -> Any:
        return getattr(self._inner, verb)


async def test_a_policy_without_a_store_is_refused() -> None:
    """Limits that nobody would keep are an error, not a wish."""
    with pytest.raises(ConfigurationError, match="budget store"):
        await runner(None, SpendPolicy(tenant={"day": 1})).start(ask, {"count": 1})


@pytest.mark.parametrize(
    "fields",
    [{"step": -1}, {"run": 1.5}, {"tenant": {"week": 1}}, {"agents": {"a\nb": {"day": 1}}}, {"tenant": {"day": None}}],
)
def test_a_policy_that_no_store_would_keep_is_refused(fields: dict[str, Any]) -> None:
    """An amount, window or name that cannot be a limit's is an error at once."""
    with pytest.raises(InvalidInputError):
        SpendPolicy(**fields)
