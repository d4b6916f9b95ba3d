"""The budget store on a real server keeps the contract, and what only a server can promise."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from typing import Any

import pytest
import redis

from app.credentials import fixed
from app.errors import StoreDamagedError
from app.money import MAX_MICROCENTS
from app.stores.budget import redis_book
from app.stores.budget.contract import KEEP_CLOSED, Granted, HoldState
from app.stores.budget.redis import RedisBudgetStore
from app.stores.budget.redis_audit import Audited, audited
from app.stores.budget.redis_rows import counters_of
from tests.support.clock import FakeClock
from tests.support.servers.valkey import ValkeyServer

from .contract import DAY, LEASE, BackDoor, BudgetContract, granted, spent_and_held, window

BOOK = "nova:{default}:budget:book"


class RedisBackDoor(BackDoor):
    """Asks the server with a client of its own."""

    def __init__(self, client: redis.Redis) -> None:
        self._client = client

    def dump(self) -> object:
        """Return every key with its value, without the time of the last change."""
        return {key: value for key in self._client.scan_iter() if (value := self._value(key))}

    def add_to_counter(self, scope: str, window_id: str, *, spent: int = 0, held: int = 0) -> None:
        """Change the numbers in the book."""
        numbers, latest, *rest = str(self._client.hget(BOOK, scope)).split("\n")
        amounts = [int(word) for word in numbers.split(" ")]
        at = ["total", latest[:7], latest].index(window_id)
        if at == 0:  # the others are what lies within it
            changes = [spent, held] * 3
        else:
            changes = [0] * 6
            changes[2 * at : 2 * at + 2] = [-spent, -held]
        changed = [amount + change for amount, change in zip(amounts, changes, strict=True)]
        self._client.hset(BOOK, scope, "\n".join([" ".join(map(str, changed)), latest, *rest]))

    def holds_kept(self) -> int:
        """Count the keys."""
        return sum(1 for _ in self._client.scan_iter(match="nova:*:hold:*"))

    def window_ids_kept(self, scope: str) -> set[str]:
        """Read the counters in the book and those behind it."""
        ended = [str(field).split("\n") for field in self._client.hkeys("nova:{default}:budget:ended")]
        in_book = counters_of(scope, str(self._client.hget(BOOK, scope)))
        return {of_window for of_scope, of_window in [*ended, *in_book] if of_scope == scope}

    def _value(self, key: str) -> object:
        kind = self._client.type(key)
        if kind == "hash":
            fields = self._client.hgetall(key).items()
            return {field: value for field, value in fields if field not in {"\nnow", "\nnext", "\nhour"}}
        if kind == "zset":
            return self._client.zrange(key, 0, -1, withscores=True)
        if kind == "list":
            return self._client.lrange(key, 0, -1)
        return self._client.get(key)


@pytest.fixture(scope="module")
def server() -> Iterator[ValkeyServer]:
    """Give a server for all tests of this module."""
    with ValkeyServer(durable=False) as server:
        yield server


@pytest.fixture
def client(server: ValkeyServer) -> Iterator[redis.Redis]:
    """Give a client, and an empty server."""
    with redis.Redis.from_url(server.url, decode_responses=True) as client:
        client.flushall()
        yield client


@pytest.fixture
async def store(server: ValkeyServer, client: redis.Redis, clock: FakeClock) -> AsyncIterator[RedisBudgetStore]:
    """Give a store on the empty server, by the test's clock."""
    store = RedisBudgetStore(fixed(server.url), clock=clock)
    yield store
    await store.close()


@pytest.fixture
def back_door(client: redis.Redis) -> RedisBackDoor:
    """Give the look into the server."""
    return RedisBackDoor(client)


@pytest.fixture
def clock() -> FakeClock:
    """Give a clock that stands at noon."""
    return FakeClock()


VERBS: dict[str, Callable[[RedisBudgetStore], Awaitable[object]]] = {
    "reserve": lambda store: store.reserve("new", 1, ["a", "b", "c", "d"], lease=LEASE),
    "reserve again": lambda store: store.reserve("held", 10, ["s"], lease=LEASE),
    "settle": lambda store: store.settle("held", 7, detail="bill"),
    "release": lambda store: store.release("held"),
    "expire": lambda store: store.expire("held"),
    "correct": lambda store: store.settle("expired", 3, correction=True),
    "set_limit": lambda store: store.set_limit("s", 100, window="hour"),
    "limits of a scope": lambda store: store.limits(scope="s"),
    "limits": lambda store: store.limits(),
    "usage": lambda store: store.usage("s"),
    "hold": lambda store: store.hold("held"),
    "holds": lambda store: store.holds(),
    "holds of a state": lambda store: store.holds(state=HoldState.HELD),
    "adjust": lambda store: store.adjust("a", "s", 1),
    "audit": lambda store: store.audit(),
    "cost": lambda store: store.get_workflow_cost("r"),
    "add cost": lambda store: store.add_workflow_cost("r", 1),
    "add cost below": lambda store: store.add_workflow_cost_if_below("r", 1, 2),
    "reset": lambda store: store.reset_workflow_cost("r"),
}


class TestRedisBudgetStore(BudgetContract):
    """The contract on a server, and more."""

    @pytest.mark.parametrize("verb", VERBS.values(), ids=VERBS)
    async def test_a_verb_is_one_round_trip(
        self, store: RedisBudgetStore, client: redis.Redis, verb: Callable[[RedisBudgetStore], Awaitable[object]]
    ) -> None:
        """The server is sent one command, and it is the script."""
        await granted(store, "held")
        await granted(store, "expired")
        await store.expire("expired")
        client.script_flush()
        await verb(store)  # makes the script known, or takes effect
        for key in client.scan_iter():
            client.delete(key)
        await granted(store, "held")
        await granted(store, "expired")
        await store.expire("expired")
        client.config_resetstat()

        await verb(store)

        sent: Any = client.info("commandstats")
        scripts = sum(sent[name]["calls"] for name in ("cmdstat_evalsha", "cmdstat_eval") if name in sent)
        others = [name for name in sent if name in {"cmdstat_multi", "cmdstat_script|load", "cmdstat_ping"}]
        assert scripts == 1
        assert others == []

    async def test_a_guarded_call_is_two_round_trips(self, store: RedisBudgetStore, client: redis.Redis) -> None:
        """Reserving and settling a hundred calls of four scopes is 200 scripts, whatever falls due meanwhile."""
        await granted(store, "first", 1, "a", "b", "c", "d")
        await store.settle("first", 1)
        client.config_resetstat()

        for number in range(100):
            await granted(store, f"h{number}", 5, "a", "b", "c", "d")
            await store.settle(f"h{number}", 3)

        sent: Any = client.info("commandstats")
        assert sent["cmdstat_evalsha"]["calls"] == 200
        assert await spent_and_held(store, "c") == (301, 0)

    async def test_every_key_of_a_tenant_lies_in_one_slot(self, store: RedisBudgetStore, client: redis.Redis) -> None:
        """What stands between the first braces is the tenant, even one whose own name has braces."""
        for tenant in ("default", "}", "a{b}c", "{}", "%7B"):
            await store.set_limit("s", 100, tenant_id=tenant)
            await store.reserve("h", 1, ["s", "{other}"], lease=LEASE, tenant_id=tenant)
            await store.adjust("a", "s", 1, tenant_id=tenant)
            await store.settle("h", 1, tenant_id=tenant)

        tags = {str(key).partition("{")[2].partition("}")[0] for key in client.scan_iter()}
        slots: dict[str, set[int]] = {}
        for key in client.scan_iter():
            slots.setdefault(str(key).partition("{")[2].partition("}")[0], set()).add(redis.crc.key_slot(key.encode()))
        assert tags == {"default", "%7D", "a%7Bb%7Dc", "%7B%7D", "%257B"}
        assert all(len(found) == 1 for found in slots.values())

    async def test_amounts_are_exact_to_the_last_microcent(self, store: RedisBudgetStore) -> None:
        """Beside 2**53, where a double has no digit to spare, nothing is rounded and nothing is granted too much."""
        limit = MAX_MICROCENTS
        await store.set_limit("s", limit)
        await granted(store, "most", limit - 2)
        await granted(store, "one", 1)

        answers = [await store.reserve(f"h{n}", n, ["s"], lease=LEASE) for n in (2, 1)]
        await store.settle("most", limit - 4)

        assert [isinstance(answer, Granted) for answer in answers] == [False, True]
        assert await spent_and_held(store) == (limit - 4, 2)
        assert (await store.hold("most")).charged == limit - 4
        assert (await store.audit()).clean

    async def test_the_server_keeps_the_time(self, server: ValkeyServer, client: redis.Redis) -> None:
        """Without a clock of a test, holds and windows are by the server's."""
        store = RedisBudgetStore(fixed(server.url))

        hold = await granted(store)
        seconds, microseconds = client.time()
        await store.close()

        assert abs(hold.created_at.timestamp() - (seconds + microseconds / 1e6)) < 60
        assert hold.windows[2][2] == f"{hold.created_at:%Y-%m-%d}"

    @pytest.mark.parametrize("verb", ["reserve", "settle"])
    @pytest.mark.parametrize(
        ("key", "field"),
        [("hold:h", ""), ("budget:book", "s")],
        ids=["hold", "scope"],
    )
    async def test_a_damaged_value_is_told(
        self, store: RedisBudgetStore, client: redis.Redis, key: str, field: str, verb: str
    ) -> None:
        """A value that cannot be read is an error; it is never charged by a guess, and nothing is changed."""
        await store.set_limit("s", 100)
        await granted(store)
        name = f"nova:{{default}}:{key}"
        if field:
            client.hset(name, field, "7 apples")
        else:
            client.set(name, "7 apples")
        before = RedisBackDoor(client).dump()

        if verb == "reserve":
            with pytest.raises(StoreDamagedError, match="damaged"):
                await store.reserve("h", 10, ["s"], lease=LEASE)
        elif field != "s":  # a bill is charged whatever the limit is
            with pytest.raises(StoreDamagedError, match="damaged"):
                await store.settle("h", 1)

        assert RedisBackDoor(client).dump() == before

    @pytest.mark.parametrize("lost", ["counters", "scope"])
    @pytest.mark.parametrize("bill", [4, 900])
    async def test_a_lost_counter_is_repaired_while_its_hold_is_settled(
        self, store: RedisBudgetStore, client: redis.Redis, monkeypatch: pytest.MonkeyPatch, bill: int, lost: str
    ) -> None:
        """A bill between the audit of a repair and its change counts once, also where the counter was gone."""
        await granted(store)
        if lost == "counters":
            await store.set_limit("s", None)
            client.hset(BOOK, "s", "0 0 0 0 0 0\n-\n1000 - - -\n-\n0 0 0 0 0 0 0 0 0")
        else:
            client.hdel(BOOK, "s")

        async def audited_before_the_bill(book: redis_book.RedisBook, tenant_id: str) -> Audited:
            found = await audited(book, tenant_id)
            await store.settle("h", bill)
            return found

        monkeypatch.setattr("app.stores.budget.redis.audited", audited_before_the_bill)
        repaired = await store.repair()

        assert {finding.window for finding in repaired.findings} == {"total", "month", "day"}
        assert isinstance(await store.reserve("next", 1, ["s"], lease=LEASE), Granted)
        await store.release("next")
        assert not client.exists("nova:{default}:budget:ended"), "what was not there was not opened with a part"
        assert await spent_and_held(store) == (bill, 0)
        assert (await store.audit()).clean

    async def test_an_idle_tenant_keeps_a_week_and_no_more_after_its_next_calls(
        self, store: RedisBudgetStore, back_door: RedisBackDoor, clock: FakeClock
    ) -> None:
        """A reserve clears away a bounded number: after a quiet week the first caller does not pay for all of it."""
        for number in range(20):
            await granted(store, f"h{number}", 1)
            await store.settle(f"h{number}", 1)
        clock.advance(KEEP_CLOSED)

        await granted(store, "first", 1)

        assert back_door.holds_kept() == 20 - redis_book.CLEARED + 1

    async def test_a_counter_that_was_removed_does_not_come_back(
        self, store: RedisBudgetStore, clock: FakeClock, back_door: RedisBackDoor
    ) -> None:
        """Holds that are folded long after their windows were removed leave no part of a counter there."""
        for number in range(3 * redis_book.CLEARED):
            await granted(store, f"h{number}", 2)
            await store.settle(f"h{number}", 1)
        clock.advance(KEEP_CLOSED * 10)

        for number in range(4):
            await granted(store, f"later {number}", 1, "other")

        assert back_door.window_ids_kept("s") == {"total"}
        assert await spent_and_held(store) == (3 * redis_book.CLEARED, 0)
        assert (await store.audit()).clean

    async def test_a_scope_that_rested_begins_a_new_day_though_others_have_begun_it(
        self, store: RedisBudgetStore, clock: FakeClock
    ) -> None:
        """Its counters in the book are yesterday's, the hour of the book is today's: what it spent then is not now."""
        await store.set_limit("s", 10, window="day")
        await granted(store, "yesterday", 10, "s")
        await store.settle("yesterday", 10)
        clock.advance(DAY)
        await granted(store, "other", 1, "busy")

        await granted(store, "today", 10, "s")
        await store.settle("today", 4)

        assert (await window(store, "s", "day")).spent == 4
        assert await spent_and_held(store, "s") == (14, 0)
        assert (await store.audit()).clean

    async def test_an_id_that_is_used_again_is_kept_as_long_as_any(
        self, store: RedisBudgetStore, clock: FakeClock
    ) -> None:
        """What is noted for the folding of the hold that had the id before does not fold the one that has it now."""
        for number in range(3 * redis_book.CLEARED):
            await granted(store, f"earlier {number}", 1, "other")
            await store.settle(f"earlier {number}", 1)
        await granted(store)
        await store.settle("h", 1)
        clock.advance(KEEP_CLOSED)
        await granted(store)
        await store.settle("h", 2)

        for number in range(4):
            await granted(store, f"later {number}", 1, "other")

        assert (await store.hold("h")).charged == 2
        assert await spent_and_held(store) == (3, 0)
        assert (await store.audit()).clean


class TestAuditInPortions:
    """An audit of much that is kept: no long script, and yet one moment."""

    @pytest.fixture(autouse=True)
    def small_portions(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Let a script read seven things."""
        monkeypatch.setattr(redis_book, "LOOKED_AT", 7)

    async def test_it_is_of_one_moment_while_calls_go_on(self, store: RedisBudgetStore, server: ValkeyServer) -> None:
        """However many holds are taken, settled and folded between its portions, no difference is found."""
        other, done = RedisBudgetStore(fixed(server.url)), asyncio.Event()
        for number in range(40):
            await granted(store, f"old {number}", 2, f"run:{number % 9}", "s")

        async def calls(name: str) -> None:
            number = 0
            while not done.is_set():
                number += 1
                await granted(other, f"{name} {number}", 3, f"run:{number % 9}", "s")
                await other.settle(f"{name} {number}", number % 5)
                if number % 3 == 0:
                    await other.add_workflow_cost("r", 1)
                    await other.adjust(f"{name} {number}", "s", 1)

        tasks = [asyncio.create_task(calls(name)) for name in ("a", "b")]
        reports = [await store.audit() for _ in range(10)]
        done.set()
        await asyncio.gather(*tasks)
        await other.close()

        assert [report.findings for report in reports] == [()] * 10
        assert reports[-1].holds_checked > reports[0].holds_checked >= 40

    async def test_it_finds_what_a_whole_audit_finds(
        self, store: RedisBudgetStore, back_door: RedisBackDoor, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """The same counters, holds and findings."""
        for number in range(30):
            await granted(store, f"h{number}", 2, f"run:{number % 9}", "s")
            await store.adjust(f"a{number}", "s", 1)
        back_door.add_to_counter("run:3", "total", spent=5)
        back_door.add_to_counter("s", "2026-11", held=-1)

        in_portions = await store.audit()
        monkeypatch.setattr(redis_book, "LOOKED_AT", 10_000)
        whole = await store.audit()

        assert in_portions == whole
        assert len(whole.findings) == 2

    async def test_a_journal_that_nobody_reads_ends(
        self, store: RedisBudgetStore, client: redis.Redis, clock: FakeClock
    ) -> None:
        """A minute after an audit nothing is noted any more, and what was is gone."""
        for number in range(30):
            await granted(store, f"h{number}", 2)
        await store.audit()
        await granted(store, "noted", 2)
        noted = client.exists("nova:{default}:budget:journal")

        clock.advance(LEASE * 2)
        await store.set_limit("s", 1_000)

        assert noted == 1
        assert client.exists("nova:{default}:budget:journal") == 0

    async def test_lists_are_whole_whatever_one_script_reads(self, store: RedisBudgetStore) -> None:
        """Holds, limits and scopes come in portions, each once, in order."""
        for number in range(30):
            await store.set_limit(f"run:{number:02d}", 100)
            await granted(store, f"h{number:02d}", 1, f"run:{number:02d}", "s")
        await store.settle("h07", 1)

        held = await store.holds(state=HoldState.HELD, limit=100)
        one = await store.holds(scope="run:29", limit=5)

        assert [hold.hold_id for hold in held] == [f"h{number:02d}" for number in range(30) if number != 7]
        assert [hold.hold_id for hold in one] == ["h29"]
        assert [limit.scope for limit in await store.limits()] == [f"run:{number:02d}" for number in range(30)]
        assert await store.scopes() == (*(f"run:{number:02d}" for number in range(30)), "s")
        assert (await window(store)).spent == 1


@pytest.mark.parametrize(
    "verb", ["reserve", "settle", "usage", "limits", "scopes", "holds", "set_limit", "audit", "stop"]
)
async def test_a_budget_of_an_older_layout_is_refused_untouched(
    store: RedisBudgetStore, client: redis.Redis, verb: str
) -> None:
    """Its limits and counters lay elsewhere: to begin again would be to forget them."""
    client.hset("nova:{default}:budget", mapping={"\nnow": "1795681267431", "tenant": "- 50000000000 - -"})
    verbs: dict[str, Callable[[], Awaitable[object]]] = {
        "reserve": lambda: store.reserve("new", 1, ["tenant"], lease=LEASE),
        "settle": lambda: store.settle("of before", 1),
        "usage": lambda: store.usage("tenant"),
        "limits": store.limits,
        "scopes": store.scopes,
        "holds": store.holds,
        "set_limit": lambda: store.set_limit("tenant", 1),
        "audit": store.audit,
        "stop": store.stop,
    }

    with pytest.raises(StoreDamagedError, match="older Nova"):
        await verbs[verb]()

    assert client.keys() == ["nova:{default}:budget"]
    assert isinstance(await store.reserve("new", 1, ["tenant"], lease=LEASE, tenant_id="other"), Granted)
