"""Lua scripts as files of their store's package, and the names of the keys that they are given."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from importlib import resources

__all__ = ["Script", "key_name", "load_script"]


@dataclass(frozen=True, slots=True)
class Script:
    """A script; the server knows it by ``sha`` once it has seen ``text``."""

    name: str
    text: str
    sha: str


def load_script(component: str, name: str) -> Script:
    """Read ``app/stores/<component>/redis_scripts/<name>.lua``.

    It reads a file: a store does it once, when its module is imported.
    """
    file = resources.files("app.stores") / component / "redis_scripts" / f"{name}.lua"
    text = file.read_text(encoding="utf-8")
    # Redis names a script by the SHA-1 of its text; it protects nothing.
    return Script(f"{component}/{name}", text, hashlib.sha1(text.encode(), usedforsecurity=False).hexdigest())


def key_name(tenant_id: str, *parts: str) -> str:
    """Return ``nova:{tenant}:part:part``: every key of a tenant lies in the hash slot of what the braces enclose.

    Redis takes what stands between the first ``{`` and the first ``}`` behind it, so braces inside a tenant's id are
    written as in a URL; the id can be read back, and no two tenants share a name. Only the last part may hold a ``:``.
    """
    tenant = tenant_id.replace("%", "%25").replace("{", "%7B").replace("}", "%7D")
    return ":".join((f"nova:{{{tenant}}}", *parts))
