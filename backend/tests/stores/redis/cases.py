"""The stores on Redis, as the battery of faults sees them: how one is built, and verbs that are ready to be called."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Final

from app.credentials import fixed
from app.errors import BudgetStoreUnavailableError, IdempotencyStoreUnavailableError, StoreUnavailableError
from app.stores.budget.contract import Granted
from app.stores.budget.redis import RedisBudgetStore
from app.stores.holder import Holder
from app.stores.idempotency.contract import Started
from app.stores.idempotency.redis import RedisIdempotencyStore
from app.stores.redis.connection import RedisConnection

__all__ = ["CASES", "Case", "Verb"]

Verb = Callable[[Any], Awaitable[object]]
"""Calls one verb of the store that it is given."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """One store.

    Attributes:
        build: makes a store from an address.
        connection: what a store runs its scripts on.
        unavailable: the error by which it refuses.
        prepare: puts something into an empty store; returns the verbs that change something, and those that only tell,
            by name. Each verb can be called any number of times and has one effect.
        renewing: verbs that set a time anew at each call, as they are meant to.
    """

    build: Callable[[str], Any]
    connection: Callable[[Any], RedisConnection]
    unavailable: type[StoreUnavailableError]
    prepare: Callable[[Any], Awaitable[tuple[Mapping[str, Verb], Mapping[str, Verb]]]]
    renewing: frozenset[str] = frozenset()


async def _prepare_idempotency(store: RedisIdempotencyStore) -> tuple[Mapping[str, Verb], Mapping[str, Verb]]:
    me = Holder.current()

    async def token(key: str) -> int:
        answer = await store.begin(key, "f", holder=me)
        assert isinstance(answer, Started)
        return answer.token

    done, beating, giving_up, finishing = [await token(key) for key in ("done", "beating", "giving up", "finishing")]
    await store.complete("done", done, b"result")
    changing: dict[str, Verb] = {
        "begin": lambda store: store.begin("new", "f", holder=me),
        "complete": lambda store: store.complete("finishing", finishing, b"r"),
        "abandon": lambda store: store.abandon("giving up", giving_up),
        "heartbeat": lambda store: store.heartbeat("beating", beating),
    }
    telling: dict[str, Verb] = {"begin of a completed key": lambda store: store.begin("done", "f", holder=me)}
    return changing, telling


async def _prepare_budget(store: RedisBudgetStore) -> tuple[Mapping[str, Verb], Mapping[str, Verb]]:
    scopes = ("tenant", "run:1")
    lease = timedelta(seconds=30)
    await store.set_limit("tenant", 1_000)
    for hold_id in ("to settle", "to release", "to expire"):
        assert isinstance(await store.reserve(hold_id, 10, scopes, lease=lease), Granted)
    changing: dict[str, Verb] = {
        "reserve": lambda store: store.reserve("new", 10, scopes, lease=lease),
        "settle": lambda store: store.settle("to settle", 7),
        "release": lambda store: store.release("to release"),
        "expire": lambda store: store.expire("to expire"),
        "set_limit": lambda store: store.set_limit("run:1", 500, window="day"),
        "adjust": lambda store: store.adjust("bonus", "run:1", 5),
        "stop": lambda store: store.stop(reason="drill", tenant_id="another"),
        "stop of all": lambda store: store.stop(reason="drill", tenant_id=None),
    }
    telling: dict[str, Verb] = {
        "usage": lambda store: store.usage("run:1"),
        "limits": lambda store: store.limits(),
        "hold": lambda store: store.hold("to settle"),
        "holds": lambda store: store.holds(),
        "audit": lambda store: store.audit(),
        "repair": lambda store: store.repair(),
        "scopes": lambda store: store.scopes(),
        "stopped": lambda store: store.stopped(),
        "stopped, all": lambda store: store.stopped(tenant_id=None),
        "get_workflow_cost": lambda store: store.get_workflow_cost("1"),
    }
    return changing, telling


CASES: Final = {
    "budget": Case(
        build=lambda url: RedisBudgetStore(fixed(url)),
        connection=lambda store: store._book._connection,
        unavailable=BudgetStoreUnavailableError,
        prepare=_prepare_budget,
    ),
    "idempotency": Case(
        build=lambda url: RedisIdempotencyStore(fixed(url)),
        connection=lambda store: store._connection,
        unavailable=IdempotencyStoreUnavailableError,
        prepare=_prepare_idempotency,
        renewing=frozenset({"heartbeat"}),
    ),
}
