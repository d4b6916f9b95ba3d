"""The loopback server: HTTP/1.1 by hand, so that it can break in every way in which a provider can."""

from __future__ import annotations

import asyncio
import json
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from types import ModuleType
from typing import Any, Literal

from tests.support.planted import planted
from tests.support.wire import anthropic_wire, openai_wire
from tests.support.wire.reply import Refused, Reply, text_in

__all__ = ["Call", "Fault", "FaultKind", "WireServer"]

FaultKind = Literal[
    "ok",
    "status",
    "disconnect",
    "disconnect_midway",
    "truncated",
    "malformed",
    "html",
    "stalled",
    "no_usage",
    "error_event",
    "refusal",
    "empty",
    "raw",
]
"""What happens to a call.

``status``: an error answer. ``disconnect``: before the first byte. ``disconnect_midway``: after ``after`` events, or
in the middle of a whole answer. ``truncated``: a stream ends in good order after ``after`` events. ``malformed``: JSON
that is none. ``html``: a page with status 200. ``stalled``: silence after ``after`` events (0: from the start).
``no_usage``: left out. ``error_event``: one within a stream, after ``after`` events. ``refusal``, ``empty``: answers.
``raw``: ``body`` as it is, or the events in ``events``.
"""


@dataclass(frozen=True, slots=True)
class Fault:
    """What happens to one call."""

    kind: FaultKind = "ok"
    status: int = 500
    headers: dict[str, str] = field(default_factory=dict)
    error: str = "api_error"
    code: str | None = None
    message: str = "played by the test"
    after: int = 2
    delay_s: float = 0.0
    body: object = None
    events: tuple[tuple[str | None, object], ...] = ()
    page: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """A call that arrived, with what came of it: the HTTP status, 0 where none was sent."""

    path: str
    headers: dict[str, str]
    body: dict[str, Any]
    status: int

    @property
    def streamed(self) -> bool:
        """Whether a stream was asked for."""
        return bool(self.body.get("stream"))


class WireServer:
    """A server on loopback that speaks both formats; what it was sent is in ``calls``.

    Args:
        key: the only key that is taken, None for any or none.
        answer: returns the text of an answer from the last message's text.
        delay_s: how long every answer takes.
        context_tokens: what prompt and answer may have together.
        port: 0 is any free one.
    """

    def __init__(
        self,
        *,
        key: str | None = planted("provider.key"),
        answer: Callable[[str], str] = lambda prompt: f"You said: {prompt}",
        delay_s: float = 0.0,
        context_tokens: int = 100_000,
        port: int = 0,
    ) -> None:
        self.key = key or "any"
        self.calls: list[Call] = []
        self.faults: deque[Fault] = deque()
        self.connections = 0
        self.busy = 0
        self.accepted = 0
        self._key = key
        self._answer = answer
        self._delay_s = delay_s
        self._context_tokens = context_tokens
        self._port = port
        self._server: asyncio.Server | None = None
        self._handlers: set[asyncio.Task[None]] = set()
        self._changed = asyncio.Event()

    async def __aenter__(self) -> WireServer:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", self._port)
        self._port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *exception: object) -> None:
        assert self._server is not None
        self._server.close()
        for handler in self._handlers:
            handler.cancel()
        await asyncio.gather(*self._handlers, return_exceptions=True)
        await self._server.wait_closed()

    @property
    def url(self) -> str:
        """Where the server is: the base URL for Anthropic's SDK."""
        return f"http://127.0.0.1:{self._port}"

    @property
    def openai_url(self) -> str:
        """The base URL for OpenAI's SDK."""
        return f"{self.url}/v1"

    async def until(self, condition: Callable[[], bool], *, timeout_s: float = 5.0) -> None:
        """Wait until something holds; it is looked at whenever a call or connection comes or goes."""
        async with asyncio.timeout(timeout_s):
            while not condition():
                self._changed.clear()
                await self._changed.wait()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._handlers.add(task)
        self.connections += 1
        self.accepted += 1
        self._changed.set()
        try:
            while await self._one_call(reader, writer):
                pass
        except (ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
            pass  # the client is gone, or the server ends; streams of 3.11 would log a cancelled handler
        finally:
            writer.transport.abort()
            self.connections -= 1
            self._handlers.discard(task)
            self._changed.set()

    async def _one_call(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        """Answer one request; return whether the connection stays."""
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
        method, path, _ = head[0].split(" ")
        headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in head[1:] if line)}
        body = json.loads(await reader.readexactly(int(headers.get("content-length", 0))) or b"{}")
        if path.startswith("/_wire"):
            await self._control(method, body, writer)
            return True
        fault = self.faults.popleft() if self.faults else Fault()
        call = Call(path=path, headers=headers, body=body, status=0)
        place = len(self.calls)
        self.calls.append(call)
        self._changed.set()

        def sent(status: int) -> None:
            self.calls[place] = replace(call, status=status)

        self.busy += 1
        answering = asyncio.ensure_future(self._respond(call, fault, writer, sent))
        gone = asyncio.ensure_future(reader.read(1))  # nothing more comes on a connection that stays, except its end
        try:
            await asyncio.wait({answering, gone}, return_when=asyncio.FIRST_COMPLETED)
            if not answering.done():
                raise ConnectionResetError("the client hung up")
            return answering.result()
        finally:
            for waiting in (answering, gone):
                waiting.cancel()
            await asyncio.gather(answering, gone, return_exceptions=True)
            self.busy -= 1
            self._changed.set()

    async def _respond(
        self, call: Call, fault: Fault, writer: asyncio.StreamWriter, sent: Callable[[int], None]
    ) -> bool:
        if fault.delay_s or self._delay_s:
            await asyncio.sleep(fault.delay_s or self._delay_s)
        if fault.kind == "disconnect":
            return False
        if fault.kind == "stalled" and fault.after == 0:
            await asyncio.Event().wait()
        wire = anthropic_wire if call.path.startswith(anthropic_wire.PATH) else openai_wire
        try:
            reply = self._reply(wire, call, fault)
        except Refused as refused:
            error = wire.error_body(refused.kind, str(refused), refused.code)
            sent(refused.status)
            await _write_json(writer, refused.status, error, fault.headers)
            return True
        if fault.kind == "html":
            sent(200)
            await _write(writer, 200, b"<html><body>Welcome to the proxy</body></html>", "text/html", {})
            return True
        sent(200)
        if call.streamed and not (fault.kind == "raw" and fault.body is not None):
            return await self._stream(wire, reply, fault, writer)
        return await self._whole(wire, reply, fault, writer)

    def _reply(self, wire: ModuleType, call: Call, fault: Fault) -> Reply:
        if call.path not in {anthropic_wire.PATH, openai_wire.PATH}:
            raise Refused(404, "not_found_error", "Not Found")
        keys = {call.headers.get("x-api-key"), call.headers.get("authorization", "").removeprefix("Bearer ")}
        if self._key is not None and self._key not in keys:
            raise Refused(401, "authentication_error", "invalid x-api-key", code="invalid_api_key")
        messages = call.body.get("messages")
        prompt = text_in(messages[-1].get("content")) if isinstance(messages, list) and messages else ""
        reply: Reply = wire.read_request(
            call.body, call.headers, text=self._answer(prompt), context_tokens=self._context_tokens
        )
        if fault.kind == "status":
            raise Refused(fault.status, fault.error, fault.message, code=fault.code)
        if fault.kind == "no_usage":
            return replace(reply, usage=None)
        if fault.kind == "refusal":
            return replace(reply, text="I cannot help with that.", calls=(), reason="refusal")
        return replace(reply, text="") if fault.kind == "empty" else reply

    async def _whole(self, wire: ModuleType, reply: Reply, fault: Fault, writer: asyncio.StreamWriter) -> bool:
        data = json.dumps(wire.body_of(reply) if fault.body is None else fault.body).encode()
        if fault.kind == "malformed":
            data = data[: len(data) // 2]
        if fault.kind in {"disconnect_midway", "stalled"}:
            writer.write(_head(200, "application/json", fault.headers, length=len(data)) + data[: len(data) // 2])
            await writer.drain()
            if fault.kind == "stalled":
                await asyncio.Event().wait()
            return False
        await _write(writer, 200, data, "application/json", fault.headers)
        return True

    async def _stream(self, wire: ModuleType, reply: Reply, fault: Fault, writer: asyncio.StreamWriter) -> bool:
        writer.write(_head(200, "text/event-stream; charset=utf-8", fault.headers, length=None))
        events: Iterator[tuple[str | None, object]] = iter(fault.events or wire.events_of(reply))
        for number, (name, data) in enumerate(events):
            if number == fault.after:
                if fault.kind == "disconnect_midway":
                    await writer.drain()
                    return False
                if fault.kind == "stalled":
                    await writer.drain()
                    await asyncio.Event().wait()
                if fault.kind == "truncated":
                    break
                if fault.kind == "malformed":
                    _chunk(writer, b'data: {"type": "content_block_delta", "del\n\n')
                if fault.kind == "error_event":
                    error = wire.error_body(fault.error, fault.message, fault.code)
                    _chunk(writer, _event("error" if wire is anthropic_wire else None, error))
                    break
            _chunk(writer, _event(name, data))
            await writer.drain()
        else:
            if wire is openai_wire:
                _chunk(writer, b"data: [DONE]\n\n")
        writer.write(b"0\r\n\r\n")
        await writer.drain()
        return True

    async def _control(self, method: str, body: dict[str, Any], writer: asyncio.StreamWriter) -> None:
        """Answer the test's own questions: ``GET /_wire`` counts, ``POST /_wire`` adds faults."""
        if method == "POST":
            self.faults.extend(Fault(**fault) for fault in body["faults"])
        by_prompt = [text_in(call.body["messages"][-1]["content"]) for call in self.calls if call.body.get("messages")]
        state = {"calls": len(self.calls), "prompts": by_prompt, "statuses": [call.status for call in self.calls]}
        await _write_json(writer, 200, state, {})


def _head(status: int, kind: str, headers: dict[str, str], *, length: int | None) -> bytes:
    size = "transfer-encoding: chunked" if length is None else f"content-length: {length}"
    lines = [f"HTTP/1.1 {status} X", f"content-type: {kind}", size, "request-id: req_1", "x-request-id: req_1"]
    lines += [f"{name}: {value}" for name, value in headers.items()]
    return ("\r\n".join(lines) + "\r\n\r\n").encode()


async def _write(writer: asyncio.StreamWriter, status: int, data: bytes, kind: str, headers: dict[str, str]) -> None:
    writer.write(_head(status, kind, headers, length=len(data)) + data)
    await writer.drain()


async def _write_json(writer: asyncio.StreamWriter, status: int, body: object, headers: dict[str, str]) -> None:
    await _write(writer, status, json.dumps(body).encode(), "application/json", headers)


def _event(name: str | None, data: object) -> bytes:
    return (f"event: {name}\n" if name else "").encode() + b"data: " + json.dumps(data).encode() + b"\n\n"


def _chunk(writer: asyncio.StreamWriter, data: bytes) -> None:
    writer.write(f"{len(data):x}\r\n".encode() + data + b"\r\n")
