"""Holders: a process is known to be gone only where that is certain."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.errors import InvalidInputError
from app.stores import holder as module
from app.stores.holder import Holder

_CODE = (
    "import sys; from app.stores.holder import Holder; print(Holder.current().encode(), flush=True); sys.stdin.read()"
)


@pytest.fixture
def child() -> Iterator[subprocess.Popen[str]]:
    """Give a process that prints its holder and waits."""
    process = subprocess.Popen([sys.executable, "-c", _CODE], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    yield process
    process.kill()
    process.communicate()


def holder_of(process: subprocess.Popen[str]) -> Holder:
    """Read what the child printed."""
    assert process.stdout is not None
    return Holder.decode(process.stdout.readline().strip())


def test_this_process_is_not_gone() -> None:
    """Whoever asks is there, under every instance of itself."""
    assert not Holder.current().is_gone()
    assert not Holder.current(instance="second").is_gone()


def test_a_living_process_is_not_gone_and_a_stopped_one_neither(child: subprocess.Popen[str]) -> None:
    """A process that sleeps may wake and write."""
    holder = holder_of(child)

    running = holder.is_gone()
    os.kill(child.pid, signal.SIGSTOP)
    os.waitid(os.P_PID, child.pid, os.WSTOPPED | os.WNOWAIT)
    stopped = holder.is_gone()
    os.kill(child.pid, signal.SIGCONT)

    assert not running
    assert not stopped


def test_a_killed_process_is_gone_before_its_parent_noticed(child: subprocess.Popen[str]) -> None:
    """A zombie never writes again, and after it was reaped the process is gone too."""
    holder = holder_of(child)

    child.kill()
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
    as_zombie = holder.is_gone()
    child.wait()

    assert as_zombie
    assert holder.is_gone()


def test_a_pid_that_was_given_to_another_process_is_no_sign_of_life(child: subprocess.Popen[str]) -> None:
    """The start time tells two processes of one pid apart."""
    holder = holder_of(child)

    assert replace(holder, started=str(int(holder.started) - 1)).is_gone()


def test_a_process_from_before_the_boot_is_gone() -> None:
    """After a restart of the host no process of before runs, whatever runs under its pid now."""
    assert replace(Holder.current(), boot_id="another boot").is_gone()


@pytest.mark.parametrize(
    "changes",
    [{"host": "elsewhere"}, {"host": "elsewhere", "pid": 2**22 + 1}, {"boot_id": ""}, {"started": ""}],
    ids=["another host", "another host and no such pid here", "no boot id", "no start time"],
)
def test_what_cannot_be_known_is_not_gone(changes: dict[str, object]) -> None:
    """Where the process may run after all, nobody takes its lease before the end."""
    assert not replace(Holder.current(), **changes).is_gone()  # type: ignore[arg-type]  # fields by name


def test_a_container_is_another_host(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Two containers may share a host name and a kernel, but the process ids of one mean nothing in the other."""
    outside = Holder.current()
    (tmp_path / "pid").symlink_to("pid:[4026532000]")
    monkeypatch.setattr(module, "_PID_NAMESPACE", tmp_path / "pid")
    module._host.cache_clear()
    try:
        inside = Holder.current()
        seen_from_inside = replace(outside, pid=2**22 + 1).is_gone()
    finally:
        module._host.cache_clear()

    assert inside.host != outside.host
    assert not seen_from_inside


def test_a_fork_is_another_process() -> None:
    """A child that was forked is not taken for its parent, although it inherits what the parent remembered."""
    code = (
        "import os; from app.stores.holder import Holder\n"
        "print(Holder.current().encode(), flush=True)\n"
        "if os.fork() == 0: print(Holder.current().encode(), flush=True)\n"
        "else: os.wait()"
    )

    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    parent, child = (Holder.decode(line) for line in ran.stdout.splitlines())
    assert child.same_process != parent.same_process
    assert child.is_gone()


def test_instances_of_one_process_share_the_process() -> None:
    """Two instances are different holders of the same process."""
    one, two = Holder.current(instance="1"), Holder.current(instance="2")

    assert one != two
    assert one.same_process == two.same_process


@given(st.text(), st.integers(1, 2**22))
def test_the_stored_form_reads_back(instance: str, pid: int) -> None:
    """Whatever an instance is called, encode and decode give the same holder."""
    holder = Holder(host="host", boot_id="boot", pid=pid, started="123", instance=instance)

    assert Holder.decode(holder.encode()) == holder


@pytest.mark.parametrize("text", ["", "host", "host|boot|pid|1|", "host|boot|-1|1|", "a|b|1|c"])
def test_what_is_not_a_holder_is_refused(text: str) -> None:
    """A text that no holder was stored as is an error, not a guess."""
    with pytest.raises(InvalidInputError, match="not a lease holder"):
        Holder.decode(text)
