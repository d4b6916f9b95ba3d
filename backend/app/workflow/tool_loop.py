"""A call with tools: the model asks, the tools run as steps of their own, until the model answers.

Rounds are steps ``<id>/1``, ``<id>/2``, …; what a round asks for are ``<id>/1/0-<tool>``, ``<id>/1/1-<tool>``, …
Each is recorded once, so a run that is resumed calls neither the model nor a tool again for what is on record.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

from app.errors import InvalidInputError, ToolError, ToolRoundsError
from app.skills.llm_invoke_v2 import (
    LLMConfig,
    LLMResponse,
    Message,
    Prompt,
    Tool,
    ToolResultBlock,
    ToolUseBlock,
    as_messages,
)
from app.workflow.steps import StepContext, StepFunction
from app.workflow.values import to_json

__all__ = ["MAX_ROUNDS", "ToolLoop", "ToolOutcome", "ToolStep", "tools_of"]

MAX_ROUNDS: Final = 10
"""How often the model is asked at most, where nothing else is said."""

_CONCURRENCY: Final = 8
"""How many tools of one round are under way at once."""


@dataclass(frozen=True, slots=True)
class ToolOutcome:
    """What the model is told of a call of a tool; the output of its step."""

    content: str
    is_error: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class ToolStep:
    """A tool, and how its function is called as a step.

    Attributes:
        context_parameter: the parameter that takes the :class:`StepContext`, None where it asks for none.
    """

    tool: Tool
    context_parameter: str | None

    async def use(self, name: str, arguments: dict[str, Any], context: StepContext) -> ToolOutcome:
        """Call the function; what it returns is told as text, or as JSON.

        A ``ToolError``, and arguments that do not fit, are told to the model as an error. Everything else that is
        raised is a failure of the step.
        """
        given = {} if self.context_parameter is None else {self.context_parameter: context}
        try:
            value = await self.tool.call(arguments, **given)
        except ToolError as error:
            return ToolOutcome(str(error), is_error=True)
        if isinstance(value, str):
            return ToolOutcome(value)
        told = to_json(value, what=f"the result of the tool {name!r}")
        return ToolOutcome(json.dumps(told, ensure_ascii=False))


def tools_of(functions: Sequence[Callable[..., Awaitable[Any]] | Tool]) -> dict[str, ToolStep]:
    """Return tools by name.

    Raises:
        InvalidInputError: a function cannot be a tool, or a tool has no function.
    """
    found: dict[str, ToolStep] = {}
    for function in functions:
        plain = function.function if isinstance(function, Tool) else function
        if plain is None:
            raise InvalidInputError(
                f"the tool {function!r} has no function, so it cannot be run: use Tool.of(function)"
            )
        parameter = StepFunction.of(plain).context_parameter
        left_out = () if parameter is None else (parameter,)
        tool = function if isinstance(function, Tool) else Tool.of(function, leave_out=left_out)
        if tool.name in found:
            raise InvalidInputError(f"two tools are called {tool.name!r}; each needs a name of its own")
        found[tool.name] = ToolStep(tool=tool, context_parameter=parameter)
    return found


@dataclass(frozen=True, slots=True, kw_only=True)
class ToolLoop:
    """Asks and runs tools until the model ends.

    Attributes:
        ask: makes one call as a step, and returns its recorded response.
        run: runs one tool as a step, and returns its recorded outcome.
    """

    run_id: str
    step_id: str
    steps: dict[str, ToolStep]
    max_rounds: int
    ask: Callable[[str, Prompt, LLMConfig], Awaitable[LLMResponse]]
    run: Callable[[str, ToolStep, ToolUseBlock], Awaitable[ToolOutcome]]

    async def conduct(self, prompt: Prompt, config: LLMConfig) -> LLMResponse:
        """Return the first response that asks for no tool.

        Raises:
            ToolRoundsError: there was none within ``max_rounds``.
            StepFailedError: a call or a tool failed for good.
        """
        messages = as_messages(prompt)
        config = replace(config, tools=(*config.tools, *(step.tool for step in self.steps.values())))
        for number in range(1, self.max_rounds + 1):
            response = await self.ask(f"{self.step_id}/{number}", messages, config)
            if not response.tool_calls:
                return response
            if number == self.max_rounds:
                break
            results = await self._results(number, response.tool_calls)
            messages = (*messages, response.message, Message("user", results))
            if config.tool_choice not in {None, "auto", "none"}:
                config = replace(config, tool_choice="auto")  # else it would have to call tools for ever
        raise ToolRoundsError(
            f"the model still asked for tools in round {self.max_rounds} of {self.step_id!r}: raise max_rounds and "
            "resume, what is recorded stands",
            run_id=self.run_id,
            step_id=self.step_id,
            rounds=self.max_rounds,
        )

    async def _results(self, number: int, calls: Sequence[ToolUseBlock]) -> list[ToolResultBlock]:
        """Run what a round asks for; when a tool fails for good, those under way are finished and recorded first."""
        outcomes: dict[int, ToolOutcome] = {}
        failures: dict[int, Exception] = {}
        positions = iter(range(len(calls)))

        async def worker() -> None:
            # The workers share the iterator, so no more than they are ever under way.
            for position in positions:
                if failures:
                    return
                try:
                    outcomes[position] = await self._one(f"{self.step_id}/{number}/{position}", calls[position])
                except Exception as error:  # noqa: BLE001 - raised below, when the others have ended
                    failures[position] = error

        async with asyncio.TaskGroup() as group:
            for _ in range(min(_CONCURRENCY, len(calls))):
                group.create_task(worker())
        if failures:
            raise failures[min(failures)]
        return [
            ToolResultBlock(tool_use_id=call.id, content=outcomes[place].content, is_error=outcomes[place].is_error)
            for place, call in enumerate(calls)
        ]

    async def _one(self, prefix: str, call: ToolUseBlock) -> ToolOutcome:
        step = self.steps.get(call.name)
        if step is None:
            return ToolOutcome(f"there is no tool {call.name!r}; there are {', '.join(self.steps)}", is_error=True)
        if call.malformed is not None:
            return ToolOutcome("the arguments are not a JSON object", is_error=True)
        return await self.run(f"{prefix}-{call.name}", step, call)
