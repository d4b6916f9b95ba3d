"""Verbs that share a script on a real server: each as if it were alone, whatever becomes of the others.

That any of them in any order answer as they would one after another is for the state machine to show.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from datetime import timedelta
from typing import Any

import pytest
import redis

from app.credentials import fixed
from app.errors import BudgetStoreUnavailableError, StoreDamagedError, UnknownHoldError
from app.stores.budget import redis_book
from app.stores.budget.contract import Granted, Hold, HoldState, Refused
from app.stores.budget.redis import RedisBudgetStore
from app.stores.redis import batches
from tests.support.clock import FakeClock
from tests.support.servers.proxy import FaultProxy
from tests.support.servers.valkey import ValkeyServer

from .contract import LEASE, granted, spent_and_held

BOOK = "nova:{default}:budget:book"


@pytest.fixture(scope="module")
def server() -> Iterator[ValkeyServer]:
    """Give a server for all tests of this module."""
    with ValkeyServer(durable=False) as server:
        yield server


@pytest.fixture
def client(server: ValkeyServer) -> Iterator[redis.Redis]:
    """Give a client, and an empty server."""
    with redis.Redis.from_url(server.url, decode_responses=True) as client:
        client.config_set("maxmemory", 0)
        client.flushall()
        yield client


@pytest.fixture
def clock() -> FakeClock:
    """Give a clock that stands at noon."""
    return FakeClock()


@pytest.fixture
async def store(server: ValkeyServer, client: redis.Redis, clock: FakeClock) -> AsyncIterator[RedisBudgetStore]:
    """Give a store on the empty server, by the test's clock."""
    store = RedisBudgetStore(fixed(server.url), clock=clock)
    yield store
    await store.close()


@pytest.fixture
def in_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let nothing go ahead of the others on a connection of its own."""
    monkeypatch.setattr(batches, "_AT_ONCE", 0)


async def reserve_all(store: RedisBudgetStore, count: int, *, amount: int = 1, scope: str = "s") -> list[Any]:
    """Reserve at one time; return the answers, or errors."""
    return await asyncio.gather(
        *(store.reserve(f"h{n}", amount, [scope], lease=LEASE) for n in range(count)), return_exceptions=True
    )


def scripts_run(client: redis.Redis) -> int:
    """Return how many scripts the server ran since its statistics were reset."""
    stats: Any = client.info("commandstats")
    return sum(stats[name]["calls"] for name in ("cmdstat_evalsha", "cmdstat_eval") if name in stats)


async def test_sixty_four_tasks_are_four_scripts(store: RedisBudgetStore, client: redis.Redis) -> None:
    """Two by themselves and the others in two, and the same again for their bills."""
    await granted(store, "first", 1, "s")
    client.config_resetstat()

    answers = await reserve_all(store, 64)
    reserved = scripts_run(client)
    await asyncio.gather(*(store.settle(f"h{n}", 1) for n in range(64)))

    assert all(isinstance(answer, Granted) for answer in answers)
    assert reserved == 4
    assert scripts_run(client) == 8
    assert await spent_and_held(store, "s") == (64, 1)


async def test_what_all_change_is_written_once(store: RedisBudgetStore, client: redis.Redis, in_one: None) -> None:
    """Thirty-two holds in four scopes are one command for the book and one for the holds, read by one."""
    await granted(store, "first", 1, "a", "b", "c", "d")
    client.config_resetstat()

    await asyncio.gather(*(store.reserve(f"h{n}", 1, ["a", "b", "c", "d"], lease=LEASE) for n in range(32)))

    stats: Any = client.info("commandstats")
    counted = {name.removeprefix("cmdstat_"): value["calls"] for name, value in stats.items()}
    counted.pop("config|resetstat", None)
    assert counted == {"evalsha": 1, "hmget": 1, "get": 32, "hset": 1, "mset": 1, "zadd": 2}
    assert await spent_and_held(store, "c") == (0, 33)


async def test_a_ceiling_is_kept_to_the_last_microcent(store: RedisBudgetStore) -> None:
    """Of two hundred that ask at one time as many are granted as there is room for, and each sees those before it."""
    await store.set_limit("s", 100)

    answers = await reserve_all(store, 200, amount=3)

    granted_ = [answer for answer in answers if isinstance(answer, Granted)]
    assert len(granted_) == 33
    assert sorted(answer.windows[0].held for answer in granted_) == [3 * n for n in range(1, 34)]
    assert all(isinstance(answer, Granted | Refused) for answer in answers)
    assert await spent_and_held(store, "s") == (0, 99)
    assert (await store.audit()).clean


async def test_one_that_is_damaged_is_an_error_of_its_own(
    store: RedisBudgetStore, client: redis.Redis, in_one: None
) -> None:
    """Keys that hold something else, a hold and a scope that cannot be read: the others are done."""
    for n in range(9):
        await granted(store, f"h{n}", 10, "s")
    client.delete("nova:{default}:hold:h2")
    client.rpush("nova:{default}:hold:h2", "x")
    client.set("nova:{default}:hold:h4", "7 apples")
    client.hset(BOOK, "bad", "7 apples")

    answers = await asyncio.gather(
        *(store.settle(f"h{n}", 4) for n in range(6)),
        store.reserve("h6", 10, ["s"], lease=LEASE),
        store.reserve("of a damaged scope", 1, ["bad"], lease=LEASE),
        store.settle("nobody's", 1),
        store.release("h8"),
        return_exceptions=True,
    )

    kinds = [type(answer) for answer in answers]
    assert kinds == [
        Hold,
        Hold,
        StoreDamagedError,
        Hold,
        StoreDamagedError,
        Hold,
        Granted,
        StoreDamagedError,
        UnknownHoldError,
        Hold,
    ]
    assert "holds something else" in str(answers[2])
    assert await spent_and_held(store, "s") == (16, 40)
    assert client.lrange("nova:{default}:hold:h2", 0, -1) == ["x"]


async def test_a_verb_that_fails_half_way_writes_nothing(
    store: RedisBudgetStore, client: redis.Redis, clock: FakeClock, in_one: None
) -> None:
    """Where the windows of yesterday belong is something else: of its own nothing stands, of the others all does."""
    await granted(store, "h", 10, "s")
    clock.advance(timedelta(days=1) - LEASE / 2)
    await store.settle("h", 10)
    client.set("nova:{default}:budget:ended", "x")

    answers = await asyncio.gather(
        store.reserve("before", 1, ["fresh"], lease=LEASE),
        store.reserve("failing", 1, ["s"], lease=LEASE),
        store.reserve("behind", 1, ["fresh"], lease=LEASE),
        return_exceptions=True,
    )

    assert [type(answer) for answer in answers] == [Granted, StoreDamagedError, Granted]
    client.delete("nova:{default}:budget:ended")
    assert await spent_and_held(store, "fresh") == (0, 2)
    assert await spent_and_held(store, "s") == (10, 0)
    assert [hold.hold_id for hold in await store.holds(state=HoldState.HELD)] == ["before", "behind"]
    assert (await store.audit()).clean


async def test_the_same_id_twice_is_one_hold(store: RedisBudgetStore, in_one: None) -> None:
    """A repeat in the same script sees the hold of the first; other ids go on."""
    await store.set_limit("s", 100)
    await granted(store, "first", 10, "s")

    answers = await asyncio.gather(
        *(store.reserve(hold_id, 30, ["s"], lease=LEASE) for hold_id in ("a", "a", "b", "a", "c", "d", "b"))
    )

    assert [isinstance(answer, Granted) for answer in answers] == [True] * 5 + [False, True]
    assert [answer.windows[0].held for answer in answers if isinstance(answer, Granted)] == [40, 40, 70, 70, 100, 100]
    assert await spent_and_held(store, "s") == (0, 100)
    assert len(await store.holds()) == 4


async def test_a_bill_and_a_repeat_of_it_count_once(store: RedisBudgetStore, in_one: None) -> None:
    """Two tasks bring the same bill, a third gives the hold back too late."""
    await granted(store, "h", 10, "s")

    settled, again, late = await asyncio.gather(
        store.settle("h", 4), store.settle("h", 4), store.release("h"), return_exceptions=True
    )

    assert settled == again
    assert isinstance(late, Exception)
    assert await spent_and_held(store, "s") == (4, 0)


async def test_what_is_not_simple_sees_those_before_it(store: RedisBudgetStore, in_one: None) -> None:
    """A scope that is counted per hour, an uncertain charge and one beyond its hold, between simple ones."""
    await store.set_limit("hourly", 50, window="hour")
    for n in range(3):
        await granted(store, f"of before {n}", 10, "hourly", "s")

    answers = await asyncio.gather(
        store.reserve("1", 10, ["s"], lease=LEASE),
        store.expire("of before 0"),
        store.reserve("2", 10, ["hourly", "s"], lease=LEASE),
        store.settle("of before 1", 25),
        store.reserve("3", 10, ["hourly", "s"], lease=LEASE),
        store.reserve("4", 10, ["s"], lease=LEASE),
        store.release("of before 2"),
    )

    assert isinstance(answers[2], Granted)
    assert isinstance(answers[4], Refused)
    assert answers[4].blocking[0].spent == 35
    assert answers[4].blocking[0].held == 20
    assert await spent_and_held(store, "s") == (35, 30)
    assert (await store.audit()).clean


async def test_a_late_bill_sees_the_bill_before_it(
    store: RedisBudgetStore, client: redis.Redis, clock: FakeClock, in_one: None
) -> None:
    """A lease that has ended is written down behind what the verbs before have put, and over nothing of it."""
    await granted(store, "long", 10, "s", lease=10 * LEASE)
    await granted(store, "short", 10, "s")
    clock.advance(LEASE + timedelta(seconds=1))
    client.config_resetstat()

    in_time, late = await asyncio.gather(store.settle("long", 4), store.settle("short", 7))

    assert [in_time.charged, late.charged] == [4, 7]
    assert scripts_run(client) == 1
    assert await spent_and_held(store, "s") == (11, 0)
    assert (await store.audit()).clean


async def test_many_ended_leases_are_written_down_by_all_together_in_portions(
    store: RedisBudgetStore, client: redis.Redis, clock: FakeClock, in_one: None
) -> None:
    """One script writes down no more than it would for one verb, and everybody asks again."""
    for n in range(200):
        await granted(store, f"old {n}", 1, "s")
    clock.advance(LEASE + timedelta(seconds=1))
    client.config_resetstat()

    answers = await reserve_all(store, 10)

    assert all(isinstance(answer, Granted) for answer in answers)
    assert scripts_run(client) == 4  # 8 leases, 64, 64, and then the last 64 and the verbs
    assert await spent_and_held(store, "s") == (200, 10)
    assert (await store.audit()).clean


async def test_a_batch_clears_away_a_bounded_number_and_more_than_it_adds(
    store: RedisBudgetStore, client: redis.Redis, clock: FakeClock, in_one: None
) -> None:
    """What was closed a week ago goes: a few more than there are verbs, however many are due."""
    for n in range(60):
        await granted(store, f"old {n}", 1, "s")
        await store.settle(f"old {n}", 1)
    clock.advance(timedelta(days=7))

    await reserve_all(store, 10)

    kept = sum(1 for _ in client.scan_iter(match="nova:*:hold:*"))
    assert kept == 60 + 10 - (redis_book.CLEARED + 9)


async def test_a_stop_refuses_all(store: RedisBudgetStore, in_one: None) -> None:
    """Nobody slips through in company, and bills still come in."""
    await granted(store, "h", 10, "s")
    await store.stop(reason="drill")

    stopped, settled = await asyncio.gather(store.reserve("new", 1, ["s"], lease=LEASE), store.settle("h", 4))

    assert not isinstance(stopped, Granted)
    assert settled.charged == 4


async def test_a_server_out_of_memory_takes_nothing(store: RedisBudgetStore, client: redis.Redis, in_one: None) -> None:
    """Also behind verbs of the same script that need none: a refusal, and a conflict."""
    await store.set_limit("s", 10)
    await granted(store, "h", 10, "s")
    await granted(store, "settled", 10, "other")
    await store.settle("settled", 10)
    client.config_set("maxmemory", 1)

    answers = await asyncio.gather(
        store.reserve("refused", 1, ["s"], lease=LEASE),
        store.settle("settled", 10),
        store.reserve("new", 1, ["other"], lease=LEASE),
        store.settle("h", 4),
        return_exceptions=True,
    )
    client.config_set("maxmemory", 0)

    assert isinstance(answers[2], BudgetStoreUnavailableError)
    assert isinstance(answers[3], BudgetStoreUnavailableError)
    assert "out of memory" in str(answers[2])
    assert await spent_and_held(store, "s") == (0, 10)
    assert await spent_and_held(store, "other") == (10, 0)


async def test_an_audit_of_one_moment_goes_on_beside_batches(store: RedisBudgetStore, in_one: None) -> None:
    """The journal has what they change."""
    done = asyncio.Event()

    async def calls() -> None:
        number = 0
        while not done.is_set():
            number += 1
            ids = [f"{number} {n}" for n in range(20)]
            await asyncio.gather(
                *(store.reserve(hold_id, 3, ["s", f"run:{number % 5}"], lease=LEASE) for hold_id in ids)
            )
            await asyncio.gather(*(store.settle(hold_id, len(hold_id) % 4) for hold_id in ids))

    task = asyncio.create_task(calls())
    reports = [await store.audit() for _ in range(20)]
    done.set()
    await task

    assert [report.findings for report in reports] == [()] * 20
    assert (await store.audit()).holds_checked >= 40


async def test_tenants_and_notes_of_any_form_come_back_as_they_were(store: RedisBudgetStore, in_one: None) -> None:
    """Answers lie side by side by their length in bytes: line feeds and letters of several bytes move none of them."""
    notes = ["line\nfeed", "Überstunden für Zoë", "7 8\nhold 9", "", "🙂"]
    for n in range(5):
        await store.reserve(f"ü{n}", 10, ["s", "straße"], lease=LEASE, tenant_id="{é}")

    settled = await asyncio.gather(
        *(store.settle(f"ü{n}", n, detail=note, tenant_id="{é}") for n, note in enumerate(notes))
    )
    known = await asyncio.gather(*(store.settle(f"ü{n}", n, tenant_id="{é}") for n in range(5)))

    assert [hold.detail for hold in settled] == notes
    assert known == settled


async def test_a_replica_tells_nothing_to_many_either(
    store: RedisBudgetStore, server: ValkeyServer, client: redis.Redis, in_one: None
) -> None:
    """What it has may be out of date: verbs that change nothing are refused there too."""
    await store.set_limit("s", 10)
    await granted(store, "h", 10, "s")
    client.execute_command("REPLICAOF", "127.0.0.1", "1")

    answers = await reserve_all(store, 6)
    client.execute_command("REPLICAOF", "NO", "ONE")

    assert [type(answer) for answer in answers] == [BudgetStoreUnavailableError] * 6
    assert {"read-only replica" in str(answer) for answer in answers} == {True}


async def test_behind_a_server_that_hangs_each_waits_its_own_time(server: ValkeyServer, client: redis.Redis) -> None:
    """More than are under way at once, asked one after another: none is ended long before, or long after, its time."""
    loop = asyncio.get_running_loop()

    async def waited(store: RedisBudgetStore, hold_id: str) -> float:
        began = loop.time()
        with pytest.raises(BudgetStoreUnavailableError):
            await store.reserve(hold_id, 1, ["s"], lease=LEASE)
        return loop.time() - began

    async with FaultProxy(server.port) as proxy:
        store = RedisBudgetStore(fixed(f"redis://127.0.0.1:{proxy.port}/0"), timeout_s=1)
        await granted(store, "h", 1, "s")
        proxy.silent = True
        tasks = []
        for n in range(40):
            tasks.append(asyncio.create_task(waited(store, f"h{n}")))
            await asyncio.sleep(0.02)
        times_s = await asyncio.gather(*tasks)
        await store.close()

    assert min(times_s) > 0.85
    assert max(times_s) < 5


async def test_a_user_that_was_made_before_mset_was_needed_does_the_same(
    store: RedisBudgetStore, server: ValkeyServer, client: redis.Redis, in_one: None
) -> None:
    """A command that the server refuses behind the first write must not leave counters without their holds."""
    client.execute_command("ACL", "SETUSER", "older", "reset", "on", ">pw", "~nova:*", "+@all", "-mset")
    older = RedisBudgetStore(fixed(server.url.replace("//", "//older:pw@")))
    await granted(older, "alone", 10, "s")

    answers = await reserve_all(older, 3, amount=10)
    await asyncio.gather(older.settle("h0", 4), older.release("h1"))
    await older.close()

    assert all(isinstance(answer, Granted) for answer in answers)
    assert await spent_and_held(store, "s") == (4, 20)
    assert (await store.audit()).clean
