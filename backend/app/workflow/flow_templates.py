"""Templates of flows: a small part of Jinja2 that can show values, and nothing else.

A flow file may come from somebody else, so a template is checked before anything runs: only the constructs listed here
are let through (no calls, no assignments, no macros, no imports, no arithmetic), no name that begins with an
underscore, and only the filters of :mod:`app.workflow.flow_filters`. What is left cannot reach Python, files or the
environment; its output, its work and its memory are bounded. Jinja2's own sandbox stands behind these checks.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import Final

from jinja2 import StrictUndefined, TemplateSyntaxError, nodes
from jinja2 import Template as JinjaTemplate
from jinja2.exceptions import TemplateError
from jinja2.sandbox import ImmutableSandboxedEnvironment

from app.errors import WorkflowDefinitionError
from app.workflow.flow_filters import FILTERS, MAX_OUTPUT_CHARS, STEP, TESTS, WORK, Work, items, shown, weigh

__all__ = ["MAX_OUTPUT_CHARS", "Known", "Template", "TemplateProblemError", "compile_template"]

_MAX_LOOPS_INSIDE: Final = 2
_MAX_DEPTH: Final = 50
"""How deep constructs nest: Python gives up at 100 levels of indentation and 200 of parentheses."""

_COMPARE: Final = 1
_SEARCH: Final = 10
"""Looking for a text in another one is slower than comparing them, where they nearly match everywhere."""

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
_COMPARING_TESTS: Final = frozenset({"eq", "ge", "gt", "in", "le", "lt", "ne"})
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
            WorkflowDefinitionError: a value does not have what the template shows, the text is too long, or making it
                takes too much work.
        """
        pieces: list[str] = []
        length = 0
        try:
            for piece in self.compiled.generate({**values, WORK: Work()}):
                length += len(piece)
                if length > MAX_OUTPUT_CHARS:
                    raise WorkflowDefinitionError(
                        f"{self.where}: the text is longer than {MAX_OUTPUT_CHARS:,} characters; "
                        "shorten it with the filter cut(…) or with max_chars"
                    )
                pieces.append(piece)
        except (TemplateError, TypeError, ValueError, LookupError, ArithmeticError) as error:
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
        _check(tree, dict(names), loops=0, depth=0)
        _charge_loops_and_comparisons(tree)
        tree.set_environment(environment)
        return Template(environment.from_string(tree), where)
    except TemplateSyntaxError as error:
        raise TemplateProblemError(f"not a valid template: {error.message}", line=error.lineno) from None
    except RecursionError:
        raise TemplateProblemError(f"constructs nest at most {_MAX_DEPTH} deep", line=1) from None
    except (SyntaxError, ValueError) as error:  # an argument twice; a number of more digits than Python reads
        raise TemplateProblemError(f"not a valid template: {error.args[0]}", line=1) from None


@cache
def _environment() -> ImmutableSandboxedEnvironment:
    # Not optimized: Jinja2 would compute with constants while it compiles, where no account of work is kept.
    environment = ImmutableSandboxedEnvironment(
        undefined=StrictUndefined,
        loader=None,
        autoescape=False,
        trim_blocks=True,
        lstrip_blocks=True,
        optimized=False,
        finalize=shown,
    )
    environment.globals.clear()
    # Those with an underscore are put in by the compilation only.
    environment.filters = {**FILTERS, "_items": items, "_weigh": weigh}
    environment.tests = {name: TESTS.get(name, environment.tests[name]) for name in _TESTS}
    return environment


def _charge_loops_and_comparisons(tree: nodes.Template) -> None:
    """Put a charge before whatever costs more than a moment and is no filter: loops, comparisons and slices."""
    for loop in tree.find_all(nodes.For):
        inside = [*loop.body, *([loop.test] if loop.test is not None else [])]
        size = 1 + sum(1 + sum(1 for _ in node.find_all(nodes.Node)) for node in inside)
        loop.iter = _charged(loop.iter, "_items", size * STEP)
    for compare in tree.find_all(nodes.Compare):
        cost = _SEARCH if any(operand.op in {"in", "notin"} for operand in compare.ops) else _COMPARE
        compare.expr = _charged(compare.expr, "_weigh", cost)
        for operand in compare.ops:
            operand.expr = _charged(operand.expr, "_weigh", cost)
    for test in tree.find_all(nodes.Test):
        if test.name in _COMPARING_TESTS:
            cost = _SEARCH if test.name == "in" else _COMPARE
            test.node = _charged(test.node, "_weigh", cost)
            test.args = [_charged(argument, "_weigh", cost) for argument in test.args or ()]
    for item in tree.find_all(nodes.Getitem):
        if isinstance(item.arg, nodes.Slice):
            item.node = _charged(item.node, "_weigh", _COMPARE)


def _charged(node: nodes.Node, name: str, cost: int) -> nodes.Filter:
    arguments = [nodes.Const(cost, lineno=node.lineno)]
    return nodes.Filter(node, name, arguments, [], None, None, lineno=node.lineno)


def _check(node: nodes.Node, names: dict[str, Known], *, loops: int, depth: int) -> None:
    """Let a node and everything in it through, or raise; ``names`` are those that can be used at this place."""
    if not isinstance(node, _CONSTRUCTS):
        word = type(node).__name__.lower()
        raise TemplateProblemError(
            f"templates show values, and {word!r} is more than that: "
            "use {{ name }}, {% for %}, {% if %} and filters",
            line=node.lineno,
        )
    if depth > _MAX_DEPTH:
        raise TemplateProblemError(f"constructs nest at most {_MAX_DEPTH} deep", line=node.lineno)
    if isinstance(node, nodes.Name) and node.ctx == "load" and node.name not in names:
        known = ", ".join(sorted(name for name in names if name != "loop"))
        raise TemplateProblemError(f"unknown variable {node.name!r}; there are: {known or 'none'}", line=node.lineno)
    if isinstance(node, nodes.Getattr):
        _check_attribute(node, names)
    if isinstance(node, nodes.Const):
        _check_constant(node)
    if isinstance(node, nodes.Filter | nodes.Test):
        _check_filter_or_test(node)
    if isinstance(node, nodes.For):
        _check_loop(node, names, loops=loops, depth=depth)
        return
    for child in node.iter_child_nodes():
        _check(child, names, loops=loops, depth=depth + 1)


def _check_constant(node: nodes.Const) -> None:
    if isinstance(node.value, str) and "__" in node.value:
        raise TemplateProblemError("a text in a template's expression may not hold '__'", line=node.lineno)
    if isinstance(node.value, float) and not math.isfinite(node.value):
        raise TemplateProblemError("a number in a template is too large", line=node.lineno)


def _check_filter_or_test(node: nodes.Filter | nodes.Test) -> None:
    kind, allowed = ("filter", sorted(FILTERS)) if isinstance(node, nodes.Filter) else ("test", sorted(_TESTS))
    if node.name not in allowed:
        raise TemplateProblemError(f"unknown {kind} {node.name!r}; there are: {', '.join(allowed)}", line=node.lineno)
    if node.dyn_args is not None or node.dyn_kwargs is not None:
        raise TemplateProblemError(f"write out the arguments of the {kind} {node.name!r}", line=node.lineno)
    if node.name == "map" and node.args:
        name = node.args[0]
        if not isinstance(name, nodes.Const) or name.value not in allowed:
            raise TemplateProblemError(
                f"map needs the name of a filter, or attribute=…; there are: {', '.join(allowed)}", line=node.lineno
            )


def _check_loop(node: nodes.For, names: dict[str, Known], *, loops: int, depth: int) -> None:
    if loops >= _MAX_LOOPS_INSIDE:
        raise TemplateProblemError(f"loops nest at most {_MAX_LOOPS_INSIDE} deep", line=node.lineno)
    if not isinstance(node.target, nodes.Name) or node.target.name in {*names, "loop"}:
        raise TemplateProblemError(
            "a loop needs one variable, with a name of its own: {% for item in items %}", line=node.lineno
        )
    _check(node.iter, names, loops=loops, depth=depth + 1)
    # A loop over a variable itself knows its items; over anything made of it, such as a filter, it does not.
    over = names[node.iter.name] if isinstance(node.iter, nodes.Name) else Known(attributes=None)
    if over.attributes is not None and over.items is None:
        raise TemplateProblemError("a loop goes over a list of documents or outputs, not over a text", line=node.lineno)
    inner = names | {node.target.name: Known(attributes=over.items), "loop": _LOOP}
    for child in [*node.body, *([node.test] if node.test is not None else [])]:
        _check(child, inner, loops=loops + 1, depth=depth + 1)
    for child in node.else_:
        _check(child, names, loops=loops, depth=depth + 1)


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
