"""One seed of the campaign: three jobs that die, sleep and are lied to, readers and writers meanwhile, and the books.

The jobs run in one event loop and take turns at each of their steps. What is expected of every run is kept beside the
world, and compared at every read and at the end.
"""

from __future__ import annotations

import asyncio
import random
from dataclasses import dataclass, field
from typing import Any

from app.errors import (
    ArchiveUnavailableError,
    CheckpointCorruptError,
    OffloadBusyError,
    OffloadFencedError,
    StoreDamagedError,
)
from app.stores.archive import keys
from app.stores.archive.ledger import JOB_LEASE
from app.stores.checkpoint.codec import JsonValue
from app.stores.checkpoint.contract import RunState, RunStatus
from app.stores.offload.daily import run_daily

from .faults import Death, FaultyArchive, Mortal, Mortality
from .world import DAY, OLD, World, holder, same

JOBS = 3
ROUNDS = 3
RUNS = 12
MAX_STEPS = 120
_ATTEMPTS = 4
_STATUSES = (RunStatus.COMPLETED, RunStatus.FAILED, RunStatus.ABORTED, RunStatus.WAITING, RunStatus.RUNNING)


@dataclass
class Books:
    """What happened: the sum over seeds shows that the campaign met what it is about."""

    deaths: int = 0
    fenced: int = 0
    busy: int = 0
    failed: int = 0
    reads: int = 0
    archived_reads: int = 0
    refused_reads: int = 0
    copied: int = 0
    purged: int = 0
    rewritten: int = 0
    unread: int = 0
    places: set[str] = field(default_factory=set)

    def add(self, other: Books) -> None:
        """Sum up."""
        for name in vars(other):
            mine, theirs = getattr(self, name), getattr(other, name)
            setattr(self, name, mine | theirs if isinstance(mine, set) else mine + theirs)


class Campaign:
    """A world under attack."""

    def __init__(self, world: World, seed: int) -> None:
        self._world = world
        self._generator = random.Random(seed)
        self._faulty = FaultyArchive(world.objects, self._generator, rate=0.04)
        self._expected: dict[tuple[str, str], RunState] = {}
        self._deleted: set[tuple[str, str]] = set()
        self._moving: set[tuple[str, str]] = set()
        self._working = 0
        self.books = Books()

    async def play(self) -> Books:
        """Play all rounds and compare everything at the end."""
        for number in range(RUNS):
            await self._record(f"r{number}", self._generator.choice(("a", "b")))
        self._world.clock.advance(OLD)
        for _ in range(ROUNDS):
            await self._round()
            await self._faulty.deliver_late()
            self._world.clock.advance(DAY)
        await self._settle()
        await self._compare()
        return self.books

    # --- a round ------------------------------------------------------------------------------------------------------

    async def _round(self) -> None:
        self._working = JOBS
        async with asyncio.TaskGroup() as group:
            for number in range(JOBS):
                group.create_task(self._job(f"job {number}"))
            group.create_task(self._read_all_the_time(None))
            group.create_task(self._read_all_the_time(FaultyArchive(self._world.objects, self._generator, rate=0.3)))
            group.create_task(self._write())

    async def _job(self, name: str) -> None:
        """Try to do a day's work, a few times: a job that finds another at work looks again later."""
        try:
            await self._try_to_work(name)
        finally:
            self._working -= 1

    async def _try_to_work(self, name: str) -> None:
        for attempt in range(_ATTEMPTS):
            for _ in range(self._generator.randrange(40)):
                await asyncio.sleep(0)
            mortality = Mortality(
                dies_at=self._generator.randrange(MAX_STEPS) if self._generator.random() < 0.7 else None,
                sleeps_at=frozenset(self._generator.sample(range(MAX_STEPS), 1)),
                sleep=lambda: self._world.clock.advance(JOB_LEASE),
            )
            try:
                await self._work(f"{name} {attempt}", mortality)
                break
            except Death:
                self.books.deaths += 1
                self.books.places.add(mortality.died_at)
            except OffloadFencedError:
                self.books.fenced += 1
            except OffloadBusyError:
                self.books.busy += 1
                self._world.clock.advance(JOB_LEASE / 3)
            except (ArchiveUnavailableError, StoreDamagedError):
                self.books.failed += 1

    async def _work(self, name: str, mortality: Mortality) -> None:
        generator = self._generator
        ledger, archive = Mortal(self._world.ledger, mortality), Mortal(self._faulty, mortality)
        report = await run_daily(
            ledger,
            archive,
            idle=3 * DAY,
            retention=7 * DAY,
            target_bytes=generator.choice((1, 2_000, 10**6)),
            checked_segments=1,
            generator=generator,
            holder=holder(f"{name} {generator.random()}"),
        )
        self.books.copied += report.runs
        self.books.purged += report.purged_runs
        self.books.rewritten += report.rewritten
        self.books.unread += report.verify_failures
        assert report.corrupt_runs == ()

    async def _read_all_the_time(self, archive: FaultyArchive | None) -> None:
        """Load runs while jobs work: a reader gets the run as it was recorded; through a bad line perhaps an error."""
        store = self._world.make_store(archive)
        try:
            await self._read_with(store, archive)
        finally:
            await store.close()

    async def _read_with(self, store: Any, archive: FaultyArchive | None) -> None:
        while self._working:
            key = self._generator.choice(sorted(self._expected))
            before, was_moving = self._expected[key], key in self._moving
            try:
                found = await store.load(key[1], tenant_id=key[0])
            except (CheckpointCorruptError, ArchiveUnavailableError):
                assert archive is not None, f"a read of {key} failed over a good line"
                self.books.refused_reads += 1
                continue
            self.books.reads += 1
            if was_moving or key in self._moving or self._expected.get(key) is not before:
                continue  # somebody wrote to it while it was read: what it is now is compared in the end
            assert found is not None, f"{key} is lost"
            assert same(before, found), f"{key} reads otherwise than it was recorded"
            self.books.archived_reads += found.head.tier == "archived"
            await asyncio.sleep(0)

    async def _write(self) -> None:
        """Go on with a failed run, delete one, restore one, and record a new one, while jobs work."""
        store = self._world.store
        for key in self._generator.sample(sorted(self._expected), 3):
            for _ in range(self._generator.randrange(6)):
                await asyncio.sleep(0)
            self._moving.add(key)
            action = self._generator.choice(("go on", "delete", "restore"))
            if action == "delete":
                await store.delete(key[1], tenant_id=key[0])
                del self._expected[key]
                self._deleted.add(key)
            elif action == "restore":
                await store.restore(key[1], tenant_id=key[0])
            elif self._expected[key].head.status not in {RunStatus.COMPLETED, RunStatus.ABORTED}:
                await self._go_on(key)
            self._moving.discard(key)
        await self._record(f"new{self._generator.random()}", "a")

    async def _go_on(self, key: tuple[str, str]) -> None:
        tenant_id, run_id = key
        store = self._world.store
        claim = await store.claim(run_id, holder=holder("w"), reopen=True, tenant_id=tenant_id)
        count = claim.head.next_step_index
        await store.append(run_id, f"s/{count}", {"more": count}, token=claim.token, tenant_id=tenant_id)
        await store.finish(run_id, RunStatus.FAILED, error="again", token=claim.token, tenant_id=tenant_id)
        self._expected[key] = await self._world.state(run_id, tenant_id=tenant_id)

    async def _record(self, run_id: str, tenant_id: str) -> None:
        outputs: list[JsonValue] = [
            {"n": number, "text": "x" * number * 40} for number in range(self._generator.randrange(6))
        ]
        self._expected[tenant_id, run_id] = await self._world.run(
            run_id, outputs, status=self._generator.choice(_STATUSES), tenant_id=tenant_id
        )

    # --- the end ------------------------------------------------------------------------------------------------------

    async def _settle(self) -> None:
        """Let jobs run over a good line until there is nothing left to do."""
        await self._faulty.deliver_late()
        for _ in range(3):
            self._world.clock.advance(OLD)
            self._world.archive = self._world.objects
            report = await self._world.offload(holder=holder("last"))
            assert report.corrupt_runs == report.lost_runs == ()
        assert report.outcome == "done", report

    async def _compare(self) -> None:
        world = self._world
        for (tenant_id, run_id), before in self._expected.items():
            after = await world.state(run_id, tenant_id=tenant_id)
            assert same(before, after), f"{run_id} is not what was recorded"
            assert await world.store.verify(run_id, tenant_id=tenant_id) == len(before.steps)
            ended = before.head.status in {RunStatus.COMPLETED, RunStatus.FAILED, RunStatus.ABORTED}
            assert after.head.tier == ("archived" if ended else "hot")
        for tenant_id, run_id in self._deleted:
            assert await world.store.load(run_id, tenant_id=tenant_id) is None, f"{run_id} came back"
        rows = await world.ledger.segments(states=("live", "suspect"))
        there = {info.key async for info in world.objects.list(keys.SEGMENTS)}
        assert {row.object_key for row in rows} == there, "orphans, or segments without an object"
        assert sum(row.live_runs for row in rows) == len(self._expected), "a run without a copy, or with two"
        assert all(row.state == "live" for row in rows)
        assert await world.steps_in_database() == sum(
            len(state.steps) for state in self._expected.values() if not _ended(state)
        )


def _ended(state: RunState) -> bool:
    return state.head.status in {RunStatus.COMPLETED, RunStatus.FAILED, RunStatus.ABORTED}
