"""Tools that a model may call: what it is told of them, and how its arguments become those of a function."""

from __future__ import annotations

import inspect
import re
import typing
from collections.abc import Awaitable, Callable, Collection, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Final

from app.errors import InvalidInputError, ToolError

if TYPE_CHECKING:
    from pydantic import BaseModel

__all__ = ["TOOL_CHOICES", "Tool", "check_tools"]

TOOL_CHOICES: Final = ("auto", "required", "none")
"""Who decides whether a tool is called: the model; it must call one; it may not. Else: the name of the one it must."""

_NAME: Final = re.compile(r"[A-Za-z0-9_-]{1,64}")
_BY_POSITION: Final = (
    inspect.Parameter.POSITIONAL_ONLY,
    inspect.Parameter.VAR_POSITIONAL,
    inspect.Parameter.VAR_KEYWORD,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Tool:
    """A tool as a model sees it, and the function behind it where there is one.

    Attributes:
        name: up to 64 letters, digits, ``_`` and ``-``.
        description: what it does, and when it is to be called.
        parameters: a JSON schema of an object: its arguments.
        strict: the provider holds the model to the schema, which must then be one that it can: all fields required,
            no others.
        function: takes the arguments by name; None for a tool that is only described.
    """

    name: str
    description: str = ""
    parameters: Mapping[str, Any] = field(default_factory=lambda: {"type": "object", "properties": {}})
    strict: bool = False
    function: Callable[..., Awaitable[Any]] | None = field(default=None, compare=False, repr=False)

    def __post_init__(self) -> None:
        """Refuse what no provider takes.

        Raises:
            InvalidInputError: which field, its value, and what it may be.
        """
        if not _NAME.fullmatch(self.name) or self.name in TOOL_CHOICES:
            raise InvalidInputError(
                f"a tool's name has 1 to 64 letters, digits, _ and -, and is none of {', '.join(TOOL_CHOICES)} "
                f"({self.name!r} given)"
            )
        if self.parameters.get("type") != "object":
            raise InvalidInputError(f"the parameters of the tool {self.name!r} must be a JSON schema of an object")

    @classmethod
    def of(cls, function: Callable[..., Awaitable[Any]], *, leave_out: Collection[str] = ()) -> Tool:
        """Describe an async function by its name, docstring and type hints.

        Args:
            function: its first paragraph of documentation is the description.
            leave_out: names of parameters that the model does not give.

        Raises:
            InvalidInputError: it is not async, takes an argument that has no name, or a hint cannot be turned into a
                schema.
        """
        name = getattr(function, "__name__", "")
        if not inspect.iscoroutinefunction(function):
            raise InvalidInputError(f"the tool {name or function!r} must be an `async def` function")
        schema = _arguments_of(function, frozenset(leave_out)).model_json_schema()
        schema.pop("title", None)
        documentation = inspect.getdoc(function) or ""
        return cls(name=name, description=documentation.strip(), parameters=schema, function=function)

    async def call(self, arguments: Mapping[str, Any], **given: object) -> Any:
        """Call the function with the model's arguments, turned into the types of its hints.

        Args:
            arguments: as the model gave them.
            given: what the model does not give.

        Raises:
            ToolError: they do not fit; the text tells the model which, and what is wrong.
            InvalidInputError: there is no function.
        """
        from pydantic import ValidationError

        if self.function is None:
            raise InvalidInputError(f"the tool {self.name!r} has no function to call")
        model = _arguments_of(self.function, frozenset(given))
        try:
            read = model.model_validate(dict(arguments))
        except ValidationError as error:
            problems = error.errors(include_url=False, include_context=False, include_input=False)
            told = "; ".join(f"{'.'.join(map(str, each['loc'])) or 'arguments'}: {each['msg']}" for each in problems)
            raise ToolError(f"the arguments do not fit: {told}") from None
        values = {info.alias or name: getattr(read, name) for name, info in type(read).model_fields.items()}
        return await self.function(**values, **given)


def check_tools(tools: tuple[Tool, ...], choice: str | None) -> None:
    """Refuse tools that cannot be told apart, and a choice of none of them.

    Raises:
        InvalidInputError: which.
    """
    names = [tool.name for tool in tools]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise InvalidInputError(f"two tools are called {twice!r}; each needs a name of its own")
    if choice is None:
        return
    if not tools:
        raise InvalidInputError(f"tool_choice={choice!r} needs tools to choose from: set tools too")
    if choice not in {*TOOL_CHOICES, *names}:
        raise InvalidInputError(
            f"tool_choice must be one of {', '.join(TOOL_CHOICES)}, or the name of a tool ({choice!r} given)"
        )


@lru_cache(maxsize=512)
def _arguments_of(function: Callable[..., Any], leave_out: frozenset[str]) -> type[BaseModel]:
    """Return a model of a function's arguments; fields are numbered, so that any name of a parameter will do."""
    from pydantic import ConfigDict, Field, PydanticUserError, create_model

    name = getattr(function, "__name__", "tool")
    hints = typing.get_type_hints(function, include_extras=True)
    fields: dict[str, Any] = {}
    for number, parameter in enumerate(inspect.signature(function).parameters.values()):
        if parameter.name in leave_out:
            continue
        if parameter.kind in _BY_POSITION:
            raise InvalidInputError(f"the tool {name!r} takes {parameter.name!r}, which a model cannot give by name")
        if parameter.name not in hints:
            raise InvalidInputError(f"the tool {name!r} needs a type hint on {parameter.name!r}")
        default = ... if parameter.default is inspect.Parameter.empty else parameter.default
        fields[f"argument_{number}"] = (hints[parameter.name], Field(default, alias=parameter.name))
    try:
        return create_model(name, __config__=ConfigDict(extra="forbid"), **fields)
    except PydanticUserError as error:
        raise InvalidInputError(f"a type hint of the tool {name!r} is none that JSON can express: {error}") from error
