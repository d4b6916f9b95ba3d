"""A cluster of one shard: every key of a script lies in one hash slot, which only a cluster checks."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta

import pytest
from redis import Redis

from app.credentials import fixed
from app.errors import IdempotencyStoreUnavailableError
from app.stores.budget.contract import Granted
from app.stores.budget.redis import RedisBudgetStore
from app.stores.holder import Holder
from app.stores.idempotency.contract import Started
from app.stores.idempotency.redis import RedisIdempotencyStore
from tests.support.servers.valkey import ValkeyServer

from .cases import CASES, Case

LAST_SLOT = 16_383


@contextmanager
def shard(last_slot: int) -> Iterator[ValkeyServer]:
    """Start a server that has the first slots of a cluster."""
    with (
        ValkeyServer(durable=False, cluster_enabled="yes", cluster_require_full_coverage="no") as server,
        Redis.from_url(server.url) as client,
    ):
        client.execute_command("CLUSTER", "ADDSLOTSRANGE", 0, last_slot)
        while client.execute_command("CLUSTER INFO")["cluster_state"] != "ok":
            time.sleep(0.01)
        yield server


@pytest.fixture(scope="module")
def cluster() -> Iterator[ValkeyServer]:
    """Give a cluster of one shard."""
    with shard(LAST_SLOT) as server:
        yield server


@pytest.mark.parametrize("case", list(CASES.values()), ids=list(CASES))
async def test_every_verb_works_on_a_cluster_of_one_shard(case: Case, cluster: ValkeyServer) -> None:
    """No script has keys of two slots, and none touches a key that the server does not have."""
    store = case.build(cluster.url)
    changing, telling = await case.prepare(store)
    for verb in (*changing.values(), *telling.values()):
        await verb(store)
    await store.close()


async def test_tenants_with_braces_have_one_slot_each(cluster: ValkeyServer) -> None:
    """Whatever a tenant's id is made of, and whatever its keys, scopes and holds are called."""
    keys, budget = RedisIdempotencyStore(fixed(cluster.url)), RedisBudgetStore(fixed(cluster.url))
    for tenant in ("}", "{", "{}", "}{", "a}b{c", "%7D"):
        begun = await keys.begin("k{x}", "f", holder=Holder.current(), tenant_id=tenant)
        assert isinstance(begun, Started)
        await keys.complete("k{x}", begun.token, b"r", tenant_id=tenant)
        held = await budget.reserve("}{h}", 5, ["s{", "}"], lease=timedelta(seconds=30), tenant_id=tenant)
        assert isinstance(held, Granted)
        await budget.settle("}{h}", 4, tenant_id=tenant)
        assert [window.spent for window in await budget.usage("s{", tenant_id=tenant)] == [4, 4, 4]
    await keys.close()
    await budget.close()


async def test_a_shard_that_has_not_the_keys_says_so() -> None:
    """Nova follows no redirection: it is told that the cluster needs a proxy, or that the slot is down."""
    with shard(100) as server:
        store = RedisIdempotencyStore(fixed(server.url))
        with pytest.raises(IdempotencyStoreUnavailableError, match="cluster"):
            await store.begin("k", "f", holder=Holder.current())
        await store.close()
