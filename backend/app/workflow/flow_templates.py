"""Templates of flows: a small part of Jinja2 that can show values, and nothing else.

A flow file may come from somebody else, so a template is checked before anything runs: only the constructs listed here
are let through (no calls, no assignments, no macros, no imports, no arithmetic), no name that begins with an
underscore, and only filters whose output is bounded by their input. What is left cannot reach Python, files or the
environment, cannot loop without end, and its output is bounded. Jinja2's own sandbox stands behind these checks.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import Final

from jinja2 import StrictUndefined, TemplateSyntaxError, nodes
from jinja2 import Template as JinjaTemplate
from jinja2.exceptions import TemplateError
from jinja2.sandbox import ImmutableSandboxedEnvironment

from app.errors import WorkflowDefinitionError
from app.workflow.documents import cut_text

__all__ = ["MAX_OUTPUT_CHARS", "Known", "Template", "TemplateProblemError", "compile_template"]

MAX_OUTPUT_CHARS: Final = 4_000_000
"""The longest text that a template may give: beyond the context of any model."""

_MAX_LOOPS_INSIDE: Final = 2
_FILTERS: Final = (
    "capitalize",
    "default",
    "first",
    "float",
    "int",
    "join",
    "last",
    "length",
    "lower",
    "map",
    "reverse",
    "round",
    "sort",
    "title",
    "trim",
    "truncate",
    "unique",
    "upper",
    "wordcount",
)
_TESTS: Final = (
    "defined",
    "eq",
    "even",
    "ge",
    "gt",
    "in",
    "le",
    "lt",
    "ne",
    "none",
    "number",
    "odd",
    "string",
    "undefined",
)
_CONSTRUCTS: Final = (
    nodes.And,
    nodes.Compare,
    nodes.CondExpr,
    nodes.Const,
    nodes.Filter,
    nodes.For,
    nodes.Getattr,
    nodes.Getitem,
    nodes.If,
    nodes.Keyword,
    nodes.List,
    nodes.Name,
    nodes.Not,
    nodes.Operand,
    nodes.Or,
    nodes.Output,
    nodes.Slice,
    nodes.Template,
    nodes.TemplateData,
    nodes.Test,
    nodes.Tuple,
)


class TemplateProblemError(Exception):
    """A template that is not let through; ``line`` is counted within it, from 1."""

    def __init__(self, message: str, *, line: int) -> None:
        super().__init__(message)
        self.line = line


@dataclass(frozen=True, slots=True, kw_only=True)
class Known:
    """What is known of a variable before it has a value: its attributes, and those of its items where it is a list.

    None means that they are not known, so that they are checked only when the template is filled in.
    """

    attributes: frozenset[str] | None = frozenset()
    items: frozenset[str] | None = None


_LOOP: Final = Known(attributes=frozenset({"first", "index", "index0", "last", "length"}))


@dataclass(frozen=True, slots=True)
class Template:
    """A checked template."""

    compiled: JinjaTemplate
    where: str

    def render(self, values: Mapping[str, object]) -> str:
        """Return the text for these values.

        Raises:
            WorkflowDefinitionError: a value does not have what the template shows, or the text is too long.
        """
        pieces: list[str] = []
        length = 0
        try:
            for piece in self.compiled.generate(values):
                length += len(piece)
                if length > MAX_OUTPUT_CHARS:
                    raise WorkflowDefinitionError(
                        f"{self.where}: the text is longer than {MAX_OUTPUT_CHARS:,} characters; "
                        "shorten it with the filter cut(…) or with max_chars"
                    )
                pieces.append(piece)
        except (TemplateError, TypeError, ValueError, LookupError) as error:
            raise WorkflowDefinitionError(f"{self.where}: the template cannot be filled in: {error}") from error
        return "".join(pieces)


def compile_template(source: str, *, names: Mapping[str, Known], where: str) -> Template:
    """Check and compile a template.

    Args:
        source: its text.
        names: the variables that it will be given.
        where: the place of it in a flow, for errors while it is filled in.

    Raises:
        TemplateProblemError: it is not valid, uses a construct that is not let through, or an unknown name.
    """
    environment = _environment()
    try:
        tree = environment.parse(source)
    except TemplateSyntaxError as error:
        raise TemplateProblemError(f"not a valid template: {error.message}", line=error.lineno) from None
    _check(tree, dict(names), loops=0)
    return Template(environment.from_string(tree), where)


@cache
def _environment() -> ImmutableSandboxedEnvironment:
    environment = ImmutableSandboxedEnvironment(
        undefined=StrictUndefined, loader=None, autoescape=False, trim_blocks=True, lstrip_blocks=True
    )
    environment.globals.clear()
    environment.filters = {name: environment.filters[name] for name in _FILTERS} | {"cut": _cut}
    environment.tests = {name: environment.tests[name] for name in _TESTS}
    return environment


def _cut(value: object, max_chars: int) -> str:
    return cut_text(str(value), max(0, int(max_chars)))


def _check(node: nodes.Node, names: dict[str, Known], *, loops: int) -> None:
    """Let a node and everything in it through, or raise; ``names`` are those that can be used at this place."""
    if not isinstance(node, _CONSTRUCTS):
        word = type(node).__name__.lower()
        raise TemplateProblemError(
            f"templates show values, and {word!r} is more than that: "
            "use {{ name }}, {% for %}, {% if %} and filters",
            line=node.lineno,
        )
    if isinstance(node, nodes.Name) and node.ctx == "load" and node.name not in names:
        known = ", ".join(sorted(name for name in names if name != "loop"))
        raise TemplateProblemError(f"unknown variable {node.name!r}; there are: {known or 'none'}", line=node.lineno)
    if isinstance(node, nodes.Getattr):
        _check_attribute(node, names)
    if isinstance(node, nodes.Const) and isinstance(node.value, str) and "__" in node.value:
        raise TemplateProblemError("a text in a template's expression may not hold '__'", line=node.lineno)
    if isinstance(node, nodes.Filter | nodes.Test):
        allowed = (*_FILTERS, "cut") if isinstance(node, nodes.Filter) else _TESTS
        if node.name not in allowed:
            kind = "filter" if isinstance(node, nodes.Filter) else "test"
            raise TemplateProblemError(
                f"unknown {kind} {node.name!r}; there are: {', '.join(sorted(allowed))}", line=node.lineno
            )
    if isinstance(node, nodes.For):
        _check_loop(node, names, loops=loops)
        return
    for child in node.iter_child_nodes():
        _check(child, names, loops=loops)


def _check_loop(node: nodes.For, names: dict[str, Known], *, loops: int) -> None:
    if loops >= _MAX_LOOPS_INSIDE:
        raise TemplateProblemError(f"loops nest at most {_MAX_LOOPS_INSIDE} deep", line=node.lineno)
    if not isinstance(node.target, nodes.Name) or node.target.name in names:
        raise TemplateProblemError(
            "a loop needs one variable, with a name of its own: {% for item in items %}", line=node.lineno
        )
    _check(node.iter, names, loops=loops)
    # A loop over a variable itself knows its items; over anything made of it, such as a filter, it does not.
    items = names[node.iter.name].items if isinstance(node.iter, nodes.Name) else None
    inner = names | {node.target.name: Known(attributes=items), "loop": _LOOP}
    for child in [*node.body, *([node.test] if node.test is not None else [])]:
        _check(child, inner, loops=loops + 1)
    for child in node.else_:
        _check(child, names, loops=loops)


def _check_attribute(node: nodes.Getattr, names: dict[str, Known]) -> None:
    if node.attr.startswith("_"):
        raise TemplateProblemError(
            f"the attribute {node.attr!r} is not available: templates see values, not the objects behind them",
            line=node.lineno,
        )
    if isinstance(node.node, nodes.Name):
        known = names.get(node.node.name)
        attributes = None if known is None else known.attributes
        if attributes is not None and node.attr not in attributes:
            raise TemplateProblemError(
                f"{node.node.name!r} has no attribute {node.attr!r}; it has: {', '.join(sorted(attributes)) or 'none'}",
                line=node.lineno,
            )
