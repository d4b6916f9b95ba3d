"""Connections: one pool per loop, closed with it; cancellation at any await leaves none in use."""

from __future__ import annotations

import asyncio
import gc
from contextlib import aclosing

import pytest

from app.credentials import fixed
from app.errors import ConfigurationError, LLMError
from app.loops import LoopClients
from app.skills.adapters.claude_adapter import ClaudeAdapter
from app.skills.adapters.openai_adapter import OpenAIAdapter
from app.skills.llm_invoke_v2 import LLMAdapter, LLMConfig
from tests.support.planted import planted
from tests.support.wire import Fault, WireProcess, WireServer

NAMES = ("claude", "openai")


def adapter_of(name: str, url: str) -> LLMAdapter:
    """Return an adapter at a loopback server."""
    key = fixed(planted("provider.key"))
    return (
        ClaudeAdapter(api_key=key, base_url=url)
        if name == "claude"
        else OpenAIAdapter(api_key=key, base_url=f"{url}/v1")
    )


async def consume(adapter: LLMAdapter, *, streamed: bool) -> None:
    """Make a call either way."""
    if not streamed:
        await adapter.invoke("hello there")
        return
    async with aclosing(adapter.stream("hello there")) as events:  # type: ignore[type-var]  # an async generator
        async for _ in events:
            pass


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("streamed", [False, True], ids=["invoke", "stream"])
@pytest.mark.parametrize("after", [0, 3])
async def test_cancellation_at_any_await_leaves_no_connection_in_use(
    name: str,
    streamed: bool,  # noqa: FBT001  # a parameter of the test
    after: int,
) -> None:
    """Whichever await it strikes, the server sees the call end, and the adapter goes on."""
    async with WireServer() as server:
        adapter = adapter_of(name, server.url)
        await adapter.invoke("Warm up.")
        for steps in range(25):
            server.faults.append(Fault("stalled", after=after))
            task = asyncio.ensure_future(consume(adapter, streamed=streamed))
            for _ in range(steps):
                await asyncio.sleep(0)

            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task

            await server.until(lambda: server.busy == 0)
            server.faults.clear()

        assert (await adapter.invoke("hello")).content == "You said: hello"
        await adapter.aclose()
        await server.until(lambda: server.connections == 0)


@pytest.mark.parametrize("name", NAMES)
async def test_a_stream_that_is_closed_early_frees_its_connection(name: str) -> None:
    """The server sees the call end; the next call works."""
    async with WireServer() as server:
        adapter = adapter_of(name, server.url)
        server.faults.append(Fault("stalled", after=4))

        async with aclosing(adapter.stream("hello there")) as events:  # type: ignore[type-var]  # an async generator
            await anext(events)

        await server.until(lambda: server.busy == 0)
        await adapter.aclose()
        await server.until(lambda: server.connections == 0)


@pytest.mark.parametrize("name", NAMES)
async def test_connections_are_reused(name: str) -> None:
    """Ten calls one after another, streams among them, take one connection."""
    async with WireServer() as server:
        adapter = adapter_of(name, server.url)

        for turn in range(10):
            await consume(adapter, streamed=turn % 2 == 1)

        assert server.accepted == 1
        await adapter.aclose()


@pytest.mark.parametrize("name", NAMES)
def test_a_loop_that_ends_closes_its_connections(name: str) -> None:
    """Nobody calls aclose; no socket is left for the garbage collector, whose warning would fail this test."""
    with WireProcess() as server:
        adapter = adapter_of(name, server.url)

        for _ in range(3):
            asyncio.run(adapter.invoke("hello"))
        gc.collect()

        assert server.state()["statuses"] == [200, 200, 200]


@pytest.mark.parametrize("name", NAMES)
def test_a_program_without_a_loop(name: str) -> None:
    """invoke_sync makes its own, each time."""
    with WireProcess() as server:
        adapter = adapter_of(name, server.url)

        assert adapter.invoke_sync("hello").content == "You said: hello"
        assert adapter.invoke_sync("again").content == "You said: again"
        assert server.calls == 2


def test_a_server_in_a_process_of_its_own_plays_faults() -> None:
    """For tests that kill the caller: the count survives it."""
    with WireProcess() as server:
        server.play({"kind": "status", "status": 529, "error": "overloaded_error"})
        adapter = adapter_of("claude", server.url)

        with pytest.raises(LLMError, match="529"):
            adapter.invoke_sync("hello")
        adapter.invoke_sync("hello")

        assert server.state() == {"calls": 2, "prompts": ["hello", "hello"], "statuses": [529, 200]}


@pytest.mark.parametrize("name", NAMES)
async def test_fifty_calls_at_once(name: str) -> None:
    """Concurrent first calls build one client, and each gets its own answer."""
    async with WireServer() as server:
        adapter = adapter_of(name, server.url)

        answers = await asyncio.gather(*(adapter.invoke(f"number {n}") for n in range(50)))

        assert [answer.content for answer in answers] == [f"You said: number {n}" for n in range(50)]
        assert len(server.calls) == 50
        await adapter.aclose()


class _Client:
    def __init__(self) -> None:
        self.closed = 0

    async def close(self) -> None:
        self.closed += 1


class TestLoopClients:
    """The one client of a loop."""

    async def test_one_that_cannot_be_built_is_tried_again(self) -> None:
        """A failure is told to everybody who waits, and not remembered."""
        attempts: list[int] = []

        def build() -> _Client:
            attempts.append(1)
            if len(attempts) == 1:
                raise ConfigurationError("not installed")
            return _Client()

        clients = LoopClients(build)
        failures = await asyncio.gather(clients.get(), clients.get(), return_exceptions=True)

        assert [type(failure) for failure in failures] == [ConfigurationError, ConfigurationError]
        assert await clients.get() is await clients.get()
        assert len(attempts) == 2
        await clients.aclose()

    async def test_closing_closes_once_and_the_next_call_builds_anew(self) -> None:
        """Aclose is harmless without a client, and twice."""
        clients = LoopClients(_Client)
        await clients.aclose()
        first = await clients.get()

        await clients.aclose()
        await clients.aclose()

        assert first.closed == 1
        assert await clients.get() is not first
        await clients.aclose()

    async def test_a_caller_that_gives_up_does_not_take_the_client_from_the_others(self) -> None:
        """One waiter is cancelled, the other gets the client."""
        clients = LoopClients(_Client)
        waiters = [asyncio.ensure_future(clients.get()) for _ in range(2)]
        await asyncio.sleep(0)

        waiters[0].cancel()

        assert isinstance(await waiters[1], _Client)
        assert waiters[0].cancelled()
        await clients.aclose()


async def test_an_sdk_that_is_not_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    """The error names the package and how to get it; nothing is counted as sent."""
    adapter = adapter_of("claude", "http://127.0.0.1:9")
    monkeypatch.setattr(type(adapter), "sdk_name", "no_such_sdk")

    with pytest.raises(ConfigurationError, match=r"nova-llm\[claude\]"):
        await adapter.invoke("hello", LLMConfig(max_tokens=5))
