"""One OpenBao server for the tests of this folder; each test gets secrets of its own."""

from __future__ import annotations

from collections.abc import Iterator
from uuid import uuid4

import pytest

from tests.support.planted import planted
from tests.support.servers.openbao import OpenBaoServer


@pytest.fixture(scope="session")
def openbao() -> Iterator[OpenBaoServer]:
    """Start the server."""
    with OpenBaoServer() as server:
        policy = 'path "secret/data/user/*" { capabilities = ["read"] }'
        server.admin.sys.create_or_update_policy("nova", policy)
        yield server


@pytest.fixture
def bao(openbao: OpenBaoServer) -> Iterator[OpenBaoServer]:
    """Give the server with no secret in it."""
    yield openbao
    for secret in ("anthropic", "openai", "neon", "upstash", "r2"):
        openbao.admin.secrets.kv.v2.delete_metadata_and_all_versions(path=f"user/{secret}")
    openbao.admin.sys.disable_auth_method("approle")


@pytest.fixture
def vault(bao: OpenBaoServer, monkeypatch: pytest.MonkeyPatch) -> OpenBaoServer:
    """Give the server, with an environment that names it and a token of Nova's policy."""
    monkeypatch.setenv("VAULT_ADDR", bao.url)
    monkeypatch.setenv("VAULT_TOKEN", bao.token("nova", id=f"{planted('vault.token')}-{uuid4().hex}"))
    return bao
