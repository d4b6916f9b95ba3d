"""Fallback: another adapter where the first one cannot, and never around a refusal."""

from __future__ import annotations

from datetime import timedelta

import pytest

from app.errors import BudgetExceededError, InvalidInputError, LLMError, UnboundedCallError
from app.skills.guards import FallbackAdapter
from app.skills.llm_invoke_v2 import LLMConfig

from .fakes import FakeTime, ScriptedAdapter, answer, collect, failure

MOVES_ON = (
    "ERR_LLM_RATE_LIMITED",
    "ERR_LLM_OVERLOADED",
    "ERR_LLM_TIMEOUT",
    "ERR_LLM_NETWORK",
    "ERR_LLM_STREAM_CUT",
    "ERR_LLM_INVALID_RESPONSE",
    "ERR_LLM_SERVER_ERROR",
    "ERR_LLM_CONFLICT",
    "ERR_LLM_CIRCUIT_OPEN",
    "ERR_LLM_INVALID_MODEL",
)
STAYS = tuple(code for code in LLMError.CODES if code not in MOVES_ON)


def other() -> ScriptedAdapter:
    """Return an adapter of another provider that always answers."""
    return ScriptedAdapter(answer("from the other"), adapter_id="openai", model="gpt-4o-mini")


@pytest.mark.parametrize("code", MOVES_ON)
async def test_another_adapter_is_asked_where_it_may_help(code: str) -> None:
    """Transient errors, limits, timeouts, network and server errors and a missing model are not the last word."""
    first, second = ScriptedAdapter(failure(code, provider="claude")), other()

    response = await FallbackAdapter([first, second]).invoke("hi")

    assert response.content == "from the other"
    assert response.fallback_from == (f"claude: {code}",)


@pytest.mark.parametrize("code", STAYS)
async def test_a_refusal_is_not_got_around(code: str) -> None:
    """Authentication, a rejected prompt, blocked content and a provider's own budget are the last word."""
    first, second = ScriptedAdapter(failure(code)), other()

    with pytest.raises(LLMError) as caught:
        await FallbackAdapter([first, second]).invoke("hi")

    assert caught.value.code == code
    assert second.calls == []


@pytest.mark.parametrize(
    "error",
    [
        UnboundedCallError("no bound"),
        InvalidInputError("the prompt is empty"),
        BudgetExceededError(
            "no", scope="tenant", window="total", limit=1, spent=1, held=0, requested=1, resets_at=None
        ),
    ],
    ids=lambda error: type(error).__name__,
)
async def test_a_budget_is_not_got_around(error: Exception) -> None:
    """A cheaper adapter is no way past a limit."""
    second = other()

    with pytest.raises(type(error)):
        await FallbackAdapter([ScriptedAdapter(error), second]).invoke("hi")

    assert second.calls == []


async def test_an_answer_of_the_first_is_handed_on_as_it_is() -> None:
    """Nobody was passed over, and the first adapter gets the model and the parameters that were asked for."""
    first, second = ScriptedAdapter(), other()
    config = LLMConfig(model="stub-1", extra={"fault": "none"})

    response = await FallbackAdapter([first, second]).invoke("hi", config)

    assert response == answer()
    assert (first.calls[0].config.model, first.calls[0].config.extra) == ("stub-1", {"fault": "none"})
    assert second.calls == []


async def test_another_provider_uses_its_own_model_and_none_of_the_parameters() -> None:
    """A model's name and parameters mean nothing to another provider, and the response says what was left out."""
    first, second = ScriptedAdapter(failure()), other()

    response = await FallbackAdapter([first, second]).invoke("hi", LLMConfig(model="stub-1", extra={"fault": "x"}))

    assert (second.calls[0].config.model, second.calls[0].config.extra) == (None, {})
    assert response.dropped_params == ("fault",)


async def test_the_same_provider_keeps_the_parameters() -> None:
    """Another model of the same provider gets what the first one got."""
    first, second = ScriptedAdapter(failure()), ScriptedAdapter(model="stub-2")

    response = await FallbackAdapter([first, second]).invoke("hi", LLMConfig(model="stub-1", extra={"fault": "x"}))

    assert (second.calls[0].config.model, second.calls[0].config.extra) == (None, {"fault": "x"})
    assert response.dropped_params == ()


async def test_all_adapters_share_one_deadline() -> None:
    """The second adapter has what the first one left, and is not asked when nothing is left."""
    time = FakeTime()
    slow = ScriptedAdapter(failure("ERR_LLM_TIMEOUT"), before=lambda: time.pass_by(timedelta(seconds=6)))
    second = other()
    chain = FallbackAdapter([slow, second], clock=time.clock)

    await chain.invoke("hi", LLMConfig(timeout_s=10))
    with pytest.raises(LLMError):
        await chain.invoke("hi", LLMConfig(timeout_s=5))

    assert [call.config.timeout_s for call in second.calls] == [4.0]


async def test_when_all_fail_the_last_error_tells_of_the_others() -> None:
    """The error is the one of the adapter that was asked last, with a note on each earlier one."""
    first = ScriptedAdapter(failure("ERR_LLM_OVERLOADED", provider="claude"))
    second = ScriptedAdapter(failure("ERR_LLM_NETWORK", provider="openai"))

    with pytest.raises(LLMError) as caught:
        await FallbackAdapter([first, second]).invoke("hi")

    assert caught.value.provider == "openai"
    assert caught.value.__notes__ == ["passed over before: claude: ERR_LLM_OVERLOADED: it did not work"]


async def test_a_stream_moves_on_before_its_first_event_only() -> None:
    """The reader never gets the beginning of one answer and the end of another."""
    silent = ScriptedAdapter(failure(provider="claude"), pieces=0)
    cut = ScriptedAdapter(failure("ERR_LLM_STREAM_CUT", billed="unknown"))
    second, unused = other(), other()

    text, response = await collect(FallbackAdapter([silent, second]).stream("hi"))
    with pytest.raises(LLMError):
        await collect(FallbackAdapter([cut, unused]).stream("hi"))

    assert text == response.content == "from the other"
    assert response.fallback_from == ("claude: ERR_LLM_OVERLOADED",)
    assert unused.calls == []
    assert silent.open_streams == cut.open_streams == second.open_streams == 0


async def test_closing_closes_every_adapter() -> None:
    """No connection of an adapter that was never asked stays open."""
    first, second = ScriptedAdapter(), other()

    await FallbackAdapter([first, second]).aclose()

    assert first.closed
    assert second.closed


def test_a_chain_has_at_least_one_adapter() -> None:
    """There is nothing to fall back from."""
    with pytest.raises(InvalidInputError, match="at least one adapter"):
        FallbackAdapter([])
