"""Forty planted secrets, and a search for them in everything that a run leaves behind: none may be found."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.servers.openbao import OpenBaoServer
from tests.support.servers.process import free_port

WORDS = (
    "amber", "basalt", "cedar", "dune", "ember", "fjord", "granite", "harbor", "indigo", "juniper",
    "kelp", "lagoon", "maple", "nectar", "onyx", "pebble", "quartz", "russet", "saffron", "tundra",
)  # fmt: skip
PLANTED = tuple(f"{word}-{kind}-0x{place:02}" for place, word in enumerate(WORDS) for kind in ("one", "two"))

PROGRAM = """
import asyncio, json, logging, os, pickle, sys, traceback
from app.credentials import Credential, fixed
from app.settings import Settings, load_settings
from app.logs import configure_logging
from app.errors import NovaError

settings = load_settings()
configure_logging(settings)
log = logging.getLogger("app.program")
planted = os.environ["PLANTED"].split()
print(settings, repr(settings), settings.model_dump_json())
for field in ("anthropic_api_key", "openai_api_key", "database_url", "redis_url", "r2_secret_access_key"):
    source = settings.credential(field)
    print(field, source, source(), settings.standing(field), settings.identity_of(field))

async def main():
    from app.skills.adapters import get_llm_adapter
    from app.stores import get_budget_store, get_checkpoint_store, get_idempotency_store
    from app.stores.holder import Holder
    calls = [
        lambda: get_budget_store().usage("tenant"),
        lambda: get_checkpoint_store().list_runs(limit=1),
        lambda: get_idempotency_store().begin("k", "f", holder=Holder.current()),
        lambda: get_llm_adapter().invoke("hello"),
        lambda: get_llm_adapter(settings.with_changes(llm_adapter="openai")).invoke("hello"),
    ]
    for call in calls:
        try:
            print(repr(await call()))
        except NovaError as error:
            log.exception("failed")
            print(error, repr(error), error.__dict__)
            traceback.print_exception(error)

asyncio.run(main())
# What a program of somebody else may do with what it has.
for secret in planted[10:]:
    credential = Credential(secret)
    log.warning("a driver says %s", f"connection to postgres://u:{secret}@h failed")
    log.warning("fields", extra={"dsn": f"redis://:{secret}@h", "password": secret, "nested": [{"api_key": secret}]})
    try:
        pickle.dumps(credential)
    except TypeError as error:
        print(error)
    print(credential, [credential], {"c": credential})
try:
    load_settings().with_changes()
    Settings(nova_cut_stream=planted[0])
except ValueError as error:
    log.exception("pydantic")
from prometheus_client import REGISTRY, generate_latest
print(generate_latest(REGISTRY).decode())
raise RuntimeError(f"crashed with {settings.plain('database_url')} and {planted[-1]}")
"""


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    """Plant them: in the environment, in files, in Vault's login, and in what the program itself gets hold of."""
    secrets = iter(PLANTED)
    port = free_port()
    files = {}
    for name in ("R2_ACCESS_KEY_ID", "R2_SECRET_ACCESS_KEY"):
        (tmp_path / name).write_text(next(secrets) + "\n")
        files[f"{name}_FILE"] = str(tmp_path / name)
    kept = {name: os.environ[name] for name in ("PATH", "PYTHONPATH", "NOVA_DATA_DIR") if name in os.environ}
    return {
        **kept,
        **files,
        "ANTHROPIC_API_KEY": next(secrets),
        "OPENAI_API_KEY": next(secrets),
        "DATABASE_URL": f"postgresql://nova:{next(secrets)}@127.0.0.1:{port}/nova",
        "REDIS_URL": f"rediss://default:{next(secrets)}@127.0.0.1:{port}/0",
        "VAULT_TOKEN": next(secrets),
        "VAULT_SECRET_ID": next(secrets),
        "R2_ENDPOINT": f"http://127.0.0.1:{port}",
        "R2_BUCKET": "b",
        "ANTHROPIC_BASE_URL": f"http://user:{next(secrets)}@127.0.0.1:{port}",
        "OPENAI_BASE_URL": f"http://user:{next(secrets)}@127.0.0.1:{port}/v1",
        "ENV": "production",
        "NOVA_LOG_LEVEL": "debug",
        "NOVA_DEBUG": "1",
    }


def everything(environment: dict[str, str], *command: str) -> str:
    """Run a command and return all that it wrote."""
    done = subprocess.run(
        [sys.executable, *command],
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.stdout
    return done.stdout


def found_in(text: str) -> set[str]:
    """Return the planted secrets that a text shows."""
    return {secret for secret in PLANTED if secret in text}


def test_no_planted_secret_is_found_in_a_program_that_fails_everywhere(environment: dict[str, str]) -> None:
    """Settings and sources in every form, each store and provider unreachable, logs at debug, metrics, and a crash."""
    shown = everything({**environment, "PLANTED": " ".join(PLANTED)}, "-c", PROGRAM)

    assert "crashed with" in shown
    assert "cannot be reached" in shown
    assert "nova_llm_invocations_total" in shown
    # What is printed by the program itself is not Nova's to clean, and holds none either.
    assert found_in(shown) == set()


def test_no_planted_secret_is_found_in_what_a_dying_interpreter_writes(environment: dict[str, str]) -> None:
    """It tells where each thread was, and not with what."""
    program = "import os; from app.settings import load_settings; settings = load_settings(); os.abort()"

    shown = everything(environment, "-X", "faulthandler", "-c", program)

    assert "Fatal Python error: Aborted" in shown
    assert found_in(shown) == set()


@pytest.mark.parametrize(
    "arguments",
    [
        ("doctor",),
        ("doctor", "--json"),
        ("budget", "show"),
        ("budget", "show", "--json"),
        ("runs", "list"),
        ("ask", "hello", "--json"),
        ("metrics", "write", "/dev/stdout"),
        ("offload", "--json"),
    ],
    ids=" ".join,
)
def test_no_planted_secret_is_found_in_what_commands_say(
    arguments: tuple[str, ...], environment: dict[str, str]
) -> None:
    """Each fails on a server that is not there, with tracebacks on."""
    assert found_in(everything(environment, "-m", "app.cli", *arguments)) == set()


def test_no_planted_secret_of_vault_is_found(environment: dict[str, str], tmp_path: Path) -> None:
    """Read from a real OpenBao, shown with version and place, and not with value; nor is the login's token."""
    with OpenBaoServer() as server:
        server.put("neon", DATABASE_URL=environment.pop("DATABASE_URL"))
        server.put("upstash", REDIS_URL=environment.pop("REDIS_URL"))
        server.put("anthropic", ANTHROPIC_API_KEY=environment.pop("ANTHROPIC_API_KEY"))
        server.admin.auth.token.create(id=environment["VAULT_TOKEN"], policies=["root"])
        variables = {**environment, "VAULT_ADDR": server.url}
        shown = everything(variables, "-m", "app.cli", "doctor", "--json")
        shown += everything({**variables, "PLANTED": " ".join(PLANTED)}, "-c", PROGRAM)

    assert "vault secret/user/neon, version 1" in shown
    assert found_in(shown) == set()


def test_the_search_finds_what_is_there() -> None:
    """The tests above can fail, and there are forty."""
    assert len(set(PLANTED)) == 40
    assert found_in(f"a {PLANTED[7]} b") == {PLANTED[7]}
