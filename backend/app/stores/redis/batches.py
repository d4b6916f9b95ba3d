"""What several tasks ask of a server at one time, sent together; whoever asks alone is sent at once, by himself.

A script costs a server and a client about as much for its way as for its work. Nothing is waited for to share it: what
is asked in one turn of the event loop goes together, which is much where many tasks are woken by the same answers. Only
while as many batches are under way as may be does what is asked wait until one of them is back, and then goes with all
that has gathered.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Final, Generic, TypeVar

__all__ = ["Batches"]

_AT_ONCE: Final = 2
"""How many are sent at once, each by itself, while no more are under way: a task for a batch costs more than it saves
where two take turns."""

_UNDER_WAY: Final = 8
"""How many batches of one group may be under way: while the server is busy with these, what follows gathers."""

AskedT = TypeVar("AskedT")
AnswerT = TypeVar("AnswerT")


@dataclass(slots=True)
class _Waiting(Generic[AskedT, AnswerT]):
    """What one task asks, since when by the loop's clock, and where it waits for the answer."""

    asked: AskedT
    since: float
    answer: asyncio.Future[AnswerT]


@dataclass(slots=True)
class _Group(Generic[AskedT, AnswerT]):
    """What of one group is under way in one event loop; it is there while something is."""

    name: str
    loop: asyncio.AbstractEventLoop
    tasks: set[asyncio.Task[None]] = field(default_factory=set)
    under_way: int = 0
    waiting: deque[_Waiting[AskedT, AnswerT]] = field(default_factory=deque)
    departs_next_turn: bool = False


class Batches(Generic[AskedT, AnswerT]):
    """Sends together what the tasks of one event loop ask at one time.

    Args:
        send: sends what it is given for one group, at least one, and returns as many answers in the same order. The
            last argument is when the first of them was asked, by the loop's clock: its deadline counts from then.
        largest: how many go together at most.
        within_s: how long after the first of a batch the others may have been asked: as much of their own time they
            may lose by its deadline.
    """

    def __init__(
        self,
        send: Callable[[str, Sequence[AskedT], float], Awaitable[Sequence[AnswerT]]],
        *,
        largest: int,
        within_s: float,
    ) -> None:
        self._send = send
        self._largest = largest
        self._within_s = within_s
        self._groups: dict[asyncio.AbstractEventLoop, dict[str, _Group[AskedT, AnswerT]]] = {}

    async def ask(self, group: str, asked: AskedT) -> AnswerT:
        """Return the answer; errors are those of ``send``, one for each who asked.

        If the caller is cancelled, what it asked may have been done all the same; what went with it goes on.
        """
        loop = asyncio.get_running_loop()
        groups = self._groups.get(loop)
        if groups is None:
            groups = self._begin_in(loop)
        found = groups.get(group)
        if found is None:
            found = groups[group] = _Group(group, loop)
        if found.under_way < _AT_ONCE and not found.waiting:
            found.under_way += 1
            try:
                return (await self._send(group, (asked,), loop.time()))[0]
            finally:
                self._is_back(found)
        answer: asyncio.Future[AnswerT] = loop.create_future()
        found.waiting.append(_Waiting(asked, loop.time(), answer))
        if not found.departs_next_turn:
            found.departs_next_turn = True
            loop.call_soon(self._depart, found)
        return await answer

    def _begin_in(self, loop: asyncio.AbstractEventLoop) -> dict[str, _Group[AskedT, AnswerT]]:
        """Begin in a loop; what was under way in one that is closed by now will never come back."""
        for closed in [each for each in list(self._groups) if each.is_closed()]:
            self._groups.pop(closed, None)
        return self._groups.setdefault(loop, {})

    def _depart(self, group: _Group[AskedT, AnswerT]) -> None:
        group.departs_next_turn = False
        while group.waiting and group.under_way < _UNDER_WAY:
            batch: list[_Waiting[AskedT, AnswerT]] = []
            while group.waiting and len(batch) < self._largest:
                if batch and group.waiting[0].since > batch[0].since + self._within_s:
                    break
                waiting = group.waiting.popleft()
                if not waiting.answer.done():  # else its caller was cancelled
                    batch.append(waiting)
            if batch:
                group.under_way += 1
                task = group.loop.create_task(self._carry(group.name, batch))
                group.tasks.add(task)
                task.add_done_callback(partial(self._has_arrived, group, batch))
        if not group.waiting and not group.under_way:
            del self._groups[group.loop][group.name]

    async def _carry(self, name: str, batch: Sequence[_Waiting[AskedT, AnswerT]]) -> None:
        try:
            answers = await self._send(name, [each.asked for each in batch], batch[0].since)
        except Exception as error:  # noqa: BLE001  # nobody awaits this task; each who asked raises it
            for each in batch:
                if not each.answer.done():
                    each.answer.set_exception(_of_one_caller(error))
        else:
            for each, answer in zip(batch, answers, strict=True):
                if not each.answer.done():
                    each.answer.set_result(answer)

    def _has_arrived(
        self, group: _Group[AskedT, AnswerT], batch: Sequence[_Waiting[AskedT, AnswerT]], task: asyncio.Task[None]
    ) -> None:
        """Go on behind a batch.

        It is called by the loop and not by the task, because a task that is cancelled before its first step runs
        nothing, and one that ends within ``create_task`` (an eager one) would depart within a departure.
        """
        group.tasks.discard(task)
        for each in batch:
            # Who has no answer now gets none: the loop ends, and every task with it.
            each.answer.cancel()
        self._is_back(group)

    def _is_back(self, group: _Group[AskedT, AnswerT]) -> None:
        group.under_way -= 1
        if not group.departs_next_turn and not group.loop.is_closed():
            self._depart(group)


def _of_one_caller(error: Exception) -> Exception:
    """Return the same error for one of several callers: as it passes through them, each adds to its traceback."""
    twin = type(error).__new__(type(error), *error.args)
    twin.__dict__.update(error.__dict__)
    twin.__cause__, twin.__suppress_context__ = error.__cause__, True
    return twin
