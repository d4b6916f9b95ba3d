"""The loopback server in a process of its own: it goes on counting when the process that calls it is killed."""

from __future__ import annotations

import json
import subprocess
import sys
import urllib.request
from typing import Any

__all__ = ["WireProcess"]


class WireProcess:
    """A server in a child process, ended with the block.

    Args:
        delay_s: how long every answer takes.
        port: 0 is any free one.
    """

    def __init__(self, *, delay_s: float = 0.0, port: int = 0) -> None:
        self._arguments = ["--delay-s", str(delay_s), "--port", str(port)]
        self._process: subprocess.Popen[str] | None = None
        self.url = ""

    @property
    def openai_url(self) -> str:
        """The base URL for OpenAI's SDK."""
        return f"{self.url}/v1"

    def __enter__(self) -> WireProcess:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.support.wire", *self._arguments], stdout=subprocess.PIPE, text=True
        )
        assert self._process.stdout is not None
        self.url = json.loads(self._process.stdout.readline())["url"]
        return self

    def __exit__(self, *exception: object) -> None:
        assert self._process is not None
        assert self._process.stdout is not None
        self._process.kill()
        self._process.wait()
        self._process.stdout.close()

    def state(self) -> dict[str, Any]:
        """Return ``calls`` (how many arrived), their ``prompts`` and ``statuses``, in order of arrival."""
        with urllib.request.urlopen(f"{self.url}/_wire", timeout=10) as answer:
            state: dict[str, Any] = json.load(answer)
        return state

    @property
    def calls(self) -> int:
        """How many calls arrived."""
        return int(self.state()["calls"])

    def play(self, *faults: dict[str, Any]) -> None:
        """Add faults for the coming calls, as the fields of :class:`Fault`."""
        request = urllib.request.Request(f"{self.url}/_wire", data=json.dumps({"faults": faults}).encode())
        with urllib.request.urlopen(request, timeout=10) as answer:
            answer.read()
