"""The access list in the documents is enough for every verb, and has nothing that no script uses."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from redis import Redis

from app import stores
from app.credentials import fixed
from app.errors import IdempotencyStoreUnavailableError
from app.stores.idempotency.redis import RedisIdempotencyStore
from tests.support.servers.valkey import ValkeyServer

from .cases import CASES, Case

DOCUMENT = Path(__file__).parents[4] / "docs" / "how-to" / "redis.md"
SCRIPTS = tuple(Path(stores.__file__).parent.glob("*/redis_scripts/*.lua"))
COMMAND = re.compile(r"call\('([A-Z]+)'|\{ '([A-Z]+)'(?:, [A-Z]+)? \}")


def documented() -> list[str]:
    """Return the words of the command in the document."""
    (line,) = re.findall(r"^ACL SETUSER .*$", DOCUMENT.read_text(), re.MULTILINE)
    return str(line).split()


@pytest.mark.parametrize("case", list(CASES.values()), ids=list(CASES))
async def test_a_user_of_its_own_may_do_all_that_nova_does(case: Case, valkey: ValkeyServer) -> None:
    """With these rights every verb of both stores works."""
    with Redis.from_url(valkey.url) as server:
        server.execute_command(*documented())
    store = case.build(f"redis://nova:PASSWORD@127.0.0.1:{valkey.port}/0")

    changing, telling = await case.prepare(store)
    for verb in (*changing.values(), *telling.values()):
        await verb(store)
    await store.close()


def test_the_access_list_grants_what_the_scripts_use_and_no_more() -> None:
    """The commands in the document are those in the scripts, and the two that run scripts."""
    used = {first or second for script in SCRIPTS for first, second in COMMAND.findall(script.read_text())}

    granted = {word[1:].upper() for word in documented() if word.startswith("+")}

    assert SCRIPTS
    assert granted == used | {"EVAL", "EVALSHA"}


async def test_a_user_without_the_rights_is_told_which(valkey: ValkeyServer) -> None:
    """The error says what to grant, and that nothing was changed."""
    with Redis.from_url(valkey.url) as server:
        server.execute_command("ACL", "SETUSER", "other", "on", ">word", "~other:*", "+@all")
    store = RedisIdempotencyStore(fixed(f"redis://other:word@127.0.0.1:{valkey.port}/0"))

    with pytest.raises(IdempotencyStoreUnavailableError, match=r"grant it ~nova:\*.*Nothing was changed"):
        await store.abandon("k", 1)
    await store.close()
