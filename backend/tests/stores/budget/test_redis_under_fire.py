"""Many processes on one server while processes are killed, the server is killed, and connections are cut."""

from __future__ import annotations

import asyncio
import json
import os
import random
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import pytest

from app.credentials import fixed
from app.stores.budget.contract import Granted, HoldState
from app.stores.budget.redis import RedisBudgetStore
from app.stores.clock import system_clock
from tests.support.servers.proxy import FaultProxy
from tests.support.servers.valkey import ValkeyServer

from .fire_worker import LEASE, MOST, SCOPES

BACKEND: Final = Path(__file__).parents[3]


@dataclass
class Campaign:
    """What is run, and what the processes said; every line is complete, however its process ended."""

    processes: int
    tasks: int
    calls: int
    faults: int
    limit: int
    lines: list[dict[str, Any]] = field(default_factory=list)
    heard: asyncio.Event = field(default_factory=asyncio.Event)

    def hear(self, line: bytes) -> None:
        """Keep a line; the last one of a killed process may be cut."""
        if line.endswith(b"\n"):
            self.lines.append(json.loads(line))
            self.heard.set()

    async def has_said(self, count: int, *, or_end_of: list[asyncio.Task[None]]) -> None:
        """Wait until so many lines were said, or all processes have ended."""
        ended = asyncio.gather(*or_end_of)
        while len(self.lines) < count and not ended.done():
            self.heard.clear()
            said = asyncio.ensure_future(self.heard.wait())
            await asyncio.wait((said, ended), return_when=asyncio.FIRST_COMPLETED)
            said.cancel()

    def of(self, kind: str) -> Iterator[dict[str, Any]]:
        """Yield the lines of a kind."""
        return (line for line in self.lines if line["kind"] == kind)


async def run_worker(campaign: Campaign, url: str, name: str, running: dict[str, asyncio.subprocess.Process]) -> None:
    """Let a process work until it ends, and keep what it says; one that is killed is followed by another."""
    code = -9
    while code:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "tests.stores.budget.fire_worker"),
            *(url, name, str(campaign.tasks), str(campaign.calls)),
            env={**os.environ, "PYTHONPATH": str(BACKEND)},
            stdout=asyncio.subprocess.PIPE,
            limit=1 << 20,
        )
        running[name] = process
        assert process.stdout is not None
        while line := await process.stdout.readline():
            campaign.hear(line)
        code = await process.wait()
        del running[name]
        assert code in {0, -9}, f"{name} ended with {code}"
        name += "+"


async def set_fire(
    campaign: Campaign,
    server: ValkeyServer,
    proxy: FaultProxy,
    *,
    running: dict[str, asyncio.subprocess.Process],
    workers: list[asyncio.Task[None]],
    chance: random.Random,
) -> dict[str, int]:
    """Do one harm after another, each after as much progress, and return how often each was done."""
    done = dict.fromkeys(("worker", "server", "cut", "lost answer"), 0)
    expected = campaign.processes * campaign.tasks * campaign.calls
    for number in range(campaign.faults):
        await campaign.has_said(expected * (number + 1) // (campaign.faults + 1), or_end_of=workers)
        if not running:
            break
        harm = list(done)[number % len(done)]
        done[harm] += 1
        if harm == "worker":
            running[chance.choice(list(running))].kill()
        elif harm == "server":
            await asyncio.to_thread(server.kill)
            await asyncio.to_thread(server.start)
        elif harm == "cut":
            proxy.cut()
        else:
            proxy.lose_answers(3)
    return done


async def fight(campaign: Campaign, seed: int) -> None:
    """Run a campaign, and check everything that was granted, and what is left."""
    chance = random.Random(seed)
    with ValkeyServer() as server:
        async with FaultProxy(server.port) as proxy:
            store = RedisBudgetStore(fixed(server.url))
            for number, scope in enumerate(SCOPES):
                await store.set_limit(scope, campaign.limit, window=("total", "day", "month", "hour")[number % 4])
            running: dict[str, asyncio.subprocess.Process] = {}
            url = f"redis://127.0.0.1:{proxy.port}/0"
            workers = [
                asyncio.create_task(run_worker(campaign, url, f"w{number}", running))
                for number in range(campaign.processes)
            ]
            harms = await set_fire(campaign, server, proxy, running=running, workers=workers, chance=chance)
            await asyncio.gather(*workers)
        assert all(harms.values()), harms
        await check_what_was_granted(campaign, store)
        await store.close()
        await check_what_is_left(campaign, server)


async def check_what_was_granted(campaign: Campaign, store: RedisBudgetStore) -> None:
    """No grant is above a limit in any window, and the server has every grant and every bill that it acknowledged."""
    grants = list(campaign.of("granted"))
    above = [
        (grant["hold"], counter)
        for grant in grants
        # The repeat of a hold that was taken before shows counters of a later moment.
        if grant["tries"] == 0
        for counter in grant["counters"]
        if counter[4] is not None and counter[2] + counter[3] > counter[4]
    ]
    assert above == []
    # A cut fails all that is under way, so most of a process's tasks ask again; enough must have been granted at once.
    assert sum(grant["tries"] == 0 for grant in grants) > len(grants) / 5
    for grant in grants:
        assert (await store.hold(grant["hold"])).amount == grant["amount"]
    for bill in campaign.of("settled"):
        hold = await store.hold(bill["hold"])
        assert (hold.state, hold.charged) == (HoldState.SETTLED, bill["bill"])
    assert (await store.audit()).clean


async def check_what_is_left(campaign: Campaign, server: ValkeyServer) -> None:
    """After the leases nothing is held, every counter is the sum of its entries, and what was open is uncertain."""
    later_ms = system_clock() + int(LEASE.total_seconds() * 1000) + 60_000
    store = RedisBudgetStore(fixed(server.url), clock=lambda: later_ms)
    for scope in SCOPES:
        for window in await store.usage(scope):
            assert window.held == 0
            assert window.spent >= window.uncertain >= 0
            if window.limit is not None and window.window == "total":
                # Only bills above their holds, of calls that were under way at once, can pass it.
                assert window.spent <= window.limit + window.overage
    assert await store.holds(state=HoldState.HELD) == ()
    assert (await store.audit()).clean
    answer = await store.reserve("afterwards", MOST, ["a new scope"], lease=LEASE)
    assert isinstance(answer, Granted)
    await store.close()


@pytest.mark.timeout(120)
async def test_no_grant_is_above_a_limit_whoever_dies() -> None:
    """Two processes of 20 tasks while each harm is done twice: grants, bills and counters are right."""
    await fight(Campaign(processes=2, tasks=20, calls=12, faults=8, limit=12_000), seed=20261124)


@pytest.mark.soak
@pytest.mark.timeout(3_600)
async def test_no_grant_is_above_a_limit_for_long() -> None:
    """Eight processes of 250 tasks on 40 overlapping scopes while each harm is done fifteen times."""
    campaign = Campaign(processes=8, tasks=250, calls=8, faults=60, limit=150_000)
    await fight(campaign, seed=7)
    sys.stderr.write(
        f"{len(list(campaign.of('granted')))} grants, {len(list(campaign.of('refused')))} refusals,"
        f" {sum(grant['tries'] > 0 for grant in campaign.of('granted'))} of the grants asked for again\n"
    )
