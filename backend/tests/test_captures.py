"""The terminal captures of the documentation show what the commands print today, and fetch nothing."""

from __future__ import annotations

import html
import re
from pathlib import Path

from docs.capture import CAPTURES, all_captures, drawn

FOLDER = Path(__file__).parents[2] / "docs" / "captures"


def words_in(picture: str) -> str:
    """Return the text of a picture with every figure, time and place made alike."""
    pieces = re.findall(r"<text [^>]*>([^<]*)</text>", picture)
    text = " ".join(html.unescape(" ".join(pieces)).split())
    text = re.sub(r"[0-9.]+ [KMGT]?B free", "# free", text)
    return re.sub(r"[0-9][0-9.,:TZ+a-f-]*", "#", text)


def test_they_show_what_the_commands_print() -> None:
    """The tutorial is gone through, and servers are asked: but for figures the same words, in the same order."""
    fresh = {name: words_in(picture) for name, picture in all_captures()}

    assert fresh.keys() == {each.name for each in CAPTURES} == {path.stem for path in FOLDER.glob("*.svg")}
    assert {name: words_in((FOLDER / f"{name}.svg").read_text()) for name in fresh} == fresh, "run: make captures"
    assert "waiting (budget)" in fresh["runs-show"]
    assert "run:second" in fresh["budget-show"]
    assert " problem " not in fresh["doctor"] + fresh["doctor-servers"]


def test_who_reads_them_asks_nobody_else() -> None:
    """No font and no picture comes from elsewhere; each is small."""
    for path in FOLDER.glob("*.svg"):
        picture = path.read_text()
        assert re.findall(r"(?:url|href|src)\s*[(=]\s*[\"']?(?!#)(\S+)", picture) == []
        assert "@font-face" not in picture
        assert len(picture) < 40_000


def test_the_same_text_is_the_same_picture() -> None:
    """A capture changes only where its text does."""
    text = "\x1b[1mbold\x1b[0m \x1b[32mok\x1b[0m\r\n plain"

    first, second = drawn(text, title="nova x"), drawn(text, title="nova x")

    assert first == second
    assert "bold" in first
