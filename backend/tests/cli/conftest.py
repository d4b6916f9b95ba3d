"""The command line as tests call it: in this process where it is quick, as a process of its own where that matters."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner


@dataclass(frozen=True, slots=True)
class Result:
    """What a command left behind."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        """The one document on standard output."""
        return json.loads(self.out)


Nova = Callable[..., Result]


@pytest.fixture
def nova() -> Nova:
    """Run a command in this process."""
    from app.cli.tree import app

    def call(*arguments: str, stdin: str | None = None) -> Result:
        result = CliRunner().invoke(app, list(arguments), input=stdin, prog_name="nova")
        return Result(result.exit_code, result.stdout, result.stderr)

    return call


@pytest.fixture
def start() -> Callable[..., subprocess.Popen[bytes]]:
    """Start a command as a process; its standard output and error are pipes unless given."""
    started: list[subprocess.Popen[bytes]] = []

    def begin(*arguments: str, **options: Any) -> subprocess.Popen[bytes]:
        options = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "stdin": subprocess.DEVNULL, **options}
        options["env"] = {**os.environ, **options.pop("env", {})}
        process = subprocess.Popen([sys.executable, "-m", "app.cli", *arguments], **options)
        started.append(process)
        return process

    yield begin
    for process in started:
        if process.poll() is None:
            process.send_signal(signal.SIGKILL)
        process.communicate()


@pytest.fixture
def child(start: Callable[..., subprocess.Popen[bytes]]) -> Nova:
    """Run a command as a process to its end."""

    def call(*arguments: str, **options: Any) -> Result:
        process = start(*arguments, **options)
        out, err = process.communicate(timeout=60)
        return Result(process.returncode, (out or b"").decode(), (err or b"").decode())

    return call


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with three short documents."""
    documents = tmp_path / "documents"
    documents.mkdir()
    for name in ("ants", "bees", "crows"):
        (documents / f"{name}.txt").write_text(f"What is known about {name}: they work together.\n")
    return documents
