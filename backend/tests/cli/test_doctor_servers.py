"""``nova doctor`` on real servers: latency, schema, clocks, and what an archive permits."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from app.cli.archive_checks import _forbidden
from app.cli.server_checks import clock_findings
from app.errors import ArchiveUnavailableError
from app.stores.archive.directory import DirectoryArchive
from tests.support.servers.postgres import PostgresServer
from tests.support.servers.s3 import S3Server
from tests.support.servers.valkey import ValkeyServer

from .harness import Nova


@pytest.fixture(scope="module")
def variables() -> Iterator[dict[str, str]]:
    """Start PostgreSQL, Valkey and S3, and return the environment that names them."""
    with PostgresServer() as postgres, ValkeyServer() as valkey, S3Server() as s3:
        yield {
            "DATABASE_URL": postgres.create_database("doctor"),
            "REDIS_URL": valkey.url,
            "R2_ENDPOINT": s3.endpoint,
            "R2_BUCKET": s3.bucket,
            "R2_ACCESS_KEY_ID": s3.access_key_id,
            "R2_SECRET_ACCESS_KEY": s3.secret_access_key,
        }


def parts(document: Any) -> dict[str, Any]:
    """Return the findings by the name of their part."""
    return {part["part"]: part for part in document["parts"]}


def test_every_server_is_examined(nova: Nova, variables: dict[str, str]) -> None:
    """Each store with its latency, the schema with its version; the clocks agree, and the archive permits all."""
    nova("offload", env=variables).check()

    examined = nova("doctor", "--json", env=variables)

    found = parts(examined.check().json)
    for kind in ("budget", "checkpoint", "idempotency"):
        assert found[f"{kind} store"]["latency_ms"] > 0
        assert "it answers in" in found[f"{kind} store"]["why"]
    assert "this version's" in found["postgres"]["why"]
    assert found["redis server"]["state"] == "ok"
    assert found["archive"]["state"] == "ok"
    assert "ended done" in found["archive"]["why"]
    assert not any(part.endswith(": clock") for part in found)
    assert found["DATABASE_URL"]["in_force"] == "environment"


def test_the_probe_leaves_nothing_behind(nova: Nova, variables: dict[str, str], tmp_path: Path) -> None:
    """An archive looks the same before and after; one that is not there is not made."""
    local = {**variables, **dict.fromkeys((name for name in variables if name.startswith("R2_")), "")}
    local |= {"NOVA_ARCHIVE_DIR": str(tmp_path / "archive"), "DATABASE_URL": f"sqlite:///{tmp_path / 'nova.db'}"}
    nova("doctor", env=local)
    assert not (tmp_path / "archive").exists()
    nova("offload", env=local).check()
    before = sorted(path for path in (tmp_path / "archive").rglob("*") if path.is_file())

    nova("doctor", env=local).check()

    assert sorted(path for path in (tmp_path / "archive").rglob("*") if path.is_file()) == before


@pytest.mark.parametrize(("verb", "said"), [("put_new", "stored"), ("get", "read"), ("delete", "deleted")])
async def test_what_a_key_may_not_is_named(verb: str, said: str, tmp_path: Path) -> None:
    """A token without one of the three rights fails in the middle of a job otherwise."""

    class Limited(DirectoryArchive):
        pass

    async def denied(*_: object) -> None:
        await asyncio.sleep(0)
        raise ArchiveUnavailableError("access denied")

    setattr(Limited, verb, denied)
    archive = Limited(tmp_path)

    forbidden = await _forbidden(archive)

    assert forbidden == f"{said} (access denied)"


async def test_an_object_that_stays_is_noticed(tmp_path: Path) -> None:
    """A bucket lock answers a deletion and keeps the object."""

    class Locked(DirectoryArchive):
        async def delete(self, key: str) -> None:
            await asyncio.sleep(0)

    assert await _forbidden(Locked(tmp_path)) == "deleted (it is still there)"


def test_a_clock_that_is_off_is_noted() -> None:
    """Beyond two seconds, either way; what is not known is not told."""
    assert list(clock_findings("postgres", 1.9)) == []
    assert list(clock_findings("postgres", None)) == []
    (ahead,) = clock_findings("postgres", 61.0)
    (behind,) = clock_findings("redis server", -3.0)
    assert (ahead.part, ahead.in_force) == ("postgres: clock", "61 s ahead of this host")
    assert (behind.state, behind.in_force) == ("note", "3 s behind this host")
