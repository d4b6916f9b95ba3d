"""Searches all that a run of the tests leaves for the planted secrets; a test that lets one out fails.

The failure names the test, the secret and where it was, never its value. After a whole run that passed, the run fails
as well if one of the forty was not in use, or if a place that is listened at stayed silent. Processes of pytest-xdist
search for themselves; what they searched is added up.
"""

from __future__ import annotations

import logging
import os
import warnings
from collections import Counter
from collections.abc import Generator
from pathlib import Path
from typing import Any, Final

import pytest

from tests.support.planted import AMBIENT, NAMES

from .search import SEARCH, Search
from .taps import LogTap, look_at_error, open_taps

PLACES: Final = (
    "a file of a test",
    "a label of a metric",
    "a log record",
    "a report of a test",
    "a scrape",
    "a traceback",
    "an error of Nova",
    "an error",
    "an error's attributes",
    "captured output",
    "the data directory",
    "the locals of a traceback",
    "the log of a server",
    "the output of a command",
    "the output of a process",
)
"""Where a whole run must have been searched."""
_FOUND: Final = "the planted secret "


def pytest_configure(config: pytest.Config) -> None:
    """Begin to listen, in each process that runs tests."""
    config.pluginmanager.register(SearchPlugin(SEARCH), "searched")


class SearchPlugin:
    """The hooks, around one search."""

    def __init__(self, search: Search) -> None:
        self.search = search
        self.logs = LogTap(search)
        self.patch = pytest.MonkeyPatch()
        self.workers: list[dict[str, Any]] = []
        self.complaints: list[str] = []
        self.listening = False

    @pytest.hookimpl
    def pytest_sessionstart(self, session: pytest.Session) -> None:
        """Listen from before the tests are collected."""
        os.environ.update(AMBIENT)
        self.search.give(AMBIENT.values())
        if session.config.pluginmanager.has_plugin("dsession"):
            return  # the workers listen; the pipes of this process carry what they report
        self.listening = True
        logging.getLogger().addHandler(self.logs)
        open_taps(self.search, self.patch)

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_protocol(self, item: pytest.Item) -> Generator[None, object, object]:
        """Know whose output it is."""
        self.search.test = item.nodeid
        try:
            return (yield)
        finally:
            self.search.test = None

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_call(self) -> Generator[None, object, object]:
        """Take note of what the test put into the environment."""
        try:
            return (yield)
        finally:
            self.search.give(os.environ.values())

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_makereport(
        self, item: pytest.Item, call: pytest.CallInfo[None]
    ) -> Generator[None, pytest.TestReport, pytest.TestReport]:
        """Search the report, and at a test's end fail it if anything of it showed a secret."""
        report = yield
        search = self.search
        if call.excinfo is not None and report.failed:
            look_at_error(search, call.excinfo.value)
        search.look(report.longreprtext, where="a report of a test")
        if report.when != "teardown":
            return report
        for name, content in report.sections:
            search.look(f"{name}\n{content}", where="a report of a test")
        directory = getattr(item, "funcargs", {}).get("tmp_path")
        if isinstance(directory, Path):
            search.look_in(directory, where="a file of a test")
        if found := search.untold(of=item.nodeid):
            report.outcome = "failed"
            report.longrepr = "\n".join(found)
        return report

    @pytest.hookimpl
    def pytest_warning_recorded(self, warning_message: warnings.WarningMessage, nodeid: str) -> None:
        """Search what a warning says; it comes when its test is over."""
        if not self.listening:
            return
        before, self.search.test = self.search.test, nodeid or None
        self.search.look(str(warning_message.message), where="a warning")
        self.search.test = before

    @pytest.hookimpl(optionalhook=True)
    def pytest_testnodedown(self, node: Any) -> None:
        """Take over what a worker searched."""
        self.workers.append(getattr(node, "workeroutput", {}).get("searched", {}))

    @pytest.hookimpl(trylast=True)
    def pytest_sessionfinish(self, session: pytest.Session, exitstatus: int) -> None:
        """Tell the controller, or judge the whole."""
        logging.getLogger().removeHandler(self.logs)
        self.patch.undo()
        search = self.search
        output = getattr(session.config, "workeroutput", None)
        if output is not None:
            output["searched"] = {
                "texts": dict(search.texts),
                "size_bytes": dict(search.size_bytes),
                "given": sorted(search.given),
                "found": search.untold(),
            }
            return
        for worker in self.workers:
            search.texts += Counter(worker.get("texts", {}))
            search.size_bytes += Counter(worker.get("size_bytes", {}))
            search.given |= set(worker.get("given", ()))
            self.complaints += worker.get("found", [])
        self.complaints += search.untold()
        if _is_whole(session.config) and exitstatus == pytest.ExitCode.OK:
            unused = [name for name in NAMES if name not in search.given]
            silent = [where for where in PLACES if not search.texts[where]]
            self.complaints += [f"planted, and never given to Nova: {name}" for name in unused]
            self.complaints += [f"{where} was never searched" for where in silent]
        if self.complaints and exitstatus == pytest.ExitCode.OK:
            session.exitstatus = pytest.ExitCode.TESTS_FAILED

    @pytest.hookimpl
    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        """Say how much was searched."""
        search = self.search
        for complaint in self.complaints:
            terminalreporter.write_line(complaint, red=True)
        terminalreporter.write_line(
            f"planted secrets: {len(search.given)} of {len(NAMES)} in use, searched for in "
            f"{search.texts.total():,} texts ({search.size_bytes.total() / 1e6:,.1f} MB) "
            f"from {len(search.texts)} places: {self._found(terminalreporter)} found"
        )
        if terminalreporter.config.get_verbosity() > 0:
            for where in sorted(search.texts):
                terminalreporter.write_line(f"  {where}: {search.texts[where]:,} texts, {search.size_bytes[where]:,} B")

    def _found(self, reporter: pytest.TerminalReporter) -> int:
        """Return how many tests let a secret out, and how many got out without failing a test."""
        failed = sum(str(report.longrepr).startswith(_FOUND) for report in reporter.stats.get("error", []))
        return failed + sum(complaint.startswith(_FOUND) for complaint in self.complaints)


def _is_whole(config: pytest.Config) -> bool:
    """Whether every test was asked for, but for the long campaigns."""
    every_file = config.args_source is pytest.Config.ArgsSource.TESTPATHS
    return every_file and not config.getoption("keyword") and config.getoption("markexpr") == "not soak"
