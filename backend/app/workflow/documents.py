"""Documents: text files as inputs of a run, read once at its start."""

from __future__ import annotations

import os
import re
import stat
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from app.errors import DocumentError

__all__ = ["MAX_DOCUMENT_BYTES", "Document", "Item", "cut_text", "read_documents"]

MAX_DOCUMENT_BYTES: Final = 8 * 1024 * 1024
"""The largest document. Recorded as JSON it may double, and a recorded value has at most 16 MiB."""

_MAX_DOCUMENTS: Final = 100_000
_BINARY: Final = re.compile(rb"[\x00-\x08\x0e-\x1a\x1c-\x1f]")
"""Control characters that text has no use for; tabs, line ends, page breaks and colour codes are let through."""


@dataclass(frozen=True, slots=True)
class Document:
    """A text with a name: for files their path below the folder that was read, with ``/`` between its parts."""

    name: str
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Item:
    """What a mapped step's prompt sees as its item, and later steps as its output; ``cut`` where text was left off."""

    name: str
    text: str
    cut: bool = False


def read_documents(path: str | Path) -> list[Document]:
    """Read a text file, or all files of a folder and the folders in it, sorted by name.

    Hidden files and folders (their name begins with a dot) are skipped, and links to folders are not followed; a file
    that is named itself is read in any case. A byte order mark is taken off, line ends are left as they are.

    Raises:
        DocumentError: a file is missing, unreadable, not a file, too large, empty, binary or not UTF-8, its name is
            not UTF-8, or a folder has no file; names the path and what to do. Nothing is half read: one bad document
            refuses all.
    """
    root = Path(path)
    try:
        mode = root.stat().st_mode
    except OSError as error:
        raise _unreadable(root, error) from error
    if not stat.S_ISDIR(mode):
        _check_name(root.name, root)
        return [Document(root.name, _read_text(root))]
    files = _files_below(root)
    if not files:
        raise DocumentError(
            f"{str(root)!r} has no documents (hidden files are skipped); put text files there", path=str(root)
        )
    if len(files) > _MAX_DOCUMENTS:
        raise DocumentError(
            f"{str(root)!r} has {len(files):,} files; at most {_MAX_DOCUMENTS:,} are read. Name a folder inside it",
            path=str(root),
        )
    for name in files:
        _check_name(name, root / name)
    return [Document(name, _read_text(root / name)) for name in files]


def cut_text(text: str, max_chars: int) -> str:
    """Return ``text`` if it has at most ``max_chars`` characters, else its beginning up to the last space before."""
    if len(text) <= max_chars:
        return text
    head = text[:max_chars]
    if text[max_chars].isspace() or head[-1:].isspace():
        return head.rstrip()
    words = head.rsplit(maxsplit=1)
    # One word that fills it all is cut inside: there is no better place.
    return head[: len(head.rstrip()) - len(words[-1])].rstrip() if len(words) > 1 else head


def _files_below(root: Path) -> list[str]:
    """Return the visible files under a folder, by their path below it, in the order of these paths."""
    names: list[str] = []

    def fail(error: OSError) -> None:
        raise _unreadable(Path(error.filename or root), error) from error

    for folder, folders, files in os.walk(root, onerror=fail):
        folders[:] = [name for name in folders if not name.startswith(".")]
        below = Path(folder).relative_to(root)
        names.extend((below / name).as_posix() for name in files if not name.startswith("."))
    return sorted(names)


def _check_name(name: str, path: Path) -> None:
    """Refuse a name that is not text: it is recorded with the document, and shown to models."""
    try:
        name.encode()
    except UnicodeEncodeError:
        shown = os.fsencode(path).decode(errors="backslashreplace")
        raise DocumentError(f"the name of '{shown}' is not UTF-8; rename the file", path=shown) from None


def _read_text(path: Path) -> str:
    try:
        # Without waiting: opening a named pipe would else block until somebody writes to it.
        with os.fdopen(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), "rb") as file:
            status = os.fstat(file.fileno())
            if not stat.S_ISREG(status.st_mode):
                raise DocumentError(f"{str(path)!r} is not a file; name a text file or a folder", path=str(path))
            # One byte more than fits tells a file that is too large, or that grows meanwhile.
            body = file.read(MAX_DOCUMENT_BYTES + 1)
    except OSError as error:
        raise _unreadable(path, error) from error
    if len(body) > MAX_DOCUMENT_BYTES:
        raise DocumentError(
            f"{str(path)!r} has {status.st_size:,} bytes; a document has at most {MAX_DOCUMENT_BYTES:,}. Split it",
            path=str(path),
        )
    return _decode(path, body)


def _decode(path: Path, body: bytes) -> str:
    control = _BINARY.search(body)
    if control is not None:
        raise DocumentError(
            f"{str(path)!r} is binary (byte 0x{control[0][0]:02x} at {control.start()}); give the text of it, or move "
            "it elsewhere",
            path=str(path),
        )
    try:
        text = body.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise DocumentError(
            f"{str(path)!r} is not UTF-8 (byte 0x{body[error.start]:02x} at {error.start}); convert it, for example "
            "with iconv -f WINDOWS-1252 -t UTF-8",
            path=str(path),
        ) from None
    if not text.strip():
        raise DocumentError(f"{str(path)!r} is empty; give it some text, or remove it", path=str(path))
    return text


def _unreadable(path: Path, error: OSError) -> DocumentError:
    remedy = {
        FileNotFoundError: "check the path",
        PermissionError: "permit reading it",
    }.get(type(error), "check the path and its permissions")
    reason = error.strerror or type(error).__name__
    return DocumentError(f"{str(path)!r} cannot be read: {reason}; {remedy}", path=str(path))
