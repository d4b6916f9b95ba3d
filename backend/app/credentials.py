"""Credentials as stores and adapters take them: asked for at each use, so that a rotated one needs no restart."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol, TypeAlias, runtime_checkable

from app.redaction import know

__all__ = ["Credential", "CredentialSource", "Replaceable", "fixed", "instead_of"]


class Credential:
    """A secret and the version of it; neither ``repr``, ``str`` nor pickling shows the secret, and no log does."""

    __slots__ = ("_value", "version")

    def __init__(self, value: str, version: str = "1") -> None:
        know(value)
        self._value = value
        self.version = version

    def reveal(self) -> str:
        """Return the secret itself; call it where the secret is sent, and nowhere else."""
        return self._value

    def __repr__(self) -> str:
        return f"Credential('**********', version={self.version!r})"

    def __reduce__(self) -> str:
        raise TypeError("a credential is not pickled")


CredentialSource: TypeAlias = Callable[[], Credential]
"""Returns the present value; called for every connection or request, so it must be quick."""


@runtime_checkable
class Replaceable(Protocol):
    """A source that may have another credential when a server rejects the one that it gave."""

    def instead_of(self, rejected: Credential) -> Credential | None:
        """Return another credential to try now, None where there is none; it may block while it looks for a newer."""
        ...


def fixed(value: str) -> CredentialSource:
    """Return a source for a secret that does not change while the process runs."""
    credential = Credential(value)
    return lambda: credential


def instead_of(source: CredentialSource, rejected: Credential) -> Credential | None:
    """Return what to try after a server rejected a credential of ``source``: a newer one, else the one before.

    It may ask Vault, for seconds: call it in a thread. None: there is no other, so the rejection stands.
    """
    return source.instead_of(rejected) if isinstance(source, Replaceable) else None
