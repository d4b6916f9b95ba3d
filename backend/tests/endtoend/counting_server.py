"""A provider that counts: it answers Chat Completions on loopback, deterministically by the prompt.

``python counting_server.py LATENCY_S`` prints its port, then serves until its standard input closes. ``GET /count``
tells how many calls it received in full. The usage is one token per four bytes of the messages and one per word of the
answer; the answer is a digest of the messages, so that two runs over the same inputs give the same outputs.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import sys

_received = 0


def _answer(body: bytes) -> bytes:
    request = json.loads(body)
    messages = json.dumps(request["messages"], sort_keys=True).encode()
    text = " ".join(hashlib.sha256(messages + bytes([part])).hexdigest()[:12] for part in range(8))
    completion = {
        "id": "chatcmpl-" + hashlib.sha256(messages).hexdigest()[:12],
        "object": "chat.completion",
        "created": 0,
        "model": request["model"],
        "choices": [{"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": text}}],
        "usage": {
            "prompt_tokens": len(messages) // 4,
            "completion_tokens": len(text.split()),
            "total_tokens": len(messages) // 4 + len(text.split()),
        },
    }
    return json.dumps(completion).encode()


async def _serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, latency_s: float) -> None:
    global _received  # noqa: PLW0603 - the one counter of a process that does nothing else
    try:
        while request_line := await reader.readline():
            length = 0
            while (line := await reader.readline()).strip():
                name, _, value = line.decode().partition(":")
                length = int(value) if name.lower() == "content-length" else length
            body = await reader.readexactly(length)
            if request_line.startswith(b"GET /count"):
                payload = json.dumps({"received": _received}).encode()
            else:
                _received += 1
                await asyncio.sleep(latency_s)
                payload = _answer(body)
            writer.write(
                b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n%b"
                % (len(payload), payload)
            )
            await writer.drain()
    except (ConnectionError, asyncio.IncompleteReadError):
        pass  # the client was killed, which is what this server is for
    finally:
        writer.close()


async def _main(latency_s: float) -> None:
    server = await asyncio.start_server(lambda r, w: _serve(r, w, latency_s), "127.0.0.1", 0)
    sys.stdout.write(f"{server.sockets[0].getsockname()[1]}\n")
    sys.stdout.flush()
    await asyncio.to_thread(sys.stdin.read)
    server.close()


if __name__ == "__main__":
    asyncio.run(_main(float(sys.argv[1])))
