"""``deploy/vault``: what the scripts lay out, Nova and plain programs read."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from app.settings import load_settings
from tests.support.servers.openbao import ROOT_TOKEN, OpenBaoServer, binary

ROOT = Path(__file__).parents[3]
SCRIPTS = ROOT / "deploy" / "vault"
PASSWORD = """it's a "$HOME" `of` \\ 40% & more"""


def run(script: str, *arguments: str, server: OpenBaoServer, **variables: str) -> str:
    """Run a script as an operator would, and return what it printed."""
    login = {"VAULT_ADDR": server.url, "BAO_ADDR": server.url, "VAULT_TOKEN": ROOT_TOKEN, "BAO_TOKEN": ROOT_TOKEN}
    environment = {"PATH": os.environ["PATH"], "HOME": os.environ["NOVA_DATA_DIR"], "VAULT_CLI": binary()}
    done = subprocess.run(
        [SCRIPTS / script, *arguments],
        env={**environment, **login, **variables},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_what_is_laid_out_is_read_by_nova_and_by_plain_programs(
    bao: OpenBaoServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Policy, role and secrets; the role reads them; a program gets them byte for byte, whatever is in them."""
    url = f"postgresql://nova:{PASSWORD}@h/db"
    printed = run("layout.sh", server=bao, ANTHROPIC_API_KEY="key-1", DATABASE_URL=url, R2_BUCKET="alone")

    assert "secret/user/anthropic: written" in printed
    assert "secret/user/r2: left as it is (R2_ENDPOINT is not set)" in printed
    assert "key-1" not in printed
    assert PASSWORD not in printed
    role_id = printed.split("VAULT_ROLE_ID: ")[1].split()[0]
    secret_id = bao.admin.auth.approle.generate_secret_id("nova")["data"]["secret_id"]
    for name, value in {"VAULT_ADDR": bao.url, "VAULT_ROLE_ID": role_id, "VAULT_SECRET_ID": secret_id}.items():
        monkeypatch.setenv(name, value)
    settings = load_settings()
    assert settings.plain("anthropic_api_key") == "key-1"
    assert settings.plain("database_url") == url

    show = 'printf "%s|%s|%s" "$ANTHROPIC_API_KEY" "$DATABASE_URL" "${REDIS_URL-unset}"'
    assert run("inject.sh", "sh", "-c", show, server=bao) == f"key-1|{url}|unset"
    exported = run("inject.sh", server=bao)
    shell = subprocess.run(["sh", "-c", f"{exported}\n{show}"], capture_output=True, text=True, check=True, env={})
    assert shell.stdout == f"key-1|{url}|unset"


def test_what_is_set_already_is_left_and_a_second_layout_changes_one_secret(bao: OpenBaoServer) -> None:
    """A rotation is the same script with one variable."""
    run("layout.sh", server=bao, ANTHROPIC_API_KEY="key-1", OPENAI_API_KEY="key-2")
    run("layout.sh", server=bao, OPENAI_API_KEY="key-3")

    show = 'printf "%s|%s" "$ANTHROPIC_API_KEY" "$OPENAI_API_KEY"'
    assert run("inject.sh", "sh", "-c", show, server=bao, ANTHROPIC_API_KEY="mine") == "mine|key-3"


def test_nothing_is_started_where_vault_cannot_be_asked(bao: OpenBaoServer) -> None:
    """A program without its secrets would fail later, or worse, not fail."""
    done = subprocess.run(
        [SCRIPTS / "inject.sh", "echo", "started"],
        env={"PATH": os.environ["PATH"], "VAULT_CLI": binary(), "VAULT_ADDR": bao.url, "VAULT_TOKEN": "none"},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )

    assert done.returncode == 1
    assert "started" not in done.stdout
    assert "VAULT_ADDR" in done.stderr


def test_the_policy_of_the_file_is_the_one_that_is_laid_out(bao: OpenBaoServer) -> None:
    """With the default mount and path both say the same."""
    run("layout.sh", server=bao)

    written = bao.admin.sys.read_policy("nova")["data"]["rules"]

    assert [line for line in (SCRIPTS / "nova-policy.hcl").read_text().splitlines() if line[:1] not in {"", "#"}] == [
        line for line in written.splitlines() if line
    ]
