"""What is known of each model, by its name: :mod:`app.skills.model_table` looked up."""

from __future__ import annotations

import re
from datetime import date
from functools import lru_cache
from typing import Final

from app.skills.model_ends import END_OF_LIFE
from app.skills.model_facts import ModelFacts, Sampling
from app.skills.model_table import FAMILIES

__all__ = ["DEFAULT_MODELS", "ModelFacts", "Sampling", "current_models", "end_of_life_warning", "facts"]

DEFAULT_MODELS: Final = {"claude": "claude-sonnet-5-5", "openai": "gpt-4o-mini", "stub": "stub-1"}
"""The model of a call that names none, by adapter. Sonnet 5.5 is the newest that the SDK lists and that has a price."""


@lru_cache(maxsize=1024)
def facts(provider: str, model: str) -> ModelFacts:
    """Return what is known of a model; one that is not listed has what is current at its provider.

    Args:
        provider: the adapter's id. One that is not known is taken to speak OpenAI's API.
        model: the name that is sent; ``ft:<model>:…`` has the facts of the model that was tuned.
    """
    name = model.lower()
    base = name.split(":")[1] if name.startswith("ft:") else name
    for pattern, found in FAMILIES.get(provider, FAMILIES["openai"]):
        if re.match(pattern, base):
            ends = END_OF_LIFE.get(provider, {}).get(name)
            return found if ends is None else found.with_changes(end_of_life=ends)
    raise AssertionError("the last pattern of each provider matches every name")


def current_models(provider: str, *, today: date) -> list[str]:
    """Return the names of a provider's models that have not ended, those of an unknown provider: none."""
    from app.skills.model_names import MODEL_NAMES

    ends = ((name, facts(provider, name).end_of_life) for name in MODEL_NAMES.get(provider, ()))
    return [name for name, end in ends if end is None or end > today]


def end_of_life_warning(provider: str, model: str, *, today: date) -> str | None:
    """Return what a user should know about the end of a model, or None where no end was named."""
    ends = facts(provider, model).end_of_life
    if ends is None:
        return None
    if ends <= today:
        return f"the model {model} ended on {ends}; choose another"
    return f"the model {model} ends on {ends}, in {(ends - today).days} days; choose another before then"
