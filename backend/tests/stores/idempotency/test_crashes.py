"""SIGKILL at any moment: what was acknowledged is what everybody gets, and no key stays taken."""

from __future__ import annotations

import random
import subprocess
import sys
from collections import defaultdict
from pathlib import Path

import pytest

WORKERS = 4


def start(place: str, notes: Path, keys: int, seed: int) -> subprocess.Popen[bytes]:
    """Start a worker."""
    module = "backend.tests.stores.idempotency.crash_worker"
    return subprocess.Popen([sys.executable, "-m", module, place, str(notes), str(keys), str(seed)])


@pytest.mark.parametrize(
    ("kills", "keys"),
    [pytest.param(6, 300), pytest.param(300, 10_000, marks=[pytest.mark.soak, pytest.mark.timeout(3_600)])],
    ids=["some", "many"],
)
def test_an_acknowledged_result_is_everybodys(tmp_path: Path, place: str, kills: int, keys: int) -> None:
    """Workers are killed at random moments; every key ends with one result, the one that was ever told of it."""
    chance = random.Random(kills)
    notes = tmp_path / "notes"
    notes.touch()
    workers = [start(place, notes, keys, seed) for seed in range(WORKERS)]
    killed = 0
    try:
        while killed < kills:
            grown = notes.stat().st_size + chance.randrange(40 * 30)
            victim = chance.randrange(WORKERS)
            while notes.stat().st_size < grown and workers[victim].poll() is None:
                try:
                    workers[victim].wait(timeout=0.001)
                except subprocess.TimeoutExpired:
                    continue
            if workers[victim].poll() is not None:
                break  # it has seen every key: there is nothing left to disturb
            workers[victim].kill()
            workers[victim].wait()
            workers[victim] = start(place, notes, keys, WORKERS + killed)
            killed += 1
        codes = [worker.wait(timeout=120) for worker in workers]
    finally:
        for worker in workers:
            worker.kill()
            worker.wait()

    told: dict[str, set[str]] = defaultdict(set)
    acknowledged: list[str] = []
    for line in notes.read_text().splitlines():
        what, _, key, result = line.split(" ")
        told[key].add(result)
        acknowledged += [key] if what == "acknowledged" else []
    assert codes == [0] * WORKERS
    assert killed >= kills // 2
    assert len(told) == keys
    assert [results for results in told.values() if len(results) > 1] == []
    assert len(acknowledged) == len(set(acknowledged))
