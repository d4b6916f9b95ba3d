"""Passwords and keys are rotated in a real OpenBao under continuous load on real servers: no call fails."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import psycopg
import pytest
import redis

from app.secrets import keeper
from app.settings import Settings, load_settings
from app.skills.guards import get_guarded_adapter
from app.skills.llm_invoke_v2 import CallContext, LLMAdapter, LLMConfig
from app.stores import close_stores, get_budget_store, get_checkpoint_store, get_idempotency_store
from app.workflow.engine import Run, Runner, workflow
from tests.support.planted import planted
from tests.support.servers.openbao import ROOT_TOKEN, OpenBaoServer
from tests.support.servers.postgres import PostgresServer
from tests.support.servers.valkey import ValkeyServer
from tests.support.wire import WireServer

CALLERS = 4
KEYS = (planted("rotation.key_1"), planted("rotation.key_2"))
PASSWORDS = (planted("rotation.password_1"), planted("rotation.password_2"))


@dataclass
class Servers:
    """The three servers, and how each is told of a new secret."""

    bao: OpenBaoServer
    postgres: PostgresServer
    valkey: ValkeyServer

    def put(self, what: str, number: int) -> None:
        """Write the secret of this number into OpenBao."""
        password = PASSWORDS[number]
        values = {
            "anthropic": {"ANTHROPIC_API_KEY": KEYS[number]},
            "neon": {"DATABASE_URL": f"postgresql://nova:{password}@127.0.0.1:{self.postgres.port}/nova"},
            "upstash": {"REDIS_URL": f"redis://:{password}@127.0.0.1:{self.valkey.port}/0"},
        }
        self.bao.put(what, **values[what])

    def change_database_password(self, number: int) -> None:
        """Let PostgreSQL take the password of this number, and no other."""
        self.postgres.execute(f"ALTER ROLE nova PASSWORD '{PASSWORDS[number]}'")

    def change_redis_password(self, number: int) -> None:
        """Let Valkey take the password of this number, and no other."""
        with self.redis(1 - number) as client:
            client.config_set("requirepass", PASSWORDS[number])

    def redis(self, number: int) -> redis.Redis:
        """Return a client with the password of this number."""
        return redis.Redis(port=self.valkey.port, password=PASSWORDS[number])


@pytest.fixture
def servers() -> Iterator[Servers]:
    """Start them with the first secrets; PostgreSQL asks the role ``nova`` for its password."""
    with OpenBaoServer() as bao, PostgresServer() as postgres, ValkeyServer(requirepass=PASSWORDS[0]) as valkey:
        postgres.execute(f"CREATE ROLE nova LOGIN PASSWORD '{PASSWORDS[0]}'")
        postgres.execute("CREATE DATABASE nova OWNER nova")
        rules = postgres.directory / "data" / "pg_hba.conf"
        rules.write_text(f"host all nova 127.0.0.1/32 scram-sha-256\n{rules.read_text()}")
        postgres.execute("SELECT pg_reload_conf()")
        found = Servers(bao, postgres, valkey)
        for what in ("anthropic", "neon", "upstash"):
            found.put(what, 0)
        yield found


@pytest.fixture
def settings(servers: Servers, monkeypatch: pytest.MonkeyPatch) -> Settings:
    """Read everything from OpenBao, as a program does before its loop runs; it is looked at every second."""
    monkeypatch.setenv("VAULT_ADDR", servers.bao.url)
    monkeypatch.setenv("VAULT_TOKEN", ROOT_TOKEN)
    monkeypatch.setenv("NOVA_SECRETS_REFRESH_S", "1")
    read = load_settings()
    assert read.credential("redis_url") is not None
    return read


@dataclass
class Load:
    """Callers that never pause: each makes a guarded call and records two steps, over and over."""

    runner: Runner
    adapter: LLMAdapter
    done: list[int] = field(default_factory=lambda: [0] * CALLERS)
    failures: list[BaseException] = field(default_factory=list)
    ended: bool = False
    moved: asyncio.Event = field(default_factory=asyncio.Event)

    async def call(self, caller: int) -> None:
        """Make calls until told to end."""
        while not self.ended:
            name = f"{caller}-{self.done[caller]}"
            try:
                await self.adapter.invoke(
                    f"hello {name}", LLMConfig(max_tokens=10), context=CallContext(idempotency_key=name)
                )
                await self.runner.start(two_steps, {}, run_id=f"run-{name}")
            except Exception as error:  # noqa: BLE001 - any failure is the test's
                self.failures.append(error)
            self.done[caller] += 1
            self.moved.set()

    async def go_on(self, times: int = 5) -> None:
        """Return when every caller has made so many more calls."""
        wanted = [count + times for count in self.done]
        while any(count < goal for count, goal in zip(self.done, wanted, strict=True)):
            self.moved.clear()
            await self.moved.wait()

    async def until_version(self, source: Any, version: str) -> None:
        """Return when the watch has found a version, calls going on meanwhile."""
        while source.newest.version != version:
            await self.go_on(1)


@workflow(version="1")
async def two_steps(run: Run) -> str:
    """Record two steps."""
    await run.step("first", _say, "one")
    return await run.step("second", _say, "two")


async def _say(text: str) -> str:
    return text


@asynccontextmanager
async def load(settings: Settings) -> AsyncIterator[Load]:
    """Keep the callers calling during the block."""
    checkpoints, budget = get_checkpoint_store(settings), get_budget_store(settings)
    idempotency = get_idempotency_store(settings)
    adapter = get_guarded_adapter(settings=settings, budget_store=budget, idempotency_store=idempotency)
    running = Load(Runner(checkpoints=checkpoints, budget=budget, idempotency=idempotency), adapter)
    tasks = [asyncio.ensure_future(running.call(caller)) for caller in range(CALLERS)]
    try:
        yield running
    finally:
        running.ended = True
        await asyncio.gather(*tasks)
        await adapter.aclose()
        await close_stores()


async def test_no_call_fails_while_everything_is_rotated(servers: Servers, settings: Settings) -> None:
    """Vault first for the provider and Redis, the server first for PostgreSQL; at the end the old ones are refused."""
    async with WireServer(key=KEYS[0]) as provider:
        configured = settings.with_changes(anthropic_base_url=provider.url)
        async with load(configured) as running:
            await running.go_on()

            # The provider: OpenBao has the new key before the provider takes it; until then the old one is honoured.
            await asyncio.to_thread(servers.put, "anthropic", 1)
            await running.until_version(settings.credential("anthropic_api_key"), "2")
            await running.go_on()
            provider._key = KEYS[1]
            await running.go_on()

            # Redis: the same order.
            await asyncio.to_thread(servers.put, "upstash", 1)
            await running.until_version(settings.credential("redis_url"), "2")
            await running.go_on()
            await asyncio.to_thread(servers.change_redis_password, 1)
            await running.go_on()

            # PostgreSQL: the server first. Its open connections stay; OpenBao follows.
            await asyncio.to_thread(servers.change_database_password, 1)
            await running.go_on()
            await asyncio.to_thread(servers.put, "neon", 1)
            await running.until_version(settings.credential("database_url"), "2")
            await running.go_on()

    assert running.failures == []
    assert sum(running.done) > CALLERS * 30
    with pytest.raises(redis.AuthenticationError):
        await asyncio.to_thread(servers.redis(0).ping)
    old = f"postgresql://nova:{PASSWORDS[0]}@127.0.0.1:{servers.postgres.port}/nova"
    with pytest.raises(psycopg.OperationalError, match="password authentication failed"):
        await asyncio.to_thread(lambda: psycopg.connect(old))


@pytest.mark.parametrize("what", ["neon", "upstash"])
async def test_a_rejected_password_is_looked_up_at_once(what: str, servers: Servers, settings: Settings) -> None:
    """Server and OpenBao are changed between two looks: the rejection itself finds the new one."""
    keeper().refresh_every(3600)

    async def ask() -> object:
        if what == "upstash":
            return await get_budget_store(settings).usage("tenant")
        return await get_checkpoint_store(settings).list_runs(limit=1)

    await ask()
    await close_stores()
    change = servers.change_redis_password if what == "upstash" else servers.change_database_password
    await asyncio.to_thread(change, 1)
    await asyncio.to_thread(servers.put, what, 1)

    assert await ask()
