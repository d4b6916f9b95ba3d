"""Ctrl-C once, twice, and more: a run ends in order, then at once, then like any other program."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any, Final, TypeVar

from app.cli.exits import Ended, ExitCode, Explanation

__all__ = ["Interrupts", "cut_by_signal", "watched"]

T = TypeVar("T")

_SIGNALS: Final = {
    signal.SIGINT: ExitCode.INTERRUPTED,
    signal.SIGTERM: ExitCode.TERMINATED,
    signal.SIGHUP: ExitCode.HANGUP,
}


class Interrupts:
    """What was asked for by signals so far. Its owner is the loop that watches them.

    Attributes:
        exit_code: of the first signal; None while there was none.
        at_once: a second signal came.
    """

    def __init__(self, on_first: Callable[[], object], on_second: Callable[[], object]) -> None:
        self.exit_code: ExitCode | None = None
        self.at_once = False
        self._came = asyncio.Event()
        self._on_first = on_first
        self._on_second = on_second

    def receive(self, number: signal.Signals) -> None:
        """Take one signal."""
        if self.exit_code is None:
            self.exit_code = _SIGNALS[number]
            self._came.set()
            self._on_first()
        elif not self.at_once:
            self.at_once = True
            self._on_second()
            # A third one ends the process as it would any other.
            _unwatch(asyncio.get_running_loop())

    async def wait(self, *, timeout_s: float) -> bool:
        """Wait so long, or until a signal comes; return whether one did."""
        try:
            async with asyncio.timeout(timeout_s):
                await self._came.wait()
        except TimeoutError:
            return False
        return True


@asynccontextmanager
async def watched(interrupts: Interrupts) -> AsyncIterator[Interrupts]:
    """Give SIGINT, SIGTERM and SIGHUP to ``interrupts`` for the length of the block.

    One that the process was started to ignore stays ignored: ``nohup`` means that a run outlives its terminal.
    """
    loop = asyncio.get_running_loop()
    for number in _SIGNALS:
        if signal.getsignal(number) is signal.SIG_IGN:
            continue
        loop.add_signal_handler(number, interrupts.receive, number)
    try:
        yield interrupts
    finally:
        _unwatch(loop)


async def cut_by_signal(work: Coroutine[Any, Any, T], ending: Explanation) -> T:
    """Do ``work``; the first signal cancels it, and a call under way is settled or charged before this returns.

    Raises:
        Ended: a signal came; told as ``ending``, with the exit code of the signal.
    """
    task = asyncio.ensure_future(work)
    interrupts = Interrupts(on_first=task.cancel, on_second=task.cancel)
    try:
        async with watched(interrupts):
            return await task
    except asyncio.CancelledError:
        if interrupts.exit_code is None:
            raise
        raise Ended(replace(ending, exit_code=interrupts.exit_code)) from None


def _unwatch(loop: asyncio.AbstractEventLoop) -> None:
    for number in _SIGNALS:
        loop.remove_signal_handler(number)
