"""The settings of the command line: those of the environment, with one SQLite file where nothing was chosen.

A command ends and its memory with it, so the library's fallback to memory would forget every run. In production the
rule of the library stays: what nobody chose is an error.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from app.settings import Settings
    from app.stores.choice import StoreKind

__all__ = ["STORE_KINDS", "for_command_line"]

STORE_KINDS: Final[tuple[StoreKind, ...]] = ("budget", "checkpoint", "idempotency")


def for_command_line(settings: Settings, *, data_dir: Path | None = None) -> Settings:
    """Return the settings that the commands work with.

    Args:
        settings: what the environment says.
        data_dir: ``--data-dir``; it also replaces the file of a ``sqlite:///`` URL, because it was said later.

    Raises:
        ConfigurationError: a store cannot be what the variables ask for, or nothing was chosen in production.
    """
    from app.stores.choice import choose

    if data_dir is not None:
        url = settings.database_url.get_secret_value() if settings.database_url else ""
        settings = settings.with_changes(nova_data_dir=data_dir)
        if url.startswith("sqlite:"):
            settings = settings.with_changes(database_url=None)
    implicit = {f"{kind}_store": "sqlite" for kind in STORE_KINDS if choose(kind, settings).implicit}
    return settings.with_changes(**implicit)
