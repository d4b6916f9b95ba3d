"""Store down: whatever happens to the server or the way to it, every verb ends in its store's error, in bounded time.

Never "nothing spent", never "new key": a store that cannot know refuses. Each test runs every verb of every store.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import ExitStack, asynccontextmanager, contextmanager
from typing import Any

import pytest
from redis import Redis

from tests.support.servers.proxy import FaultProxy
from tests.support.servers.valkey import ValkeyServer

from .cases import CASES, Case, Verb

IMPATIENT_S = 0.25
"""What a store is given where it waits in vain; else it has the default, which a busy machine needs."""
BOUND_S = 10.0
"""What a test allows: far more than any store may need, far less than for ever."""


@pytest.fixture(params=list(CASES.values()), ids=list(CASES))
def case(request: pytest.FixtureRequest) -> Case:
    """Give each store."""
    found: Case = request.param
    return found


async def told(case: Case, store: Any, verbs: Mapping[str, Verb]) -> dict[str, str]:
    """Call all verbs at once; each must be refused by the store's error. Return the texts."""

    async def one(verb: Verb) -> str:
        with pytest.raises(case.unavailable) as caught:
            async with asyncio.timeout(BOUND_S):
                await verb(store)
        return str(caught.value)

    return dict(zip(verbs, await asyncio.gather(*map(one, verbs.values())), strict=True))


@contextmanager
def impatient(case: Case, store: Any) -> Iterator[None]:
    """Let a store wait for a moment only."""
    connection = case.connection(store)
    patience_s, connection._timeout_s = connection._timeout_s, IMPATIENT_S
    yield
    connection._timeout_s = patience_s


async def dump(url: str) -> dict[bytes, object]:
    """Return every key of a server with its value, without the time that a budget saw last."""

    def read() -> dict[bytes, object]:
        with Redis.from_url(url) as server:
            kinds = {
                b"hash": lambda name: {k: v for k, v in server.hgetall(name).items() if k != b"\nnow"},
                b"list": lambda name: server.lrange(name, 0, -1),
                b"string": server.get,
                b"zset": lambda name: server.zrange(name, 0, -1, withscores=True),
            }
            return {name: kinds[server.type(name)](name) for name in server.scan_iter(count=1_000)}

    return await asyncio.to_thread(read)


async def command(url: str, *words: str | int) -> Any:
    """Send a command to a server."""

    def send() -> Any:
        with Redis.from_url(url) as server:
            return server.execute_command(*words)

    return await asyncio.to_thread(send)


async def eventually(url: str, *words: str | int, says: bytes) -> None:
    """Wait until a command's answer contains something."""
    async with asyncio.timeout(BOUND_S):
        while says not in repr(await command(url, *words)).encode():  # noqa: ASYNC110 - a server has no event to wait for
            await asyncio.sleep(0.01)


class ReplicaServer(ValkeyServer):
    """A server that is ready when it answers, be it that it cannot serve yet."""

    def is_ready(self) -> bool:
        """Whether it answers a PING with anything."""
        return super().is_ready() or self.answers(b"-MASTERDOWN", b"-LOADING")


@asynccontextmanager
async def replicated(**options: str) -> AsyncIterator[tuple[ValkeyServer, ValkeyServer]]:
    """Start a server and a replica of it, and wait until it follows."""
    with ExitStack() as servers:
        primary = ValkeyServer(durable=False, repl_diskless_sync_delay="0")
        servers.enter_context(await asyncio.to_thread(primary.start))
        replica = ReplicaServer(durable=False, replicaof=f"127.0.0.1 {primary.port}", **options)
        servers.enter_context(await asyncio.to_thread(replica.start))
        await eventually(replica.url, "INFO", "replication", says=b"'master_link_status': 'up'")
        yield primary, replica


async def test_a_server_that_does_not_run(case: Case) -> None:
    """Refused at once; after its restart on the same data every verb works, on the same store object."""
    with await asyncio.to_thread(ValkeyServer) as server:
        store = case.build(server.url)
        changing, telling = await case.prepare(store)
        await asyncio.to_thread(server.kill)
        texts = await told(case, store, {**changing, **telling})
        await asyncio.to_thread(server.restart)
        for verb in (*changing.values(), *telling.values()):
            await verb(store)
        await store.close()

    assert {("nothing was sent" in text) for text in texts.values()} == {True}


@pytest.mark.parametrize("fault", ["refusing", "silent", "deaf"])
async def test_a_broken_way_to_the_server(case: Case, valkey: ValkeyServer, fault: str) -> None:
    """New connections are reset, nothing gets through, or no answer comes back; mended, the store goes on."""
    async with FaultProxy(valkey.port) as proxy:
        store = case.build(f"redis://127.0.0.1:{proxy.port}/0")
        changing, telling = await case.prepare(store)
        setattr(proxy, fault, True)
        if fault == "refusing":
            proxy.cut()
        with impatient(case, store):
            await told(case, store, {**changing, **telling})
        setattr(proxy, fault, False)
        for verb in (*changing.values(), *telling.values()):
            await verb(store)
        await store.close()


async def test_a_frozen_server(case: Case) -> None:
    """It takes connections and answers none; what was asked meanwhile has one effect, or none, when it goes on."""
    with await asyncio.to_thread(ValkeyServer, durable=False) as server:
        store = case.build(server.url)
        changing, telling = await case.prepare(store)
        server.freeze()
        with impatient(case, store):
            texts = await told(case, store, {**changing, **telling})
        server.thaw()
        for verb in (*changing.values(), *telling.values()):
            await verb(store)
        once = await dump(server.url)
        for verb in (*changing.values(), *telling.values()):
            await verb(store)
        twice = await dump(server.url)
        await store.close()

    assert {("not known" in text) for text in texts.values()} == {True}
    assert once.keys() == twice.keys()


async def test_a_read_only_replica(case: Case) -> None:
    """It refuses everything, also what needs no write: what it has may be out of date."""
    async with replicated() as (primary, replica):
        at_primary = case.build(primary.url)
        changing, telling = await case.prepare(at_primary)
        await command(primary.url, "WAIT", 1, 5_000)
        before = await dump(replica.url)
        at_replica = case.build(replica.url)
        texts = await told(case, at_replica, {**changing, **telling})
        after = await dump(replica.url)
        await at_replica.close()
        await at_primary.close()

    assert len(before) > 1
    assert before == after
    assert {("read-only replica" in text) for text in texts.values()} == {True}


async def test_a_replica_without_its_primary(case: Case) -> None:
    """One that may not serve stale data refuses everything, too."""
    async with replicated(replica_serve_stale_data="no") as (primary, replica):
        at_primary = case.build(primary.url)
        changing, telling = await case.prepare(at_primary)
        await at_primary.close()
        await asyncio.to_thread(primary.kill)
        await eventually(replica.url, "INFO", "replication", says=b"'master_link_status': 'down'")
        at_replica = case.build(replica.url)
        texts = await told(case, at_replica, {**changing, **telling})
        await at_replica.close()

    assert {("lost its primary" in text) for text in texts.values()} == {True}


async def test_a_server_out_of_memory(case: Case) -> None:
    """It refuses what would change something, and nothing is changed; what it knows it still tells."""
    with await asyncio.to_thread(ValkeyServer, durable=False) as server:
        store = case.build(server.url)
        changing, telling = await case.prepare(store)
        known = [await verb(store) for verb in telling.values()]
        before = await dump(server.url)
        await command(server.url, "CONFIG", "SET", "maxmemory", "1")
        texts = await told(case, store, changing)
        still_known = [await verb(store) for verb in telling.values()]
        after = await dump(server.url)
        await command(server.url, "CONFIG", "SET", "maxmemory", "0")
        for verb in changing.values():
            await verb(store)
        await store.close()

    assert before == after
    assert known == still_known
    assert {("out of memory" in text) for text in texts.values()} == {True}


class LoadingServer(ValkeyServer):
    """A server that counts as started while it still loads."""

    def is_ready(self) -> bool:
        """Whether it answers a PING, be it that it is loading."""
        return super().is_ready() or self.answers(b"-LOADING")


async def test_a_server_that_is_loading(case: Case) -> None:
    """After a restart on much data it refuses until it has everything: half of a store is no store."""
    with await asyncio.to_thread(
        LoadingServer, key_load_delay="2000", loading_process_events_interval_bytes="1024", aof_use_rdb_preamble="yes"
    ) as server:
        store = case.build(server.url)
        changing, telling = await case.prepare(store)
        filler = "for i = 1, 4000 do redis.call('SET', 'filler:' .. i, string.rep('x', 100)) end"
        await command(server.url, "EVAL", filler, 0)
        await command(server.url, "BGREWRITEAOF")
        await eventually(
            server.url, "INFO", "persistence", says=b"'aof_rewrite_in_progress': 0, 'aof_rewrite_scheduled': 0"
        )
        await asyncio.to_thread(server.kill)
        await asyncio.to_thread(server.restart)
        texts = await told(case, store, {**changing, **telling})
        await asyncio.to_thread(server.kill)
        await store.close()

    assert {("loading its data" in text) for text in texts.values()} == {True}


async def test_a_server_busy_with_a_script(case: Case) -> None:
    """While somebody's script runs too long everything is refused and nothing changed; once it is killed, all works."""
    with await asyncio.to_thread(ValkeyServer, durable=False, busy_reply_threshold="5") as server:
        store = case.build(server.url)
        changing, telling = await case.prepare(store)
        before = await dump(server.url)
        endless = asyncio.ensure_future(command(server.url, "EVAL", "while true do end", 0))
        await eventually_busy(server.url)
        texts = await told(case, store, {**changing, **telling})
        await command(server.url, "SCRIPT", "KILL")
        await asyncio.wait([endless])
        killed = endless.exception()
        after = await dump(server.url)
        for verb in (*changing.values(), *telling.values()):
            await verb(store)
        await store.close()

    assert killed is not None
    assert before == after
    assert {("busy with a script" in text) for text in texts.values()} == {True}


async def eventually_busy(url: str) -> None:
    """Wait until a server says that it is busy."""
    async with asyncio.timeout(BOUND_S):
        while True:
            try:
                await command(url, "PING")
            except Exception as error:  # noqa: BLE001 - whatever the driver makes of it
                if "BUSY" in str(error):
                    return
            await asyncio.sleep(0.005)


async def test_a_connection_that_is_cut_while_the_server_works(case: Case, valkey: ValkeyServer) -> None:
    """Reset or closed in order, before an answer: an error at once, and the next verb has a new connection."""
    async with FaultProxy(valkey.port) as proxy:
        store = case.build(f"redis://127.0.0.1:{proxy.port}/0")
        changing, telling = await case.prepare(store)
        for name, verb in {**changing, **telling}.items():
            for reset in (True, False):
                proxy.deaf = True
                heard = proxy.answers
                asked = asyncio.ensure_future(verb(store))
                while proxy.answers == heard:  # noqa: ASYNC110 - until the server has done it
                    await asyncio.sleep(0.001)
                proxy.deaf = False
                proxy.cut(reset=reset)
                # Not "did not answer within": the cut is noticed at once.
                with pytest.raises(case.unavailable, match=r"cannot be reached.*not known"):
                    await asked
                await verb(store)
                assert name
        await store.close()


async def test_a_lost_answer_repeated_has_one_effect(case: Case, valkey: ValkeyServer) -> None:
    """The verb took effect and nobody heard of it: the same verb again changes nothing more."""
    async with FaultProxy(valkey.port) as proxy:
        store = case.build(f"redis://127.0.0.1:{proxy.port}/0")
        changing, _ = await case.prepare(store)
        before = await dump(valkey.url)
        for name, verb in changing.items():
            proxy.lose_answers(1)
            with pytest.raises(case.unavailable, match="not known"):
                await verb(store)
            once = await dump(valkey.url)
            await verb(store)
            twice = await dump(valkey.url)

            assert once != before, f"{name} had no effect"
            assert once.keys() == twice.keys(), name
            assert name in case.renewing or once == twice, name
            before = twice
        await store.close()


async def test_a_failover(case: Case) -> None:
    """The old primary refuses as a replica; where its name leads to the new one, everything is there and goes on."""
    async with replicated() as (first, second), FaultProxy(first.port) as proxy:
        store = case.build(f"redis://127.0.0.1:{proxy.port}/0")
        changing, telling = await case.prepare(store)
        await command(first.url, "FAILOVER")
        await eventually(second.url, "INFO", "replication", says=b"'role': 'master'")
        await eventually(first.url, "INFO", "replication", says=b"'role': 'slave'")
        texts = await told(case, store, {**changing, **telling})
        proxy.target = second.port
        for verb in (*changing.values(), *telling.values()):
            await verb(store)
        await store.close()

    assert {("read-only replica" in text) for text in texts.values()} == {True}
