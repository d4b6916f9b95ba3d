"""``nova ask``: the answer is streamed, and what is said of its cost is what was charged."""

from __future__ import annotations

import logging

import pytest

from .harness import Nova
from .provider import provider


def test_the_answer_is_on_standard_output_and_its_cost_beside_it(nova: Nova) -> None:
    """What is charged to the tenant is what is told, and nothing stays held."""
    answered = nova("ask", "Say hello to the ants", "--max-tokens", "50").check()
    total = nova("budget", "show", "tenant", "--json").check().json["windows"][0]

    assert answered.out.strip()
    assert "stub-1 (stub), " in answered.err
    assert f"${total['spent']['usd']}" in answered.err
    assert total["spent"]["microcents"] > 0
    assert total["held"]["microcents"] == 0


def test_the_document_has_the_same_answer_with_tokens_and_cost(nova: Nova) -> None:
    """A stub answers a prompt the same way twice; the cost is the price of its tokens."""
    text = nova("ask", "Say hello to the ants").check().out
    document = nova("ask", "Say hello to the ants", "--json").check().json

    assert document["content"] == text.removesuffix("\n")
    assert document["cost"]["microcents"] == 100 * document["input_tokens"] + 200 * document["output_tokens"]
    assert (document["model"], document["provider"]) == ("stub-1", "stub")


def test_a_question_can_come_from_standard_input(nova: Nova) -> None:
    """A dash reads it."""
    piped = nova("ask", "-", stdin="Say hello to the ants").check().out

    assert piped == nova("ask", "Say hello to the ants").check().out


@pytest.mark.parametrize("question", ["", "   ", "\n"])
def test_an_empty_question_is_invalid_and_free(nova: Nova, question: str) -> None:
    """It is refused before anything is reserved."""
    refused = nova("ask", question)

    assert (refused.code, refused.out) == (4, "")
    assert nova("budget", "holds", "--json").check().json["holds"] == []


def test_a_refused_budget_has_its_own_exit_code_and_remedy(nova: Nova) -> None:
    """The limit of the tenant holds for questions; the call is not made."""
    nova("budget", "set", "tenant", "$0.00000001", "--window", "day").check()

    refused = nova("ask", "Say hello")

    assert (refused.code, refused.out) == (20, "")
    assert "nova budget set tenant '$0." in refused.err
    assert "--window day" in refused.err
    assert nova("budget", "holds", "--json").check().json["holds"] == []


def test_an_unpriced_model_is_refused_where_a_limit_applies(nova: Nova) -> None:
    """Its exit code tells it from an exceeded budget."""
    nova("budget", "set", "tenant", "$1").check()

    refused = nova("ask", "Say hello", "--model", "no-such-model")

    assert refused.code == 21
    assert "no-such-model" in refused.err


def test_a_provider_that_refuses_is_a_provider_error_and_free(nova: Nova) -> None:
    """No answer has its own exit code; a call that was rejected unbilled leaves nothing spent or held."""
    with provider() as served:
        served.status = 401
        refused = nova("ask", "Say hello", env=served.environment)

    total = nova("budget", "show", "tenant", "--json").check().json["windows"][0]
    assert (refused.code, refused.out, served.calls) == (40, "", 1)
    assert refused.err.count("error: ") == 1
    assert "Traceback" not in refused.err
    assert total["spent"]["microcents"] == total["held"]["microcents"] == 0


def test_a_warning_is_one_line_behind_the_answer(nova: Nova, monkeypatch: pytest.MonkeyPatch) -> None:
    """A model that ends soon is logged and comes with the answer; people read it once, and not inside the answer."""
    monkeypatch.setattr("app.skills.adapters.base.end_of_life_warning", lambda *_, **__: "it ends soon")
    monkeypatch.setattr("app.skills.adapters.base._logged_ends", set())

    answered = nova("ask", "Say hello to the ants").check()

    warning, summary = answered.err.splitlines()
    assert warning == "it ends soon"
    assert summary.startswith("stub-1 (stub), ")
    assert "it ends soon" not in answered.out


def test_a_question_does_not_leave_its_handler_behind(nova: Nova) -> None:
    """What is logged after the command is not kept for it."""
    before = list(logging.getLogger("app").handlers)

    nova("ask", "Say hello to the ants").check()

    assert logging.getLogger("app").handlers == before
