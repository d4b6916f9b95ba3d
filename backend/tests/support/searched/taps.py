"""Where the search listens: logs, errors, processes, captured output, labels of metrics; undone with the session."""

from __future__ import annotations

import asyncio.base_subprocess
import copy
import logging
import os
import subprocess
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

import pytest

from .search import Search, Stream

__all__ = ["LogTap", "look_at_error", "open_taps"]

_OURS: Final = f"{os.sep}backend{os.sep}app{os.sep}"


class LogTap(logging.Handler):
    """Searches every record as it was logged, before anything cleans it: message, arguments, fields, traceback."""

    def __init__(self, search: Search) -> None:
        super().__init__()
        self._search = search

    def emit(self, record: logging.LogRecord) -> None:
        """Search it; a formatter writes into the record, so it gets a copy."""
        seen = copy.copy(record)
        try:
            text = self.format(seen)
        except (TypeError, ValueError):  # a test that logs badly on purpose
            text = f"{record.msg} {record.args!r}"
        self._search.look(text, where="a log record")
        self._search.look_at(vars(record), where="a log record")


def look_at_error(search: Search, error: BaseException) -> None:
    """Search an error in every form that somebody may print it in, its causes, contexts and members included.

    Of the frames that it came through, Nova's own are shown with their locals, as crash reporters show them.
    """
    search.look("".join(traceback.format_exception(error)), where="a traceback")
    pending, seen = [error], {id(error)}
    while pending:
        each = pending.pop()
        search.look(f"{each} {each!r}", where="an error")
        search.look_at(vars(each), where="an error's attributes", detail=f"({type(each).__name__})")
        if callable(details := getattr(each, "errors", None)):
            search.look_at(details(), where="an error's details")
        for frame, _ in traceback.walk_tb(each.__traceback__):
            if _OURS in frame.f_code.co_filename:
                for name, value in frame.f_locals.items():
                    detail = f"({name} of {frame.f_code.co_qualname} in {Path(frame.f_code.co_filename).name})"
                    search.look_at(value, where="the locals of a traceback", detail=detail)
        for further in (each.__cause__, each.__context__, *getattr(each, "exceptions", ())):
            # What was raised "from None" is not shown with it.
            hidden = further is each.__context__ and each.__suppress_context__ and further is not each.__cause__
            if further is not None and not hidden and id(further) not in seen:
                seen.add(id(further))
                pending.append(further)


def _was_in_nova(error: BaseException) -> bool:
    """Whether an error came through a frame of Nova; what a test gets from a driver that it calls itself is its own."""
    return any(_OURS in frame.f_code.co_filename for frame, _ in traceback.walk_tb(error.__traceback__))


def open_taps(search: Search, patch: pytest.MonkeyPatch) -> None:
    """Listen in this process."""
    _to_errors(search, patch)
    _to_processes(search, patch)
    _to_captured_output(search, patch)
    _to_metrics(search, patch)
    _to_credentials(search, patch)


def _to_errors(search: Search, patch: pytest.MonkeyPatch) -> None:
    """Each that a test expects, once it was raised, and each of Nova's when it is made."""
    from app.errors import NovaError

    leave = pytest.RaisesExc.__exit__

    def leave_and_look(self: Any, kind: Any, error: BaseException | None, trace: Any) -> bool:
        if error is not None and _was_in_nova(error):
            look_at_error(search, error)
        return leave(self, kind, error, trace)

    def make(cls: type[NovaError], *arguments: Any, **named: Any) -> NovaError:
        search.look_at((arguments, named), where="an error of Nova")
        return Exception.__new__(cls, *arguments, **named)

    patch.setattr(pytest.RaisesExc, "__exit__", leave_and_look)
    patch.setattr(NovaError, "__new__", make, raising=False)


class _Tee:
    """A pipe from a process whose reader's text is searched; it is the pipe in all else."""

    def __init__(self, pipe: Any, stream: Stream) -> None:
        self._pipe = pipe
        self._stream = stream

    def __getattr__(self, name: str) -> Any:
        return getattr(self._pipe, name)

    def _seen(self, chunk: Any) -> Any:
        self._stream.look(chunk)
        return chunk

    def read(self, *size: int) -> Any:
        return self._seen(self._pipe.read(*size))

    def read1(self, *size: int) -> Any:
        return self._seen(self._pipe.read1(*size))

    def readline(self, *size: int) -> Any:
        return self._seen(self._pipe.readline(*size))

    def readlines(self) -> list[Any]:
        return list(self)

    def __iter__(self) -> Iterator[Any]:
        return map(self._seen, self._pipe)

    def __enter__(self) -> _Tee:
        return self

    def __exit__(self, *_: object) -> None:
        self._pipe.close()


def _to_processes(search: Search, patch: pytest.MonkeyPatch) -> None:
    """What they write into pipes, whoever reads it; what they inherit is captured with the test's own output."""
    begin = subprocess.Popen.__init__
    exchange: Callable[..., Any] = vars(subprocess.Popen)["_communicate"]

    def begin_and_listen(self: Any, *arguments: Any, **options: Any) -> None:
        given = options.get("env")
        search.give((os.environ if given is None else given).values())
        begin(self, *arguments, **options)
        for name in ("stdout", "stderr"):
            if (pipe := getattr(self, name)) is not None:
                setattr(self, name, _Tee(pipe, Stream(search, where="the output of a process")))

    def exchange_and_look(self: Any, *arguments: Any) -> Any:
        both = exchange(self, *arguments)
        for output in both:
            search.look(output or b"", where="the output of a process")
        return both

    streams: dict[tuple[int, int], Stream] = {}
    receive = asyncio.base_subprocess.ReadSubprocessPipeProto.data_received

    def receive_and_look(self: Any, data: bytes) -> None:
        key = (id(self.proc), self.fd)
        streams.setdefault(key, Stream(search, where="the output of a process")).look(data)
        receive(self, data)

    patch.setattr(subprocess.Popen, "__init__", begin_and_listen)
    patch.setattr(subprocess.Popen, "_communicate", exchange_and_look)
    patch.setattr(asyncio.base_subprocess.ReadSubprocessPipeProto, "data_received", receive_and_look)


def _to_captured_output(search: Search, patch: pytest.MonkeyPatch) -> None:
    """What a test takes out of ``capsys`` and ``capfd`` is in no report."""
    take = pytest.CaptureFixture.readouterr

    def take_and_look(self: Any) -> Any:
        taken = take(self)
        for output in taken:
            search.look(output, where="captured output")
        return taken

    patch.setattr(pytest.CaptureFixture, "readouterr", take_and_look)


def _to_metrics(search: Search, patch: pytest.MonkeyPatch) -> None:
    """The values of labels are the only text in a metric that is not fixed."""
    from prometheus_client.metrics import MetricWrapperBase

    labels = MetricWrapperBase.labels

    def labels_and_look(self: Any, *values: Any, **named: Any) -> Any:
        search.look(" ".join(map(str, (*values, *named.values()))), where="a label of a metric")
        return labels(self, *values, **named)

    patch.setattr(MetricWrapperBase, "labels", labels_and_look)


def _to_credentials(search: Search, patch: pytest.MonkeyPatch) -> None:
    """Which secrets Nova really holds: those that are made known to its redaction."""
    from app import credentials

    know = vars(credentials)["know"]

    def know_and_note(secret: str) -> None:
        search.give([secret])
        know(secret)

    patch.setattr(credentials, "know", know_and_note)
