"""``nova ask``: one guarded call, streamed."""

from __future__ import annotations

import contextlib
import logging
import sys
from collections.abc import AsyncGenerator, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, cast

import typer

from app.cli.exits import Ended, ExitCode, Explanation
from app.cli.session import JsonOption, Session, session_of
from app.logs import commands_log

if TYPE_CHECKING:
    from app.skills.llm_invoke_v2 import LLMConfig, LLMResponse, Prompt, ReasoningEffort, StreamEvent

__all__ = ["ask"]


def ask(
    ctx: typer.Context,
    question: Annotated[str, typer.Argument(metavar="QUESTION", help="The prompt; - reads it from standard input.")],
    *,
    model: Annotated[str | None, typer.Option("--model", help="Default: the adapter's default model.")] = None,
    adapter: Annotated[
        str | None, typer.Option("--adapter", metavar="NAME", help="claude, openai or stub. Default: LLM_ADAPTER.")
    ] = None,
    max_tokens: Annotated[int, typer.Option("--max-tokens", min=1, help="The most that may be generated.")] = 1024,
    system: Annotated[str | None, typer.Option("--system", help="Instructions in front of the question.")] = None,
    schema: Annotated[
        Path | None,
        typer.Option("--schema", metavar="FILE", help="A JSON schema of an object, which the answer has to satisfy."),
    ] = None,
    images: Annotated[
        list[str] | None, typer.Option("--image", metavar="FILE", help="A picture, or its https:// url; repeatable.")
    ] = None,
    effort: Annotated[
        str | None, typer.Option("--effort", metavar="LEVEL", help="How much the model may think: none to max.")
    ] = None,
    json: JsonOption = False,
) -> None:
    """Ask one question: the answer is streamed, then come its tokens and its cost.

    The call is charged to the scope `tenant`, under its limits. With `--schema` the answer is JSON that satisfies it,
    or the command fails; what it cost is charged all the same.

    Example:  nova ask "Say hello" --max-tokens 50
    """
    from app.cli.interrupts import cut_by_signal
    from app.cli.question import read_image, read_schema
    from app.skills.llm_invoke_v2 import LLMConfig, Message, TextBlock

    session = session_of(ctx, json=json)
    text = sys.stdin.read() if question == "-" else question
    prompt = text if not images else [Message("user", [*map(read_image, images), TextBlock(text)])]
    config = LLMConfig(
        model=model,
        max_tokens=max_tokens,
        system=system,
        schema=None if schema is None else read_schema(schema),
        reasoning_effort=cast("ReasoningEffort | None", effort),
    )
    cut = Explanation(
        exit_code=ExitCode.INTERRUPTED,
        code="ERR_INTERRUPTED",
        message="interrupted; the call is charged in full, as uncertain, where its bill is not known",
        remedy=f"{session.nova} budget holds --state expired",
    )
    with _warnings_after(session) as warnings:
        response = session.execute(lambda: cut_by_signal(_stream(session, prompt, config, adapter), cut))
        warnings.extend(response.warnings)
    if not session.json:
        session.note(_summary(response))
    if response.output_error is not None:
        # Told last: the answer is shown and charged, whether it is an object or not.
        raise Ended(_no_object(response))
    if session.json:
        from app.cli.output import write_json

        write_json(_document(response))


def _no_object(response: LLMResponse) -> Explanation:
    return Explanation(
        exit_code=ExitCode.PROVIDER,
        code="ERR_LLM_INVALID_OUTPUT",
        message=f"the answer does not satisfy the schema: {response.output_error}",
        remedy="raise --max-tokens" if response.finish_reason == "length" else "ask again, or another model",
        document=_document(response),
    )


@contextlib.contextmanager
def _warnings_after(session: Session) -> Iterator[list[str]]:
    """Say each warning once, on a line of its own behind the block, whether it was logged meanwhile or is added.

    Without a handler Python would write what is logged into the middle of the answer.
    """

    class Keeping(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            warnings.append(record.getMessage())

    warnings: list[str] = []
    handler, logger = Keeping(logging.WARNING), logging.getLogger("app")
    logger.addHandler(handler)
    # Said once: by this command, not by a handler of the whole process too, unless somebody asked for a log.
    logger.propagate = commands_log(session.library_settings)
    try:
        yield warnings
    finally:
        logger.propagate = True
        logger.removeHandler(handler)
        for warning in dict.fromkeys(warnings):
            session.note(warning)


async def _stream(session: Session, prompt: Prompt, config: LLMConfig, adapter_id: str | None) -> LLMResponse:
    from app.cli.adapter import guarded_adapter
    from app.skills.llm_invoke_v2 import CallContext

    async with guarded_adapter(session, adapter_id=adapter_id) as adapter:
        stream = adapter.stream(prompt, config, context=CallContext(tenant_id=session.tenant))
        # A closed pipe or Ctrl-C ends the call here, and not whenever the generator is collected: it must be settled.
        async with contextlib.aclosing(cast("AsyncGenerator[StreamEvent]", stream)) as events:
            return await _show(session, events)


async def _show(session: Session, events: AsyncGenerator[StreamEvent]) -> LLMResponse:
    from app.cli.output import write_text
    from app.skills.llm_invoke_v2 import StreamEnd, TextDelta

    async for event in events:
        if isinstance(event, StreamEnd):
            if not session.json and not event.response.content.endswith("\n"):
                write_text("\n")
            return event.response
        if isinstance(event, TextDelta) and not session.json:
            write_text(event.text)
    raise AssertionError("a stream ends with StreamEnd")


def _summary(response: LLMResponse) -> str:
    from app.money import format_usd

    tokens = ["?" if count is None else f"{count:,}" for count in (response.input_tokens, response.output_tokens)]
    parts = [
        f"{response.model} ({response.provider})",
        f"{tokens[0]} tokens in, {tokens[1]} out",
        format_usd(response.cost),
        f"{response.latency_ms / 1000:.1f} s",
    ]
    if response.finish_reason != "stop":
        parts.append(f"ended by {response.finish_reason}")
    return ", ".join(parts)


def _document(response: LLMResponse) -> dict[str, Any]:
    from app.cli.documents import money

    return {
        "content": response.content,
        "output": response.output,
        "output_error": response.output_error,
        "model": response.model,
        "provider": response.provider,
        "finish_reason": response.finish_reason,
        "input_tokens": response.input_tokens,
        "output_tokens": response.output_tokens,
        "cost": money(response.cost),
        "price_version": response.price_version,
        "latency_ms": response.latency_ms,
        "hold_id": response.hold_id,
        "reasoning_tokens": None if response.usage is None else response.usage.reasoning_tokens,
        "dropped_params": list(response.dropped_params),
        "fallback_from": list(response.fallback_from),
        "warnings": list(response.warnings),
    }
