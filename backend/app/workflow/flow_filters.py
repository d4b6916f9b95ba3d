"""What templates of flows compute with: filters and tests whose work and memory are bounded.

A rendering has an account of work (:class:`Work`). Whatever costs more than a moment is charged before it is done: a
filter by the characters that it reads, a comparison by what it compares, a loop by its items times what it holds.
Jinja2's own filters are not used, because several multiply (``join``), compute huge powers (``round``) or search
without bound (``trim``) for a small text.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, Final

from jinja2 import Undefined, pass_context
from jinja2.exceptions import FilterArgumentError, TemplateRuntimeError
from jinja2.filters import make_attrgetter
from jinja2.runtime import Context

from app.workflow.documents import Document, Item, cut_text

__all__ = ["FILTERS", "MAX_OUTPUT_CHARS", "MAX_WORK", "STEP", "TESTS", "WORK", "Work", "items", "shown", "weigh"]

MAX_OUTPUT_CHARS: Final = 4_000_000
"""The longest text that a template may give: beyond the context of any model."""

MAX_WORK: Final = 100_000_000
"""What one rendering may do: about as many characters compared, or a twentieth as many small steps (under a second)."""

WORK: Final = "_work"
"""The variable that carries the account of a rendering; no template can name it."""

STEP: Final = 20
"""The charge of one small step of a template, in characters that could be compared in that time."""

_COPY: Final = 2
_WORDS: Final = 20
_CALL: Final = 10 * STEP
_MAX_ATTRIBUTE_CHARS: Final = 40
_MAX_NUMBER_CHARS: Final = 400
_MAX_DIGITS: Final = 20
_WORD: Final = re.compile(r"\w+")
_WORD_START: Final = re.compile(r"([-\s({\[<]+)")


class Work:
    """The account of one rendering."""

    __slots__ = ("_left",)

    def __init__(self) -> None:
        self._left = MAX_WORK

    def spend(self, units: int) -> None:
        """Charge work that is about to be done.

        Raises:
            TemplateRuntimeError: it is more than a rendering may do.
        """
        self._left -= units
        if self._left < 0:
            raise TemplateRuntimeError(
                "it takes too much work; loop over fewer items, or shorten texts first with cut(…) or max_chars"
            )


@pass_context
def items(context: Context, value: object, cost: int) -> list[object] | tuple[object, ...]:
    """Return the items of a loop, after charging ``cost`` for each."""
    found = _list(value)
    _work(context).spend(len(found) * cost)
    return found


@pass_context
def weigh(context: Context, value: object, factor: int) -> object:
    """Return ``value``, after charging ``factor`` for each character in it."""
    _charge(_work(context), value, factor)
    return value


@pass_context
def shown(context: Context, value: object) -> str:
    """Return what ``{{ … }}`` shows of a value."""
    text = _text(value)
    _work(context).spend(2 * STEP)
    return text


def _work(context: Context) -> Work:
    work: Work = context[WORK]
    return work


def _charge(work: Work, value: object, factor: int) -> None:
    if isinstance(value, str):
        work.spend(STEP + len(value) * factor)
    elif isinstance(value, Document | Item):
        work.spend(STEP + (len(value.name) + len(value.text)) * factor)
    elif isinstance(value, list | tuple):
        # Before it is walked: a list that holds the documents many times is small, and walking it is not.
        work.spend(len(value) * STEP)
        for item in value:
            _charge(work, item, factor)


def _text(value: object) -> str:
    """Return a value as text; a list has none, since it could hold one text many times."""
    if isinstance(value, Document | Item):
        return value.text
    if value is None or isinstance(value, str | int | float | Undefined):
        return str(value)
    kind = "a list" if isinstance(value, list | tuple) else type(value).__name__
    raise FilterArgumentError(f"a text or a number is needed, not {kind}; use a loop, or map and join")


def _list(value: object) -> list[object] | tuple[object, ...]:
    if isinstance(value, Undefined):
        iter(value)
    if not isinstance(value, list | tuple):
        kind = "a text" if isinstance(value, str | Document | Item) else type(value).__name__
        raise FilterArgumentError(f"a list of documents or outputs is needed, not {kind}")
    return value


def _number(value: object) -> int | float:
    if isinstance(value, Undefined):
        str(value)
    if not isinstance(value, int | float):
        raise FilterArgumentError(f"a number is needed, not {type(value).__name__}; use the filters int or float")
    return value


def _whole(value: object, what: str, least: int, most: int) -> int:
    if not isinstance(value, int) or not least <= value <= most:
        raise FilterArgumentError(f"{what} is a whole number from {least:,} to {most:,}")
    return value


def _read(context: Context, value: object, cost: int = _COPY) -> str:
    """Return a value as text, after charging ``cost`` for each of its characters."""
    text = _text(value)
    _work(context).spend(len(text) * cost)
    return text


def _getter(context: Context, attribute: object, default: object = None) -> Callable[[Any], Any]:
    if isinstance(attribute, str) and len(attribute) > _MAX_ATTRIBUTE_CHARS:
        raise FilterArgumentError(f"the name of an attribute has at most {_MAX_ATTRIBUTE_CHARS} characters")
    if attribute is not None and not isinstance(attribute, str | int):
        raise FilterArgumentError("attribute is the name of one")
    return make_attrgetter(context.environment, attribute, default=default)


@pass_context
def _capitalize(context: Context, value: object) -> str:
    return _read(context, value).capitalize()


@pass_context
def _cut(context: Context, value: object, max_chars: int) -> str:
    text = _text(value)
    most = _whole(max_chars, "cut's max_chars", 0, 10**12)
    _work(context).spend(min(len(text), most) * _COPY)
    return cut_text(text, most)


def _default(value: object, default_value: object = "", boolean: object = False) -> object:  # noqa: FBT002 - the filter's signature in Jinja2
    return default_value if isinstance(value, Undefined) or (boolean and not value) else value


@pass_context
def _first(context: Context, value: object) -> object:
    found = value if isinstance(value, str) else _list(value)
    return found[0] if found else context.environment.undefined("no first item: there is none")


def _float(value: object, default: object = 0.0) -> object:
    text = _text(value)
    try:
        return float(text) if len(text) <= _MAX_NUMBER_CHARS else default
    except ValueError:
        return default


def _int(value: object, default: object = 0, base: int = 10) -> object:
    text = _text(value)
    radix = _whole(base, "int's base", 2, 36)
    if len(text) > _MAX_NUMBER_CHARS:
        return default
    try:
        return int(text, radix) if isinstance(value, str) else int(_number(value))
    except (ValueError, OverflowError, FilterArgumentError):
        pass
    try:
        return int(float(text))  # so that "42.2" gives 42
    except (ValueError, OverflowError):
        return default


@pass_context
def _join(context: Context, value: object, d: object = "", attribute: object = None) -> str:
    found = _list(value)
    get = _getter(context, attribute)
    work = _work(context)
    separator = _text(d)
    work.spend(len(found) * 3 * STEP)
    texts = [_text(get(item)) for item in found]
    # Added up before anything is put together: what is joined may hold one text many times.
    length = sum(len(text) for text in texts) + len(separator) * max(0, len(texts) - 1)
    if length > MAX_OUTPUT_CHARS:
        raise TemplateRuntimeError(
            f"join gives {length:,} characters, and at most {MAX_OUTPUT_CHARS:,} are possible; shorten the texts first"
        )
    work.spend(length * _COPY)
    return separator.join(texts)


@pass_context
def _last(context: Context, value: object) -> object:
    found = value if isinstance(value, str) else _list(value)
    return found[-1] if found else context.environment.undefined("no last item: there is none")


def _length(value: object) -> int:
    return len(value) if isinstance(value, str) else len(_list(value))


@pass_context
def _lower(context: Context, value: object) -> str:
    return _read(context, value).lower()


@pass_context
def _map(context: Context, value: object, *args: object, **kwargs: object) -> list[object]:
    found = _list(value)
    _work(context).spend(len(found) * _CALL)
    if args:
        name, *rest = args
        if name not in FILTERS:
            raise FilterArgumentError(f"map has no filter {str(name)[:60]!r}")
        return [context.environment.call_filter(str(name), item, rest, kwargs, context=context) for item in found]
    if not {"attribute"} <= kwargs.keys() <= {"attribute", "default"}:
        raise FilterArgumentError("map needs the name of a filter, or attribute=…")
    return [*map(_getter(context, kwargs["attribute"], kwargs.get("default")), found)]


@pass_context
def _reverse(context: Context, value: object) -> object:
    if isinstance(value, str):
        return _read(context, value)[::-1]
    found = _list(value)
    _work(context).spend(len(found) * STEP)
    return found[::-1]


def _round(value: object, precision: int = 0, method: str = "common") -> int | float:
    number = _number(value)
    digits = _whole(precision, "round's precision", -_MAX_DIGITS, _MAX_DIGITS)
    if method == "common":
        return round(number, digits)
    if method not in {"ceil", "floor"}:
        raise FilterArgumentError("round's method is common, ceil or floor")
    scale: float = 10**digits
    return (math.ceil if method == "ceil" else math.floor)(number * scale) / scale


def _keys(context: Context, found: list[object] | tuple[object, ...], attribute: object, *, exact: bool) -> list[Any]:
    """Return what items are compared by, after charging for as many comparisons as a sort makes."""
    get = _getter(context, attribute)
    times = max(1, len(found).bit_length()) * _COPY
    keys: list[Any] = []
    for item in found:
        key = get(item)
        _charge(_work(context), key, times)
        _work(context).spend(3 * STEP)
        keys.append(key.lower() if isinstance(key, str) and not exact else key)
    return keys


@pass_context
def _sort(
    context: Context,
    value: object,
    reverse: object = False,  # noqa: FBT002 - the filter's signature in Jinja2
    case_sensitive: object = False,  # noqa: FBT002 - likewise
    attribute: object = None,
) -> list[object]:
    found = _list(value)
    keys = _keys(context, found, attribute, exact=bool(case_sensitive))
    return [found[at] for at in sorted(range(len(found)), key=keys.__getitem__, reverse=bool(reverse))]


@pass_context
def _title(context: Context, value: object) -> str:
    words = _WORD_START.split(_read(context, value, _WORDS))
    return "".join([word[0].upper() + word[1:].lower() for word in words if word])


@pass_context
def _trim(context: Context, value: object, chars: object = None) -> str:
    unwanted = None if chars is None else _text(chars)
    # Each character at an end is looked for among all of them.
    return _read(context, value, _COPY + len(unwanted or "")).strip(unwanted)


@pass_context
def _truncate(  # noqa: PLR0917 - the filter's signature in Jinja2
    context: Context,
    value: object,
    length: int = 255,
    killwords: object = False,  # noqa: FBT002 - the filter's signature in Jinja2
    end: object = "...",
    leeway: int = 5,
) -> str:
    text, tail = _text(value), _text(end)
    most = _whole(length, "truncate's length (at least the length of its end)", len(tail), 10**12)
    if len(text) <= most + _whole(leeway, "truncate's leeway", 0, 10**12):
        return text
    _work(context).spend(most * _COPY)
    head = text[: most - len(tail)]
    return (head if killwords else head.rsplit(" ", 1)[0]) + tail


@pass_context
def _unique(
    context: Context,
    value: object,
    case_sensitive: object = False,  # noqa: FBT002 - the filter's signature in Jinja2
    attribute: object = None,
) -> list[object]:
    found = _list(value)
    first: dict[object, object] = {}
    for key, item in zip(_keys(context, found, attribute, exact=bool(case_sensitive)), found, strict=True):
        first.setdefault(key, item)
    return [*first.values()]


@pass_context
def _upper(context: Context, value: object) -> str:
    return _read(context, value).upper()


@pass_context
def _wordcount(context: Context, value: object) -> int:
    return sum(1 for _ in _WORD.finditer(_read(context, value, _WORDS)))


def _even(value: object) -> bool:
    return _number(value) % 2 == 0


def _odd(value: object) -> bool:
    return _number(value) % 2 == 1


FILTERS: Final[Mapping[str, Callable[..., object]]] = MappingProxyType(
    {
        "capitalize": _capitalize,
        "cut": _cut,
        "default": _default,
        "first": _first,
        "float": _float,
        "int": _int,
        "join": _join,
        "last": _last,
        "length": _length,
        "lower": _lower,
        "map": _map,
        "reverse": _reverse,
        "round": _round,
        "sort": _sort,
        "title": _title,
        "trim": _trim,
        "truncate": _truncate,
        "unique": _unique,
        "upper": _upper,
        "wordcount": _wordcount,
    }
)
TESTS: Final[Mapping[str, Callable[..., bool]]] = MappingProxyType({"even": _even, "odd": _odd})
"""Tests of our own: Jinja2's ``odd`` takes the remainder of anything, and a text's ``%`` makes texts of any length."""
