"""``nova models``: what each model takes, how large it is, what it costs, and when it ends."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, Any

import typer

from app.cli.session import JsonOption, session_of

if TYPE_CHECKING:
    from rich.console import RenderableType

    from app.skills.model_facts import ModelFacts
    from app.skills.pricing import ModelPrice

__all__ = ["models"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Listed:
    """A model with what is known of it; ``price`` is None where that is unknown."""

    provider: str
    name: str
    facts: ModelFacts
    price: ModelPrice | None


def models(
    ctx: typer.Context,
    names: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="MODEL", help="Such as gpt-5 or claude:claude-opus-5. Default: all that have not ended."
        ),
    ] = None,
    *,
    provider: Annotated[str | None, typer.Option("--provider", help="Only those of claude, openai or stub.")] = None,
    ended: Annotated[bool, typer.Option("--all", help="Those that have ended too.")] = False,
    json: JsonOption = False,
) -> None:
    """Show what models take: tools, structured output, images, documents, reasoning; and their size, price and end.

    A model that is not listed can be called all the same: name it to see what it is taken for.

    Example:  nova models gpt-5 claude-sonnet-5-5
    """
    from app.skills.pricing import get_price_book

    session = session_of(ctx, json=json)
    book = get_price_book(session.settings)
    today = datetime.now(UTC).date()
    found = []
    for adapter_id, name in _chosen(names, provider):
        known = _facts(adapter_id, name)
        if names or ended or known.end_of_life is None or known.end_of_life > today:
            price = book.price(provider=adapter_id, model=name)
            found.append(Listed(provider=adapter_id, name=name, facts=known, price=price))
    session.show({"models": [_document(each) for each in found]}, lambda: _table(found))


def _chosen(names: Sequence[str] | None, provider: str | None) -> list[tuple[str, str]]:
    from app.skills.model_names import MODEL_NAMES

    if provider is not None and provider not in MODEL_NAMES:
        raise typer.BadParameter(f"{provider!r} is none of {', '.join(MODEL_NAMES)}", param_hint="--provider")
    if not names:
        return [(each, name) for each in MODEL_NAMES if provider in {None, each} for name in MODEL_NAMES[each]]
    chosen = []
    for name in names:
        before, found, after = name.partition(":")
        if found and before in MODEL_NAMES:
            chosen.append((before, after))
        else:
            chosen.append((provider or _provider_of(name), name))
    return chosen


def _provider_of(name: str) -> str:
    return "claude" if name.startswith("claude") else "stub" if name.startswith("stub") else "openai"


def _facts(provider: str, name: str) -> ModelFacts:
    from app.skills.models import facts

    return facts(provider, name)


def _document(each: Listed) -> dict[str, Any]:
    known, price = each.facts, each.price
    return {
        "provider": each.provider,
        "model": each.name,
        "family": known.family,
        "context_tokens": known.context_tokens,
        "max_output_tokens": known.max_output_tokens,
        "max_tokens_parameter": known.max_tokens_param,
        "temperature": known.sampling,
        "stop": known.accepts_stop,
        "seed": known.accepts_seed,
        "tools": known.tools,
        "parallel_tool_calls": known.accepts_parallel,
        "structured_output": known.structured,
        "images": known.images,
        "image_tokens_at_most": known.image_tokens_bound if known.images else None,
        "documents": known.documents,
        "reasoning": known.reasoning,
        "reasoning_efforts": list(known.efforts),
        "service_tiers": sorted(known.tiers),
        "api_headers_for_temperature": dict(known.sampling_headers),
        "ends": None if known.end_of_life is None else known.end_of_life.isoformat(),
        "usd_per_million": None
        if price is None
        else {"input": f"{price.input_usd_per_million:f}", "output": f"{price.output_usd_per_million:f}"},
        "price_version": None if price is None else price.version,
    }


def _table(found: Sequence[Listed]) -> RenderableType:
    from app.cli.output import table

    made = table(
        "model",
        ("size", "right"),
        ("price", "right"),
        "takes",
        "effort",
        "ends",
        title="size: context/output; price: dollars per million tokens in/out;\n"
        "takes: Temperature, Schema (J: JSON mode), tools (F), Images, PDF",
    )
    for each in found:
        known, price = each.facts, each.price
        cost = "?" if price is None else f"{price.input_usd_per_million:f}/{price.output_usd_per_million:f}"
        made.add_row(
            each.name,
            f"{_size(known.context_tokens)}/{_size(known.max_output_tokens)}",
            cost,
            _takes(known),
            _reasoning(known),
            "" if known.end_of_life is None else known.end_of_life.isoformat(),
        )
    return made


def _takes(known: ModelFacts) -> str:
    """Return a letter for each thing that a model takes, a point where it does not."""
    held = {"schema": "S", "json": "J", "words": "."}[known.structured]
    flags = (("F", known.tools), ("I", known.images), ("P", known.documents))
    return ("T" if known.sampling == "always" else ".") + held + "".join(mark if has else "." for mark, has in flags)


def _reasoning(known: ModelFacts) -> str:
    if not known.efforts:
        return "" if known.reasoning == "none" else "yes"
    return known.efforts[0] if len(known.efforts) == 1 else f"{known.efforts[0]}-{known.efforts[-1]}"


def _size(tokens: int | None) -> str:
    if tokens is None:
        return "?"
    return f"{tokens / 1_000_000:.3g}M" if tokens >= 1_000_000 else f"{tokens // 1000}k"
