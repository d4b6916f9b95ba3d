"""The guarded call with its budget and its keys on Redis: round trips counted, many processes, one that stood still."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from redis import Redis

from app.credentials import fixed
from app.settings import Settings
from app.skills.adapters.stub_adapter import StubAdapter
from app.skills.guards import get_guarded_adapter
from app.skills.llm_invoke_v2 import CallContext, LLMConfig, LLMResponse
from app.stores.budget.contract import HoldState
from app.stores.budget.redis import RedisBudgetStore
from app.stores.idempotency.redis import RedisIdempotencyStore
from tests.support.servers.proxy import FaultProxy
from tests.support.servers.valkey import ValkeyServer
from tests.support.wire.process import WireProcess

from .ledger import all_holds, total

PROCESSES = 4
DUPLICATES = 50
LONG = [pytest.mark.soak, pytest.mark.timeout(3_600)]


async def test_a_guarded_call_is_four_round_trips(valkey: ValkeyServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """Begin, reserve, complete and settle; a replay is two: begin, and a look at the hold of the recorded call.

    The stop of all tenants is asked for beside that, once a second whatever is called: here, once.
    """
    monkeypatch.setattr("app.stores.budget.stop._FRESH_S", 3_600.0)
    async with FaultProxy(valkey.port) as proxy:
        source = fixed(f"redis://127.0.0.1:{proxy.port}/0")
        budget, keys = RedisBudgetStore(source), RedisIdempotencyStore(source)
        await budget.set_limit("run:7", 10**9)
        guard = get_guarded_adapter(StubAdapter(), settings=Settings(), budget_store=budget, idempotency_store=keys)

        async def trips(key: str) -> tuple[LLMResponse, int]:
            before = proxy.answers
            context = CallContext(idempotency_key=key, run_id="7")
            response = await guard.invoke("Hello.", LLMConfig(max_tokens=10), context=context)
            return response, proxy.answers - before

        for _ in range(2):
            await trips("makes the scripts known")
        first, made = await trips("k")
        second, replayed = await trips("k")
        await keys.close()
        await budget.close()

    assert (first.replayed, second.replayed) == (False, True)
    assert made == 4
    assert replayed == 2


class Caller:
    """The parent's end of a process that makes guarded calls."""

    def __init__(self, environment: dict[str, str]) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-m", "backend.tests.skills.guards.caller"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=os.environ | environment,
        )

    def send(self, key: str, count: int, **more: float) -> None:
        """Command some duplicates, and do not wait."""
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps({"key": key, "count": count, **more}) + "\n")
        self.process.stdin.flush()

    def answer(self) -> Any:
        """Wait for the answer to the oldest command that has none."""
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        assert line, "the caller ended"
        return json.loads(line)

    def end(self) -> None:
        """Kill the process, wait for its end, and close the pipes."""
        self.process.kill()
        self.process.wait()
        for pipe in (self.process.stdin, self.process.stdout):
            assert pipe is not None
            pipe.close()


@contextmanager
def callers(count: int, valkey: ValkeyServer, provider: WireProcess) -> Iterator[list[Caller]]:
    """Start processes that find everything by their environment, and end them afterwards."""
    environment = {
        "REDIS_URL": valkey.url,
        "LLM_ADAPTER": "openai",
        "OPENAI_BASE_URL": provider.openai_url,
        "OPENAI_DEFAULT_MODEL": "gpt-4o-mini",
    }
    started: list[Caller] = []
    try:
        started.extend(Caller(environment) for _ in range(count))
        assert [caller.answer() for caller in started] == ["ready"] * count
        yield started
    finally:
        for caller in started:
            caller.end()


def books(valkey: ValkeyServer) -> tuple[int, list[HoldState]]:
    """Return what the run has spent, and the states of its holds."""

    async def read() -> tuple[int, list[HoldState]]:
        store = RedisBudgetStore(fixed(valkey.url))
        spent = (await total(store, "run:7")).spent
        holds = [hold.state for hold in await all_holds(store)]
        assert (await store.audit()).clean
        await store.close()
        return spent, holds

    return asyncio.run(read())


@pytest.mark.parametrize("rounds", [2, pytest.param(300, marks=LONG)])
def test_fifty_duplicates_in_four_processes_are_one_call(valkey: ValkeyServer, rounds: int) -> None:
    """One provider call, one charge, 49 equal results, whichever process was first."""
    with WireProcess(delay_s=0.2) as provider, callers(PROCESSES, valkey, provider) as crowd:
        for number in range(rounds):
            for position, caller in enumerate(crowd):
                caller.send(f"key {number}", DUPLICATES // PROCESSES + (position < DUPLICATES % PROCESSES))
            answers = [answer for caller in crowd for answer in caller.answer()]

            assert len(answers) == DUPLICATES
            assert {(text, cost) for text, _, cost in answers} == {(answers[0][0], answers[0][2])}
            assert sorted(replayed for _, replayed, _ in answers) == [False] + [True] * (DUPLICATES - 1)
            assert provider.calls == number + 1
        cost = answers[0][2]

    assert cost > 0
    assert books(valkey) == (rounds * cost, [HoldState.SETTLED] * rounds)


@pytest.mark.parametrize("rounds", [1, pytest.param(100, marks=LONG)])
def test_a_caller_that_stood_still_past_its_lease_changes_nothing(valkey: ValkeyServer, rounds: int) -> None:
    """Stopped while the provider worked, it wakes to a key that another process took over and completed: it is told so,
    and the record stays as it is. Both calls were made, and both are charged.
    """
    with WireProcess(delay_s=0.5) as provider, callers(2, valkey, provider) as (sleeper, other):
        for number in range(rounds):
            key = f"key {number}"
            sleeper.send(key, 1, lease_s=0.3)
            while provider.calls == 2 * number:
                pass
            os.kill(sleeper.process.pid, signal.SIGSTOP)
            other.send(key, 1)
            taken_over = other.answer()
            before = record(valkey, key)
            os.kill(sleeper.process.pid, signal.SIGCONT)
            awake = sleeper.answer()
            after = record(valkey, key)
            other.send(key, 1)
            replayed = other.answer()

            assert taken_over[0][1] is False
            assert awake == [["IdempotencyLeaseLostError"]]
            assert before == after
            assert before[b"state"] == b"completed"
            assert replayed == [[taken_over[0][0], True, taken_over[0][2]]]
            assert provider.calls == 2 * (number + 1)
        cost = taken_over[0][2]
    spent, holds = books(valkey)

    assert len(holds) == 2 * rounds
    assert set(holds) <= {HoldState.SETTLED, HoldState.EXPIRED}
    assert spent >= 2 * rounds * cost


def record(valkey: ValkeyServer, key: str) -> dict[bytes, bytes]:
    """Return what the server has of a key."""
    with Redis.from_url(valkey.url) as server:
        fields: dict[bytes, bytes] = server.hgetall(f"nova:{{default}}:idempotency:key:{key}")
    return fields
