"""The program and the factories on real servers: PostgreSQL and an S3 bucket, chosen by the environment alone."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import uuid
from collections.abc import Iterator
from typing import Any

import pytest
from blockbuster import BlockBuster

from app.stores import close_stores, get_checkpoint_store
from app.stores.checkpoint.contract import RunState, RunStatus
from app.stores.offload.command import OffloadExit
from tests.stores.checkpoint.conftest import Database
from tests.support.planted import planted
from tests.support.servers.postgres import PostgresServer
from tests.support.servers.s3 import S3Server


@pytest.fixture
def server(
    postgres_server: PostgresServer, monkeypatch: pytest.MonkeyPatch, blockbuster: BlockBuster
) -> Iterator[S3Server]:
    """Run an S3 server, and configure it and a database of its own."""
    blockbuster.deactivate()
    database = Database(postgres_server, f"offload-{uuid.uuid4().hex[:8]}")
    with S3Server().start() as server:
        monkeypatch.setenv("DATABASE_URL", database.dsn)
        monkeypatch.setenv("R2_ENDPOINT", server.endpoint)
        monkeypatch.setenv("R2_BUCKET", server.bucket)
        monkeypatch.setenv("R2_ACCESS_KEY_ID", server.access_key_id)
        monkeypatch.setenv("R2_SECRET_ACCESS_KEY", server.secret_access_key)
        yield server
    database.close()


def program(*arguments: str) -> tuple[int, dict[str, Any]]:
    """Run the program as a schedule does, and return its exit code and its document."""
    ran = subprocess.run(
        [sys.executable, "-m", "app.stores.checkpoint_offload", *arguments, "--json"],
        capture_output=True,
        text=True,
        check=False,
        env=os.environ,
    )
    assert S3Server.secret_access_key not in ran.stdout + ran.stderr
    return ran.returncode, json.loads(ran.stdout)


async def _load() -> RunState | None:
    state = await get_checkpoint_store().load("r")
    await close_stores()
    return state


async def _record() -> RunState | None:
    await get_checkpoint_store().save("r", 2, step_outputs={"a": 1, "b": ["two"]}, status=RunStatus.COMPLETED)
    return await _load()


def test_the_daily_job_on_postgresql_and_s3(server: S3Server, monkeypatch: pytest.MonkeyPatch) -> None:
    """A run is archived by the program and read by the factory's store; wrong secrets and lost objects are told."""
    before = asyncio.run(_record())
    assert before is not None

    code, report = program("--older-than", "0", "--retention", "0")

    after = asyncio.run(_load())
    assert (code, report["outcome"], report["runs"], report["purged_runs"]) == (0, "done", 1, 1)
    assert after is not None
    assert (after.steps, after.head.tier) == (before.steps, "archived")
    assert program("verify")[1]["right"] == 1

    with monkeypatch.context() as wrong:
        wrong.setenv("R2_SECRET_ACCESS_KEY", planted("archive.wrong_secret"))
        code, told = program("--older-than", "0")
        assert (code, told["error"]["code"]) == (OffloadExit.CONFIGURATION, "ERR_CONFIGURATION")

    code, receipt = program("erase", "--tenant", "default", "--yes")
    assert (code, receipt.get("runs"), receipt.get("remaining")) == (0, 1, []), receipt
    assert asyncio.run(_load()) is None

    server.kill()
    code, told = program("--older-than", "0")
    assert (code, told["error"]["code"]) == (OffloadExit.UNAVAILABLE, "ERR_ARCHIVE_UNAVAILABLE")
