"""What an import costs: the packages that are about one backend or one provider are loaded where they are used."""

from __future__ import annotations

import subprocess
import sys

import pytest

HEAVY = (
    "anthropic",
    "asyncio",
    "genai_prices",
    "httpx2",
    "importlib.metadata",
    "obstore",
    "openai",
    "prometheus_client",
    "psycopg",
    "pydantic",
    "pydantic_settings",
    "redis",
    "sqlite3",
)
DRIVERS = ("obstore", "psycopg", "redis", "sqlite3")


def loaded(code: str, *, of: tuple[str, ...], **variables: str) -> list[str]:
    """Run ``code`` in a fresh interpreter and return which of the modules ``of`` it loaded."""
    report = f"import sys; print(*[name for name in {of!r} if name in sys.modules])"
    prelude = f"import os; os.environ.update({variables!r})"
    ran = subprocess.run(
        [sys.executable, "-c", f"{prelude}\n{code}\n{report}"], capture_output=True, text=True, check=False
    )
    assert ran.returncode == 0, ran.stderr
    return ran.stdout.split()


@pytest.mark.parametrize(
    "statement",
    [
        "from app.stores import get_budget_store, get_checkpoint_store, get_idempotency_store",
        "from app.skills.adapters import get_llm_adapter",
    ],
)
def test_importing_a_factory_loads_nothing_heavy(statement: str) -> None:
    """The modules that programs import first load no driver, SDK, settings, metrics, event loop or metadata."""
    assert loaded(statement, of=HEAVY) == []


def test_the_fresh_interpreter_shows_what_is_loaded() -> None:
    """The test above can fail: a module that is imported is reported."""
    assert loaded("import sqlite3, asyncio", of=HEAVY) == ["asyncio", "sqlite3"]


@pytest.mark.parametrize("factory", ["get_budget_store", "get_checkpoint_store", "get_idempotency_store"])
@pytest.mark.parametrize(("backend", "drivers"), [("memory", []), ("sqlite", ["sqlite3"])])
def test_building_a_store_loads_its_own_driver_only(factory: str, backend: str, drivers: list[str]) -> None:
    """A memory store needs no driver, and a SQLite store that of SQLite alone."""
    variables = dict.fromkeys(("BUDGET_STORE", "CHECKPOINT_STORE", "IDEMPOTENCY_STORE"), backend)

    assert loaded(f"from app.stores import {factory}; {factory}()", of=DRIVERS, **variables) == drivers


def test_building_a_redis_store_loads_no_driver() -> None:
    """redis-py is imported with the first verb; a store that is never used costs nothing."""
    code = "from app.stores import get_idempotency_store; get_idempotency_store()"

    assert loaded(code, of=DRIVERS, REDIS_URL="redis://127.0.0.1:1/0") == []
