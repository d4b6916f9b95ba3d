"""``nova doctor``: what is in force is what the commands and the library really use."""

from __future__ import annotations

import socket
from pathlib import Path
from typing import Any

import pytest

from tests.support.planted import planted
from tests.support.servers.process import free_port
from tests.support.servers.valkey import ValkeyServer

from .harness import Nova
from .provider import provider


def parts(document: Any) -> dict[str, Any]:
    """Return the findings by the name of their part."""
    return {part["part"]: part for part in document["parts"]}


def test_with_nothing_set_it_shows_sqlite_for_the_commands_and_memory_for_the_library(nova: Nova) -> None:
    """Both are named with what to set, the stub stands in for a model, and nothing is a problem."""
    examined = nova("doctor", "--json", env={"LLM_ADAPTER": ""}).check().json
    table = nova("doctor").check().out

    found = parts(examined)
    for kind in ("budget", "checkpoint", "idempotency"):
        part = found[f"{kind} store"]
        assert (part["in_force"], part["library"], part["state"]) == ("sqlite", "memory", "ok")
        assert f"{kind.upper()}_STORE=sqlite" in part["remedy"]
    assert found["language model"]["in_force"] == "stub, stub-1"
    assert found["language model"]["state"] == "note"
    assert "ANTHROPIC_API_KEY" in found["language model"]["remedy"]
    assert examined["ok"] is True
    assert "sqlite (library: memory)" in " ".join(table.split())


def test_a_name_of_ones_own_for_the_environment_is_noted(nova: Nova) -> None:
    """A misspelt ``production`` forbids nothing, so it does not pass for fine."""
    examined = nova("doctor", "--json", env={"ENV": "prd"}).check().json

    assert parts(examined)["environment"]["state"] == "note"
    assert "ENV=production" in parts(examined)["environment"]["remedy"]


def test_it_makes_no_file(nova: Nova, tmp_path: Path) -> None:
    """Looking changes nothing: the data directory is not even made."""
    nova("--data-dir", str(tmp_path / "new"), "doctor").check()

    assert not (tmp_path / "new").exists()


def test_a_store_that_exists_is_asked(nova: Nova) -> None:
    """After the first run each store answers."""
    nova("runs", "list").check()

    found = parts(nova("doctor", "--json").check().json)

    assert all("it answers" in found[f"{kind} store"]["why"] for kind in ("budget", "checkpoint", "idempotency"))


def test_a_damaged_file_is_a_problem_with_its_exit_code(nova: Nova, tmp_path: Path) -> None:
    """The other parts are looked at all the same."""
    (tmp_path / "nova.db").write_text("not a database\n" * 100)

    examined = nova("--data-dir", str(tmp_path), "doctor", "--json")

    found = parts(examined.json)
    assert examined.code == 31
    assert found["budget store"]["state"] == found["checkpoint store"]["state"] == "problem"
    assert found["prices"]["state"] == "ok"


@pytest.mark.parametrize(
    ("variables", "part"),
    [
        ({"BUDGET_STORE": "redis"}, "budget store"),
        ({"LLM_ADAPTER": "parrot"}, "language model"),
        ({"NOVA_PRICES_FILE": "/nonexistent.yaml"}, "prices"),
        ({"NOVA_CUT_STREAM": "maybe"}, "settings"),
        ({"ENV": "production"}, "budget store"),
    ],
    ids=["store", "adapter", "prices", "settings", "production"],
)
def test_what_cannot_be_met_is_a_finding_and_not_a_crash(nova: Nova, variables: dict[str, str], part: str) -> None:
    """The part is a problem, the variable is named, and the exit code is that of a configuration error."""
    examined = nova("doctor", "--json", env=variables)

    found = parts(examined.json)[part]
    assert examined.code == 3
    assert found["state"] == "problem"
    assert next(iter(variables)) in found["why"] or "production" in found["why"]


def test_a_provider_is_reached_or_named_as_unreachable(nova: Nova) -> None:
    """A connection is tried and nothing is sent; a port without a listener is a problem of the provider."""
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        nobody = f"http://127.0.0.1:{unused.getsockname()[1]}/v1"
        missing = nova("doctor", "--json", env={"LLM_ADAPTER": "openai", "OPENAI_BASE_URL": nobody})
    with provider() as served:
        reached = nova("doctor", "--json", env=served.environment).check()

    assert missing.code == 40
    assert "cannot be reached" in parts(missing.json)["language model"]["why"]
    assert "its host answers" in parts(reached.json)["language model"]["why"]
    # Whoever serves the model at an address of one's own, the end that its maker named does not hold there.
    assert parts(reached.json)["language model"]["state"] == "ok"
    assert served.calls == 0


def test_a_secret_is_shown_with_its_place_and_version(nova: Nova, tmp_path: Path) -> None:
    """Never with its value; what is not set is not listed."""
    (tmp_path / "key").write_text(planted("doctor.key"))
    variables = {"ANTHROPIC_API_KEY_FILE": str(tmp_path / "key"), "OPENAI_API_KEY": planted("chain.environment")}

    examined = nova("doctor", "--json", env=variables)

    found = parts(examined.json)
    assert found["ANTHROPIC_API_KEY"]["in_force"].startswith(f"file {tmp_path / 'key'}, version 20")
    assert found["OPENAI_API_KEY"]["in_force"] == "environment"
    assert "REDIS_URL" not in found
    assert "sk-" not in examined.out
    assert planted("chain.environment") not in examined.out


def test_a_vault_without_a_login_is_noted(nova: Nova) -> None:
    """It is not asked, and the reason is no riddle."""
    found = parts(nova("doctor", "--json", env={"VAULT_ADDR": "https://vault:8200"}).check().json)

    assert found["vault"]["state"] == "note"
    assert "VAULT_TOKEN" in found["vault"]["remedy"]


def test_a_vault_that_cannot_be_reached_is_a_problem(nova: Nova) -> None:
    """Nothing falls back to memory because an address could not be read."""
    token = planted("vault.refused_token")
    examined = nova("doctor", "--json", env={"VAULT_ADDR": "http://127.0.0.1:9", "VAULT_TOKEN": token})

    assert examined.code == 3
    assert "cannot be reached" in parts(examined.json)["settings"]["why"]
    assert token not in examined.out + examined.err


@pytest.mark.parametrize(
    ("options", "state", "said"),
    [
        ({}, "ok", "on its disk"),
        ({"appendfsync": "everysec"}, "note", "the last second"),
        ({"appendonly": "no"}, "note", "everything"),
        ({"maxmemory": "100mb", "maxmemory_policy": "volatile-lru"}, "note", "called again"),
        ({"maxmemory": "100mb", "maxmemory_policy": "allkeys-lru"}, "problem", "ceilings"),
    ],
)
def test_a_redis_server_is_asked_and_looked_at(nova: Nova, options: dict[str, str], state: str, said: str) -> None:
    """Both stores on it answer, and what it may throw away or forget is said, with what to set."""
    with ValkeyServer(durable=True, **options) as server:
        examined = nova("doctor", "--json", env={"REDIS_URL": server.url})

    found = parts(examined.json)
    assert examined.code == (3 if state == "problem" else 0)
    assert [found[f"{kind} store"]["in_force"] for kind in ("budget", "idempotency")] == ["redis", "redis"]
    assert "it answers" in found["budget store"]["why"]
    assert found["redis server"]["state"] == state
    assert said in found["redis server"]["why"]
    assert (found["redis server"]["remedy"] is None) == (state == "ok")


def test_a_redis_server_that_is_down_is_a_problem_of_its_stores(nova: Nova) -> None:
    """They say that it cannot be reached; of the server nothing is known."""
    examined = nova("doctor", "--json", env={"REDIS_URL": f"redis://127.0.0.1:{free_port()}/0"})

    found = parts(examined.json)
    assert examined.code == 30
    assert "cannot be reached" in found["budget store"]["why"]
    assert found["idempotency store"]["state"] == "problem"
    assert "redis server" not in found


def test_no_secret_is_shown(nova: Nova, monkeypatch: pytest.MonkeyPatch) -> None:
    """Keys and passwords in URLs are in no form of the output."""
    monkeypatch.setenv("ANTHROPIC_API_KEY", planted("doctor.key"))
    monkeypatch.setenv("ANTHROPIC_BASE_URL", "http://127.0.0.1:9")
    monkeypatch.setenv("REDIS_URL", f"redis://user:{planted('redis.password')}@127.0.0.1:9/0")

    table = nova("doctor", env={"LLM_ADAPTER": "claude"})
    document = nova("doctor", "--json", env={"LLM_ADAPTER": "claude"})

    shown = table.out + table.err + document.out + document.err
    assert not [name for name in ("doctor.key", "redis.password") if planted(name) in shown]


def test_the_archive_is_asked_and_the_last_job_is_told(nova: Nova, tmp_path: Path) -> None:
    """Nothing set, a directory without and with a job, half of R2, and the archive of another database."""
    env = {"NOVA_ARCHIVE_DIR": str(tmp_path / "archive")}

    def archive(*arguments: str, **variables: str) -> Any:
        return parts(nova(*arguments, "doctor", "--json", env=variables).json)["archive"]

    assert archive()["in_force"] == "none"
    assert "no offload has run yet" in archive(**env)["why"]
    nova("offload", "--older-than", "0", env=env).check()
    assert "the last job (offload) ended done" in archive(**env)["why"]
    assert archive(R2_BUCKET="b")["state"] == "problem"
    nova("--data-dir", str(tmp_path / "other"), "runs", "list").check()
    other = archive("--data-dir", str(tmp_path / "other"), **env)
    assert (other["state"], "not the archive of this database" in other["why"]) == ("problem", True)
    assert nova("--data-dir", str(tmp_path / "other"), "offload", "--older-than", "0", env=env).code == 6
    assert nova("offload", env=env | {"DATABASE_URL": "mysql://nothing"}).code == 6
