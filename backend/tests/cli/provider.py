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
        gate: answers are sent while it is set.
    """

    def __init__(self, url: str) -> None:
        self.url = url
        self.calls = 0
        self.arrived = threading.Semaphore(0)
        self.gate = threading.Event()
        self.gate.set()
        self._lock = threading.Lock()

    @property
    def environment(self) -> dict[str, str]:
        """The variables that make a command use it."""
        return {"LLM_ADAPTER": "openai", "OPENAI_BASE_URL": self.url}

    def answer(self, request: bytes) -> bytes:
        """Count a request, wait for the gate, and answer with the request's last words."""
        with self._lock:
            self.calls += 1
            number = self.calls
        self.arrived.release()
        self.gate.wait(timeout=60)
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
                self.send_response(200)
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
        served.gate.set()
        server.shutdown()
        server.server_close()
        thread.join()
