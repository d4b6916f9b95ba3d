"""Documents are read whole, in a fixed order, or not at all."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.errors import DocumentError
from app.workflow.documents import MAX_DOCUMENT_BYTES, Document, cut_text, read_documents


def test_a_folder_is_read_in_the_order_of_paths_without_hidden_files(tmp_path: Path) -> None:
    """All visible files below a folder are read, sorted by their path; hidden files and folders are not."""
    for name in ("b.txt", "a/z.md", "a/b/c.txt", ".hidden", ".git/config", "a/.cache/x", "Z"):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(f"text of {name}\r\n".encode())

    found = read_documents(tmp_path)

    assert found == [Document(name, f"text of {name}\r\n") for name in ("Z", "a/b/c.txt", "a/z.md", "b.txt")]


def test_a_file_is_one_document_and_a_byte_order_mark_is_no_text(tmp_path: Path) -> None:
    """A file that is named itself is read, hidden or not; its byte order mark is taken off."""
    path = tmp_path / ".note.txt"
    path.write_bytes(b"\xef\xbb\xbfh\xc3\xa9\tllo\x0c\n")

    assert read_documents(str(path)) == [Document(".note.txt", "hé\tllo\x0c\n")]


@pytest.mark.parametrize(
    ("body", "says"),
    [
        (b"", "is empty"),
        (b" \n\t ", "is empty"),
        (b"\xef\xbb\xbf", "is empty"),
        (b"\x7fELF\x02\x01", "is binary .byte 0x02 at 4"),
        (b"text\0text", "is binary .byte 0x00 at 4"),
        (b"x" * 70_000 + b"\0", "is binary .byte 0x00 at 70000"),
        ("h\xe9".encode("latin-1"), "is not UTF-8 .byte 0xe9 at 1.; convert it"),
        ("text".encode("utf-16"), "is binary"),
        (b"x" * (MAX_DOCUMENT_BYTES + 1), "has 8,388,609 bytes; a document has at most 8,388,608"),
    ],
)
def test_a_bad_document_is_refused_with_its_path_and_a_remedy(tmp_path: Path, body: bytes, says: str) -> None:
    """Empty, binary, wrongly encoded and too large files are refused, alone and among good ones."""
    (tmp_path / "good.txt").write_text("good")
    bad = tmp_path / "bad.txt"
    bad.write_bytes(body)

    for path in (bad, tmp_path):
        with pytest.raises(DocumentError, match=says) as caught:
            read_documents(path)
        assert caught.value.path == str(bad)


def test_a_name_that_is_not_text_is_refused(tmp_path: Path) -> None:
    """The name of a document is recorded as text; the error shows which bytes it has, and can itself be printed."""
    bad = tmp_path / os.fsdecode(b"caf\xe9.txt")
    bad.write_text("text")

    for path in (tmp_path, bad):
        with pytest.raises(DocumentError, match=r"caf\\xe9\.txt' is not UTF-8; rename") as caught:
            read_documents(path)
        assert str(caught.value).encode()


def test_what_is_no_document_at_all_is_refused(tmp_path: Path) -> None:
    """A missing path, an empty folder, a dangling link, a pipe and an unreadable file are refused, and never wait."""
    empty = tmp_path / "empty"
    empty.mkdir()
    (empty / ".hidden").write_text("x")
    link = tmp_path / "link.txt"
    link.symlink_to(tmp_path / "nowhere")
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    secret = tmp_path / "secret.txt"
    secret.write_text("x")
    secret.chmod(0)

    cases = [
        (tmp_path / "missing", "check the path"),
        (empty, "no documents"),
        (link, "check the path"),
        (pipe, "not a file"),
    ]
    if os.geteuid() != 0:
        cases.append((secret, "permit reading it"))
    for path, says in cases:
        with pytest.raises(DocumentError, match=says) as caught:
            read_documents(path)
        assert caught.value.path == str(path)


@given(st.text(max_size=60), st.integers(1, 50))
def test_a_cut_text_is_a_beginning_that_ends_between_words_where_it_can(text: str, max_chars: int) -> None:
    """A cut text has at most so many characters, is a beginning of the text, and cuts no word but the first."""
    cut = cut_text(text, max_chars)

    assert len(cut) <= max_chars
    assert text.startswith(cut)
    if len(text) <= max_chars:
        assert cut == text
    elif len(text.split()) > 1 and len(text.split(maxsplit=1)[0]) < max_chars - len(text) + len(text.lstrip()):
        assert cut.split() == text.split()[: len(cut.split())]
