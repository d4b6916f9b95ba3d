"""``nova prices``: what models cost, side by side, and what a switch would save."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from app.cli.session import JsonOption, Session, session_of

if TYPE_CHECKING:
    from rich.console import RenderableType

    from app.money import Microcents
    from app.skills.pricing import ModelPrice, PriceBook

__all__ = ["prices"]

PROVIDERS: Final = ("claude", "openai", "stub")


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """What one model costs for the given tokens, beside the first model of the list.

    ``saves`` is what switching from the first one to this one saves: negative where it costs more.
    """

    price: ModelPrice
    cost: Microcents | None
    saves: Microcents | None
    saves_percent: Decimal | None


def prices(
    ctx: typer.Context,
    models: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="MODEL",
            help="Such as gpt-4o-mini or claude:claude-sonnet-4-5. Default: each adapter's default.",
        ),
    ] = None,
    *,
    input_tokens: Annotated[int | None, typer.Option("--input-tokens", min=0, help="Compare for so many.")] = None,
    output_tokens: Annotated[int | None, typer.Option("--output-tokens", min=0, help="Compare for so many.")] = None,
    json: JsonOption = False,
) -> None:
    """Show prices per million tokens; with token counts, what a call costs and what switching saves.

    The first model is the one that the others are compared with.

    Example:  nova prices gpt-4o claude-haiku-4-5 --input-tokens 50000 --output-tokens 1000
    """
    from app.skills.pricing import get_price_book

    session = session_of(ctx, json=json)
    book = get_price_book(session.settings)
    found = _find(book, models) if models else _defaults(session, book)
    if input_tokens is None and output_tokens is None:
        session.show({"prices": [_document(price) for price in found]}, lambda: _price_table(found))
        return
    tokens = (input_tokens or 0, output_tokens or 0)
    compared = compare(book, found, input_tokens=tokens[0], output_tokens=tokens[1])
    session.show(
        {
            "input_tokens": tokens[0],
            "output_tokens": tokens[1],
            "compared_with": found[0].model if found else None,
            "prices": [_comparison_document(each) for each in compared],
        },
        lambda: _comparison_table(compared, tokens),
    )


def compare(book: PriceBook, found: Sequence[ModelPrice], *, input_tokens: int, output_tokens: int) -> list[Comparison]:
    """Return what the tokens cost with each model, and what switching to it from the first one saves."""
    from app.skills.llm_invoke_v2 import LLMUsage

    usage = LLMUsage(input_tokens=input_tokens, output_tokens=output_tokens)
    costs = []
    for price in found:
        cost = book.cost(usage, provider=price.provider or PROVIDERS[0], model=price.model)
        costs.append(None if cost is None else cost.amount)
    compared = []
    for price, amount in zip(found, costs, strict=True):
        first = costs[0]
        saves = None if first is None or amount is None else first - amount
        percent = None if saves is None or not first else (Decimal(saves) * 100 / first).quantize(Decimal("0.1"))
        compared.append(Comparison(price=price, cost=amount, saves=saves, saves_percent=percent))
    return compared


def _find(book: PriceBook, names: Sequence[str]) -> list[ModelPrice]:
    from app.errors import UnboundedCallError

    found: list[ModelPrice] = []
    for name in names:
        provider, separator, model = name.partition(":")
        pairs = [(provider, model)] if separator and provider in PROVIDERS else [(each, name) for each in PROVIDERS]
        known = [price for each in pairs if (price := book.price(provider=each[0], model=each[1])) is not None]
        if not known:
            raise UnboundedCallError(
                f"no price is known for {name!r}: write it as the provider does, or give it a price in NOVA_PRICES_FILE"
            )
        # A price file's entry may stand for every provider; it is one price all the same.
        found += list({(price.model, price.rates): price for price in reversed(known)}.values())
    return found


def _defaults(session: Session, book: PriceBook) -> list[ModelPrice]:
    """Return the prices of each adapter's default model, the chosen adapter's first, and those of the price file."""
    from app.skills.adapters import choose_adapter
    from app.skills.models import DEFAULT_MODELS
    from app.skills.pricing.price_file import read_price_file

    settings = session.settings
    chosen = choose_adapter(settings)
    models = {
        "claude": settings.anthropic_default_model or DEFAULT_MODELS["claude"],
        "openai": settings.openai_default_model or DEFAULT_MODELS["openai"],
        "stub": DEFAULT_MODELS["stub"],
        chosen.adapter_id: chosen.default_model,
    }
    first_chosen = sorted(models, key=lambda adapter_id: adapter_id != chosen.adapter_id)
    found = [book.price(provider=adapter_id, model=models[adapter_id]) for adapter_id in first_chosen]
    own = read_price_file(settings.nova_prices_file) if settings.nova_prices_file is not None else {}
    listed = {price.model for price in found if price is not None}
    return [
        *(price for price in found if price is not None),
        *(price for model, price in own.items() if model not in listed),
    ]


def _document(price: ModelPrice) -> dict[str, Any]:
    rates = price.rates
    return {
        "model": price.model,
        "provider": price.provider,
        "usd_per_million": {
            "input": _usd(rates.input_usd_per_million),
            "output": _usd(rates.output_usd_per_million),
            "cache_read": _usd(rates.cache_read_usd_per_million),
            "cache_write": _usd(rates.cache_write_usd_per_million),
            "cache_write_1h": _usd(rates.cache_write_1h_usd_per_million),
        },
        "tiers": [
            {
                "above_input_tokens": tier.above_input_tokens,
                "input": _usd(tier.rates.input_usd_per_million),
                "output": _usd(tier.rates.output_usd_per_million),
            }
            for tier in price.tiers
        ],
        "source": price.source,
        "version": price.version,
    }


def _comparison_document(each: Comparison) -> dict[str, Any]:
    from app.cli.documents import money

    return {
        **_document(each.price),
        "cost": money(each.cost),
        "saves": money(each.saves),
        "saves_percent": None if each.saves_percent is None else str(each.saves_percent),
    }


def _usd(value: Decimal | None) -> str | None:
    return None if value is None else f"{value.normalize():f}"


def _dollars(value: Decimal | None) -> str:
    if value is None:
        return ""
    text = f"{value.normalize():f}"
    return f"${text}" if len(text.partition(".")[2]) >= 2 else f"${value:.2f}"


def _price_table(found: Sequence[ModelPrice]) -> RenderableType:
    from app.cli.output import table

    made = table(
        "model",
        "provider",
        ("in", "right"),
        ("out", "right"),
        ("cached", "right"),
        "source",
        title="dollars per million tokens",
    )
    for price in found:
        made.add_row(
            price.model,
            price.provider or "any",
            _dollars(price.input_usd_per_million),
            _dollars(price.output_usd_per_million),
            _dollars(price.cache_read_usd_per_million),
            price.source,
        )
        for tier in price.tiers:
            made.add_row(
                f"  above {tier.above_input_tokens:,}",
                "",
                _dollars(tier.rates.input_usd_per_million),
                _dollars(tier.rates.output_usd_per_million),
                _dollars(tier.rates.cache_read_usd_per_million),
                "",
            )
    return made


def _comparison_table(compared: Sequence[Comparison], tokens: tuple[int, int]) -> RenderableType:
    from app.cli.output import aligned, table

    made = table(
        "model",
        "provider",
        ("cost", "right"),
        ("saves", "right"),
        ("", "right"),
        title=f"a call of {tokens[0]:,} tokens in and {tokens[1]:,} out, beside {compared[0].price.model}",
    )
    costs = aligned([each.cost for each in compared])
    saves = aligned([each.saves for each in compared])
    for index, each in enumerate(compared):
        made.add_row(
            each.price.model,
            each.price.provider or "any",
            costs[index],
            "" if index == 0 else saves[index],
            "" if index == 0 or each.saves_percent is None else f"{each.saves_percent}%",
        )
    return made
