"""A real PgBouncer in transaction mode in front of a PostgreSQL server, from Debian's package ``pgbouncer``."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Final

import psycopg
from platformdirs import user_cache_path

from tests.support.servers.postgres import PostgresServer, as_ordinary_user
from tests.support.servers.process import Server

__all__ = ["PgBouncer", "why_no_pgbouncer"]

_PACKAGES: Final = ("pgbouncer", "libc-ares2", "libevent-2.1-7")
_UNPACK_S: Final = 60


@lru_cache(maxsize=1)
def _installed() -> tuple[Path, Path | None] | str:
    """Return the program and the directory of its libraries, None for the system's; or why there is none."""
    found = os.environ.get("PGBOUNCER_BIN") or shutil.which("pgbouncer", path=f"{os.environ['PATH']}:/usr/sbin")
    if found:
        return Path(found), None
    unpacked = user_cache_path("nova", appauthor=False) / "pgbouncer"
    program = unpacked / "usr/sbin/pgbouncer"
    if not program.exists() and (problem := _unpack(unpacked)):
        return problem
    libraries = next((path.parent for path in unpacked.glob("usr/lib/*/libcares.so.2")), None)
    return program, libraries


def _unpack(target: Path) -> str | None:
    """Unpack Debian's packages without installing them; return what went wrong."""
    partial = target.with_name(f"{target.name}.{os.getpid()}")
    partial.mkdir(parents=True, exist_ok=True)
    try:
        for package in _PACKAGES:
            for command in (["apt-get", "download", package], ["sh", "-c", f"dpkg -x {package}_*.deb ."]):
                subprocess.run(command, cwd=partial, check=True, capture_output=True, timeout=_UNPACK_S)
        partial.rename(target)
    except (OSError, subprocess.SubprocessError) as error:
        if not target.exists():  # another process of the suite may have been quicker
            return f"PgBouncer is not installed and could not be unpacked: {error}"
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return None


def why_no_pgbouncer() -> str | None:
    """Return why there is no PgBouncer here, None where there is one."""
    found = _installed()
    return found if isinstance(found, str) else None


class PgBouncer(Server):
    """A pooler that gives each transaction one of a few connections to a server.

    Args:
        server: PostgreSQL.
        pool_size: how many connections it opens to a database.
    """

    def __init__(self, server: PostgresServer, *, pool_size: int) -> None:
        super().__init__()
        self._server = server
        self._pool_size = pool_size

    def dsn(self, database: str = "postgres") -> str:
        """Return the address of a database through the pooler."""
        return f"postgresql://postgres@127.0.0.1:{self.port}/{database}"

    def command(self) -> list[str]:
        """Return the command line; what is not set is as PgBouncer has it by default."""
        found = _installed()
        assert not isinstance(found, str), found
        settings = self.directory / "pgbouncer.ini"
        settings.write_text(
            "[databases]\n"
            f"* = host=127.0.0.1 port={self._server.port} user=postgres\n"
            "[pgbouncer]\n"
            f"listen_addr = 127.0.0.1\nlisten_port = {self.port}\nunix_socket_dir =\nauth_type = any\n"
            f"pool_mode = transaction\ndefault_pool_size = {self._pool_size}\n"
        )
        return [*as_ordinary_user(), str(found[0]), str(settings)]

    def environment(self) -> Mapping[str, str]:
        """Name the directory of unpacked libraries."""
        found = _installed()
        libraries = None if isinstance(found, str) else found[1]
        return os.environ | ({} if libraries is None else {"LD_LIBRARY_PATH": str(libraries)})

    def is_ready(self) -> bool:
        """Whether it takes a connection."""
        try:
            with psycopg.connect(self.dsn(), connect_timeout=2, prepare_threshold=None):
                return True
        except psycopg.OperationalError:
            return False
