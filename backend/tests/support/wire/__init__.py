"""Loopback servers with the wire formats of Anthropic's Messages and OpenAI's Chat Completions.

They count calls, refuse bodies that the real API refuses, and play faults. In a test's own loop::

    async with WireServer() as server:
        server.faults.append(Fault("status", status=429, headers={"retry-after": "1"}))
        adapter = ClaudeAdapter(api_key=fixed(server.key), base_url=server.url)

In a process of its own, where the test's process is killed: :class:`WireProcess`.
"""

from __future__ import annotations

from tests.support.wire.process import WireProcess
from tests.support.wire.server import Call, Fault, WireServer

__all__ = ["Call", "Fault", "WireProcess", "WireServer"]
