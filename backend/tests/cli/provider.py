"""A provider on loopback that counts its calls and answers when it is told to."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

__all__ = ["Provider", "provider"]


class Provider:
    """Speaks Chat Completions.

    Attributes:
        calls: how many requests came.
        arrived: released once per request.
        status: of the answers; an error for anything but 200.
    """

    def __init__(self, url: str) -> None:
        self.url = url
        self.calls = 0
        self.arrived = threading.Semaphore(0)
        self.status = 200
        self._held_from: int | None = None
        self._let_go = threading.Event()
        self._lock = threading.Lock()

    @property
    def environment(self) -> dict[str, str]:
        """The variables that make a command use it."""
        return {"LLM_ADAPTER": "openai", "OPENAI_BASE_URL": self.url}

    def answer(self, request: bytes) -> bytes:
        """Count a request, wait if it is held, and answer with the request's last words."""
        with self._lock:
            self.calls += 1
            number = self.calls
        self.arrived.release()
        if self._held_from is not None and number >= self._held_from:
            self._let_go.wait(timeout=60)
        prompt = json.loads(request)["messages"][-1]["content"]
        return json.dumps(
            {
                "id": f"chatcmpl-{number}",
                "object": "chat.completion",
                "created": 1,
                "model": "gpt-4o-mini",
                "choices": [
                    {
                        "index": 0,
                        "message": {"role": "assistant", "content": f"about {prompt[-24:].strip()}"},
                        "finish_reason": "stop",
                    }
                ],
                "usage": {"prompt_tokens": 100, "completion_tokens": 10, "total_tokens": 110},
            }
        ).encode()

    def hold(self, *, from_call: int) -> None:
        """Answer no request from this one on (the first is 1), until ``let_go``; call it before the first."""
        self._held_from = from_call

    def let_go(self) -> None:
        """Answer the requests that are held, and all later ones."""
        self._let_go.set()

    def wait_for_call(self) -> None:
        """Return when another request has come."""
        assert self.arrived.acquire(timeout=30), "no request came"


@contextmanager
def provider() -> Iterator[Provider]:
    """Serve until the end of the block."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            answer = served.answer(body)
            try:
                self.send_response(served.status)
                self.send_header("content-type", "application/json")
                self.send_header("content-length", str(len(answer)))
                self.end_headers()
                self.wfile.write(answer)
            except OSError:
                return  # whoever asked was killed, or cut its call: that is what some tests are about

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base class's name
            return

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    served = Provider(f"http://127.0.0.1:{server.server_port}/v1")
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    try:
        yield served
    finally:
        served.let_go()
        server.shutdown()
        server.server_close()
        thread.join()
