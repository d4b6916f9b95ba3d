"""What the tests of the command line share: how a command is called, and what it left behind."""

from __future__ import annotations

import asyncio
import json
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, TypeAlias

__all__ = ["Nova", "Result", "Start", "held_by"]


@dataclass(frozen=True, slots=True)
class Result:
    """What a command left behind."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        """The one document on standard output."""
        return json.loads(self.out)

    def check(self) -> Result:
        """Return it if the command succeeded."""
        assert self.code == 0, self.err
        return self


Nova: TypeAlias = Callable[..., Result]
Start: TypeAlias = Callable[..., "subprocess.Popen[bytes]"]


def held_by(host: str, *, lease: timedelta) -> None:
    """Let process 7 of another host take the lease of the run ``tour``."""
    from app.settings import load_settings
    from app.stores.checkpoint.sqlite import SqliteCheckpointStore
    from app.stores.holder import Holder

    async def take() -> None:
        store = SqliteCheckpointStore(load_settings().database_file)
        await store.claim("tour", holder=Holder(host=host, boot_id="b", pid=7, started="1"), lease=lease)
        await store.close()

    asyncio.run(take())
