"""A call with tools: rounds and tools are steps, limits hold, and what a tool says goes back to the model."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from app.errors import ConfigurationError, InvalidInputError, StepFailedError, ToolError, ToolRoundsError
from app.money import Microcents
from app.skills.adapters.stub_adapter import StubAdapter
from app.skills.content import ToolResultBlock
from app.skills.guards import get_guarded_adapter
from app.skills.llm_invoke_v2 import CallContext, LLMConfig, LLMResponse, Message, Prompt, Tool, ToolUseBlock
from app.skills.pricing import PriceBook
from app.stores.budget.memory import InMemoryBudgetStore
from app.stores.checkpoint.contract import CheckpointStorage, RunStatus
from app.stores.idempotency.memory import InMemoryIdempotencyStore
from app.workflow.engine import Run, Runner, RunOutcome, StepContext, workflow

from .support import MortalStore, ProcessDiedError, forgiving_store, runner_on

ONE_AT_A_TIME = LLMConfig(parallel_tool_calls=False)


class Watched(StubAdapter):
    """The stub, whose prompts are remembered; ``answers`` come before what it writes itself."""

    def __init__(self, *answers: LLMResponse) -> None:
        super().__init__()
        self.prompts: list[tuple[Message, ...]] = []
        self.configs: list[LLMConfig] = []
        self._answers = list(answers)

    async def invoke(
        self, prompt: Prompt, config: LLMConfig | None = None, *, context: CallContext | None = None
    ) -> LLMResponse:
        """Remember, and answer."""
        self.prompts.append((Message("user", prompt),) if isinstance(prompt, str) else tuple(prompt))
        self.configs.append(config or LLMConfig())
        answer = await super().invoke(prompt, config, context=context)
        if not self._answers:
            return answer
        scripted = self._answers.pop(0)
        return replace(answer, content=scripted.content, blocks=scripted.blocks, finish_reason=scripted.finish_reason)


def asking(*calls: ToolUseBlock) -> LLMResponse:
    """Return an answer that calls tools."""
    return LLMResponse(
        content="", input_tokens=1, output_tokens=1, model="m", finish_reason="tool_use", latency_ms=1.0, blocks=calls
    )


class Bench:
    """A runner on stores in memory, with a watched stub and tools that count their runs."""

    def __init__(self, checkpoints: object, *answers: LLMResponse) -> None:
        self.budget = InMemoryBudgetStore()
        self.stub = Watched(*answers)
        self.idempotency = InMemoryIdempotencyStore()
        self.ran: list[str] = []
        self.checkpoints = checkpoints

    def runner(self, checkpoints: object | None = None) -> Runner:
        """Return a runner, as of a new process."""
        guarded = get_guarded_adapter(self.stub, budget_store=self.budget, idempotency_store=self.idempotency)
        return runner_on(checkpoints or self.checkpoints, budget=self.budget, guarded=guarded)

    def tool(self, name: str, gives: Callable[[str], object] = str.upper) -> Any:
        """Return a tool that counts."""

        async def use(place: str, context: StepContext) -> object:
            """Use it."""
            self.ran.append(context.step_id)
            return gives(place)

        use.__name__ = name
        return use

    async def run(self, prompt: str, *names: str, config: LLMConfig | None = None, **options: Any) -> RunOutcome:
        """Run a workflow of one call with tools."""
        tools = options.pop("tools", None) or [self.tool(name) for name in names]
        return await self.runner().start(agent(prompt, tools, config, **options), run_id="r")


def agent(prompt: str, tools: list[Any], config: LLMConfig | None = None, **options: Any) -> Any:
    """Return a workflow of one call with tools."""

    @workflow(version="1", name="agent")
    async def made(run: Run) -> str:
        return (await run.llm("ask", prompt, config, tools=tools, **options)).content

    return made


def results(prompt: tuple[Message, ...]) -> list[ToolResultBlock]:
    """Return the results of tools in a prompt."""
    return [block for message in prompt for block in message.blocks if isinstance(block, ToolResultBlock)]


async def test_rounds_and_tools_are_steps_with_ids_that_tell_them(checkpoints: CheckpointStorage) -> None:
    """Tools of one round side by side, then the answer; each has its cost, and the run their sum."""
    bench = Bench(checkpoints)

    outcome = await bench.run("Use alpha and beta.", "alpha", "beta")

    steps = await checkpoints.history("r")
    assert outcome.value()
    assert {step.step_id for step in steps} == {"ask/1", "ask/1/0-alpha", "ask/1/1-beta", "ask/2"}
    assert sorted(bench.ran) == ["ask/1/0-alpha", "ask/1/1-beta"]
    assert outcome.cost == sum(int(str(step.meta.get("cost", 0))) for step in steps) > 0
    assert (await bench.budget.usage("run:r"))[0].spent == outcome.cost


async def test_what_a_tool_gives_goes_back_under_the_id_of_its_call(checkpoints: CheckpointStorage) -> None:
    """Text as it is, everything else as JSON, behind the model's own turn."""
    bench = Bench(checkpoints)
    tools = [bench.tool("alpha"), bench.tool("beta", lambda place: {"n": [1, place]})]

    await bench.run("Use alpha and beta.", tools=tools)

    last = bench.stub.prompts[-1]
    asked = [block for block in last[1].blocks if isinstance(block, ToolUseBlock)]
    given = results(last)
    assert [block.tool_use_id for block in given] == [block.id for block in asked]
    assert given[0].content == str(asked[0].arguments["place"]).upper()
    assert json.loads(given[1].content) == {"n": [1, asked[1].arguments["place"]]}
    assert [tool.name for tool in bench.stub.configs[-1].tools] == ["alpha", "beta"]
    assert "context" not in bench.stub.configs[-1].tools[0].parameters["properties"]


async def test_what_the_model_got_wrong_is_told_to_it(checkpoints: CheckpointStorage) -> None:
    """A tool that there is not, arguments that do not fit or are no JSON, and what a tool says it cannot do."""

    def cannot(place: str) -> object:
        raise ToolError(f"nobody knows {place}")

    calls = (
        ToolUseBlock(id="1", name="gamma", arguments={}),
        ToolUseBlock(id="2", name="alpha", arguments={"where": "x"}),
        ToolUseBlock(id="3", name="alpha", arguments={}, malformed='{"pla'),
        ToolUseBlock(id="4", name="alpha", arguments={"place": "Bergen"}),
    )
    bench = Bench(checkpoints, asking(*calls))

    outcome = await bench.run("Look.", tools=[bench.tool("alpha", cannot)])

    given = results(bench.stub.prompts[-1])
    assert outcome.status is RunStatus.COMPLETED
    assert [block.is_error for block in given] == [True] * 4
    for block, says in zip(
        given, ("no tool 'gamma'", "place: Field required", "JSON object", "nobody knows Bergen"), strict=True
    ):
        assert says in block.content
    assert bench.ran == ["ask/1/3-alpha"]


async def test_any_other_error_of_a_tool_fails_its_step_after_the_others_were_recorded(
    checkpoints: CheckpointStorage,
) -> None:
    """A fault is not told to the model as if it were an answer; on resuming only the failed tool runs again."""
    bench = Bench(checkpoints)
    broken = True

    def breaks(place: str) -> object:
        if broken:
            raise ConnectionError("no route")
        return place

    tools = [bench.tool("alpha", breaks), bench.tool("beta")]
    flow = agent("Use alpha and beta.", tools)
    failed = await bench.runner().start(flow, run_id="r")
    broken = False
    outcome = await bench.runner().resume("r", flow, reopen=True)

    assert isinstance(failed.error, StepFailedError)
    assert "no route" in str(failed.error)
    assert outcome.status is RunStatus.COMPLETED
    assert sorted(bench.ran) == ["ask/1/0-alpha", "ask/1/0-alpha", "ask/1/1-beta"]
    assert bench.stub.calls == 2


async def test_rounds_have_an_end_that_can_be_moved(checkpoints: CheckpointStorage) -> None:
    """Two rounds of three: the run fails with what to do, and goes on from there with more."""
    bench = Bench(checkpoints)
    tools = [bench.tool("alpha"), bench.tool("beta")]
    prompt = "Use alpha, then beta."

    failed = await bench.runner().start(agent(prompt, tools, ONE_AT_A_TIME, max_rounds=2), run_id="r")
    ran_by_then = list(bench.ran)
    outcome = await bench.runner().resume("r", agent(prompt, tools, ONE_AT_A_TIME, max_rounds=3), reopen=True)

    assert isinstance(failed.error, ToolRoundsError)
    assert (failed.error.rounds, failed.error.step_id) == (2, "ask")
    assert ran_by_then == ["ask/1/0-alpha"], "what nobody will be told is not run"
    assert bench.ran == ["ask/1/0-alpha", "ask/2/0-beta"]
    assert outcome.status is RunStatus.COMPLETED
    assert bench.stub.calls == 3


async def test_a_limit_of_its_own_parks_the_run_until_it_is_raised(checkpoints: CheckpointStorage) -> None:
    """What all rounds may cost holds as a ceiling; raised by a person, it stays raised when the run goes on."""
    bench = Bench(checkpoints)
    tools, prompt = [bench.tool("alpha"), bench.tool("beta")], "Use alpha, then beta."
    described = replace(ONE_AT_A_TIME, tools=tuple(Tool.of(tool, leave_out=("context",)) for tool in tools))
    first = PriceBook().upper_bound(prompt, described, provider="stub", model="stub-1")
    flow = agent(prompt, tools, ONE_AT_A_TIME, max_cost=first + 1000)

    parked = await bench.runner().start(flow, run_id="r")
    spent = (await bench.budget.usage("run:r/ask"))[0].spent
    await bench.budget.set_limit("run:r/ask", 10**9)
    outcome = await bench.runner().resume("r", flow)

    assert parked.status is RunStatus.WAITING
    assert 0 < spent <= first + 1000
    assert outcome.status is RunStatus.COMPLETED
    assert (await bench.budget.usage("run:r/ask"))[0].limit == 10**9
    assert (await bench.budget.usage("run:r/ask"))[0].spent == outcome.cost


async def test_calls_that_tools_make_are_within_the_limit(checkpoints: CheckpointStorage) -> None:
    """They are charged to its scope too."""
    bench = Bench(checkpoints)

    async def alpha(place: str, context: StepContext) -> str:
        """Use it."""
        return (await context.llm(f"What of {place}?", LLMConfig(max_tokens=5))).content

    outcome = await bench.run("Use alpha.", tools=[alpha], max_cost=10**9)

    spent: Microcents = (await bench.budget.usage("run:r/ask"))[0].spent
    assert bench.stub.calls == 3
    assert spent == outcome.cost


async def test_a_choice_that_forces_a_call_forces_one(checkpoints: CheckpointStorage) -> None:
    """The first round must call a tool; the next ones are the model's to decide, or it would never end."""
    bench = Bench(checkpoints)

    outcome = await bench.run("Say hello.", "alpha", config=LLMConfig(tool_choice="required", tools=(Tool(name="x"),)))

    assert outcome.status is RunStatus.COMPLETED
    assert [config.tool_choice for config in bench.stub.configs] == ["required", "auto"]


async def test_tools_that_cannot_be_run_are_refused_before_any_call(checkpoints: CheckpointStorage) -> None:
    """No function, two of a name, no async function, no rounds, no store for the limit."""
    bench = Bench(checkpoints)

    def plain(place: str) -> str:
        return place

    cases: list[tuple[list[Any], dict[str, Any], str]] = [
        ([Tool(name="f")], {}, "no function"),
        ([bench.tool("alpha"), bench.tool("alpha")], {}, "two tools are called 'alpha'"),
        ([plain], {}, "async def"),
        ([bench.tool("alpha")], {"max_rounds": 0}, "at least 1"),
    ]
    for number, (tools, options, says) in enumerate(cases):
        outcome = await bench.runner().start(agent("Look.", tools, **options), run_id=f"r{number}")
        assert isinstance(outcome.error, InvalidInputError)
        assert says in str(outcome.error)
    without = runner_on(bench.checkpoints, guarded=bench.stub)
    outcome = await without.start(agent("Look.", [bench.tool("alpha")], max_cost=1), run_id="other")

    assert isinstance(outcome.error, ConfigurationError)
    assert bench.stub.calls == 0


@pytest.mark.parametrize("after_effect", [False, True], ids=["before the effect", "after the effect"])
async def test_a_crash_at_each_verb_repeats_nothing_that_is_on_record(after_effect: bool) -> None:  # noqa: FBT001  # a parameter of the test
    """Dead at the first verb of the store, at the second, …: a recorded tool never runs again, nor a recorded round."""
    dies_at = 0
    while True:
        dies_at += 1
        inner = forgiving_store()
        bench = Bench(inner)
        tools = [bench.tool("alpha"), bench.tool("beta")]
        flow = agent("Use alpha, then beta.", tools, ONE_AT_A_TIME)
        mortal = MortalStore(inner, dies_at=dies_at, after_effect=after_effect)
        try:
            await bench.runner(mortal).start(flow, run_id="r")
            break
        except* ProcessDiedError:
            pass
        before = {step.step_id for step in await inner.history("r")} if await inner.head("r") else set()
        ran = len(bench.ran)
        head = await inner.head("r")
        if head is None:
            await bench.runner().start(flow, run_id="r")
        elif head.status is not RunStatus.COMPLETED:
            await bench.runner().resume("r", flow)
        head = await inner.head("r")

        assert head is not None
        assert head.status is RunStatus.COMPLETED
        assert not before & set(bench.ran[ran:])
        assert bench.stub.calls == 3
    assert dies_at > 6
