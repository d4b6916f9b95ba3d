"""Looks for the planted secrets in text, as it comes: nothing of what was searched is kept."""

from __future__ import annotations

import base64
from collections import Counter, deque
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, fields, is_dataclass
from itertools import chain, islice
from pathlib import Path
from typing import Any, Final

from tests.support.planted import MARK, NAMES, core, planted

__all__ = ["SEARCH", "Search", "Stream"]

_LONGEST: Final = max(len(planted(name)) for name in NAMES) * 2
"""How much of a stream is carried over to its next chunk: a secret in base64 or hex is longer than itself."""
_LARGEST_FILE: Final = 1024 * 1024
_MOST_OF_A_TEXT: Final = 64 * 1024
_MOST_PARTS: Final = 200


def _encoded(text: str) -> set[str]:
    """Return what is seen of a text in base64, wherever in a longer one it stands, and in hex."""
    forms = {text.encode().hex()}
    for before in range(3):
        whole = base64.b64encode(bytes(before) + text.encode()).decode()
        # The first characters hold bits of what stands before, the last ones of what follows.
        forms.add(whole[(before * 8 + 5) // 6 : (before + len(text)) * 8 // 6])
    return forms


_NEEDLES: Final = tuple(needle.encode() for needle in (MARK, *sorted(_encoded(MARK))))
_NUMBERED: Final = len(MARK) + 2
_FORMS: Final = {
    # In base64 the end of what is looked for is cut, so it is longer than the number of the secret.
    name: tuple(form.encode() for form in (core(name)[:_NUMBERED], *sorted(_encoded(core(name)[: _NUMBERED + 2]))))
    for name in NAMES
}


def _named_in(data: bytes) -> set[str]:
    """Return the names of the secrets in it: the first letters of a core are enough, also in base64 and hex."""
    if not any(needle in data for needle in _NEEDLES):
        return set()
    return {name for name, forms in _FORMS.items() if any(form in data for form in forms)}


def _texts_in(value: object, *, depth: int) -> Iterator[str]:
    """Return the texts in what ``repr`` shows of a value. The ``repr`` of the whole may not fit into memory."""
    if isinstance(value, str | bytes | bytearray):
        yield value[:_MOST_OF_A_TEXT] if isinstance(value, str) else value[:_MOST_OF_A_TEXT].decode("latin-1")
    elif isinstance(value, Mapping | list | tuple | set | frozenset | deque):
        if depth:
            parts = chain.from_iterable(value.items()) if isinstance(value, Mapping) else value
            for part in islice(parts, _MOST_PARTS):
                yield from _texts_in(part, depth=depth - 1)
    elif is_dataclass(value) and not isinstance(value, type):
        if depth and hasattr(type(value).__repr__, "__wrapped__"):  # it is the one that dataclasses make
            for part in fields(value):
                if part.repr and hasattr(value, part.name):
                    yield from _texts_in(getattr(value, part.name), depth=depth - 1)
        elif depth:
            yield _shown(value)
    elif isinstance(value, BaseException):
        yield from _texts_in(value.args, depth=depth)
    elif value is not None and not isinstance(value, bool | int | float):
        yield _shown(value)


def _shown(value: object) -> str:
    try:
        return repr(value)[:_MOST_OF_A_TEXT]
    except Exception:  # noqa: BLE001 - a value that is not finished, or was taken apart by its test
        return ""


def _is_a_secrets_file(content: bytes) -> bool:
    return len(content) <= _LONGEST * 2 and len(content.split()) == 1


@dataclass
class Search:
    """What was searched, what was found, and which of the secrets Nova was given.

    Attributes:
        test: what runs now; None between tests.
        texts: how many texts came, by where from.
        size_bytes: their length, by where from.
        found: (test, where, name of the secret), each once.
        given: the secrets that Nova, or a process that a test started, held at some time.
    """

    test: str | None = None
    texts: Counter[str] = field(default_factory=Counter)
    size_bytes: Counter[str] = field(default_factory=Counter)
    found: dict[tuple[str | None, str, str], None] = field(default_factory=dict)
    given: set[str] = field(default_factory=set)
    _told: set[tuple[str | None, str, str]] = field(default_factory=set)

    def look(self, text: str | bytes, *, where: str, detail: str = "") -> None:
        """Search a text; ``detail`` says more exactly where something was found."""
        if not text:
            return
        data = text.encode(errors="surrogatepass") if isinstance(text, str) else text
        self.texts[where] += 1
        self.size_bytes[where] += len(data)
        for name in _named_in(data):
            self.found[self.test, f"{where} {detail}".rstrip(), name] = None

    def look_at(self, value: object, *, where: str, detail: str = "") -> None:
        """Search what ``repr`` shows of a value, as deep as people and crash reporters look."""
        self.look("\n".join(islice(_texts_in(value, depth=5), _MOST_PARTS)), where=where, detail=detail)

    def look_in(self, directory: Path, *, where: str) -> None:
        """Search every file below a directory that is not huge, but those that hold one word: a secret for Nova."""
        for path in directory.rglob("*"):
            try:
                if path.is_symlink() or not path.is_file() or path.stat().st_size > _LARGEST_FILE:
                    continue
                content = path.read_bytes()
            except OSError:  # it went away, or belongs to a server
                continue
            if not _is_a_secrets_file(content):
                self.look(content, where=where, detail=path.name)

    def give(self, values: Iterable[Any]) -> None:
        """Take note of secrets that Nova gets."""
        for value in values:
            if isinstance(value, str) and MARK in value:
                self.given |= _named_in(value.encode())

    def untold(self, *, of: str | None = None) -> list[str]:
        """Return what was found and not yet returned, as lines that name the secrets and do not show them.

        Args:
            of: only what this test let out; None: everything.
        """
        new = [found for found in self.found if found not in self._told and of in {None, found[0]}]
        self._told |= set(new)
        return [f"the planted secret {name} is in {where} ({test or 'outside of a test'})" for test, where, name in new]


class Stream:
    """The output of a process, which comes in chunks that may end within a secret."""

    def __init__(self, search: Search, *, where: str) -> None:
        self._search = search
        self._where = where
        self._before = b""

    def look(self, chunk: str | bytes) -> None:
        """Search a chunk, with the end of what came before it."""
        data = chunk.encode(errors="surrogatepass") if isinstance(chunk, str) else chunk
        if data:
            self._search.look(self._before + data, where=self._where)
            self._before = (self._before + data)[-_LONGEST:]


SEARCH: Final = Search()
"""The one of this process."""
