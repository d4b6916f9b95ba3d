"""The idempotency store in Redis keeps the contract, and what only a server can promise."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import AsyncIterator
from datetime import timedelta

import pytest

from app.credentials import fixed
from app.errors import (
    IdempotencyLeaseLostError,
    IdempotencyStoreUnavailableError,
    InvalidInputError,
    StoreDamagedError,
)
from app.stores.idempotency.contract import KEEP_UNFINISHED, MAX_RESULT_BYTES, Completed, InProgress, Started
from app.stores.idempotency.redis import RedisIdempotencyStore
from tests.support.servers.process import free_port
from tests.support.servers.proxy import FaultProxy
from tests.support.servers.valkey import ValkeyServer

from .contract import LEASE, ME, MS, OTHER, TTL, BackDoor, FakeClock, IdempotencyContract, ended_process, started, verbs
from .redis_back_door import RedisBackDoor

GRACE_MS = 60_000
"""How much longer than it counts a record stays on the server."""


class TestRedisIdempotencyStore(IdempotencyContract):
    """The contract on a server, and more."""

    @pytest.fixture
    async def store(self, valkey: ValkeyServer, clock: FakeClock) -> AsyncIterator[RedisIdempotencyStore]:
        """Give a store on an empty server."""
        store = RedisIdempotencyStore(fixed(valkey.url), clock=clock)
        yield store
        await store.close()

    @pytest.fixture
    def back_door(self, valkey: ValkeyServer) -> RedisBackDoor:
        """Give the look at the server."""
        return RedisBackDoor(valkey.url)

    async def test_expired_records_are_removed_in_small_portions(  # type: ignore[override]
        self, store: RedisIdempotencyStore, back_door: RedisBackDoor
    ) -> None:
        """No begin removes anything: each record has its end at the server, a minute after it stops counting."""
        lives_ms = {
            "running": (LEASE + KEEP_UNFINISHED) // MS,
            "freed": KEEP_UNFINISHED // MS,
            "done": TTL // MS,
            "beating": (timedelta(minutes=5) + KEEP_UNFINISHED) // MS,
        }
        tokens = {key: (await started(store, key)).token for key in lives_ms}
        await store.abandon("freed", tokens["freed"])
        await store.complete("done", tokens["done"], b"r", ttl=TTL)
        await store.heartbeat("beating", tokens["beating"], lease=timedelta(minutes=5))
        now_ms = time.time_ns() // 1_000_000

        ends_ms = {key: row[-1] for (_, key), row in back_door.rows().items()}

        assert {
            key: 0 <= now_ms + lives_ms[key] + GRACE_MS - ends_ms[key] < GRACE_MS for key in lives_ms
        } == dict.fromkeys(lives_ms, True)

    async def test_each_verb_is_one_round_trip(self, valkey: ValkeyServer, clock: FakeClock) -> None:
        """Begin in every state, complete, abandon and heartbeat; two only where the holder found is gone."""
        async with FaultProxy(valkey.port) as proxy:
            store = RedisIdempotencyStore(fixed(f"redis://127.0.0.1:{proxy.port}/0"), clock=clock)
            await store.abandon("warm", (await started(store, "warm")).token)
            trips: dict[str, int] = {}

            async def count(name: str, verb: object) -> object:
                before = proxy.answers
                answer = await verb  # type: ignore[misc]
                trips[name] = proxy.answers - before
                return answer

            first = await count("begin", store.begin("k", "f", holder=ended_process(), lease=LEASE))
            dead = await count("begin of a dead holder's key", store.begin("k", "f", holder=ME, lease=LEASE))
            await count("begin of a busy key", store.begin("k", "f", holder=OTHER))
            await started(store, "lapsed")
            clock.advance(LEASE)
            await count("begin at the end of a lease", store.begin("lapsed", "f", holder=OTHER))
            assert isinstance(first, Started)
            assert isinstance(dead, Started)
            await count("heartbeat", store.heartbeat("k", dead.token))
            await count("complete", store.complete("k", dead.token, b"r"))
            await count("begin of a completed key", store.begin("k", "f", holder=ME))
            await count("abandon", store.abandon("warm", (await started(store, "warm")).token))
            with pytest.raises(IdempotencyLeaseLostError):
                await count("refused", store.complete("k", first.token, b"late"))
            await store.close()

        assert trips.pop("begin of a dead holder's key") == 2
        assert trips == dict.fromkeys(trips, 1)
        assert len(trips) == 7

    async def test_two_stores_on_one_server_are_one(
        self, store: RedisIdempotencyStore, valkey: ValkeyServer, clock: FakeClock
    ) -> None:
        """What one store object records another one sees at once."""
        token = (await started(store)).token
        second = RedisIdempotencyStore(fixed(valkey.url), clock=clock)

        waiting = await second.begin("k", "f", holder=ME)
        await second.complete("k", token, b"r")
        await second.close()

        assert isinstance(waiting, InProgress)
        assert await store.begin("k", "f", holder=ME) == Completed(result=b"r")

    async def test_one_of_many_takes_the_key_of_the_dead(self, store: RedisIdempotencyStore) -> None:
        """Of fifty that find the owner gone at once, one takes exactly its key; the others find the new owner."""
        await started(store, holder=ended_process())

        answers = await asyncio.gather(*(store.begin("k", "f", holder=ME) for _ in range(50)))

        assert sorted(type(answer).__name__ for answer in answers) == ["InProgress"] * 49 + ["Started"]

    async def test_whoever_took_the_key_of_the_dead_is_not_overrun(
        self, store: RedisIdempotencyStore, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Between the look at a dead owner and the take somebody else took the key: the late one is told so."""
        await started(store, holder=ended_process())
        run = store._connection.run
        overtaken: list[Started] = []

        async def slowly(script: object, keys: object, arguments: tuple[object, ...]) -> object:
            if arguments[4] != "" and not overtaken:
                monkeypatch.setattr(store._connection, "run", run)
                overtaken.append(await started(store, holder=OTHER))
            return await run(script, keys, arguments)  # type: ignore[arg-type]

        monkeypatch.setattr(store._connection, "run", slowly)
        answer = await store.begin("k", "f", holder=ME)

        assert overtaken
        assert isinstance(answer, InProgress)

    async def test_tokens_grow_past_the_loss_of_the_servers_data(
        self, store: RedisIdempotencyStore, back_door: RedisBackDoor, clock: FakeClock
    ) -> None:
        """After a thousand tokens within one millisecond the server loses everything: a later token is above them."""
        for _ in range(1_000):
            old = await started(store)
            await store.abandon("k", old.token)
        back_door.empty()
        clock.advance(2 * MS)

        assert (await started(store)).token > old.token

    async def test_the_last_token_has_no_end(self, store: RedisIdempotencyStore, back_door: RedisBackDoor) -> None:
        """It outlives every record, of which it is no part."""
        await started(store)

        assert back_door.do("TTL", "nova:{default}:idempotency:token") == -1

    async def test_the_servers_clock_counts(self, valkey: ValkeyServer, back_door: RedisBackDoor) -> None:
        """Without a clock of its own a store goes by the server's: no host's clock has a say."""
        store = RedisIdempotencyStore(fixed(valkey.url))
        seconds, microseconds = back_door.do("TIME")

        token = (await started(store)).token
        before_ms = int(back_door.fields()["lease_until_ms"]) - LEASE // MS
        await store.complete("k", token, b"r", ttl=TTL)
        done_ms = int(back_door.fields()["expires_at_ms"]) - TTL // MS
        await store.close()

        server_ms = seconds * 1_000 + microseconds // 1_000
        assert server_ms <= before_ms <= done_ms <= server_ms + 60_000
        assert token >= seconds * 1_000_000 + microseconds

    async def test_a_new_owner_leaves_nothing_of_the_old_result(
        self, store: RedisIdempotencyStore, back_door: RedisBackDoor, clock: FakeClock
    ) -> None:
        """A record that expired and is still on the server is taken over whole."""
        await store.complete("k", (await started(store)).token, b"old", ttl=MS)
        clock.advance(MS)

        await started(store, fingerprint="another request")

        assert back_door.fields().keys().isdisjoint({"digest", "result"})

    @pytest.mark.parametrize("size_bytes", [64 * 1024, MAX_RESULT_BYTES])
    async def test_results_of_any_size_are_replayed(self, store: RedisIdempotencyStore, size_bytes: int) -> None:
        """Also where nothing can be compressed, up to the largest size that a store takes."""
        result = os.urandom(size_bytes)
        token = (await started(store)).token

        await store.complete("k", token, result)

        assert await store.begin("k", "f", holder=ME) == Completed(result=result)

    async def test_a_result_above_the_largest_size_says_what_to_do(self, store: RedisIdempotencyStore) -> None:
        """Nothing is sent, and the error names the limit and the way out."""
        token = (await started(store)).token

        with pytest.raises(InvalidInputError, match=r"8,388,608 are kept.*elsewhere"):
            await store.complete("k", token, b"x" * (MAX_RESULT_BYTES + 1))

    async def test_results_are_compressed(self, store: RedisIdempotencyStore, back_door: RedisBackDoor) -> None:
        """A result of repeated text takes a small part of its size on the server."""
        result = b"the same words again and again " * 10_000
        token = (await started(store)).token

        await store.complete("k", token, result)

        assert len(back_door.fields()["result"]) < len(result) / 100

    @pytest.mark.parametrize(
        ("field", "value"),
        [
            ("result", b"\x00"),
            ("result", b"\x00" * 60),
            ("result", None),
            ("digest", b"\x00" * 32),
            ("digest", None),
            ("holder", "nobody"),
            ("state", "asleep"),
            ("token", "first"),
            ("fingerprint", None),
            ("expires_at_ms", "never"),
            ("expires_at_ms", None),
        ],
    )
    async def test_a_damaged_record_is_told_and_never_replayed(
        self, store: RedisIdempotencyStore, back_door: RedisBackDoor, field: str, value: bytes | str | None
    ) -> None:
        """A stored result that does not verify is an error that names both keys; it is neither replayed nor redone."""
        token = (await started(store)).token
        await store.complete("k", token, b"a result of some length " * 10)
        back_door.set(field, value)

        with pytest.raises(StoreDamagedError, match=r"'k'.*'nova:\{default\}:idempotency:key:k'"):
            await store.begin("k", "f", holder=ME)

    async def test_a_key_of_somebody_else_is_told(self, store: RedisIdempotencyStore, back_door: RedisBackDoor) -> None:
        """A value of another type under a record's name is never overwritten."""
        back_door.do("SET", back_door.name("k", "default"), "foreign")

        for verb in (store.begin("k", "f", holder=ME), store.complete("k", 1, b"r")):
            with pytest.raises(StoreDamagedError, match="nova:"):
                await verb

        assert back_door.do("GET", back_door.name("k", "default")) == b"foreign"

    async def test_tenants_with_braces_do_not_meet(self, store: RedisIdempotencyStore) -> None:
        """Whatever a tenant's id is made of, its keys are its own."""
        names = ["}", "{", "{}", "%7D", "a}:idempotency:key:{b", "b"]
        owned = [await started(store, tenant_id=tenant) for tenant in names]
        for tenant, owner in zip(names, owned, strict=True):
            await store.complete("k", owner.token, tenant.encode(), tenant_id=tenant)

        replayed = [await store.begin("k", "f", holder=ME, tenant_id=tenant) for tenant in names]

        assert replayed == [Completed(result=tenant.encode()) for tenant in names]

    @pytest.mark.parametrize("verb", ["complete", "abandon", "heartbeat"])
    async def test_a_replica_tells_no_owner_that_it_lost_its_key(self, verb: str) -> None:
        """One that has not heard of the key yet refuses; "lost" would make the owner throw a paid result away."""
        with await asyncio.to_thread(ValkeyServer, durable=False, replicaof=f"127.0.0.1 {free_port()}") as replica:
            store = RedisIdempotencyStore(fixed(replica.url))
            with pytest.raises(IdempotencyStoreUnavailableError, match="read-only replica"):
                await verbs(store)[verb]("k", 1)
            await store.close()

    def test_a_back_door_is_one(self, back_door: BackDoor) -> None:
        """An empty server has no rows."""
        assert back_door.rows() == {}
