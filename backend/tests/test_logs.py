"""Logs: one object a line with the ids of what is under way; a line for people elsewhere; no secret in either."""

from __future__ import annotations

import io
import json
import logging
from collections.abc import Iterator
from typing import Any

import pytest
from pydantic import BaseModel, SecretStr, field_validator

from app.credentials import Credential
from app.errors import LLMError
from app.log_context import log_ids
from app.logs import RedactingFilter, configure_logging, logging_as_configured
from app.settings import load_settings
from app.stores.checkpoint.memory import InMemoryCheckpointStore
from app.workflow.engine import Run, Runner, workflow

log = logging.getLogger("app.of_the_tests")


@pytest.fixture
def logged(monkeypatch: pytest.MonkeyPatch) -> Iterator[io.StringIO]:
    """Log as in production, into memory."""
    monkeypatch.setenv("ENV", "production")
    monkeypatch.setenv("NOVA_LOG_LEVEL", "info")
    level = logging.getLogger().level
    stream = io.StringIO()
    with logging_as_configured(load_settings()):
        configure_logging(load_settings(), stream=stream)
        yield stream
    logging.getLogger().setLevel(level)


def lines(stream: io.StringIO) -> list[dict[str, Any]]:
    """Return the objects that were logged."""
    return [json.loads(line) for line in stream.getvalue().splitlines()]


def test_a_line_is_an_object_with_level_logger_time_and_fields(logged: io.StringIO) -> None:
    """What a call gives as ``extra`` is a field of its own."""
    log.warning("the hold %r is open", "h1", extra={"amount": 5})

    (line,) = lines(logged)
    assert line.pop("timestamp").endswith("Z")
    assert line == {
        "event": "the hold 'h1' is open",
        "level": "warning",
        "logger": "app.of_the_tests",
        "amount": 5,
    }


async def test_lines_of_a_run_have_its_ids(logged: io.StringIO) -> None:
    """Run, tenant and step, in the step's own lines and in those of what it calls; none outside of it."""

    @workflow(version="1")
    async def talking(run: Run) -> None:
        log.info("in the workflow")
        await run.step("first", speak)

    async def speak() -> None:
        log.info("in the step")

    await Runner(checkpoints=InMemoryCheckpointStore(), tenant_id="acme").start(talking, {}, run_id="r1")
    log.info("outside")

    found = {line["event"]: line for line in lines(logged)}
    assert {"run_id": "r1", "tenant_id": "acme"}.items() <= found["in the workflow"].items()
    assert {"run_id": "r1", "tenant_id": "acme", "step_id": "first"}.items() <= found["in the step"].items()
    assert "run_id" not in found["outside"]


def test_a_providers_request_id_is_a_field(logged: io.StringIO) -> None:
    """So that a line can be found at the provider."""
    try:
        raise LLMError(
            "no", code="ERR_LLM_TIMEOUT", retryable=True, billed="unknown", provider="claude", request_id="req_1"
        )
    except LLMError:
        log.exception("failed")

    (line,) = lines(logged)
    assert (line["request_id"], line["code"], line["provider"]) == ("req_1", "ERR_LLM_TIMEOUT", "claude")
    assert "Traceback" in line["exception"]


def test_ids_are_there_in_text_too(monkeypatch: pytest.MonkeyPatch) -> None:
    """For people: one line, without colours where it is no terminal."""
    monkeypatch.setenv("NOVA_LOG_FORMAT", "text")
    stream = io.StringIO()
    with logging_as_configured(load_settings()):
        configure_logging(load_settings(), stream=stream)
        with log_ids(run_id="r1"):
            log.warning("something")

    assert "something" in stream.getvalue()
    assert "run_id=r1" in stream.getvalue()
    assert "\x1b" not in stream.getvalue()


class Strict(BaseModel):
    """A model whose error quotes its input, as pydantic's do."""

    password: SecretStr

    @field_validator("password")
    @classmethod
    def never(cls, value: SecretStr) -> SecretStr:
        """Refuse."""
        raise ValueError(f"bad {value.get_secret_value()}")


@pytest.mark.parametrize("format_", ["json", "text"])
def test_no_secret_is_logged_however_it_comes(format_: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """As an argument, in extra fields, in a traceback with its causes, in pydantic's own error, in a stack."""
    secret = Credential("tr0ub4dor-and-3").reveal()
    monkeypatch.setenv("NOVA_LOG_FORMAT", format_)
    stream = io.StringIO()
    with logging_as_configured(load_settings()):
        configure_logging(load_settings(), stream=stream)
        log.warning("given %s and %r", secret, {"key": secret})
        log.warning(
            "extra", extra={"url": f"redis://:{secret}@h", "deep": [{"x": secret}], "object": Exception(secret)}
        )
        try:
            try:
                raise OSError(f"cannot connect with {secret}")
            except OSError as error:
                raise RuntimeError(secret) from error
        except RuntimeError:
            log.exception("failed with %s", secret, stack_info=True)
        try:
            Strict.model_validate({"password": secret})
        except ValueError:
            log.exception("rejected")

    assert stream.getvalue().count("\n") >= 4
    assert secret not in stream.getvalue()


def test_a_handler_of_ones_own_is_cleaned_by_the_filter() -> None:
    """For programs that have a logging already."""
    secret = Credential("kept-by-the-filter").reveal()
    stream = io.StringIO()
    handler = logging.StreamHandler(stream)
    handler.addFilter(RedactingFilter())
    logger = logging.getLogger("of.somebody.else")
    logger.propagate = False
    logger.addHandler(handler)

    try:
        raise ValueError(secret)
    except ValueError:
        logger.exception("with %s", secret)
    logger.warning("a defect of the caller %d", secret)
    logger.removeHandler(handler)

    assert "Traceback" in stream.getvalue()
    assert secret not in stream.getvalue()


def test_a_command_logs_as_before_unless_it_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    """Outside of production the command line speaks for itself."""
    handlers = list(logging.getLogger().handlers)

    with logging_as_configured(load_settings()):
        assert logging.getLogger().handlers == handlers
