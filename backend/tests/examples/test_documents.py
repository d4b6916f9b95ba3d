"""The example documents: a dozen, long enough to be worth a note, and readable by the flow that they are for."""

from __future__ import annotations

from pathlib import Path

from app.workflow.documents import read_documents

_EXAMPLES = Path(__file__).resolve().parents[3] / "examples"


def test_there_are_a_dozen_different_documents() -> None:
    """Twelve texts of 350 to 600 words, no two of them about the same thing."""
    documents = read_documents(_EXAMPLES / "documents")

    assert len(documents) == 12
    assert all(350 <= len(document.text.split()) <= 600 for document in documents)
    assert len({document.text.splitlines()[0] for document in documents}) == 12


def test_their_sources_are_told() -> None:
    """SOURCES.md says whose they are and under which licence, and is not itself read as a document."""
    sources = (_EXAMPLES / "SOURCES.md").read_text(encoding="utf-8")

    assert "original" in sources
    assert "Apache-2.0" in sources
    assert all(document.name.endswith(".txt") for document in read_documents(_EXAMPLES / "documents"))
