"""How a run stands: people read whether anybody works on it, and the command that goes on with it."""

from __future__ import annotations

import asyncio
import shlex
from datetime import timedelta
from pathlib import Path

import pytest

from app.settings import load_settings
from app.stores.checkpoint.sqlite import SqliteCheckpointStore
from app.stores.holder import Holder

from .harness import Nova

FLOW = """\
name: hello
version: 1
steps:
  - id: hello
    config: {max_tokens: 20}
    prompt: "Say hello"
"""

GONE = Holder(host=Holder.current().host, boot_id=Holder.current().boot_id, pid=2**22 + 7, started="1", instance="ab12")
ELSEWHERE = Holder(host="mars", boot_id="b", pid=7, started="1", instance="ab12")


@pytest.fixture
def parked(nova: Nova, tmp_path: Path) -> None:
    """Leave the run ``tour`` parked, with the budget that it needs."""
    path = tmp_path / "hello.yaml"
    path.write_text(FLOW)
    assert nova("run", str(path), "--run-id", "tour", "--budget", "$0.00000001").code == 14


def claim(holder: Holder, *, lease: timedelta) -> None:
    """Let somebody take the lease of the run ``tour``, which makes it running."""

    async def take() -> None:
        store = SqliteCheckpointStore(load_settings().database_file)
        await store.claim("tour", holder=holder, lease=lease)
        await store.close()

    asyncio.run(take())


def row(text: str, name: str) -> str:
    """Return what a view says under a name."""
    return next(line.removeprefix(name).strip() for line in text.splitlines() if line.startswith(name))


@pytest.mark.usefixtures("parked")
@pytest.mark.parametrize(
    ("holder", "lease", "status"),
    [
        (GONE, timedelta(hours=1), "interrupted"),
        (ELSEWHERE, timedelta(hours=1), "running"),
        (Holder.current(instance="ab12"), timedelta(hours=1), "running"),
        (ELSEWHERE, timedelta(milliseconds=1), "interrupted"),
    ],
    ids=["gone", "elsewhere", "here", "lease ended"],
)
def test_a_run_that_nobody_works_on_is_interrupted(nova: Nova, holder: Holder, lease: timedelta, status: str) -> None:
    """People read it in both views, with the command that goes on; programs read what is recorded, and the lease."""
    claim(holder, lease=lease)

    shown = nova("runs", "show", "tour").check().out
    listed = nova("runs", "list").check().out
    document = nova("runs", "show", "tour", "--json").check().json

    assert row(shown, "status") == status
    assert f" {status} " in next(line for line in listed.splitlines() if "hello" in line)
    assert ("to do" in shown) == (status == "interrupted")
    assert f"process {holder.pid} on {holder.host}, lease until" in shown
    assert "ab12" not in shown
    assert (document["status"], document["lease"]["holder"]) == ("running", str(holder))


@pytest.mark.usefixtures("parked")
def test_what_is_to_do_for_a_parked_run_can_be_done(nova: Nova) -> None:
    """The two commands that its view names, with an amount put in, complete it; then nothing is to do."""
    raising, going_on = row(nova("runs", "show", "tour").check().out, "to do").split(", then ")

    nova(*shlex.split(raising.replace("AMOUNT", "'$1'"))[1:]).check()
    nova(*shlex.split(going_on)[1:]).check()

    assert "to do" not in nova("runs", "show", "tour").check().out
