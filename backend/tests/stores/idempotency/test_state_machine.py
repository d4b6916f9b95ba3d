"""Two owners and a third that died, in any order of verbs and pauses: every store behaves as a small model says."""

from __future__ import annotations

import asyncio
import shutil
import tempfile
from collections.abc import Awaitable
from dataclasses import dataclass
from datetime import timedelta
from functools import cache
from pathlib import Path
from typing import Final, TypeVar

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, precondition, rule

from app.credentials import fixed
from app.errors import IdempotencyConflictError, IdempotencyLeaseLostError
from app.stores.holder import Holder
from app.stores.idempotency.contract import Completed, IdempotencyStore, InProgress, Started
from app.stores.idempotency.memory import InMemoryIdempotencyStore
from app.stores.idempotency.redis import RedisIdempotencyStore
from app.stores.idempotency.sqlite import SqliteIdempotencyStore
from tests.support.servers.valkey import ValkeyServer

from .contract import ME, OTHER, FakeClock, ended_process
from .redis_back_door import RedisBackDoor

T = TypeVar("T")
Name = tuple[str, str]

NAMES: Final = st.sampled_from([("a", "k"), ("a", "l"), ("b", "k")])
FINGERPRINTS: Final = st.sampled_from(["f", "g"])
LEASES_MS: Final = st.sampled_from([1, 1_000, 30_000])
TTLS_MS: Final = st.sampled_from([1, 60_000])
RESULTS: Final = st.sampled_from([b"", b"r", b"s" * 200])
PAUSES_MS: Final = st.sampled_from([1, 999, 29_999, 30_000, 86_400_000])
DAY_MS: Final = 86_400_000


@dataclass
class Kept:
    """What the model knows of a key."""

    fingerprint: str
    token: int
    attempt: int
    owner: str
    lease_until: int
    gone_at: int
    result: bytes | None = None
    freed: bool = False


@cache
def dead() -> Holder:
    """Return a holder whose process has ended, the same one for the whole campaign."""
    return ended_process()


class IdempotencyMachine(RuleBasedStateMachine):
    """Runs each verb on the store and on the model, and compares what they say."""

    def __init__(self) -> None:
        super().__init__()
        self.clock = FakeClock()
        self.runner = asyncio.Runner(loop_factory=asyncio.new_event_loop)
        self.directory = Path(tempfile.mkdtemp(prefix="nova-idempotency-"))
        self.store = self.build()
        self.model: dict[Name, Kept] = {}
        self.tokens: list[tuple[Name, int]] = []

    def build(self) -> IdempotencyStore:
        """Return a store on ``self.directory``."""
        return InMemoryIdempotencyStore(clock=self.clock)

    def run(self, verb: Awaitable[T]) -> T:
        """Wait for a verb."""

        async def wait() -> T:
            return await verb

        return self.runner.run(wait())

    def teardown(self) -> None:
        """Close what was opened."""
        self.run(self.store.close())
        self.runner.close()
        shutil.rmtree(self.directory)

    def known(self, name: Name) -> Kept | None:
        """Return what the model knows of a key now."""
        kept = self.model.get(name)
        return kept if kept is not None and self.clock.now_ms < kept.gone_at else None

    @rule(name=NAMES, fingerprint=FINGERPRINTS, owner=st.sampled_from(["me", "other", "dead"]), lease_ms=LEASES_MS)
    def begin(self, name: Name, fingerprint: str, owner: str, lease_ms: int) -> None:
        """Anybody may ask for any key at any time."""
        holder = {"me": ME, "other": OTHER}.get(owner) or dead()
        now, kept = self.clock.now_ms, self.known(name)
        asked = self.store.begin(
            name[1], fingerprint, holder=holder, lease=timedelta(milliseconds=lease_ms), tenant_id=name[0]
        )
        try:
            answer = self.run(asked)
        except IdempotencyConflictError:
            assert kept is not None
            assert kept.fingerprint != fingerprint
            return
        assert kept is None or kept.fingerprint == fingerprint
        if kept is not None and kept.result is not None:
            assert answer == Completed(result=kept.result)
        elif kept is not None and not kept.freed and now < kept.lease_until and kept.owner != "dead":
            assert isinstance(answer, InProgress)
            assert answer.retry_after == timedelta(milliseconds=kept.lease_until - now)
        else:
            assert isinstance(answer, Started)
            assert answer.attempt == (kept.attempt + 1 if kept else 1)
            assert all(answer.token > token for other, token in self.tokens if other == name)
            self.tokens.append((name, answer.token))
            self.model[name] = Kept(
                fingerprint, answer.token, answer.attempt, owner, now + lease_ms, now + lease_ms + DAY_MS
            )

    @precondition(lambda self: self.tokens)
    @rule(data=st.data(), result=RESULTS, ttl_ms=TTLS_MS)
    def complete(self, data: st.DataObject, result: bytes, ttl_ms: int) -> None:
        """Any token that was ever given may come back with a result."""
        name, token = data.draw(st.sampled_from(self.tokens))
        kept = self.known(name)
        mine = kept is not None and kept.token == token and not kept.freed
        allowed = mine and kept is not None and kept.result in {None, result}
        verb = self.store.complete(name[1], token, result, ttl=timedelta(milliseconds=ttl_ms), tenant_id=name[0])

        assert self.succeeds(verb) == allowed
        if allowed and kept is not None and kept.result is None:
            kept.result, kept.gone_at = result, self.clock.now_ms + ttl_ms

    @precondition(lambda self: self.tokens)
    @rule(data=st.data())
    def abandon(self, data: st.DataObject) -> None:
        """Any token that was ever given may come back to give up."""
        name, token = data.draw(st.sampled_from(self.tokens))
        kept = self.known(name)
        allowed = kept is not None and kept.token == token and kept.result is None

        assert self.succeeds(self.store.abandon(name[1], token, tenant_id=name[0])) == allowed
        if allowed and kept is not None and not kept.freed:
            kept.freed, kept.gone_at = True, self.clock.now_ms + DAY_MS

    @precondition(lambda self: self.tokens)
    @rule(data=st.data(), lease_ms=LEASES_MS)
    def heartbeat(self, data: st.DataObject, lease_ms: int) -> None:
        """Any token that was ever given may come back to say that it lives."""
        name, token = data.draw(st.sampled_from(self.tokens))
        kept = self.known(name)
        allowed = kept is not None and kept.token == token and kept.result is None and not kept.freed
        verb = self.store.heartbeat(name[1], token, lease=timedelta(milliseconds=lease_ms), tenant_id=name[0])

        assert self.succeeds(verb) == allowed
        if allowed and kept is not None:
            kept.lease_until = self.clock.now_ms + lease_ms
            kept.gone_at = kept.lease_until + DAY_MS

    @rule(pause_ms=PAUSES_MS)
    def pause(self, pause_ms: int) -> None:
        """Time passes."""
        self.clock.now_ms += pause_ms

    @rule()
    def close(self) -> None:
        """The store is closed; the next verb opens it again."""
        self.run(self.store.close())

    def succeeds(self, verb: Awaitable[None]) -> bool:
        """Run a verb that needs a token and say whether it was allowed."""
        try:
            self.run(verb)
        except IdempotencyLeaseLostError:
            return False
        return True


class SqliteIdempotencyMachine(IdempotencyMachine):
    """The same on a file."""

    def build(self) -> IdempotencyStore:
        """Return a store on a new file."""
        return SqliteIdempotencyStore(self.directory / "nova.db", clock=self.clock)


class RedisIdempotencyMachine(IdempotencyMachine):
    """The same on a server, emptied for each example."""

    url = ""

    def build(self) -> IdempotencyStore:
        """Return a store on an empty server."""
        RedisBackDoor(self.url).empty()
        return RedisIdempotencyStore(fixed(self.url), clock=self.clock)


class SoakedMachine(SqliteIdempotencyMachine):
    """The same for long."""


class SoakedRedisMachine(RedisIdempotencyMachine):
    """The same for long."""


@pytest.fixture(autouse=True)
def server(shared_valkey: ValkeyServer) -> None:
    """Tell the machines where the server is."""
    RedisIdempotencyMachine.url = shared_valkey.url


TestMemoryAgainstTheModel = IdempotencyMachine.TestCase
TestMemoryAgainstTheModel.settings = settings(max_examples=150, stateful_step_count=40)
TestSqliteAgainstTheModel = SqliteIdempotencyMachine.TestCase
TestSqliteAgainstTheModel.settings = settings(max_examples=40, stateful_step_count=40)
TestRedisAgainstTheModel = RedisIdempotencyMachine.TestCase
TestRedisAgainstTheModel.settings = settings(max_examples=40, stateful_step_count=40)
TestSqliteForLong = pytest.mark.timeout(3_600)(pytest.mark.soak(SoakedMachine.TestCase))
TestSqliteForLong.settings = settings(max_examples=3_000, stateful_step_count=60)
TestRedisForLong = pytest.mark.timeout(3_600)(pytest.mark.soak(SoakedRedisMachine.TestCase))
TestRedisForLong.settings = settings(max_examples=3_000, stateful_step_count=60)
