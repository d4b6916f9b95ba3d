"""Logs: JSON for machines, lines for people, with the ids of what is under way and without secrets.

Nova logs through the standard library and configures nothing by itself; a program that has no logging of its own calls
:func:`configure_logging`, as the command line does. One that has adds :class:`RedactingFilter` to its handlers.
"""

from __future__ import annotations

import logging
import sys
import threading
import traceback
from collections.abc import Iterator, MutableMapping
from contextlib import contextmanager
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final, TextIO

from app.log_context import current_ids
from app.redaction import redact, redact_all

if TYPE_CHECKING:
    from app.settings import Settings

__all__ = ["RedactingFilter", "commands_log", "configure_logging", "logging_as_configured", "redacted_traceback"]

_STANDARD: Final = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}
_QUIET: Final = ("asyncio", "httpcore", "httpcore2", "httpx", "httpx2", "urllib3", "hvac")
"""Libraries whose lines below warnings would drown Nova's, and quote what they send."""


class RedactingFilter(logging.Filter):
    """Takes secrets out of a record, its arguments, its extra fields and its traceback; add it to a handler."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Clean the record; it is always logged."""
        try:
            message = record.getMessage()
        except (TypeError, ValueError):  # a defect in the call; logging would print the arguments as they are
            message = f"{record.msg} {record.args!r}"
        record.msg, record.args = redact(message), None
        if record.exc_info and record.exc_info[1] is not None:
            record.exc_text = redacted_traceback(record.exc_info[1])
        elif record.exc_text:
            record.exc_text = redact(record.exc_text)
        record.stack_info = None if record.stack_info is None else redact(record.stack_info)
        for name in set(vars(record)) - _STANDARD:
            vars(record)[name] = redact_all({name: vars(record)[name]})[name]
        return True


def configure_logging(settings: Settings, *, stream: TextIO | None = None) -> None:
    """Send the log of this process to a stream (None: standard error), once; again replaces what was set here.

    ``NOVA_LOG_FORMAT`` is ``json`` (one object a line), ``text`` or ``auto``: JSON in production, text elsewhere.
    ``NOVA_LOG_LEVEL`` is the lowest level. Exceptions that end the process or a thread are told without secrets too.
    """
    _remove_handler()
    handler = _Handler(stream or sys.stderr)
    handler.addFilter(RedactingFilter())
    as_json = settings.nova_log_format == "json" or (settings.nova_log_format == "auto" and settings.production)
    handler.setFormatter(_formatter(as_json=as_json, colors=bool(getattr(handler.stream, "isatty", bool)())))
    root = logging.getLogger()
    root.addHandler(handler)
    root.setLevel(settings.nova_log_level.upper())
    for name in _QUIET:
        logging.getLogger(name).setLevel(logging.WARNING)
    sys.excepthook = _told_at_the_end
    threading.excepthook = _told_by_a_thread


def commands_log(settings: Settings) -> bool:
    """Whether a command logs: where production or ``NOVA_LOG_FORMAT`` asks for it."""
    return settings.production or settings.nova_log_format != "auto"


@contextmanager
def logging_as_configured(settings: Settings) -> Iterator[None]:
    """Log as :func:`configure_logging` says while a command runs, where :func:`commands_log`.

    Elsewhere a command tells people what they need to know in words of its own.
    """
    if not commands_log(settings):
        yield
        return
    hooks = sys.excepthook, threading.excepthook
    configure_logging(settings)
    try:
        yield
    finally:
        _remove_handler()
        sys.excepthook, threading.excepthook = hooks


def redacted_traceback(error: BaseException) -> str:
    """Return the traceback of an error, its causes included, without secrets."""
    return redact("".join(traceback.format_exception(error)).rstrip("\n"))


class _Handler(logging.StreamHandler[TextIO]):
    """The one handler that is Nova's."""


def _remove_handler() -> None:
    root = logging.getLogger()
    for handler in [each for each in root.handlers if isinstance(each, _Handler)]:
        root.removeHandler(handler)


def _formatter(*, as_json: bool, colors: bool) -> logging.Formatter:
    import structlog

    shared: list[Any] = [
        _with_ids,
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        _with_extra,
        # Here, because the formatter takes the traceback off the record before its own processors.
        _with_exception,
    ]
    last: Any
    if as_json:
        last = structlog.processors.JSONRenderer(default=repr, ensure_ascii=False)
    else:
        last = structlog.dev.ConsoleRenderer(colors=colors, exception_formatter=structlog.dev.plain_traceback)
    return structlog.stdlib.ProcessorFormatter(
        foreign_pre_chain=shared,
        processors=[
            structlog.stdlib.ProcessorFormatter.remove_processors_meta,
            _redacted,
            last,
        ],
    )


def _with_ids(_: Any, __: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    for name, value in current_ids().items():
        event.setdefault(name, value)
    return event


def _with_extra(_: Any, __: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """Take over the fields that a call gave as ``extra``."""
    record = event["_record"]
    for name in set(vars(record)) - _STANDARD:
        event.setdefault(name, vars(record)[name])
    return event


def _with_exception(_: Any, __: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """Take over the traceback that the filter has cleaned, and the provider's id of the request that failed."""
    record = event["_record"]
    event.pop("exc_info", None)
    if record.exc_text:
        event["exception"] = record.exc_text
    error = record.exc_info[1] if record.exc_info else None
    for name in ("code", "request_id", "provider"):
        value = getattr(error, name, None)
        if isinstance(value, str):
            event.setdefault(name, value)
    return event


def _redacted(_: Any, __: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    cleaned: MutableMapping[str, Any] = redact_all(event)
    return cleaned


def _told_at_the_end(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    if issubclass(kind, KeyboardInterrupt):
        sys.__excepthook__(kind, error, trace)
        return
    sys.stderr.write(redacted_traceback(error) + "\n")


def _told_by_a_thread(told: threading.ExceptHookArgs) -> None:
    if told.exc_value is not None and not isinstance(told.exc_value, SystemExit):
        name = told.thread.name if told.thread else "a thread"
        sys.stderr.write(f"Exception in {name}:\n{redacted_traceback(told.exc_value)}\n")
