"""A flow over many documents, killed in the middle and resumed: its memory stays small and its progress is shown."""

from __future__ import annotations

import asyncio
import random
import re
import subprocess
import time
from pathlib import Path

import pytest

from app.stores.checkpoint.contract import RunHead, RunStatus
from app.stores.checkpoint.sqlite import SqliteCheckpointStore
from tests.endtoend.harness import nova_with

FLOW = Path(__file__).parents[3] / "examples" / "brief.yaml"
MEMORY_LIMIT_BYTES = 300 * 1024 * 1024
WORDS = ["river", "gauge", "bridge", "survey", "trial", "seed", "minutes", "report", "flood", "repair", "cost"]


def write_documents(folder: Path, *, count: int, seed: int) -> None:
    """Write ``count`` texts of 1 to 100 KB."""
    chance = random.Random(seed)
    for number in range(count):
        size = chance.randrange(1_000, 100_000)
        words = " ".join(chance.choices(WORDS, k=size // 6 + 1))
        (folder / f"{number:04}.txt").write_text(f"Document {number}. {words}"[:size])


def head_of(data_dir: Path, run_id: str) -> RunHead | None:
    """Return the head of a run past the command line."""

    async def read() -> RunHead | None:
        store = SqliteCheckpointStore(data_dir / "nova.db")
        try:
            return await store.head(run_id)
        finally:
            await store.close()

    return asyncio.run(read())


def until_recorded(data_dir: Path, run_id: str, *, steps: int, process: subprocess.Popen[str]) -> None:
    """Wait until so many steps are on record."""
    deadline = time.monotonic() + 240
    while time.monotonic() < deadline:
        assert process.poll() is None, f"it ended with {process.returncode} before that"
        if (data_dir / "nova.db").exists() and (head := head_of(data_dir, run_id)) and head.next_step_index >= steps:
            return
        time.sleep(0.01)
    raise AssertionError(f"{steps} steps were not recorded in time")


def peak_memory_bytes(process: subprocess.Popen[str]) -> int:
    """Return the most memory that a running process had resident so far; 0 where it has ended.

    Not what ``wait4`` says of it afterwards: that begins with the memory of the process that started it.
    """
    try:
        status = Path(f"/proc/{process.pid}/status").read_text()
    except ProcessLookupError:
        return 0
    found = re.search(r"^VmHWM:\s+(\d+) kB$", status, re.MULTILINE)
    return int(found[1]) * 1024 if found else 0


def peak_memory_to_the_end(process: subprocess.Popen[str]) -> int:
    """Wait for a process and return the most memory that it had resident."""
    peak = 0
    while process.poll() is None:
        peak = max(peak, peak_memory_bytes(process))
        time.sleep(0.01)
    return peak


def killed_and_resumed_over(tmp_path: Path, *, documents: int) -> None:
    """Run the brief over ``documents`` files with the stub, kill it in the middle, resume it."""
    folder, data_dir, log = tmp_path / "documents", tmp_path / "data", tmp_path / "log"
    folder.mkdir()
    write_documents(folder, count=documents, seed=documents)
    nova = nova_with(data_dir, LLM_ADAPTER="stub")
    command = ("run", str(FLOW), "--input", f"documents={folder}", "--run-id", "many", "--budget", "$500")

    with log.open("w") as out:
        began = time.monotonic()
        first = nova.start(*command, output=out)
        # Large inputs are steps too: the notes begin behind them.
        until_recorded(data_dir, "many", steps=documents * 3 // 4, process=first)
        memory = [peak_memory_bytes(first)]
        first.kill()
        first.wait()
        killed_after_s = time.monotonic() - began
        before = head_of(data_dir, "many")
        began = time.monotonic()
        resumed = nova.start("resume", "many", output=out)
        memory.append(peak_memory_to_the_end(resumed))
        took_s = time.monotonic() - began

    head, shown = head_of(data_dir, "many"), log.read_text()
    assert head is not None
    assert before is not None
    print(  # noqa: T201 - the figures of the campaign; pytest shows them on request
        f"\n{documents} documents: killed after {killed_after_s:.1f} s with {before.next_step_index} of "
        f"{head.next_step_index} steps recorded, resumed in {took_s:.1f} s, "
        f"{max(memory) / 2**20:.0f} MiB at most\n{shown[:600]}"
    )
    assert resumed.returncode == 0, shown
    assert before.status is RunStatus.RUNNING
    assert before.next_step_index < head.next_step_index
    assert head.status is RunStatus.COMPLETED
    assert min(memory) > 0
    assert max(memory) < MEMORY_LIMIT_BYTES
    assert f"notes: {documents} of {documents}" in shown


def test_documents_are_read_in_little_memory_and_survive_a_kill(tmp_path: Path) -> None:
    """A killed flow over many documents completes on resume, within 300 MB."""
    killed_and_resumed_over(tmp_path, documents=60)


@pytest.mark.soak
@pytest.mark.timeout(1200)
def test_a_thousand_documents(tmp_path: Path) -> None:
    """The same over 1,000 files of 1 to 100 KB."""
    killed_and_resumed_over(tmp_path, documents=1_000)
