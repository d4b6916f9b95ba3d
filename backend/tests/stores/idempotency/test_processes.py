"""One key and several processes: exactly one owns it, whatever happens to them."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any

import pytest

from .contract import BackDoor, FakeClock
from .puppet import Puppet, puppets
from .redis_back_door import RedisBackDoor
from .test_sqlite import SqliteBackDoor

LEASE_MS = 30_000


def back_door_to(place: str) -> BackDoor:
    """Return the look at what is kept there."""
    return RedisBackDoor(place) if place.startswith("redis://") else SqliteBackDoor(Path(place))


def begin_all(crowd: list[Puppet], now_ms: int) -> list[list[Any]]:
    """Let every process ask for the key at once; return the answers, sorted."""
    for puppet in crowd:
        puppet.send("begin", now_ms=now_ms, lease_ms=LEASE_MS)
    return sorted(puppet.answer() for puppet in crowd)


def test_one_process_starts_in_each_lease_period(place: str) -> None:
    """Eight processes ask for one key at once, for ten lease periods: each period has one owner, the rest wait."""
    clock = FakeClock()

    with puppets(8, place) as crowd:
        periods = []
        for _ in range(10):
            periods.append(begin_all(crowd, clock.now_ms))
            clock.now_ms += LEASE_MS

    for number, answers in enumerate(periods, start=1):
        assert answers[:7] == [["in progress", LEASE_MS]] * 7
        assert answers[7][0] == "started"
        assert answers[7][2] == number
    tokens = [answers[7][1] for answers in periods]
    assert tokens == sorted(set(tokens))


def test_every_process_replays_the_one_result(place: str) -> None:
    """Once the owner has completed, eight processes that ask at once all get its result."""
    clock = FakeClock()

    with puppets(8, place) as crowd:
        _, token, _ = crowd[0].ask("begin", now_ms=clock.now_ms, lease_ms=LEASE_MS)
        done = crowd[0].ask("complete", now_ms=clock.now_ms, token=token, result="the result")
        answers = begin_all(crowd, clock.now_ms)

    assert done == ["done"]
    assert answers == [["completed", "the result"]] * 8


@pytest.mark.parametrize("verb", ["complete", "abandon", "heartbeat"])
def test_a_holder_that_slept_past_its_lease_changes_nothing(place: str, verb: str) -> None:
    """Stopped past its lease, which another process took over, a process that wakes is refused in every verb."""
    clock = FakeClock()
    back_door = back_door_to(place)

    with puppets(2, place) as (sleeper, other):
        _, token, _ = sleeper.ask("begin", now_ms=clock.now_ms, lease_ms=LEASE_MS)
        os.kill(sleeper.process.pid, signal.SIGSTOP)
        early = other.ask("begin", now_ms=clock.now_ms + LEASE_MS - 1, lease_ms=LEASE_MS)
        _, newer, attempt = other.ask("begin", now_ms=clock.now_ms + LEASE_MS, lease_ms=LEASE_MS)
        before = back_door.rows()

        sleeper.send(verb, now_ms=clock.now_ms + LEASE_MS, token=token, result="of the sleeper")
        os.kill(sleeper.process.pid, signal.SIGCONT)
        awake = sleeper.answer()
        after = back_door.rows()
        done = other.ask("complete", now_ms=clock.now_ms + LEASE_MS, token=newer, result="of the other")
        replayed = sleeper.ask("begin", now_ms=clock.now_ms + LEASE_MS, lease_ms=LEASE_MS)

    assert early == ["in progress", 1], "a stopped process is not gone"
    assert attempt == 2
    assert awake == ["error", "IdempotencyLeaseLostError"]
    assert after == before
    assert (done, replayed) == (["done"], ["completed", "of the other"])


def test_a_killed_holder_is_taken_over_while_its_lease_lives(place: str) -> None:
    """After SIGKILL of the owner the next process that asks owns the key at once."""
    clock = FakeClock()

    with puppets(2, place) as (victim, other):
        _, first, _ = victim.ask("begin", now_ms=clock.now_ms, lease_ms=LEASE_MS)
        waiting = other.ask("begin", now_ms=clock.now_ms, lease_ms=LEASE_MS)
        victim.process.kill()
        victim.process.wait()
        answer, second, attempt = other.ask("begin", now_ms=clock.now_ms, lease_ms=LEASE_MS)

    assert waiting == ["in progress", LEASE_MS]
    assert (answer, attempt) == ("started", 2)
    assert second > first


def test_of_eight_processes_one_takes_over_the_killed_one(place: str) -> None:
    """The death of the owner, found by eight at once, gives one new owner."""
    clock = FakeClock()

    with puppets(9, place) as (victim, *crowd):
        victim.ask("begin", now_ms=clock.now_ms, lease_ms=LEASE_MS)
        victim.process.kill()
        victim.process.wait()
        answers = begin_all(crowd, clock.now_ms)

    assert [answer[0] for answer in answers] == ["in progress"] * 7 + ["started"]
