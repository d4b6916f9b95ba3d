"""What a workflow is: an async function with a name and a version, and the inputs that it takes."""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Concatenate, Generic, ParamSpec, TypeVar

from app.errors import InvalidInputError, WorkflowDefinitionError
from app.stores.names import check_name
from app.workflow.values import annotation_of

if TYPE_CHECKING:
    from app.workflow.run import Run

__all__ = ["Workflow", "workflow"]

P = ParamSpec("P")
R = TypeVar("R")


@dataclass(frozen=True, slots=True, kw_only=True)
class Workflow(Generic[R]):
    """A function that a runner can start and resume.

    Its code must be deterministic between its steps: given the same inputs and the same outputs of steps, it asks for
    the same steps. What is not (time, randomness, files, the network) belongs into a step.

    Attributes:
        name, version: recorded with each run; a run resumes only under the same two.
        function: takes a ``Run`` and then the inputs, by name.
        inputs: the inputs, with their annotations and defaults.
        returns: the annotation of the result, None where there is none.
        source: the text of a flow file; recorded with each run, so that it resumes without the file.
    """

    name: str
    version: str
    function: Callable[..., Awaitable[R]]
    inputs: Mapping[str, inspect.Parameter]
    returns: object = None
    source: str | None = None

    def bind(self, given: Mapping[str, object]) -> dict[str, object]:
        """Return the inputs in full, defaults included.

        Raises:
            InvalidInputError: an input is missing or unknown; the text lists those that there are.
        """
        known = ", ".join(self.inputs) or "none"
        for name in given:
            if name not in self.inputs:
                raise InvalidInputError(f"workflow {self.name!r} has no input {name!r}; its inputs are: {known}")
        bound: dict[str, object] = {}
        for name, parameter in self.inputs.items():
            if name in given:
                bound[name] = given[name]
            elif parameter.default is not inspect.Parameter.empty:
                bound[name] = parameter.default
            else:
                raise InvalidInputError(f"workflow {self.name!r} needs the input {name!r}; its inputs are: {known}")
        return bound


def workflow(
    *, version: str, name: str | None = None
) -> Callable[[Callable[Concatenate[Run, P], Awaitable[R]]], Workflow[R]]:
    """Make a workflow of an async function; its name is the function's unless one is given.

    Raises:
        WorkflowDefinitionError: the function is not async, takes no run, or takes ``*args`` or ``**kwargs``.
        InvalidInputError: the name or version cannot be recorded.
    """

    def define(function: Callable[Concatenate[Run, P], Awaitable[R]]) -> Workflow[R]:
        called = check_name(name if name is not None else getattr(function, "__name__", ""), what="the workflow's name")
        if not inspect.iscoroutinefunction(function):
            raise WorkflowDefinitionError(f"workflow {called!r} is not async: write `async def {called}(run, ...)`")
        parameters = list(inspect.signature(function).parameters.values())
        if not parameters or parameters[0].kind not in {
            inspect.Parameter.POSITIONAL_ONLY,
            inspect.Parameter.POSITIONAL_OR_KEYWORD,
        }:
            raise WorkflowDefinitionError(
                f"workflow {called!r} takes no run: write `async def {called}(run: Run, ...)`"
            )
        inputs = {parameter.name: parameter for parameter in parameters[1:]}
        for parameter in inputs.values():
            if parameter.kind not in {inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY}:
                raise WorkflowDefinitionError(
                    f"workflow {called!r} has the parameter {str(parameter)!r}; each input needs a name of its own"
                )
        return Workflow(
            name=called,
            version=check_name(version, what="the workflow's version"),
            function=function,
            inputs={
                key: parameter.replace(annotation=annotation_of(function, key)) for key, parameter in inputs.items()
            },
            returns=annotation_of(function, "return"),
        )

    return define
