"""The offload of old runs to an archive: not in this version yet.

Its name and its command line are promised, so both answer, with an error that says so.
"""

from __future__ import annotations

import sys
from typing import NoReturn

from app.errors import ConfigurationError

__all__ = ["main", "offload_old_checkpoints"]

EXIT_CONFIGURATION = 3


async def offload_old_checkpoints(older_than_days: int | None = None) -> NoReturn:  # noqa: ARG001 - promised
    """Refuse.

    Raises:
        ConfigurationError: always, in this version.
    """
    raise ConfigurationError(
        "the archive is not in this version of Nova yet; no run was copied or removed. Runs stay in the database"
    )


def main() -> int:
    """Say the same on the command line; the exit code is that of a configuration error."""
    import asyncio

    try:
        asyncio.run(offload_old_checkpoints())
    except ConfigurationError as error:
        sys.stderr.write(f"{error}\n")
    return EXIT_CONFIGURATION


if __name__ == "__main__":
    sys.exit(main())
