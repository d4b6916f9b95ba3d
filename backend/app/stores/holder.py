"""Who holds a lease: a process, named so that another process of the same host can tell whether it is gone."""

from __future__ import annotations

import os
import socket
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from app.errors import InvalidInputError

__all__ = ["Holder"]

_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")
_PID_NAMESPACE = Path("/proc/self/ns/pid")
_FIRST_PID_NAMESPACE = "pid:[4026531836]"
"""The namespace outside of every container: PROC_PID_INIT_INO of the Linux kernel, the same on every host."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Holder:
    """A process.

    Attributes:
        host: the host's name; in a container also the namespace of its process ids, because a pid means nothing in
            another one, and containers may share the host's name.
        boot_id: the kernel's id of this boot; empty where the system has none.
        pid: the process id.
        started: when the process started, in the system's own units; with the pid it is unique within a boot. Empty
            where the system does not tell.
        instance: tells several holders within one process apart; empty for the process itself.
    """

    host: str
    boot_id: str
    pid: int
    started: str
    instance: str = ""

    @classmethod
    def current(cls, *, instance: str = "") -> Holder:
        """Return this process."""
        pid = os.getpid()
        return cls(host=_host(), boot_id=_boot_id(), pid=pid, started=_own_start(pid), instance=instance)

    @property
    def same_process(self) -> tuple[str, str, int, str]:
        """What two holders of one process share."""
        return (self.host, self.boot_id, self.pid, self.started)

    def is_gone(self) -> bool:
        """Whether this process certainly does not run any more: it was on this host, and is not there now.

        False where that cannot be known, as for a process of another host.
        """
        if self.host != _host():
            return False
        if self.boot_id != _boot_id():
            return bool(self.boot_id and _boot_id())
        started = _own_start(self.pid) if self.pid == os.getpid() else _started(self.pid)
        if started is None:
            return True
        return bool(self.started) and started != self.started

    def encode(self) -> str:
        """Return the text form that is stored beside a lease."""
        return "|".join((self.host, self.boot_id, str(self.pid), self.started, self.instance))

    @classmethod
    def decode(cls, text: str) -> Holder:
        """Read the text form.

        Raises:
            InvalidInputError: it is not one.
        """
        parts = text.split("|", 4)
        if len(parts) != 5 or not parts[2].isdigit():
            raise InvalidInputError(f"not a lease holder: {text[:80]!r}")
        host, boot_id, pid, started, instance = parts
        return cls(host=host, boot_id=boot_id, pid=int(pid), started=started, instance=instance)

    def __str__(self) -> str:
        return f"process {self.pid} on {self.host}" + (f" ({self.instance})" if self.instance else "")


@lru_cache(maxsize=1)
def _host() -> str:
    name = socket.gethostname().replace("|", "-") or "localhost"
    try:
        namespace = str(_PID_NAMESPACE.readlink())
    except OSError:
        return name
    return name if namespace == _FIRST_PID_NAMESPACE else f"{name}/{namespace}"


@lru_cache(maxsize=1)
def _boot_id() -> str:
    try:
        return _BOOT_ID.read_text().strip()
    except OSError:
        return ""


@lru_cache(maxsize=1)
def _own_start(pid: int) -> str:
    """Return the start time of this process; kept, because every call asks for it. A fork has another pid."""
    return _started(pid) or ""


def _started(pid: int) -> str | None:
    """Return the start time of a process, ``""`` where it runs but the system does not tell, None where it is gone.

    A zombie counts as gone: it will never write again.
    """
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except FileNotFoundError:
        if Path("/proc/self/stat").exists():
            return None
        return "" if _exists(pid) else None
    except OSError:
        return "" if _exists(pid) else None
    # The command, in parentheses, may hold spaces; behind it come the state (field 3) and the start time (field 22).
    fields = stat.rpartition(")")[2].split()
    return None if fields[0] in {"Z", "X"} else fields[19]


def _exists(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
