"""Runs that a Python program started: what ``nova`` says of them, and what it leaves to their programs."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path

import pytest

from app.settings import load_settings
from app.stores.checkpoint.contract import RunStatus
from app.stores.checkpoint.sqlite import SqliteCheckpointStore
from app.workflow.inputs import StartRecord
from app.workflow.policies import RunLimits

from .harness import Nova

Started = Callable[..., None]

FLOW = """\
name: hello
version: 1
steps:
  - id: hello
    config: {max_tokens: 20}
    prompt: "Say hello"
"""


@pytest.fixture
def started() -> Started:
    """Record runs as a program's runner does that was killed before its first step."""

    def record(run_id: str, *, status: RunStatus = RunStatus.RUNNING) -> None:
        async def write() -> None:
            store = SqliteCheckpointStore(load_settings().database_file)
            inputs = StartRecord.of({}, limits=RunLimits(), flow=None).encode()
            head = await store.create(run_id, workflow="digest", workflow_version="1", inputs=inputs)
            if status is RunStatus.FAILED:
                await store.finish(run_id, status, expected_version=head.version, error="no")
            await store.close()

        asyncio.run(write())

    return record


@pytest.fixture
def flow(tmp_path: Path) -> str:
    """Give the path of a flow of one step."""
    path = tmp_path / "hello.yaml"
    path.write_text(FLOW)
    return str(path)


def test_a_run_of_a_program_is_sent_back_to_its_program(nova: Nova, started: Started) -> None:
    """``nova`` has not its code: it names the call that goes on with the run, and changes nothing."""
    started("d2")
    before = nova("runs", "show", "d2", "--json").check().json

    refused = nova("resume", "d2")

    assert refused.code == 6
    assert refused.err.strip() == (
        "error: run 'd2' was started by a Python program: run that program again, which calls runner.resume('d2')"
    )
    assert nova("runs", "show", "d2", "--json").check().json == before


def test_resuming_all_leaves_the_runs_of_programs_alone(nova: Nova, started: Started, flow: str) -> None:
    """They are listed as left to their programs, and the exit code is that of the others."""
    started("d2")
    nova("run", flow, "--run-id", "tour", "--budget", "$0.00000001")
    nova("budget", "set", "run:tour", "$1").check()

    told = nova("resume", "--all").check().out
    again = nova("resume", "--all", "--json").check().json["runs"]

    rows = {line.split()[0]: line for line in told.splitlines() if line.strip().startswith(("d2", "tour"))}
    assert "left to its program" in rows["d2"]
    assert "completed" in rows["tour"]
    assert [(run["run_id"], run["left_to"], run["error"]) for run in again] == [("d2", "its program", None)]


def test_a_fork_says_where_it_goes_on(nova: Nova, started: Started, flow: str) -> None:
    """The copy of a flow's run goes on with a command, that of a program's run in its program."""
    started("d2")
    nova("run", flow, "--run-id", "tour").check()

    assert nova("runs", "fork", "tour", "tour 2", "--steps", "0").check().err.strip() == (
        "to go on with it: nova resume 'tour 2'"
    )
    assert nova("runs", "fork", "d2", "d3").check().err.strip() == ("go on with it in its program: runner.resume('d3')")
