"""The stub: the same answer for the same prompt, and every fault on demand."""

from __future__ import annotations

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.errors import InvalidInputError, LLMError
from app.skills.adapters.stub_adapter import StubAdapter
from app.skills.adapters.stub_script import StubFault, StubScript
from app.skills.adapters.stub_text import count_tokens, pieces_of
from app.skills.llm_invoke_v2 import LLMConfig, Message
from app.skills.pricing import PriceBook

TEXT = "The tide is out. Boats lie on the sand. Gulls walk among them. Nobody is on the pier. It will rain."


async def test_the_same_prompt_and_seed_give_the_same_answer() -> None:
    """In another adapter too; another seed may choose other sentences, of the prompt all the same."""
    config = LLMConfig(max_tokens=12, seed=1)

    first = await StubAdapter().invoke(TEXT, config)
    again = await StubAdapter().invoke(TEXT, config)
    others = {(await StubAdapter().invoke(TEXT, LLMConfig(max_tokens=12, seed=n))).content for n in range(8)}

    assert first.content == again.content
    assert len(others) > 1
    assert all(sentence.strip(". ") in TEXT for answer in others for sentence in answer.split(". "))


async def test_the_answer_is_sentences_of_the_last_message_in_their_order() -> None:
    """As many as fit: with room for all, the whole of it."""
    prompt = [Message("user", "Summarise what I send."), Message("assistant", "Yes."), Message("user", TEXT)]

    response = await StubAdapter().invoke(prompt)

    assert response.content == TEXT


async def test_what_was_billed_can_be_counted_by_hand() -> None:
    """Four bytes are a token, a message costs four more; $1 per million in and $2 out."""
    response = await StubAdapter().invoke("12345678", LLMConfig(system="1234"))

    assert (response.input_tokens, response.output_tokens) == (2 + 4 + 1 + 4, 2)
    assert response.cost == 11 * 100 + 2 * 200


@given(st.text(min_size=1).filter(str.strip), st.integers(1, 50), st.integers(0, 3))
def test_any_prompt_gets_an_answer_within_its_bound(prompt: str, max_tokens: int, seed: int) -> None:
    """No more than max_tokens, and a bill that is never above the upper bound of the call."""
    config = LLMConfig(max_tokens=max_tokens, seed=seed)

    response = StubAdapter(prices=lambda: BOOK).invoke_sync(prompt, config)

    assert response.output_tokens is not None
    assert response.output_tokens <= max_tokens
    assert response.output_tokens == count_tokens(response.content)
    assert response.cost is not None
    assert response.cost <= BOOK.upper_bound(prompt, config, provider="stub", model="stub-1")


BOOK = PriceBook()


@given(st.text())
def test_pieces_put_together_are_the_text(text: str) -> None:
    """Nothing is lost or added by streaming."""
    assert "".join(pieces_of(text)) == text


class TestFaults:
    """What the stub plays."""

    async def test_a_script_is_played_in_order_and_then_calls_go_well(self) -> None:
        """One fault for each call."""
        stub = StubAdapter(faults=[StubFault(kind="overloaded"), StubFault(kind="rate_limited", retry_after_s=3)])
        outcomes: list[str] = []

        for _ in range(3):
            try:
                outcomes.append((await stub.invoke(TEXT)).finish_reason)
            except LLMError as error:
                outcomes.append(f"{error.code} {error.status} {error.retry_after}")

        assert outcomes == ["ERR_LLM_OVERLOADED 529 None", "ERR_LLM_RATE_LIMITED 429 0:00:03", "stop"]
        assert stub.calls == 3

    async def test_always_plays_for_every_call_after_the_script(self) -> None:
        """Such as a provider that is down."""
        stub = StubAdapter(faults=StubScript(always=StubFault(kind="server_error")))

        for _ in range(3):
            with pytest.raises(LLMError) as caught:
                await stub.invoke(TEXT)
            assert (caught.value.status, caught.value.billed) == (500, "unknown")

    async def test_latency_passes_by_the_sleep_that_was_given(self) -> None:
        """No real time in tests."""
        slept: list[float] = []

        async def sleep(seconds: float) -> None:
            slept.append(seconds)

        stub = StubAdapter(faults=[StubFault(latency_s=30.0)], sleep=sleep)

        await stub.invoke(TEXT)
        await stub.invoke(TEXT, LLMConfig(extra={"latency_s": 2.5}))

        assert slept == [30.0, 2.5]

    async def test_one_call_can_ask_for_its_own_fault(self) -> None:
        """By its extra parameters, which need no code: a flow can do it; the script is left as it is."""
        stub = StubAdapter(faults=[StubFault(kind="refusal")])

        with pytest.raises(LLMError) as caught:
            await stub.invoke(TEXT, LLMConfig(extra={"fault": "overloaded"}))

        assert caught.value.code == "ERR_LLM_OVERLOADED"
        assert (await stub.invoke(TEXT)).finish_reason == "refusal"

    async def test_parameters_that_it_does_not_know_are_said_to_be_dropped(self) -> None:
        """As with every adapter."""
        response = await StubAdapter().invoke(TEXT, LLMConfig(extra={"top_k": 5}))

        assert response.dropped_params == ("top_k",)

    @pytest.mark.parametrize("extra", [{"fault": "earthquake"}, {"latency_s": -1}, {"latency_s": "x"}])
    async def test_a_fault_that_cannot_be_played(self, extra: dict[str, object]) -> None:
        """Refused before the call."""
        stub = StubAdapter()

        with pytest.raises(InvalidInputError):
            await stub.invoke(TEXT, LLMConfig(extra=extra))

        assert stub.calls == 0

    async def test_a_cut_comes_after_as_many_pieces_as_were_asked_for(self) -> None:
        """And the input of what was cut is reported, the output is not."""
        stub = StubAdapter(faults=[StubFault(kind="cut_stream", after_chunks=3)])
        pieces = []

        with pytest.raises(LLMError) as caught:
            pieces.extend([event async for event in stub.stream(TEXT)])

        assert caught.value.partial_text == "The tide is"
        assert caught.value.partial_input_tokens == count_tokens(TEXT) + 4
        assert caught.value.partial_output_tokens is None

    async def test_calls_of_one_task_let_others_run(self) -> None:
        """A hundred calls in a row do not keep another task waiting."""
        stub = StubAdapter()
        await stub.invoke(TEXT)
        turns: list[int] = []

        async def other() -> None:
            for turn in range(50):
                turns.append(turn)
                await asyncio.sleep(0)

        task = asyncio.ensure_future(other())
        for _ in range(50):
            await stub.invoke(TEXT)

        assert len(turns) >= 49
        await task
