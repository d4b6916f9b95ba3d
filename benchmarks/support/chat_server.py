"""A server on loopback that answers every Chat Completions request at once, in a process of its own.

A request for a stream gets the answer word by word, in one piece of network; one with tools gets a call of a tool, and
the answer once it has the result.

What is measured beside it is the caller: the answer is one constant of ordinary size, with usage. Requests are counted,
so that a benchmark can check that nobody cached, repeated or lost one.
"""

from __future__ import annotations

import asyncio
import json
import re
import subprocess
import sys
import urllib.request
from pathlib import Path
from typing import Final

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from benchmarks.support.request import TOOL_CALL

__all__ = ["ANSWER", "STREAMED_TOKENS", "ChatServer"]

ANSWER: Final = " ".join(["The report names three causes, and each of them can be tested within a week."] * 5)

_BODY: Final = json.dumps(
    {
        "id": "chatcmpl-0123456789",
        "object": "chat.completion",
        "created": 1_790_000_000,
        "model": "gpt-4o-mini-2024-07-18",
        "choices": [
            {
                "index": 0,
                "message": {"role": "assistant", "content": ANSWER, "refusal": None, "annotations": []},
                "logprobs": None,
                "finish_reason": "stop",
            }
        ],
        "usage": {
            "prompt_tokens": 82,
            "completion_tokens": 80,
            "total_tokens": 162,
            "prompt_tokens_details": {"cached_tokens": 0, "audio_tokens": 0},
            "completion_tokens_details": {
                "reasoning_tokens": 0,
                "audio_tokens": 0,
                "accepted_prediction_tokens": 0,
                "rejected_prediction_tokens": 0,
            },
        },
        "service_tier": "default",
        "system_fingerprint": "fp_0123456789",
    }
).encode()
_WORDS: Final = [word if not number else f" {word}" for number, word in enumerate(ANSWER.split(" "))]
STREAMED_TOKENS: Final = len(_WORDS)
"""How many pieces of text a stream has."""


def _tool_body() -> bytes:
    body = json.loads(_BODY)
    call = {"id": "call_0123456789", "type": "function", "function": TOOL_CALL}
    body["choices"][0]["message"] |= {"content": None, "tool_calls": [call]}
    body["choices"][0]["finish_reason"] = "tool_calls"
    return json.dumps(body).encode()


def _stream() -> bytes:
    """Return the whole stream as it is on the wire: an event in each chunk."""
    whole = json.loads(_BODY)
    head = {"id": whole["id"], "object": "chat.completion.chunk", "created": 1, "model": whole["model"]}

    def event(choices: list[object], usage: object = None) -> bytes:
        data = b"data: " + json.dumps({**head, "choices": choices, "usage": usage}).encode() + b"\n\n"
        return f"{len(data):x}\r\n".encode() + data + b"\r\n"

    def choice(delta: dict[str, str], reason: str | None = None) -> list[object]:
        return [{"index": 0, "delta": delta, "finish_reason": reason, "logprobs": None}]

    events = [event(choice({"role": "assistant", "content": ""})), *(event(choice({"content": w})) for w in _WORDS)]
    events += [event(choice({}, "stop")), event([], whole["usage"])]
    done = b"data: [DONE]\n\n"
    start = "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\nx-request-id: req_1"
    return f"{start}\r\n\r\n".encode() + b"".join(events) + f"{len(done):x}\r\n".encode() + done + b"\r\n0\r\n\r\n"


_LENGTH: Final = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)
_CHAT: Final = b"POST /v1/chat/completions "
_COUNT: Final = b"GET /count "


def _answer(status: str, body: bytes) -> bytes:
    head = f"HTTP/1.1 {status}\r\ncontent-type: application/json\r\ncontent-length: {len(body)}\r\nx-request-id: req_1"
    return f"{head}\r\n\r\n".encode() + body


_CHAT_ANSWER: Final = _answer("200 OK", _BODY)
_TOOL_ANSWER: Final = _answer("200 OK", _tool_body())
_STREAM_ANSWER: Final = _stream()


class _Counter:
    """How many calls arrived, on all connections."""

    def __init__(self) -> None:
        self.calls = 0


class _Connection(asyncio.Protocol):
    """One connection, kept open until the client closes it."""

    def __init__(self, counter: _Counter) -> None:
        self._counter = counter
        self._received = bytearray()
        self._transport: asyncio.WriteTransport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.WriteTransport)
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        assert self._transport is not None
        self._received += data
        while (end := self._received.find(b"\r\n\r\n")) >= 0:
            head = bytes(self._received[:end])
            length = _LENGTH.search(head)
            size = end + 4 + (int(length[1]) if length else 0)
            if len(self._received) < size:
                return
            body = bytes(self._received[end + 4 : size])
            del self._received[:size]
            self._transport.write(self._reply(head, body))

    def _reply(self, head: bytes, body: bytes) -> bytes:
        if head.startswith(_CHAT):
            self._counter.calls += 1
            asked = json.loads(body)
            if asked.get("stream"):
                return _STREAM_ANSWER
            if asked.get("tools") and asked["messages"][-1]["role"] != "tool":
                return _TOOL_ANSWER
            if asked["messages"]:
                return _CHAT_ANSWER
        if head.startswith(_COUNT):
            return _answer("200 OK", b"%d" % self._counter.calls)
        return _answer("404 Not Found", b'{"error": {"message": "not a chat completion"}}')


class ChatServer:
    """The server in a child process, ended with the block."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[str] | None = None
        self._port = 0

    @property
    def base_url(self) -> str:
        """The base URL for OpenAI's SDK."""
        return f"http://127.0.0.1:{self._port}/v1"

    @property
    def calls(self) -> int:
        """How many calls arrived."""
        with urllib.request.urlopen(f"http://127.0.0.1:{self._port}/count", timeout=30) as answer:
            return int(answer.read())

    def __enter__(self) -> ChatServer:
        self._process = subprocess.Popen([sys.executable, __file__], stdout=subprocess.PIPE, text=True)
        assert self._process.stdout is not None
        self._port = int(self._process.stdout.readline())
        return self

    def __exit__(self, *exception: object) -> None:
        assert self._process is not None
        assert self._process.stdout is not None
        self._process.kill()
        self._process.wait()
        self._process.stdout.close()


async def _serve() -> None:
    counter = _Counter()
    server = await asyncio.get_running_loop().create_server(lambda: _Connection(counter), "127.0.0.1", 0, backlog=512)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(_serve())
