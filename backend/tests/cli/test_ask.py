"""``nova ask``: the answer is streamed, and what is said of its cost is what was charged."""

from __future__ import annotations

import json
import logging
from pathlib import Path

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


def test_an_answered_call_is_logged_where_a_log_is_asked_for(nova: Nova) -> None:
    """One line of JSON on standard error, with the tokens, beside the answer; none without the asking."""
    logged = nova("ask", "Say hello", env={"NOVA_LOG_FORMAT": "json", "NOVA_LOG_LEVEL": "info"}).check()
    quiet = nova("ask", "Say hello").check()

    (line,) = [json.loads(each) for each in logged.err.splitlines() if each.startswith("{")]
    assert (line["level"], line["input_tokens"], line["provider"]) == ("info", 7, "stub")
    assert "{" not in quiet.err


def test_a_schema_that_cannot_be_read_is_no_bad_json(nova: Nova, tmp_path: Path) -> None:
    """The two mistakes are told apart."""
    (tmp_path / "half.json").write_text("[1")

    missing = nova("ask", "q", "--schema", str(tmp_path / "none.json"))
    half = nova("ask", "q", "--schema", str(tmp_path / "half.json"))

    assert (missing.code, half.code) == (4, 4)
    assert "No such file" in missing.err
    assert "JSON" not in missing.err
    assert "is not JSON" in half.err


def test_a_question_does_not_leave_its_handler_behind(nova: Nova) -> None:
    """What is logged after the command is not kept for it."""
    before = list(logging.getLogger("app").handlers)

    nova("ask", "Say hello to the ants").check()

    assert logging.getLogger("app").handlers == before


PNG = bytes.fromhex("89504e470d0a1a0a") + b"rest"
SCHEMA = '{"type": "object", "properties": {"good": {"type": "boolean"}}, "required": ["good"]}'


def test_an_answer_can_be_an_object(nova: Nova, tmp_path: Path) -> None:
    """It is JSON that satisfies the schema, as text and in the document."""
    (tmp_path / "schema.json").write_text(SCHEMA)

    text = nova("ask", "Is it good?", "--schema", str(tmp_path / "schema.json")).check().out
    document = nova("ask", "Is it good?", "--schema", str(tmp_path / "schema.json"), "--json").check().json

    assert json.loads(text) == document["output"]
    assert isinstance(document["output"]["good"], bool)


def test_an_answer_that_is_no_object_is_shown_charged_and_an_error(nova: Nova, tmp_path: Path) -> None:
    """The command fails, with one document that has both, and says what to do."""
    (tmp_path / "schema.json").write_text(SCHEMA)
    asked = ("ask", "Is it good?", "--schema", str(tmp_path / "schema.json"), "--max-tokens", "2")

    shown = nova(*asked)
    document = nova(*asked, "--json")

    assert (shown.code, document.code) == (40, 40)
    assert shown.out.startswith('{"')
    assert "raise --max-tokens" in shown.err
    assert document.json["error"]["code"] == "ERR_LLM_INVALID_OUTPUT"
    assert document.json["output"] is None
    assert document.json["cost"]["microcents"] > 0


def test_pictures_and_effort_are_part_of_the_question(nova: Nova, tmp_path: Path) -> None:
    """A picture costs what one costs; effort brings tokens of reasoning."""
    (tmp_path / "a.png").write_bytes(PNG)
    (tmp_path / "b").write_bytes(b"\xff\xd8\xff\xe0rest")

    plain = nova("ask", "Look.", "--json").check().json
    seen = (
        nova("ask", "Look.", "--image", str(tmp_path / "a.png"), "--image", str(tmp_path / "b"), "--json").check().json
    )
    thought = nova("ask", "Look.", "--effort", "high", "--json").check().json

    assert seen["input_tokens"] == plain["input_tokens"] + 2 * 64
    assert thought["reasoning_tokens"] > 0


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--image", "missing.png"], "cannot be read"),
        (["--image", "text.txt"], "use PNG, JPEG, GIF or WebP"),
        (["--image", "http://example.com/a.png"], "'http://example.com/a.png'"),
        (["--schema", "text.txt"], "is not JSON"),
        (["--schema", "list.json"], "not a JSON object"),
        (["--schema", "array.json"], "must be of an object"),
        (["--effort", "huge"], "reasoning_effort must be one of"),
    ],
)
def test_what_cannot_be_asked_with(
    nova: Nova, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str], says: str
) -> None:
    """It is invalid and free, and says what to give instead."""
    (tmp_path / "text.txt").write_text("hello")
    (tmp_path / "list.json").write_text("[]")
    (tmp_path / "array.json").write_text('{"type": "array"}')
    monkeypatch.chdir(tmp_path)

    refused = nova("ask", "Look.", *arguments)

    assert (refused.code, refused.out) == (4, "")
    assert says in refused.err
    assert all(hold["state"] == "released" for hold in nova("budget", "holds", "--json").check().json["holds"])


def test_another_adapter_can_be_asked(nova: Nova, monkeypatch: pytest.MonkeyPatch) -> None:
    """By name, whatever LLM_ADAPTER says; an unknown one is a configuration that cannot be met."""
    monkeypatch.setenv("LLM_ADAPTER", "openai")

    answered = nova("ask", "Say hello", "--adapter", "stub", "--json").check().json
    refused = nova("ask", "Say hello", "--adapter", "gemini")

    assert answered["provider"] == "stub"
    assert refused.code == 3
