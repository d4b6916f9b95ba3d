"""Signals, one after another."""

from __future__ import annotations

import asyncio
import os
import signal

import pytest

from app.cli.exits import ExitCode
from app.cli.interrupts import Interrupts, watched


async def test_the_first_signal_asks_the_second_insists_and_the_third_is_not_ours() -> None:
    """Each of the two acts comes once, and from then on the process is interrupted like any other."""
    acts: list[str] = []
    insisted = asyncio.Event()

    def insist() -> None:
        acts.append("at once")
        insisted.set()

    interrupts = Interrupts(lambda: acts.append("in order"), insist)

    async with watched(interrupts):
        os.kill(os.getpid(), signal.SIGINT)
        asked = await interrupts.wait(timeout_s=5)
        os.kill(os.getpid(), signal.SIGINT)
        await insisted.wait()
        handler = signal.getsignal(signal.SIGINT)

    assert asked
    assert acts == ["in order", "at once"]
    assert interrupts.exit_code is ExitCode.INTERRUPTED
    assert handler is signal.default_int_handler


@pytest.mark.parametrize(
    ("number", "code"),
    [
        (signal.SIGINT, ExitCode.INTERRUPTED),
        (signal.SIGTERM, ExitCode.TERMINATED),
        (signal.SIGHUP, ExitCode.HANGUP),
    ],
)
async def test_the_exit_code_is_that_of_the_first_signal(number: signal.Signals, code: ExitCode) -> None:
    """What comes later changes how fast the command ends, not what it says."""
    interrupts = Interrupts(lambda: None, lambda: None)

    async with watched(interrupts):
        os.kill(os.getpid(), number)
        await interrupts.wait(timeout_s=5)
        interrupts.receive(signal.SIGTERM)

    assert interrupts.exit_code is code


async def test_a_signal_that_is_ignored_stays_ignored() -> None:
    """What nohup has set holds: a hangup is not heard, and still ignored afterwards."""
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    interrupts = Interrupts(lambda: None, lambda: None)
    try:
        async with watched(interrupts):
            os.kill(os.getpid(), signal.SIGHUP)
            came = await interrupts.wait(timeout_s=0.01)
        after = signal.getsignal(signal.SIGHUP)
    finally:
        signal.signal(signal.SIGHUP, before)

    assert not came
    assert after is signal.SIG_IGN


async def test_waiting_ends_without_a_signal_too() -> None:
    """No signal within the time is no signal."""
    interrupts = Interrupts(lambda: None, lambda: None)

    came = await interrupts.wait(timeout_s=0.001)

    assert not came
    assert interrupts.exit_code is None
