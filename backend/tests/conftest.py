"""What every test gets: an empty environment, closed stores afterwards, and an event loop that must not block."""

from __future__ import annotations

import asyncio
import os
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import forbiddenfruit
import pytest
from blockbuster import BlockBuster, blockbuster_ctx
from hypothesis import Phase
from hypothesis import settings as hypothesis_settings

from tests.support.searched.search import SEARCH

if TYPE_CHECKING:
    from tests.support.servers.postgres import PostgresServer

pytest_plugins = ["tests.support.searched.plugin", "tests.support.servers.fixtures"]

_ROOT = Path(__file__).resolve().parents[2]
_OURS = (
    "ANTHROPIC_",
    "BUDGET_STORE",
    "CHECKPOINT_",
    "DATABASE_URL",
    "IDEMPOTENCY_STORE",
    "LLM_ADAPTER",
    "NOVA_",
    "OPENAI_",
    "R2_",
    "REDIS_URL",
    "VAULT_",
)

# A slow machine is not a failing law, and no test leaves files in the checkout.
hypothesis_settings.register_profile("nova", deadline=None, database=None)
# A mutant need only be noticed, at the same example each time; the smallest one is of no interest.
hypothesis_settings.register_profile(
    "mutant", deadline=None, database=None, derandomize=True, phases=(Phase.explicit, Phase.generate)
)
hypothesis_settings.load_profile("mutant" if "MUTANT" in os.environ else "nova")

# Child processes of tests import the tree that is being tested, wherever it lies.
os.environ["PYTHONPATH"] = os.pathsep.join((str(_ROOT / "backend"), str(_ROOT)))


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Take away every variable that Nova reads, and put its data directory into a temporary one."""
    for name in tuple(os.environ):
        if name.upper() == "ENV" or name.upper().startswith(_OURS):
            monkeypatch.delenv(name)
    with tempfile.TemporaryDirectory(prefix="nova-test-", ignore_cleanup_errors=True) as directory:
        monkeypatch.setenv("NOVA_DATA_DIR", directory)
        yield
        SEARCH.look_in(Path(directory), where="the data directory")


@pytest.fixture(autouse=True)
def close_what_the_factories_opened(clean_environment: None) -> Iterator[None]:
    """Close the stores of the factories, in a loop of its own, whether the test was asynchronous or not."""
    yield
    stores = sys.modules.get("app.stores")
    if stores is not None and stores._open:
        with asyncio.Runner(loop_factory=asyncio.new_event_loop) as runner:
            runner.run(stores.close_stores())


@pytest.fixture(autouse=True)
def forget_secrets(clean_environment: None) -> Iterator[None]:
    """Let go of what was read from files and Vault, and end the thread that watches them."""
    yield
    keeper = sys.modules.get("app.secrets.keeper")
    if keeper is not None:
        keeper.close_secrets()


def pytest_unconfigure() -> None:
    """Take blockbuster's wrappers out of the built-in types, where it leaves them.

    It sets the methods of types such as ``io.BufferedWriter`` by forbiddenfruit, which keeps the value that was there
    before under another name: the method at first, and the wrapper when the method is put back. The wrappers refer to
    stdout, and Python frees these types after it has taken apart what closing stdout needs: it would crash at its end.
    """
    for function in BlockBuster().functions.values():
        left_over = f"_c_{function.func_name}"
        if isinstance(function.module, type) and left_over in vars(function.module):
            forbiddenfruit.reverse(function.module, left_over)


@pytest.fixture(autouse=True)
def blockbuster(close_what_the_factories_opened: None) -> Iterator[BlockBuster]:
    """Fail a test in which Nova blocks the event loop: reads a file, sleeps, waits for a lock or a socket.

    A test whose own code blocks below Nova's (a step that writes a file) asks for this fixture and deactivates it.
    """
    with blockbuster_ctx("app") as found:
        # These two only put strings together, or ask the kernel for one that it has.
        for name in ("os.getcwd", "os.path.abspath"):
            found.functions[name].deactivate()
        for function in found.functions.values():
            # A store's scripts are read with its module, once, as Python reads the module itself.
            function.can_block_in("app/stores/redis/scripts.py", "load_script")
            # What /proc says comes from the kernel's memory, never from a disk.
            function.can_block_in("app/stores/holder.py", {"_boot_id", "_host", "_started"})
        yield found


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[PostgresServer]:
    """Return a real PostgreSQL server, one for each process of the suite; a test makes databases of its own in it."""
    from tests.support.servers.postgres import PostgresServer

    with PostgresServer() as server:
        yield server
