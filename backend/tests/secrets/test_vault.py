"""Vault, on a real OpenBao: logins that are renewed, rotation, and what is served while it is sealed or down."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from uuid import uuid4

import pytest

from app.errors import SecretsUnavailableError
from app.secrets.keeper import SecretKeeper
from app.secrets.vault import VaultConfig, VaultReader
from app.settings import load_settings
from tests.support.clock import FakeClock
from tests.support.planted import planted
from tests.support.servers.openbao import ROOT_TOKEN, OpenBaoServer

REFUSED_TOKEN = planted("vault.refused_token")
REFUSED_SECRET_ID = planted("vault.refused_secret_id")


@pytest.fixture
def keep() -> Iterator[SecretKeeper]:
    """Give a keeper of its own, without a thread."""
    kept = SecretKeeper()
    yield kept
    kept.close()


@pytest.fixture
def approle(bao: OpenBaoServer) -> VaultConfig:
    """Give a login as an AppRole whose tokens live 60 seconds, renewed to at most 2 minutes."""
    admin = bao.admin
    admin.sys.enable_auth_method("approle", path="approle")
    admin.auth.approle.create_or_update_approle(
        "nova", token_policies=["nova"], token_ttl="60s", token_max_ttl="120s", secret_id_num_uses=0
    )
    role_id = admin.auth.approle.read_role_id("nova")["data"]["role_id"]
    secret_id = planted("vault.secret_id")
    admin.auth.approle.create_custom_secret_id("nova", secret_id=secret_id)
    return VaultConfig(url=bao.url, role_id=role_id, secret_id=secret_id)


def own_token(reader: VaultReader) -> str:
    """Return the token that a reader is logged in with, by the back door."""
    return str(reader._client.token)


def test_a_rotation_reaches_whoever_holds_the_source(bao: OpenBaoServer, keep: SecretKeeper) -> None:
    """One look later the newer version is given, by the very object that was handed out."""
    bao.put("upstash", REDIS_URL="redis://:password-1@h")
    source = keep.from_vault(VaultConfig(url=bao.url, token=bao.token("nova")), ["upstash"])["redis_url"]

    bao.put("upstash", REDIS_URL="redis://:password-2@h")
    keep.refresh()

    assert (source().reveal(), source().version) == ("redis://:password-2@h", "2")


def test_a_rejection_asks_vault_at_once(bao: OpenBaoServer) -> None:
    """And no more than four times a second, however many connections are rejected."""
    clock = FakeClock()
    reads = []

    class Counting(VaultReader):
        def read(self, secret: str) -> object:  # type: ignore[override]
            reads.append(secret)
            return super().read(secret)

    keep = SecretKeeper(clock=lambda: clock() / 1000, open_vault=Counting)
    bao.put("openai", OPENAI_API_KEY="key-1")
    source = keep.from_vault(VaultConfig(url=bao.url, token=bao.token("nova")), ["openai"])["openai_api_key"]
    first = source()
    bao.put("openai", OPENAI_API_KEY="key-2")

    second = source.instead_of(first)
    assert second is not None
    assert second.reveal() == "key-2"
    for _ in range(5):
        source.instead_of(second)

    assert reads == ["openai", "openai"]


def test_a_secret_that_comes_later_is_found(bao: OpenBaoServer, keep: SecretKeeper) -> None:
    """What was not there at the first reading may be there at the next."""
    config = VaultConfig(url=bao.url, token=bao.token("nova"))
    assert keep.from_vault(config, ["neon"]) == {}

    bao.put("neon", DATABASE_URL="postgresql://u:password-1@h/db")
    keep.refresh()

    assert keep.from_vault(config, ["neon"])["database_url"]().reveal() == "postgresql://u:password-1@h/db"


def test_a_token_is_renewed_at_two_thirds_of_its_life(bao: OpenBaoServer) -> None:
    """It stays the same token, and lives on."""
    clock = FakeClock()
    token = bao.token("nova", ttl="90s", renewable=True)
    reader = VaultReader(VaultConfig(url=bao.url, token=token), clock=lambda: clock() / 1000)
    bao.put("openai", OPENAI_API_KEY="key-1")
    reader.read("openai")
    renewed_before = bao.admin.auth.token.lookup(token)["data"].get("last_renewal_time")

    clock.now_ms += 61_000
    reader.read("openai")

    assert renewed_before is None
    assert bao.admin.auth.token.lookup(token)["data"]["last_renewal_time"] is not None
    assert own_token(reader) == token


def test_an_approle_logs_in_and_again_when_its_token_was_revoked(bao: OpenBaoServer, approle: VaultConfig) -> None:
    """A 403 may be the end of the login: a new one settles it, and the reading succeeds."""
    bao.put("anthropic", ANTHROPIC_API_KEY="key-1")
    reader = VaultReader(approle)
    reader.read("anthropic")
    first = own_token(reader)

    bao.admin.auth.token.revoke(first)
    found = reader.read("anthropic")

    assert found is not None
    assert found.values == {"ANTHROPIC_API_KEY": "key-1"}
    assert own_token(reader) != first


def test_a_renewal_that_is_refused_becomes_a_new_login(bao: OpenBaoServer, approle: VaultConfig) -> None:
    """A token cannot be renewed past its maximal life, or after it was revoked."""
    clock = FakeClock()
    bao.put("anthropic", ANTHROPIC_API_KEY="key-1")
    reader = VaultReader(approle, clock=lambda: clock() / 1000)
    reader.read("anthropic")
    first = own_token(reader)

    bao.admin.auth.token.revoke(first)
    clock.now_ms += 41_000
    reader.stay_logged_in()

    assert own_token(reader) != first
    assert reader.read("anthropic") is not None


def test_nova_may_read_and_nothing_else(bao: OpenBaoServer) -> None:
    """The policy denies writing, and the secrets of others."""
    import hvac

    client = hvac.Client(url=bao.url, token=bao.token("nova"))
    with pytest.raises(hvac.exceptions.Forbidden):
        client.secrets.kv.v2.create_or_update_secret(path="user/openai", secret={"OPENAI_API_KEY": "mine"})
    with pytest.raises(hvac.exceptions.Forbidden):
        client.secrets.kv.v2.read_secret_version(path="payroll", raise_on_deleted_version=True)


def test_while_vault_is_sealed_what_is_known_is_served(
    bao: OpenBaoServer, keep: SecretKeeper, caplog: pytest.LogCaptureFixture
) -> None:
    """It is said once, with the remedy, and once more when it is over; then rotations are seen again."""
    bao.put("openai", OPENAI_API_KEY="key-1")
    bao.put("anthropic", ANTHROPIC_API_KEY="key-2")
    sources = keep.from_vault(VaultConfig(url=bao.url, token=bao.token("nova")), ["openai", "anthropic"])
    caplog.set_level(logging.WARNING, "app.secrets")

    bao.seal()
    try:
        keep.refresh()
        keep.refresh()
        standing = keep.standing(sources["anthropic_api_key"])
    finally:
        bao.unseal()

    assert {name: source().reveal() for name, source in sources.items()} == {
        "openai_api_key": "key-1",
        "anthropic_api_key": "key-2",
    }
    assert standing is not None
    assert standing.stale_since is not None
    assert len(caplog.records) == 1
    assert "sealed" in caplog.text
    assert "unseal it" in caplog.text

    bao.put("openai", OPENAI_API_KEY="key-3")
    keep.refresh()

    assert sources["openai_api_key"]().reveal() == "key-3"
    assert "can be read again" in caplog.text


def test_a_secret_that_is_forbidden_or_deleted_later_leaves_its_last_value(
    bao: OpenBaoServer, keep: SecretKeeper
) -> None:
    """And does not keep the others from being read."""
    bao.put("openai", OPENAI_API_KEY="key-1")
    bao.put("anthropic", ANTHROPIC_API_KEY="key-2")
    policy = uuid4().hex
    bao.admin.sys.create_or_update_policy(policy, 'path "secret/data/user/*" { capabilities = ["read"] }')
    sources = keep.from_vault(VaultConfig(url=bao.url, token=bao.token(policy)), ["openai", "anthropic"])

    bao.admin.sys.create_or_update_policy(policy, 'path "secret/data/user/anthropic" { capabilities = ["read"] }')
    bao.put("openai", OPENAI_API_KEY="key-3")
    bao.put("anthropic", ANTHROPIC_API_KEY="key-4")
    keep.refresh()
    forbidden = keep.standing(sources["openai_api_key"])
    bao.admin.secrets.kv.v2.delete_latest_version_of_secret(path="user/anthropic")
    keep.refresh()
    deleted = keep.standing(sources["anthropic_api_key"])

    assert sources["openai_api_key"]().reveal() == "key-1"
    assert forbidden is not None
    assert "403" in str(forbidden.problem)
    assert sources["anthropic_api_key"]().reveal() == "key-4"
    assert deleted is not None
    assert "deleted" in str(deleted.problem)


@pytest.mark.parametrize(
    ("variables", "says"),
    [
        ({"VAULT_ADDR": "http://127.0.0.1:9"}, "cannot be reached"),
        ({"VAULT_TOKEN": REFUSED_TOKEN}, "403"),
        ({"VAULT_TOKEN": "", "VAULT_ROLE_ID": "nobody", "VAULT_SECRET_ID": REFUSED_SECRET_ID}, "login failed"),
        ({"NOVA_VAULT_MOUNT": "sys"}, "403"),
    ],
    ids=["down", "token", "role", "mount"],
)
def test_what_was_never_read_is_an_error_with_its_remedy(
    variables: dict[str, str], says: str, vault: OpenBaoServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It may be over later (``retryable``), and no secret is in it."""
    for name, value in variables.items():
        monkeypatch.setenv(name, value)

    with pytest.raises(SecretsUnavailableError) as caught:
        load_settings()

    assert says in str(caught.value)
    assert caught.value.retryable
    assert not any(secret in str(caught.value) for secret in (REFUSED_TOKEN, REFUSED_SECRET_ID, ROOT_TOKEN))


def test_a_sealed_vault_is_an_error_where_nothing_is_known(
    vault: OpenBaoServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No store falls back to memory because its address could not be read."""
    vault.seal()
    try:
        with pytest.raises(SecretsUnavailableError, match="sealed"):
            load_settings()
    finally:
        vault.unseal()
