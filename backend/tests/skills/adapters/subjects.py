"""The adapters under test, each with a way to make its provider misbehave and to see what reached it."""

from __future__ import annotations

import abc
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import date
from typing import Literal

from app.credentials import fixed
from app.skills.adapters.claude_adapter import ClaudeAdapter
from app.skills.adapters.openai_adapter import OpenAIAdapter
from app.skills.adapters.stub_adapter import StubAdapter
from app.skills.adapters.stub_script import FaultKind, StubFault, StubScript
from app.skills.llm_invoke_v2 import LLMAdapter
from tests.support.wire import Fault, WireServer

Misbehaviour = Literal[
    "rate_limited",
    "overloaded",
    "server_error",
    "disconnect",
    "cut_stream",
    "truncated",
    "stalled",
    "silent",
    "missing_usage",
    "refusal",
]

TODAY = date(2026, 11, 24)
NAMES = ("stub", "claude", "openai")


class Subject(abc.ABC):
    """An adapter and the provider behind it."""

    adapter: LLMAdapter

    @abc.abstractmethod
    def play(self, what: Misbehaviour) -> None:
        """Make the provider misbehave in the next call; ``rate_limited`` asks for 7 seconds."""

    @property
    @abc.abstractmethod
    def calls(self) -> int:
        """How many calls reached the provider."""


class StubSubject(Subject):
    """The stub, which is its own provider."""

    def __init__(self) -> None:
        self._script = StubScript()
        self._stub = StubAdapter(faults=self._script, today=lambda: TODAY)
        self.adapter = self._stub

    def play(self, what: Misbehaviour) -> None:
        """Add a fault to the script."""
        kinds: dict[str, FaultKind] = {"truncated": "cut_stream", "silent": "timeout"}
        kind: FaultKind = kinds.get(what) or what  # type: ignore[assignment]  # the others have the stub's names
        self._script.add(StubFault(kind=kind, retry_after_s=7.0 if what == "rate_limited" else None))

    @property
    def calls(self) -> int:
        """How many calls the stub got."""
        return self._stub.calls


class WireSubject(Subject):
    """An adapter of an SDK, and a loopback server."""

    def __init__(self, server: WireServer, adapter: LLMAdapter) -> None:
        self.server = server
        self.adapter = adapter

    def play(self, what: Misbehaviour) -> None:
        """Add a fault to the server."""
        self.server.faults.append(_FAULTS[what])

    @property
    def calls(self) -> int:
        """How many calls the server got."""
        return len(self.server.calls)


# The fourth event is a piece of text in either format.
_FAULTS: dict[Misbehaviour, Fault] = {
    "rate_limited": Fault("status", status=429, error="rate_limit_error", headers={"retry-after": "7"}),
    "overloaded": Fault("status", status=529, error="overloaded_error"),
    "server_error": Fault("status", status=500, error="api_error"),
    "disconnect": Fault("disconnect"),
    "cut_stream": Fault("disconnect_midway", after=4),
    "truncated": Fault("truncated", after=4),
    "stalled": Fault("stalled", after=4),
    "silent": Fault("stalled", after=0),
    "missing_usage": Fault("no_usage"),
    "refusal": Fault("refusal"),
}


@asynccontextmanager
async def open_subject(name: str) -> AsyncIterator[Subject]:
    """Build an adapter with its provider; both are closed at the end."""
    if name == "stub":
        yield StubSubject()
        return
    async with WireServer() as server:
        adapter: LLMAdapter
        if name == "claude":
            adapter = ClaudeAdapter(api_key=fixed(server.key), base_url=server.url, today=lambda: TODAY)
        else:
            adapter = OpenAIAdapter(api_key=fixed(server.key), base_url=server.openai_url, today=lambda: TODAY)
        try:
            yield WireSubject(server, adapter)
        finally:
            await adapter.aclose()
