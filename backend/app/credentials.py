"""Credentials as stores and adapters take them: asked for at each use, so that a rotated one needs no restart."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

__all__ = ["Credential", "CredentialSource", "fixed"]


class Credential:
    """A secret and the version of it; neither ``repr``, ``str`` nor pickling shows the secret."""

    __slots__ = ("_value", "version")

    def __init__(self, value: str, version: str = "1") -> None:
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


def fixed(value: str) -> CredentialSource:
    """Return a source for a secret that does not change while the process runs."""
    credential = Credential(value)
    return lambda: credential
