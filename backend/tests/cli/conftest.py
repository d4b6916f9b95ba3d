"""The command line as tests call it: in this process where it is quick, as a process of its own where that matters."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from tests.support.searched.search import SEARCH

from .harness import Nova, Result, Start


@pytest.fixture(scope="session")
def loaded() -> None:
    """Load what a first call loads lazily: importing reads files, which the tests do not permit on the event loop."""
    from importlib import import_module

    from app.metrics import llm_metrics
    from app.settings import load_settings
    from app.skills.pricing import PriceBook

    for name in (
        "app.cli.conduct",
        "app.stores.offload.command",
        "app.stores.archive.directory",
        "app.skills.adapters.stub_adapter",
        "app.workflow.flow",
    ):
        import_module(name)
    load_settings()
    llm_metrics()
    PriceBook().price(provider="openai", model="gpt-4o-mini")


@pytest.fixture
def nova(loaded: None, monkeypatch: pytest.MonkeyPatch) -> Nova:
    """Run a command in this process, with the stub."""
    from app.cli.tree import app

    monkeypatch.setenv("LLM_ADAPTER", "stub")

    def call(*arguments: str, stdin: str | None = None, env: dict[str, str] | None = None) -> Result:
        result = CliRunner().invoke(app, list(arguments), input=stdin, env=env, prog_name="nova")
        SEARCH.look(f"{result.output}\n{result.stdout}\n{result.stderr}", where="the output of a command")
        return Result(result.exit_code, result.stdout, result.stderr)

    return call


@pytest.fixture
def start() -> Iterator[Start]:
    """Start a command as a process, with the stub; its standard output and error are pipes unless given."""
    started: list[subprocess.Popen[bytes]] = []

    def begin(*arguments: str, env: dict[str, str] | None = None, **options: Any) -> subprocess.Popen[bytes]:
        streams = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
        process = subprocess.Popen(
            [sys.executable, "-m", "app.cli", *arguments],
            env={**os.environ, "LLM_ADAPTER": "stub", **(env or {})},
            **{**streams, **options},
        )
        started.append(process)
        return process

    yield begin
    for process in started:
        if process.poll() is None:
            process.kill()
        process.communicate()


@pytest.fixture
def documents(tmp_path: Path) -> Path:
    """Give a folder of three short documents."""
    folder = tmp_path / "documents"
    folder.mkdir()
    for name in ("ants", "bees", "crows"):
        (folder / f"{name}.txt").write_text(f"What is known about {name}: they work together.\n")
    return folder
