"""What several tasks ask at one time goes together; nobody waits for company, or pays for the others' faults."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Sequence
from typing import Any

import pytest

from app.errors import BudgetStoreUnavailableError
from app.stores.redis import batches
from app.stores.redis.batches import Batches

LARGEST = 5
WITHIN_S = 60.0
EAGER: Any = getattr(asyncio, "eager_task_factory", None)
"""Lets tasks begin within ``create_task``, since Python 3.12; before, None is the factory of plain tasks."""


class Server:
    """Answers what it is sent when it is let, and keeps what was sent."""

    def __init__(self, *, busy: bool = False) -> None:
        self.sent: list[tuple[str, tuple[str, ...]]] = []
        self.since: list[float] = []
        self.error: Exception | None = None
        self.may_answer = asyncio.Event()
        if not busy:
            self.may_answer.set()

    async def send(self, group: str, asked: Sequence[str], since: float) -> list[str]:
        """Take a batch."""
        self.sent.append((group, tuple(asked)))
        self.since.append(since)
        await self.may_answer.wait()
        await asyncio.sleep(0)
        if self.error is not None:
            raise self.error
        return [each.upper() for each in asked]

    @property
    def sizes(self) -> list[int]:
        """How many each batch had."""
        return [len(asked) for _, asked in self.sent]


@pytest.fixture
def server() -> Server:
    """Give a server that answers at once."""
    return Server()


def asking(server: Server) -> Batches[str, str]:
    """Return batches of five."""
    return Batches(server.send, largest=LARGEST, within_s=WITHIN_S)


async def test_each_gets_its_own_answer(server: Server) -> None:
    """However they were sent."""
    to = asking(server)

    answers = await asyncio.gather(*(to.ask("g", f"a{n}") for n in range(40)))

    assert answers == [f"A{n}" for n in range(40)]
    assert sorted(each for _, asked in server.sent for each in asked) == sorted(f"a{n}" for n in range(40))


async def test_who_asks_alone_is_sent_at_once(server: Server) -> None:
    """It is sent before the loop turns, and by itself: company costs it nothing."""
    to, busy = asking(server), Server(busy=True)
    to_busy = asking(busy)

    assert [await to.ask("g", each) for each in ("a", "b", "c")] == ["A", "B", "C"]
    first, second = (asyncio.create_task(to_busy.ask("g", each)) for each in ("a", "b"))
    await asyncio.sleep(0)

    assert server.sizes == [1, 1, 1]
    assert busy.sizes == [1, 1]
    busy.may_answer.set()
    assert list(await asyncio.gather(first, second)) == ["A", "B"]


async def test_what_is_asked_in_one_turn_goes_together(server: Server) -> None:
    """Two by themselves, and the others in as few batches as may be, in order."""
    to = asking(server)

    await asyncio.gather(*(to.ask("g", f"{n}") for n in range(13)))

    assert server.sizes == [1, 1, 5, 5, 1]
    assert [each for _, asked in server.sent for each in asked] == [f"{n}" for n in range(13)]


async def test_nobody_waits_for_a_batch_that_is_under_way() -> None:
    """What is asked later is sent while the server has not answered."""
    server = Server(busy=True)
    to = asking(server)
    tasks = [asyncio.create_task(to.ask("g", f"{n}")) for n in range(4)]
    await asyncio.sleep(0.01)

    tasks.append(asyncio.create_task(to.ask("g", "later")))
    await asyncio.sleep(0.01)

    assert server.sizes == [1, 1, 2, 1]
    server.may_answer.set()
    await asyncio.gather(*tasks)


async def test_behind_eight_batches_the_rest_gathers() -> None:
    """No more are under way, and when one is back all that has gathered goes."""
    server = Server(busy=True)
    to = asking(server)
    tasks = []
    for n in range(12):
        tasks.append(asyncio.create_task(to.ask("g", f"{n}")))
        await asyncio.sleep(0.001)

    assert server.sizes == [1] * batches._UNDER_WAY
    server.may_answer.set()
    await asyncio.gather(*tasks)

    assert server.sizes == [1] * batches._UNDER_WAY + [4]


async def test_tenants_are_never_sent_together(server: Server) -> None:
    """A script is of one tenant."""
    to = asking(server)

    await asyncio.gather(*(to.ask(f"tenant {n % 3}", f"{n}") for n in range(30)))

    assert all({f"tenant {int(each) % 3}" for each in asked} == {group} for group, asked in server.sent)
    assert len(server.sent) == 3 * 4


async def test_an_error_is_told_to_each_and_shared_by_none(server: Server) -> None:
    """The same class, text and cause, but an object of each one's own: they add to its traceback."""
    to = asking(server)
    server.error = BudgetStoreUnavailableError("the server is away")
    server.error.__cause__ = OSError("refused")

    errors = await asyncio.gather(*(to.ask("g", f"{n}") for n in range(7)), return_exceptions=True)

    assert {(type(each), str(each)) for each in errors} == {(BudgetStoreUnavailableError, "the server is away")}
    in_a_batch = errors[2:]
    assert len({id(each) for each in in_a_batch}) == 5
    assert {str(each.__cause__) for each in in_a_batch if isinstance(each, Exception)} == {"refused"}


async def test_who_is_cancelled_takes_nothing_from_the_others() -> None:
    """The rest of its batch is answered; who is cancelled before it was sent is not sent."""
    server = Server(busy=True)
    to = asking(server)
    tasks = [asyncio.create_task(to.ask("g", f"{n}")) for n in range(6)]
    await asyncio.sleep(0.01)
    tasks[3].cancel()
    waiting = [asyncio.create_task(to.ask("g", f"w{n}")) for n in range(3)]
    await asyncio.sleep(0)
    waiting[1].cancel()
    await asyncio.sleep(0.01)
    server.may_answer.set()

    answers = await asyncio.gather(*tasks, *waiting, return_exceptions=True)

    assert [each for each in answers if isinstance(each, str)] == ["0", "1", "2", "4", "5", "W0", "W2"]
    assert sum(isinstance(each, asyncio.CancelledError) for each in answers) == 2
    assert [asked for _, asked in server.sent if "w1" in asked] == []


async def test_a_direct_one_that_is_cancelled_lets_the_next_go() -> None:
    """What waited behind it is sent, and nothing is left over."""
    server = Server(busy=True)
    to = asking(server)
    tasks = [asyncio.create_task(to.ask("g", f"{n}")) for n in range(3)]
    await asyncio.sleep(0.01)
    for task in tasks:
        task.cancel()
    await asyncio.wait(tasks)
    server.may_answer.set()

    assert await to.ask("g", "next") == "NEXT"
    await asyncio.sleep(0.01)
    assert not any(to._groups.values())


async def test_a_batch_that_is_cancelled_before_it_began_leaves_its_place(server: Server) -> None:
    """Where every task of a loop is cancelled, nobody waits for ever: not who asked, nor who asks behind it."""
    to = asking(server)

    for _ in range(batches._UNDER_WAY):
        asked = [asyncio.create_task(to.ask("g", f"{n}")) for n in range(3)]
        await asyncio.sleep(0)
        group = to._groups[asyncio.get_running_loop()]["g"]
        while not group.tasks:  # noqa: ASYNC110 - the turn in which it departs is looked for
            await asyncio.sleep(0)
        for task in group.tasks:
            task.cancel()
        async with asyncio.timeout(5):
            answers = await asyncio.gather(*asked, return_exceptions=True)
        assert answers[:2] == ["0", "1"]
        assert isinstance(answers[2], asyncio.CancelledError)

    assert server.sizes == [1] * 2 * batches._UNDER_WAY
    async with asyncio.timeout(5):
        assert len(await asyncio.gather(*(to.ask("g", f"{n}") for n in range(9)))) == 9
    await asyncio.sleep(0)
    assert not any(to._groups.values())


async def test_however_many_end_at_once_none_departs_within_another() -> None:
    """With eager tasks a batch whose time is over ends before its task is made: thousands of them end as one does."""
    loop, away = asyncio.get_running_loop(), asyncio.Event()

    async def send(_: str, __: Sequence[str], ___: float) -> list[str]:
        await away.wait()
        raise BudgetStoreUnavailableError("the server is away")

    to: Batches[str, str] = Batches(send, largest=1, within_s=WITHIN_S)
    loop.set_task_factory(EAGER)
    tasks = [asyncio.create_task(to.ask("g", f"{n}")) for n in range(3_000)]
    away.set()
    done, _ = await asyncio.wait(tasks, timeout=5)
    loop.set_task_factory(None)

    assert {type(task.exception()) for task in done} == {BudgetStoreUnavailableError}
    assert len(done) == 3_000
    assert not any(to._groups.values())


async def test_the_deadline_counts_from_the_first_that_asked() -> None:
    """So that nobody waits for a server behind others longer than for the server."""
    server = Server(busy=True)
    to = asking(server)
    tasks = []
    for n in range(batches._UNDER_WAY):
        tasks.append(asyncio.create_task(to.ask("g", f"{n}")))
        await asyncio.sleep(0.001)
    asked = asyncio.get_running_loop().time()
    tasks += [asyncio.create_task(to.ask("g", f"w{n}")) for n in range(2)]
    await asyncio.sleep(0.05)
    server.may_answer.set()
    await asyncio.gather(*tasks)

    assert server.since[-1] == pytest.approx(asked, abs=0.02)


async def test_who_asked_much_later_has_a_deadline_of_its_own() -> None:
    """Behind a server that hangs, whoever has just asked is not ended with those who have waited all their time."""
    server = Server(busy=True)
    to: Batches[str, str] = Batches(server.send, largest=LARGEST, within_s=0.05)
    tasks = []
    for name, count in (("first", batches._UNDER_WAY), ("early", 2), ("late", 2)):
        for _ in range(count):
            tasks.append(asyncio.create_task(to.ask("g", name)))
            await asyncio.sleep(0.001)
        await asyncio.sleep(0.1)

    server.may_answer.set()
    await asyncio.gather(*tasks)

    assert [asked for _, asked in server.sent[batches._UNDER_WAY :]] == [("early", "early"), ("late", "late")]
    assert server.since[-1] - server.since[-2] > 0.1


def test_loops_one_after_another_and_at_one_time_share_nothing() -> None:
    """Each thread has its own loop, and one that ended in the middle holds up nobody."""

    async def many(to: Batches[str, str]) -> list[str]:
        return await asyncio.gather(*(to.ask("g", f"a{n}") for n in range(20)))

    async def send(_: str, asked: Sequence[str], __: float) -> list[str]:
        await asyncio.sleep(0.001)
        return [each.upper() for each in asked]

    async def endless(_: str, asked: Sequence[str], __: float) -> list[str]:
        await asyncio.Event().wait()
        return list(asked)

    to: Batches[str, str] = Batches(endless, largest=LARGEST, within_s=WITHIN_S)
    loop = asyncio.new_event_loop()
    tasks = [loop.create_task(to.ask("g", f"{n}")) for n in range(9)]
    loop.run_until_complete(asyncio.sleep(0.01))
    for task in (
        *tasks,
        *(each for groups in to._groups.values() for group in groups.values() for each in group.tasks),
    ):
        task.cancel()
    loop.run_until_complete(asyncio.wait(tasks))
    loop.run_until_complete(asyncio.sleep(0))
    loop.close()
    to._send = send
    found: list[list[str]] = [asyncio.run(many(to))]
    threads = [threading.Thread(target=lambda: found.append(asyncio.run(many(to)))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert found == [[f"A{n}" for n in range(20)]] * 5
    assert not any(to._groups.values())


async def test_nothing_is_kept_of_a_group_that_is_done(server: Server) -> None:
    """A program may have any number of tenants."""
    to = asking(server)

    for n in range(50):
        await asyncio.gather(*(to.ask(f"tenant {n}", f"{m}") for m in range(5)))
    await asyncio.sleep(0)

    assert to._groups == {asyncio.get_running_loop(): {}}
