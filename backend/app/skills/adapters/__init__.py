"""Adapters: one ``invoke`` and one ``stream`` for every provider.

``get_llm_adapter`` returns the bare adapter: one attempt, metered, without a budget and without retries. Use
``get_guarded_adapter`` of :mod:`app.skills.guards` wherever money matters.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from app.settings import Settings
    from app.skills.adapters.choice import AdapterChoice
    from app.skills.llm_invoke_v2 import LLMAdapter
    from app.skills.pricing import PriceBook

__all__ = ["choose_adapter", "close_adapters", "get_llm_adapter"]

_open: dict[tuple[object, ...], LLMAdapter] = {}
"""The adapters that were handed out, by what configured them. Only the functions of this module change it."""

_warned: set[str] = set()
"""The reasons for the stub that were logged."""


def get_llm_adapter(settings: Settings | None = None, *, force_new: bool = False) -> LLMAdapter:
    """Return the adapter of the environment: ``ClaudeAdapter``, ``OpenAIAdapter`` or ``StubAdapter``.

    Without the key of the chosen adapter it is the stub, with one warning in the log. Nothing is connected, and no SDK
    is imported, before the first call.

    Args:
        settings: None reads the environment now.
        force_new: build a new object, which ``close_adapters`` does not know.

    Raises:
        ConfigurationError: an unknown name, a base URL that is none, or no key in production.
    """
    if settings is None:
        from app.settings import load_settings

        settings = load_settings()
    choice = choose_adapter(settings)
    if choice.implicit and choice.reason not in _warned:
        import logging

        _warned.add(choice.reason)
        logging.getLogger(__name__).warning("%s", choice.reason)
    if settings.nova_metrics_port is not None:
        _expose(choice, settings)
    if force_new:
        return _build(choice, settings)
    key = _identity(choice, settings)
    if key not in _open:
        _open[key] = _build(choice, settings)
    return _open[key]


def choose_adapter(settings: Settings) -> AdapterChoice:
    """Return which adapter the settings choose, and why; see :func:`app.skills.adapters.choice.choose_adapter`."""
    from app.skills.adapters import choice

    return choice.choose_adapter(settings)


async def close_adapters() -> None:
    """Close every adapter that the factory handed out; its next call builds a new one."""
    adapters = list(_open.values())
    _open.clear()
    failures = []
    for adapter in adapters:
        try:
            await adapter.aclose()
        except Exception as error:  # noqa: BLE001  # the others are closed too; all are raised below
            failures.append(error)
    if failures:
        raise ExceptionGroup("not every adapter could be closed", failures)


def _expose(choice: AdapterChoice, settings: Settings) -> None:
    """Show this process's metrics to Prometheus, with the series of its models at zero.

    Where Nova serves them, these are all that the adapter's provider offers today: some call may name any of them, and
    what its first call costs would be in no increase. They are a dozen series each, and at most some sixty models.
    """
    from datetime import UTC, datetime

    from app.exposition import expose_as_configured
    from app.skills.adapters.metrics import OTHER_MODEL, show_at_zero
    from app.skills.models import DEFAULT_MODELS, current_models
    from app.skills.pricing import get_price_book

    prices = get_price_book(settings)
    models = [choice.default_model, DEFAULT_MODELS[choice.adapter_id], OTHER_MODEL]
    if settings.nova_metrics_port is not None:
        models += current_models(choice.adapter_id, today=datetime.now(UTC).date())
    for model in models:
        if model == OTHER_MODEL or prices.is_priced(provider=choice.adapter_id, model=model):
            show_at_zero(choice.adapter_id, model)
    expose_as_configured(settings)


def _identity(choice: AdapterChoice, settings: Settings) -> tuple[object, ...]:
    """Return what makes two adapters the same."""
    keys = {"claude": "anthropic_api_key", "openai": "openai_api_key"}
    urls = {"claude": settings.anthropic_base_url, "openai": settings.openai_base_url}
    key = keys.get(choice.adapter_id)
    return (
        choice.adapter_id,
        choice.default_model,
        urls.get(choice.adapter_id),
        # What keeps a rotating key fresh, not its present value: a rotation does not make another adapter.
        None if key is None else settings.identity_of(key),
        str(settings.nova_prices_file),
        settings.nova_unknown_price,
    )


def _build(choice: AdapterChoice, settings: Settings) -> LLMAdapter:
    def prices() -> PriceBook:
        from app.skills.pricing import get_price_book

        return get_price_book(settings)

    if choice.adapter_id == "stub":
        from app.skills.adapters.stub_adapter import StubAdapter

        return StubAdapter(default_model=choice.default_model, prices=prices)
    if choice.adapter_id == "claude":
        from app.skills.adapters.claude_adapter import ClaudeAdapter

        return ClaudeAdapter(
            api_key=settings.credential("anthropic_api_key"),
            base_url=settings.anthropic_base_url,
            default_model=choice.default_model,
            prices=prices,
        )
    from app.skills.adapters.openai_adapter import OpenAIAdapter

    return OpenAIAdapter(
        api_key=settings.credential("openai_api_key"),
        base_url=settings.openai_base_url,
        default_model=choice.default_model,
        prices=prices,
    )
