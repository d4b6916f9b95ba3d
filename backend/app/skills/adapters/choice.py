"""Which adapter the settings choose, and why: used by the factory and shown by ``nova doctor``."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Literal
from urllib.parse import urlsplit

from app.errors import ConfigurationError
from app.skills.models import DEFAULT_MODELS

if TYPE_CHECKING:
    from app.settings import Settings

__all__ = ["AdapterChoice", "AdapterId", "choose_adapter"]

AdapterId = Literal["claude", "openai", "stub"]

_ALLOWED: Final[tuple[AdapterId, ...]] = ("claude", "openai", "stub")


@dataclass(frozen=True, slots=True, kw_only=True)
class AdapterChoice:
    """An adapter, and the sentence that says why; ``implicit`` where it stands in for one that has no key."""

    adapter_id: AdapterId
    reason: str
    implicit: bool
    default_model: str


def choose_adapter(settings: Settings) -> AdapterChoice:
    """Return the adapter of the settings; without the key of the chosen one, the stub.

    Raises:
        ConfigurationError: an unknown name, a base URL that is none, or the stub as a silent fallback in production.
    """
    asked = settings.llm_adapter
    chosen = next((adapter_id for adapter_id in _ALLOWED if adapter_id == asked), None)
    if chosen is None:
        raise ConfigurationError(
            f"LLM_ADAPTER={asked!r} is unknown; use one of {', '.join(_ALLOWED)}", variable="LLM_ADAPTER"
        )
    _check_url("ANTHROPIC_BASE_URL", settings.anthropic_base_url)
    _check_url("OPENAI_BASE_URL", settings.openai_base_url)
    if chosen == "stub":
        return _choice("stub", "LLM_ADAPTER=stub", settings)
    if chosen == "claude" and settings.anthropic_api_key is not None:
        return _choice("claude", "ANTHROPIC_API_KEY is set", settings)
    if chosen == "openai" and settings.openai_api_key is not None:
        return _choice("openai", "LLM_ADAPTER=openai and OPENAI_API_KEY is set", settings)
    if chosen == "openai" and settings.openai_base_url is not None:
        return _choice("openai", "LLM_ADAPTER=openai and OPENAI_BASE_URL is set", settings)
    return _fallback(chosen, settings)


def _fallback(chosen: AdapterId, settings: Settings) -> AdapterChoice:
    variable = "ANTHROPIC_API_KEY" if chosen == "claude" else "OPENAI_API_KEY"
    remedy = f"set {variable}"
    if chosen == "openai":
        remedy += ", or OPENAI_BASE_URL for a server of your own"
    elif settings.openai_api_key is not None or settings.openai_base_url is not None:
        remedy += ", or LLM_ADAPTER=openai to use what OPENAI_API_KEY or OPENAI_BASE_URL names"
    if settings.production:
        raise ConfigurationError(
            f"LLM_ADAPTER={chosen} has no key, and in production it does not fall back to the stub: {remedy}, or "
            "LLM_ADAPTER=stub if made-up answers are what you want",
            variable=variable,
        )
    return _choice(
        "stub", f"{variable} is not set, so the stub answers in place of {chosen}: {remedy}", settings, implicit=True
    )


def _choice(adapter_id: AdapterId, reason: str, settings: Settings, *, implicit: bool = False) -> AdapterChoice:
    models = {"claude": settings.anthropic_default_model, "openai": settings.openai_default_model}
    default_model = models.get(adapter_id) or DEFAULT_MODELS[adapter_id]
    return AdapterChoice(adapter_id=adapter_id, reason=reason, implicit=implicit, default_model=default_model)


def _check_url(variable: str, url: str | None) -> None:
    """Refuse what is not the address of an HTTP server; the value is not shown, because it may hold a password."""
    if url is None:
        return
    try:
        parts = urlsplit(url)
        usable = parts.scheme in {"http", "https"} and bool(parts.hostname) and parts.port != 0
    except ValueError:
        usable = False
    if not usable:
        raise ConfigurationError(f"{variable} must be a URL such as https://host/v1", variable=variable)
