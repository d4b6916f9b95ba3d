"""Every error has one exit code, one message and no traceback."""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest

from app import errors
from app.cli.exits import Ended, ExitCode, explain

_REFERENCE = Path(__file__).resolve().parents[3] / "docs" / "cli.md"


def _classes(cls: type[errors.NovaError] = errors.NovaError) -> Iterator[type[errors.NovaError]]:
    yield cls
    for child in cls.__subclasses__():
        if child.__module__ == "app.errors":
            yield from _classes(child)


_CLASSES: list[type[errors.NovaError]] = sorted(set(_classes()), key=lambda cls: cls.__name__)


def _made(cls: type[errors.NovaError]) -> errors.NovaError:
    """Build an error of any class with plausible ids."""
    error = cls.__new__(cls)
    Exception.__init__(error, "what was wrong")
    for name, value in {
        "run_id": "tour",
        "waiting_for": "budget",
        "status": "completed",
        "scope": "run:tour",
        "window": "day",
        "spent": 1,
        "held": 1,
        "requested": 1,
        "expires_in": timedelta(seconds=5),
        "step_id": "notes/0",
        "hold_id": "hold-1",
        "tenant_id": "default",
    }.items():
        setattr(error, name, value)
    return error


@pytest.mark.parametrize("cls", _CLASSES)
def test_an_error_of_nova_is_explained_with_its_text_and_a_code_of_its_own(cls: type[errors.NovaError]) -> None:
    """Every class of the error tree has an exit code above usage, its message unchanged, and its stable string."""
    if cls is errors.LLMError:
        error: errors.NovaError = errors.LLMError(
            "what was wrong", code="ERR_LLM_OVERLOADED", retryable=True, billed="no", provider="stub"
        )
    else:
        error = _made(cls)

    explanation = explain(error)

    assert explanation.message == "what was wrong"
    assert explanation.code == error.code
    assert explanation.exit_code is ExitCode.UNEXPECTED if cls is errors.NovaError else explanation.exit_code > 2


@pytest.mark.parametrize(
    ("cls", "code"),
    [
        (errors.ConfigurationError, 3),
        (errors.InvalidInputError, 4),
        (errors.StateNotStorableError, 4),
        (errors.DocumentError, 5),
        (errors.WorkflowDefinitionError, 6),
        (errors.RunNotFoundError, 10),
        (errors.RunExistsError, 11),
        (errors.RunFinishedError, 12),
        (errors.RunBusyError, 13),
        (errors.RunWaitingError, 14),
        (errors.StepFailedError, 15),
        (errors.RunDeadlineError, 16),
        (errors.RunAbortedError, 17),
        (errors.WorkflowChangedError, 18),
        (errors.LeaseLostError, 19),
        (errors.BudgetExceededError, 20),
        (errors.BudgetStoppedError, 20),
        (errors.UnboundedCallError, 21),
        (errors.UnknownHoldError, 22),
        (errors.BudgetStoreUnavailableError, 30),
        (errors.CheckpointCorruptError, 31),
        (errors.StoreDamagedError, 31),
    ],
    ids=lambda value: getattr(value, "__name__", str(value)),
)
def test_exit_codes_are_the_published_ones(cls: type[errors.NovaError], code: int) -> None:
    """The numbers that scripts rely on never change."""
    explanation = explain(_made(cls))

    assert explanation.exit_code == code


def test_the_reference_lists_every_exit_code_with_its_meaning() -> None:
    """docs/cli.md has one row per exit code, and no other."""
    rows = dict(re.findall(r"^\| (\d+) \| [^|]* \| (.+) \|$", _REFERENCE.read_text(), flags=re.MULTILINE))

    assert rows == {str(int(code)): code.meaning for code in ExitCode}


def test_a_parked_run_is_helped_by_the_limit_that_was_in_its_way() -> None:
    """The scope, window and least amount are those of the refusal: 2 spent, 1 held and 4 asked for are 7 cents."""
    cent = 1_000_000
    refused = errors.BudgetExceededError(
        "refused",
        scope="tenant",
        window="day",
        limit=5 * cent,
        spent=2 * cent,
        held=cent,
        requested=4 * cent,
        resets_at=None,
    )
    parked = errors.RunWaitingError("parked", run_id="tour", waiting_for="budget")
    parked.__cause__ = refused

    raising = "at least, for this call alone: nova budget set tenant '$0.07' --window day"
    assert explain(parked).remedy == f"{raising}, then: nova resume tour"
    assert (explain(refused).remedy or "").startswith(f"{raising}; ")


def test_a_remedy_is_a_command_with_the_global_options_that_were_in_force() -> None:
    """What is printed can be pasted: it keeps the tenant and the data directory."""
    error = errors.RunWaitingError("parked", run_id="tour", waiting_for="budget")

    remedy = explain(error, nova="nova --tenant acme").remedy

    assert remedy is not None
    assert "nova --tenant acme budget set run:tour AMOUNT" in remedy
    assert "nova --tenant acme resume tour" in remedy


@pytest.mark.parametrize("cls", _CLASSES)
def test_a_run_id_is_quoted_in_every_remedy(cls: type[errors.NovaError]) -> None:
    """No remedy has the bare id of a run whose name a shell would take apart."""
    error = _made(cls)
    error.__dict__["run_id"] = "my tour"

    remedy = (explain(error).remedy or "").replace("'my tour'", "").replace("'run:my tour'", "")

    assert "my tour" not in remedy


def test_an_unpriced_model_inside_a_step_keeps_its_own_exit_code() -> None:
    """A step that was never permitted to begin is told apart from one that failed at its work."""
    error = errors.StepFailedError("step 'hello': no price", run_id="tour", step_id="hello", attempts=1)
    error.__cause__ = errors.UnboundedCallError("no price")

    explanation = explain(error)

    assert explanation.exit_code is ExitCode.UNPRICED
    assert explanation.code == "ERR_UNBOUNDED_CALL"


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (KeyboardInterrupt(), ExitCode.INTERRUPTED),
        (BrokenPipeError(), ExitCode.CLOSED_PIPE),
        (OSError(28, "No space left on device"), ExitCode.OUTPUT),
        (OSError(28, "No space left on device", "/some/file"), ExitCode.UNEXPECTED),
        (Ended.interrupted("stopped"), ExitCode.INTERRUPTED),
        (ValueError("a fault"), ExitCode.UNEXPECTED),
    ],
    ids=["ctrl-c", "closed pipe", "full output", "full disk elsewhere", "stopped", "fault"],
)
def test_what_is_not_an_error_of_nova_has_a_code_too(error: BaseException, code: ExitCode) -> None:
    """Interrupts, closed pipes and faults each end with a code of their own."""
    explanation = explain(error)

    assert explanation.exit_code is code
