"""Statements as files: ``<name>.sql`` beside a store, with a header of comments that says what it takes and gives."""

from __future__ import annotations

import re
from collections.abc import Mapping
from importlib import resources
from typing import Final

__all__ = ["Statements"]

_COMMENT: Final = re.compile(r"--[^\n]*")


class Statements:
    """The statements of one folder by name, read once, without their comments.

    Args:
        folder: below ``app/stores``: ``checkpoint/postgres_sql``.
        parts: what stands in place of ``{name}`` in each of them.
    """

    def __init__(self, folder: str, parts: Mapping[str, str]) -> None:
        self._folder = folder
        self._parts = parts
        self._texts: dict[str, bytes] = {}

    def load(self) -> None:
        """Read the files; again is a no-op. It blocks, so an event loop calls it in a thread."""
        if self._texts:
            return
        package, _, directory = self._folder.partition("/")
        texts = {}
        for entry in (resources.files("app.stores") / package / directory).iterdir():
            if entry.name.endswith(".sql"):
                texts[entry.name.removesuffix(".sql")] = self._text(entry.read_text(encoding="utf-8"))
        self._texts = texts

    def names(self) -> tuple[str, ...]:
        """Return the names of all of them."""
        self.load()
        return tuple(sorted(self._texts))

    def text(self, name: str, *, where: str = "") -> bytes:
        """Return a statement; ``where`` stands in place of ``{where}``."""
        return self._texts[name].replace(b"{where}", where.encode())

    def _text(self, script: str) -> bytes:
        # Shorter texts: the driver keeps what it made of a statement only up to 4 KB.
        text = re.sub(r"\s+", " ", _COMMENT.sub("", script)).strip()
        for name, part in self._parts.items():
            text = text.replace(f"{{{name}}}", part)
        return text.encode()
