"""Which adapter the environment chooses, and that the factory hands out the same one."""

from __future__ import annotations

import logging
from collections.abc import Iterator

import pytest
from pydantic import SecretStr

from app.errors import ConfigurationError
from app.settings import Settings, load_settings
from app.skills import adapters
from app.skills.adapters import choose_adapter, close_adapters, get_llm_adapter
from app.skills.adapters.claude_adapter import ClaudeAdapter
from app.skills.adapters.openai_adapter import OpenAIAdapter
from app.skills.adapters.stub_adapter import StubAdapter
from tests.support.planted import planted

KEY = SecretStr(planted("provider.chosen_key"))
OTHER_KEY = SecretStr(planted("provider.other_key"))


@pytest.fixture(autouse=True)
def forget() -> Iterator[None]:
    """Begin and end without adapters and without warnings."""
    adapters._open.clear()
    adapters._warned.clear()
    yield
    adapters._open.clear()
    adapters._warned.clear()


@pytest.mark.parametrize(
    ("variables", "adapter_id", "implicit"),
    [
        ({}, "stub", True),
        ({"ANTHROPIC_API_KEY": "k"}, "claude", False),
        ({"OPENAI_API_KEY": "k"}, "stub", True),
        ({"LLM_ADAPTER": "claude"}, "stub", True),
        ({"LLM_ADAPTER": "openai"}, "stub", True),
        ({"LLM_ADAPTER": "OpenAI", "OPENAI_API_KEY": "k"}, "openai", False),
        ({"LLM_ADAPTER": "openai", "OPENAI_BASE_URL": "http://127.0.0.1:8080/v1"}, "openai", False),
        ({"LLM_ADAPTER": "stub", "ANTHROPIC_API_KEY": "k"}, "stub", False),
    ],
)
def test_the_environment_chooses(
    monkeypatch: pytest.MonkeyPatch,
    variables: dict[str, str],
    adapter_id: str,
    implicit: bool,  # noqa: FBT001  # a parameter of the test
) -> None:
    """The chosen adapter where its key is, else the stub; a server of one's own needs no key."""
    for name, value in variables.items():
        monkeypatch.setenv(name, value)

    choice = choose_adapter(load_settings())
    adapter = get_llm_adapter()

    assert (choice.adapter_id, choice.implicit) == (adapter_id, implicit)
    assert adapter.adapter_id == adapter_id
    assert (
        type(adapter).__name__
        == {
            "stub": "StubAdapter",
            "claude": "ClaudeAdapter",
            "openai": "OpenAIAdapter",
        }[adapter_id]
    )
    assert adapter.default_model == choice.default_model


def test_the_default_models_can_be_set() -> None:
    """Each adapter has a variable of its own."""
    settings = Settings(
        llm_adapter="openai", openai_api_key=KEY, openai_default_model="gpt-6.1-sol", anthropic_default_model="other"
    )

    assert get_llm_adapter(settings).default_model == "gpt-6.1-sol"


def test_the_stub_in_place_of_another_warns_once(caplog: pytest.LogCaptureFixture) -> None:
    """One warning that names the variable, however often the factory is called."""
    with caplog.at_level(logging.WARNING):
        get_llm_adapter(Settings())
        get_llm_adapter(Settings(), force_new=True)
        get_llm_adapter(Settings())

    assert len(caplog.records) == 1
    assert "ANTHROPIC_API_KEY" in caplog.text


def test_a_stub_that_was_asked_for_warns_of_nothing(caplog: pytest.LogCaptureFixture) -> None:
    """It is no fallback."""
    with caplog.at_level(logging.WARNING):
        get_llm_adapter(Settings(llm_adapter="stub"))

    assert caplog.records == []


def test_in_production_there_is_no_silent_stub() -> None:
    """The error names the variable; the stub that is asked for by name is allowed."""
    with pytest.raises(ConfigurationError, match="ANTHROPIC_API_KEY") as caught:
        get_llm_adapter(Settings(env="production"))

    assert caught.value.variable == "ANTHROPIC_API_KEY"
    assert isinstance(get_llm_adapter(Settings(env="production", llm_adapter="stub")), StubAdapter)


@pytest.mark.parametrize(
    ("settings", "variable"),
    [
        (Settings(llm_adapter="gemini"), "LLM_ADAPTER"),
        (Settings(llm_adapter="openai", openai_base_url="localhost:8080"), "OPENAI_BASE_URL"),
        (Settings(llm_adapter="openai", openai_base_url="http://"), "OPENAI_BASE_URL"),
        (Settings(anthropic_api_key=KEY, anthropic_base_url="http://[bad"), "ANTHROPIC_BASE_URL"),
    ],
)
def test_what_cannot_be_met_names_the_variable(settings: Settings, variable: str) -> None:
    """An unknown name, and a base URL that is none."""
    with pytest.raises(ConfigurationError, match=variable) as caught:
        get_llm_adapter(settings)

    assert caught.value.variable == variable


async def test_the_same_configuration_is_the_same_object() -> None:
    """Another key, URL or model is another adapter; force_new is always new; closed ones are built anew."""
    settings = Settings(anthropic_api_key=KEY)

    first = get_llm_adapter(settings)

    assert isinstance(first, ClaudeAdapter)
    assert get_llm_adapter(Settings(anthropic_api_key=KEY)) is first
    assert get_llm_adapter(settings, force_new=True) is not first
    assert get_llm_adapter(settings.with_changes(anthropic_api_key=OTHER_KEY)) is not first
    assert get_llm_adapter(settings.with_changes(anthropic_base_url="http://127.0.0.1:1")) is not first
    assert get_llm_adapter(settings.with_changes(anthropic_default_model="claude-opus-5-5")) is not first
    await close_adapters()
    assert get_llm_adapter(settings) is not first


async def test_one_that_cannot_be_closed_does_not_keep_the_others_open(monkeypatch: pytest.MonkeyPatch) -> None:
    """All are tried, and the failure is told."""
    closed: list[str] = []

    async def fail(self: ClaudeAdapter) -> None:
        raise RuntimeError("stuck")

    async def close(self: OpenAIAdapter) -> None:
        closed.append("openai")

    monkeypatch.setattr(ClaudeAdapter, "aclose", fail)
    monkeypatch.setattr(OpenAIAdapter, "aclose", close)
    get_llm_adapter(Settings(anthropic_api_key=KEY))
    get_llm_adapter(Settings(llm_adapter="openai", openai_api_key=KEY))

    with pytest.raises(ExceptionGroup, match="closed"):
        await close_adapters()

    assert closed == ["openai"]
