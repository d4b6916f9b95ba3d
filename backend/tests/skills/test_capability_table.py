"""The capability table of the documentation says what the model table says."""

from __future__ import annotations

import re
from pathlib import Path

from app.skills.model_facts import ModelFacts
from app.skills.model_table import FAMILIES

DOCUMENT = Path(__file__).parents[3] / "docs" / "adapters.md"


def rows() -> list[str]:
    """Return the table as it has to be written."""
    found = [
        "| adapter | family | tools | schema | images | PDF | reasoning | `temperature` | tiers |",
        "|" + "---|" * 9,
    ]
    for provider, families in FAMILIES.items():
        seen = dict.fromkeys(family.family for _, family in families)
        by_name = {family.family: family for _, family in families}
        found += [_row(provider, by_name[name]) for name in seen]
    return found


def _row(provider: str, facts: ModelFacts) -> str:
    tools = "no" if not facts.tools else "without reasoning" if facts.tools_without_reasoning else "yes"
    schema = {"schema": "held", "json": "JSON mode and words", "words": "words"}[facts.structured]
    reasoning = "no" if not facts.efforts else f"{facts.efforts[0]} to {facts.efforts[-1]}"
    if len(facts.efforts) == 1:
        reasoning = facts.efforts[0]
    sampling = {
        "always": "yes",
        "never": "no",
        "unless_reasoning": "unless it reasons",
        "reasoning_off": "with effort none",
    }[facts.sampling]
    tiers = ", ".join(sorted(facts.tiers)) or "none"
    yes = {True: "yes", False: "no"}
    cells = (provider, facts.family, tools, schema, yes[facts.images], yes[facts.documents], reasoning, sampling, tiers)
    return "| " + " | ".join(cells) + " |"


def test_the_documentation_has_the_table() -> None:
    """Every family, with what it has; to write it anew, print ``rows()``."""
    written = [
        line
        for line in DOCUMENT.read_text().splitlines()
        if re.match(r"\|( adapter \||---\|---\|---\|---| (claude|openai|stub) \|)", line)
    ]

    assert written == rows()
