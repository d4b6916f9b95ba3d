"""Where a secret is taken from: an argument, the environment, a file, Vault, in this order."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from pydantic import SecretStr

from app.errors import ConfigurationError
from app.secrets import Standing, keeper
from app.settings import Settings, load_settings
from tests.support.planted import planted
from tests.support.servers.openbao import OpenBaoServer

FIELD = "anthropic_api_key"


def value_of(settings: Settings) -> str | None:
    """Return the present value, which the field and the source agree on."""
    source = settings.credential(FIELD)
    found = None if source is None else source().reveal()
    assert found == settings.plain(FIELD)
    return found


def standing_of(settings: Settings) -> Standing:
    """Return how the secret stands."""
    found = settings.standing(FIELD)
    assert found is not None
    return found


def test_the_first_place_that_has_it_wins(
    vault: OpenBaoServer, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Each place is seen once those before it are taken away."""
    vault.put("anthropic", ANTHROPIC_API_KEY=planted("chain.vault"))
    (tmp_path / "key").write_text(planted("chain.file") + "\n")
    monkeypatch.setenv("ANTHROPIC_API_KEY_FILE", str(tmp_path / "key"))
    monkeypatch.setenv("ANTHROPIC_API_KEY", planted("chain.environment"))

    found = {}
    settings = load_settings().with_changes(anthropic_api_key=SecretStr(planted("chain.argument")))
    found[standing_of(settings).origin] = value_of(settings)
    for variable in ("ANTHROPIC_API_KEY", "ANTHROPIC_API_KEY_FILE", "VAULT_ADDR"):
        settings = load_settings()
        found[standing_of(settings).origin] = value_of(settings)
        monkeypatch.delenv(variable)

    assert found == {
        "argument": planted("chain.argument"),
        "environment": planted("chain.environment"),
        "file": planted("chain.file"),
        "vault": planted("chain.vault"),
    }
    assert value_of(load_settings()) is None


def test_an_argument_replaces_what_a_file_holds(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """And the file is not looked at for it any more."""
    (tmp_path / "key").write_text(planted("chain.file"))
    monkeypatch.setenv("ANTHROPIC_API_KEY_FILE", str(tmp_path / "key"))

    settings = load_settings().with_changes(anthropic_api_key=SecretStr(planted("chain.argument")))

    assert value_of(settings) == planted("chain.argument")
    assert standing_of(settings).origin == "argument"


def test_every_secret_of_vault_has_its_field(vault: OpenBaoServer) -> None:
    """Five secrets hold eight variables, at ``secret/user/...``; the version is Vault's."""
    vault.put("anthropic", ANTHROPIC_API_KEY="key-1")
    vault.put("anthropic", ANTHROPIC_API_KEY="key-2")
    vault.put("openai", OPENAI_API_KEY="key-3")
    vault.put("neon", DATABASE_URL=f"postgresql://u:{planted('vault.database_password')}@h/db")
    vault.put("upstash", REDIS_URL=f"rediss://:{planted('vault.redis_password')}@h:6379")
    vault.put("r2", R2_ENDPOINT="https://r2", R2_BUCKET="b", R2_ACCESS_KEY_ID="id-123", R2_SECRET_ACCESS_KEY="key-4")

    settings = load_settings()

    assert settings.plain("anthropic_api_key") == "key-2"
    assert settings.plain("openai_api_key") == "key-3"
    assert settings.plain("database_url") == f"postgresql://u:{planted('vault.database_password')}@h/db"
    assert settings.plain("redis_url") == f"rediss://:{planted('vault.redis_password')}@h:6379"
    assert (settings.r2_endpoint, settings.r2_bucket) == ("https://r2", "b")
    assert (settings.plain("r2_access_key_id"), settings.plain("r2_secret_access_key")) == ("id-123", "key-4")
    standing = standing_of(settings)
    assert (standing.place, standing.version) == ("secret/user/anthropic", "2")
    assert "key-2" not in repr(settings) + str(settings)


def test_a_file_that_changes_is_read_again(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """So a secret that Kubernetes or an agent replaces is taken over; the settings that were read see it too."""
    path = tmp_path / "key"
    path.write_text("first-value\n")
    monkeypatch.setenv("ANTHROPIC_API_KEY_FILE", str(path))
    settings = load_settings()
    source = settings.credential(FIELD)
    assert source is not None

    path.write_text("second-value\n")
    os.utime(path, (1_800_000_000, 1_800_000_000))
    keeper().refresh()

    assert source().reveal() == "second-value"
    assert source().version == "2027-01-15T08:00:00Z"
    assert value_of(load_settings()) == "second-value"


def test_a_file_that_is_gone_later_leaves_its_last_value(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """It is noted since when, and why."""
    path = tmp_path / "key"
    path.write_text("first-value")
    monkeypatch.setenv("ANTHROPIC_API_KEY_FILE", str(path))
    settings = load_settings()

    path.unlink()
    keeper().refresh()

    standing = standing_of(settings)
    assert value_of(settings) == "first-value"
    assert standing.stale_since is not None
    assert "No such file" in str(standing.problem)


@pytest.mark.parametrize("content", [None, b"", b"\n", b"\xff\xfe"], ids=["missing", "empty", "blank", "binary"])
def test_a_file_without_a_secret_is_an_error_of_its_variable(
    content: bytes | None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """It does not count as unset: whoever named it meant it."""
    path = tmp_path / "key"
    if content is not None:
        path.write_bytes(content)
    monkeypatch.setenv("REDIS_URL_FILE", str(path))

    with pytest.raises(ConfigurationError, match=r"REDIS_URL_FILE: .*key") as caught:
        load_settings()

    assert caught.value.variable == "REDIS_URL_FILE"


def test_vault_is_not_asked_for_what_is_known(vault: OpenBaoServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """With every variable set, a Vault that is not even there does not matter."""
    monkeypatch.setenv("VAULT_ADDR", "http://127.0.0.1:9")
    monkeypatch.setenv("NOVA_VAULT_SECRETS", "anthropic, openai")
    monkeypatch.setenv("ANTHROPIC_API_KEY", "key-1")
    monkeypatch.setenv("OPENAI_API_KEY", "key-2")

    assert value_of(load_settings()) == "key-1"


def test_a_secret_that_does_not_exist_is_refused_by_name(vault: OpenBaoServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """A typing error must not read as "not in Vault"."""
    monkeypatch.setenv("NOVA_VAULT_SECRETS", "antropic")

    with pytest.raises(ConfigurationError, match="'antropic'"):
        load_settings()


def test_the_same_place_gives_the_same_adapter(vault: OpenBaoServer) -> None:
    """A rotation makes no second adapter with connections of its own."""
    from app.skills.adapters import get_llm_adapter

    vault.put("anthropic", ANTHROPIC_API_KEY="key-1")
    before = get_llm_adapter(load_settings())
    vault.put("anthropic", ANTHROPIC_API_KEY="key-2")
    keeper().refresh()

    assert get_llm_adapter(load_settings()) is before
