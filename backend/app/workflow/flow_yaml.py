"""YAML as flow files use it: plain data, with the line and column of every part for messages."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import yaml

from app.errors import WorkflowDefinitionError

__all__ = ["MAX_FLOW_CHARS", "Places", "read_yaml"]

MAX_FLOW_CHARS: Final = 256 * 1024
_MAX_DEPTH: Final = 32
_BOOL: Final = "tag:yaml.org,2002:bool"
_FLOAT: Final = "tag:yaml.org,2002:float"
_INT: Final = "tag:yaml.org,2002:int"
_TIMESTAMP: Final = "tag:yaml.org,2002:timestamp"
_TRUE_OR_FALSE: Final = re.compile(r"^(?:true|True|TRUE|false|False|FALSE)$")


@dataclass(frozen=True, slots=True)
class Places:
    """Where the parts of a YAML text lie."""

    source: str
    root: yaml.Node

    def error(self, path: Sequence[str | int], message: str, *, below: int = 0) -> WorkflowDefinitionError:
        """Return an error that begins with the place of ``path``, or of the nearest part above it that exists.

        Args:
            path: keys and positions from the root.
            message: what is wrong there, and what to write instead.
            below: the line within a text, from 1, where the part is one and the error lies inside of it.
        """
        node, key = self._find(path)
        line, column = key.start_mark.line + 1, key.start_mark.column + 1
        if below and isinstance(node, yaml.ScalarNode):
            # A block scalar begins on the line after its mark, any other on the line of it.
            block = node.style in {"|", ">"}
            line, column = node.start_mark.line + below + (1 if block else 0), 1
        return WorkflowDefinitionError(f"{self.source}:{line}:{column}: {message}")

    def _find(self, path: Sequence[str | int]) -> tuple[yaml.Node, yaml.Node]:
        """Return the node at a path, and the node that names it: its key where it has one."""
        node = key = self.root
        for part in path:
            if isinstance(node, yaml.MappingNode):
                found = next((pair for pair in node.value if pair[0].value == str(part)), None)
                if found is None:
                    break
                key, node = found
            elif isinstance(node, yaml.SequenceNode) and isinstance(part, int) and part < len(node.value):
                key = node = node.value[part]
            else:
                break
        return node, key


def read_yaml(text: str, *, source: str) -> tuple[Any, Places]:
    """Return the data of a YAML text and where its parts lie.

    Only what JSON has too: no tags, no anchors and aliases (a small text with them can stand for a huge one), no key
    twice in one mapping; a date stays a string.

    Raises:
        WorkflowDefinitionError: the text is too long, empty or not such YAML; names line and column.
    """
    if len(text) > MAX_FLOW_CHARS:
        raise WorkflowDefinitionError(f"{source}: a flow has at most {MAX_FLOW_CHARS:,} characters, this {len(text):,}")
    loader: _Loader | None = None
    try:
        loader = _Loader(text)  # reads on: it refuses a character that YAML does not have
        root = loader.get_single_node()
        if root is None:
            raise WorkflowDefinitionError(f"{source}: the file is empty; a flow begins with its `name:`")
        return loader.construct_document(root), Places(source, root)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        place = f"{source}:{mark.line + 1}:{mark.column + 1}" if mark else source
        raise WorkflowDefinitionError(f"{place}: not valid YAML: {error.problem or error.context}") from None
    except yaml.YAMLError as error:
        raise WorkflowDefinitionError(f"{source}: not valid YAML: {error}") from None
    finally:
        if loader is not None:
            loader.dispose()


class _Loader(yaml.SafeLoader):
    """The safe loader, narrowed to the data that a flow needs."""

    # The hook of PyYAML: by first character, the tags that plain text may get. No dates, and `yes` and `on` are words.
    yaml_implicit_resolvers = {  # noqa: RUF012 - a class attribute is how PyYAML reads it
        first: [(tag, _TRUE_OR_FALSE if tag == _BOOL else pattern) for tag, pattern in resolvers if tag != _TIMESTAMP]
        for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self._depth = 0

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        event: Any = super().peek_event()  # type: ignore[no-untyped-call]  # PyYAML's stubs leave it out
        if isinstance(event, yaml.AliasEvent) or getattr(event, "anchor", None) is not None:
            raise yaml.composer.ComposerError(
                None, None, "anchors (&) and aliases (*) are not supported; write it out", event.start_mark
            )
        if self._depth >= _MAX_DEPTH:
            raise yaml.composer.ComposerError(None, None, f"nested more than {_MAX_DEPTH} deep", event.start_mark)
        self._depth += 1
        try:
            return super().compose_node(parent, index)
        finally:
            self._depth -= 1

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:  # noqa: FBT001, FBT002 - PyYAML's signature
        seen: set[str] = set()
        for key, _ in node.value:
            if not isinstance(key, yaml.ScalarNode):
                raise yaml.constructor.ConstructorError(None, None, "a key must be plain text", key.start_mark)
            if key.value in seen:
                raise yaml.constructor.ConstructorError(None, None, f"the key {key.value!r} twice", key.start_mark)
            seen.add(key.value)
        return super().construct_mapping(node, deep=deep)

    def construct_number(self, node: yaml.ScalarNode) -> int | float:
        read = self.construct_yaml_float if node.tag == _FLOAT else self.construct_yaml_int
        try:
            number: int | float = read(node)
            finite = math.isfinite(number)
        except (ValueError, OverflowError):
            problem = f"not a number that can be read: {node.value[:40]!r}"
            raise yaml.constructor.ConstructorError(None, None, problem, node.start_mark) from None
        if not finite:
            problem = f"not a number that is finite: {node.value[:40]!r}"
            raise yaml.constructor.ConstructorError(None, None, problem, node.start_mark)
        return number


_Loader.add_constructor(_INT, _Loader.construct_number)
_Loader.add_constructor(_FLOAT, _Loader.construct_number)
