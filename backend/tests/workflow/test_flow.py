"""A flow file runs like a workflow, resumes without its file, and is refused by its place where it is wrong."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from app.errors import DocumentError, InvalidInputError, WorkflowChangedError, WorkflowDefinitionError
from app.skills.llm_invoke_v2 import LLMConfig, LLMResponse
from app.stores.checkpoint.contract import CheckpointStorage, RunStatus
from app.workflow.flow import SKILLS, Flow, SkillCall, load_flow, parse_flow

from .support import ScriptedAdapter, runner_on

EXAMPLES = Path(__file__).resolve().parents[3] / "examples"

FLOW = """\
name: digest
version: 2
inputs:
  documents: {type: documents, description: what to read}
  topic: {type: string, default: bridges}
  tokens: {type: integer, default: 50}
  warmth: {type: number, default: null}
  model: {type: string, default: ""}
defaults:
  model: "{{ model }}"
  temperature: "{{ warmth }}"
steps:
  - id: notes
    map: documents
    as: document
    concurrency: 3
    max_chars: 10
    system: You read about {{ topic }}.
    config: {max_tokens: "{{ tokens }}", extra: {frequency_penalty: "{{ warmth }}", fixed: 1}}
    prompt: |
      {{ document.name }}{% if document.cut %} (cut){% endif %}: {{ document.text }}
  - id: short
    skill: template
    map: notes
    as: note
    prompt: "{{ note.name }}={{ note.text | cut(12) | lower }}"
  - id: brief
    prompt: |
      {% for each in short %}
      {{ loop.index }}. {{ each.name }}: {{ each.text }}
      {% endfor %}
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Give a folder of three documents."""
    folder = tmp_path / "papers"
    folder.mkdir()
    for name, text in (("a.txt", "one two three four"), ("b.txt", "five"), ("c.txt", "six seven eight nine")):
        (folder / name).write_text(text)
    return folder


class Recording(ScriptedAdapter):
    """Keeps the configs too."""

    def __init__(self) -> None:
        super().__init__()
        self.configs: list[LLMConfig] = []

    async def invoke(self, prompt: Any, config: LLMConfig | None = None, *, context: Any = None) -> LLMResponse:
        """Keep it."""
        assert config is not None
        self.configs.append(config)
        return await super().invoke(prompt, config, context=context)


async def test_a_flow_runs_its_steps_over_documents(checkpoints: CheckpointStorage, folder: Path) -> None:
    """Prompts are filled in with inputs, documents and earlier outputs; settings are templates over the inputs."""
    adapter, flow = Recording(), parse_flow(FLOW)

    inputs = await asyncio.to_thread(flow.read_inputs, {"documents": str(folder), "tokens": "7", "warmth": 0.5})
    outcome = await runner_on(checkpoints, guarded=adapter).start(flow.workflow(), inputs, run_id="r")

    lines = ["1. A.TXT: A.TXT=A.TXT (CUT):", "2. B.TXT: B.TXT=B.TXT: FIVE", "3. C.TXT: C.TXT=C.TXT (CUT):"]
    assert outcome.value().splitlines() == lines
    prompts = [prompt for prompt, _ in adapter.calls]
    assert prompts[:3] == ["a.txt (cut): one two", "b.txt: five", "c.txt (cut): six seven"]
    assert adapter.configs[0] == LLMConfig(
        max_tokens=7,
        temperature=0.5,
        system="You read about bridges.",
        extra={"frequency_penalty": 0.5, "fixed": 1},
    )
    assert [record.step_id for record in await checkpoints.history("r")][-1] == "brief"


async def test_a_flow_resumes_without_its_file(checkpoints: CheckpointStorage, folder: Path) -> None:
    """A run of a flow is resumed from what is recorded: neither the file nor the documents are read again."""
    broken = True

    def answer(prompt: str) -> str:
        if broken and prompt.startswith("c"):
            raise RuntimeError("boom")
        return prompt.upper()

    adapter = ScriptedAdapter(answer)
    file = folder.parent / "flow.yaml"
    file.write_text(FLOW)
    runner = runner_on(checkpoints, guarded=adapter)
    flow = await asyncio.to_thread(load_flow, file)
    inputs = await asyncio.to_thread(flow.read_inputs, {"documents": str(folder)})
    first = await runner.start(flow.workflow(), inputs, run_id="r")

    file.unlink()
    for path in folder.iterdir():
        path.write_text("changed")
    broken = False
    outcome = await runner.resume("r", reopen=True)

    assert first.status is RunStatus.FAILED
    assert "2. B.TXT" in outcome.value()
    assert outcome.steps_replayed == 2
    assert not any("changed" in prompt for prompt, _ in adapter.calls)


async def test_a_changed_flow_is_refused_and_a_changed_layout_is_not(
    checkpoints: CheckpointStorage, folder: Path
) -> None:
    """The version of a flow is the hash of what it says: another prompt is another version, a comment is not."""
    adapter = ScriptedAdapter(lambda prompt: prompt[len(prompt)])
    runner = runner_on(checkpoints, guarded=adapter)
    flow = parse_flow(FLOW)
    inputs = await asyncio.to_thread(flow.read_inputs, {"documents": str(folder)})
    await runner.start(flow.workflow(), inputs, run_id="r")
    adapter.answer = str.upper

    with pytest.raises(WorkflowChangedError):
        await runner.resume("r", parse_flow(FLOW.replace("You read", "You think")).workflow(), reopen=True)
    relaid = parse_flow("# a comment\n" + FLOW.replace("inputs:\n", "inputs:   # more\n\n"))
    outcome = await runner.resume("r", relaid.workflow(), reopen=True)

    assert relaid.version == flow.version
    assert outcome.status is RunStatus.COMPLETED


async def test_a_flow_may_use_skills_of_the_program(checkpoints: CheckpointStorage) -> None:
    """A skill is an async function of a call; the output that is named is the result, a list where it was mapped."""

    async def shout(call: SkillCall) -> str:
        return call.prompt.upper()

    flow = parse_flow(
        "name: f\ninputs: {documents: {type: documents}}\noutput: a\n"
        "steps:\n"
        "  - {id: a, skill: shout, map: documents, prompt: 'x {{ item.text }}'}\n"
        "  - {id: b, skill: shout, prompt: 'not the result'}\n",
        skills={**SKILLS, "shout": shout},
    )

    inputs = await asyncio.to_thread(flow.read_inputs, {"documents": str(EXAMPLES / "documents")})
    outcome = await runner_on(checkpoints).start(flow.workflow(), inputs, run_id="r")

    assert len(outcome.value()) == len(inputs["documents"])  # type: ignore[arg-type]  # a list of documents
    assert all(text.startswith("X ") for text in outcome.value())


def test_the_example_is_a_valid_flow_whose_inputs_are_all_optional() -> None:
    """The example flow reads the documents beside it, and its settings fit a small model when they are given so."""
    flow = load_flow(EXAMPLES / "brief.yaml")

    inputs = flow.read_inputs({"note_chars": "1000", "seed": "7", "frequency_penalty": "0.6"})

    assert len(inputs["documents"]) >= 10  # type: ignore[arg-type]  # a list of documents
    assert flow.name == "brief"


def one(line: str, **places: str) -> str:
    """Return a flow of one step, with a line changed or added."""
    step = {"id": "a", "prompt": "hi", **places}
    body = "".join(f"    {key}: {value}\n" for key, value in step.items())
    return f"name: x\n{line}\nsteps:\n  - skill: llm\n{body}"


BAD_FLOWS = [
    ("name: [\n", r"f\.yaml:2:1: not valid YAML"),
    ("name: a\nname: b\n", r"f\.yaml:2:1: not valid YAML: the key 'name' twice"),
    ("name: &n a\nsteps: *n\n", r"f\.yaml:1:7: .*anchors"),
    ("a: " + "[" * 60 + "]" * 60, r"f\.yaml:1:\d+: .*nested more than 32"),
    ("? [a]\n: b\n", r"f\.yaml:1:3: .*plain text"),
    ("name: !!python/object/apply:os.system [ls]\n", r"f\.yaml:1:7: .*could not determine a constructor"),
    ("", r"f\.yaml: the file is empty"),
    ("- a\n", r"f\.yaml:1:1: a flow is a mapping"),
    ("x" * 300_000, r"f\.yaml: a flow has at most"),
    ("name: x\n", r"f\.yaml:1:1: the key 'steps' is missing"),
    ("name: x\nsteps: []\n", r"f\.yaml:2:1: steps: "),
    (one("inptus: {}"), r"f\.yaml:2:1: unknown key 'inptus'; did you mean 'inputs'\?"),
    (one("", promt="x"), r"f\.yaml:\d:5: unknown key 'promt'; did you mean 'prompt'\?"),
    (one("", config="{max_tokns: 3}"), r"f\.yaml:\d:14: unknown key 'max_tokns'; did you mean 'max_tokens'\?"),
    (one("inputs: {d: {type: folder}}"), r"f\.yaml:2:14: inputs\.d\.type: "),
    (one("inputs: {D: {type: string}}"), r"f\.yaml:2:10: 'D' is not valid: a name is"),
    (one("", id="A b"), r"f\.yaml:5:5: 'id' is not valid: a name is"),
    (one("", id="loop"), r"f\.yaml:5:5: the name 'loop' is taken"),
    (one("inputs: {a: {type: string}}"), r"f\.yaml:5:5: the name 'a' is taken"),
    (one("", skill="lllm"), r"f\.yaml:\d:5: .*(twice|unknown skill 'lllm'; there are: llm, template)"),
    (one("", map="docs"), r"f\.yaml:\d:5: 'docs' is no list of documents or outputs; there are: none"),
    (one("", max_chars="5"), r"f\.yaml:\d:5: max_chars cuts the item of a step with `map:`"),
    (one("output: b"), r"f\.yaml:2:1: there is no step 'b'"),
    (one("", prompt="'{{ topic }}'"), r"f\.yaml:6:1: unknown variable 'topic'; there are: none"),
    (one("", prompt="|\n      one\n      {{ topic }}"), r"f\.yaml:8:1: unknown variable 'topic'"),
    (one("", prompt="'{{ '"), r"f\.yaml:6:1: not a valid template"),
    (one("", retries="-1"), r"f\.yaml:\d:5: steps\.0\.retries: "),
    (one("", config="{max_tokens: 0}"), r"f\.yaml:\d:5: step 'a': max_tokens must be an int of at least 1"),
    (one("", config="{max_tokens: few}"), r"f\.yaml:\d:14: max_tokens must be a whole number \('few' given\)"),
    (one("", config="{max_tokens: .nan}"), r"f\.yaml:\d:26: not valid YAML: not a number that is finite"),
    (one("", retries="-.inf"), r"f\.yaml:\d:14: not valid YAML: not a number that is finite"),
    (one("", retries="9" * 5000), r"f\.yaml:\d:14: not valid YAML: not a number"),
    (one("", config="{temperature: " + "9" * 400 + "}"), r"f\.yaml:\d:27: not valid YAML: not a number"),
    (one("", retries="0b_"), r"f\.yaml:\d:14: not valid YAML: not a number"),
    (one("a\0b"), r"f\.yaml: not valid YAML: "),
    (one("", prompt=r'"\uD800"'), r"f\.yaml:\d:5: steps\.0\.prompt: .*valid string"),
    (one("", concurrency="300"), r"f\.yaml:\d:5: concurrency must be from 1 to 256"),
]


@pytest.mark.parametrize(("text", "says"), BAD_FLOWS)
def test_a_flow_that_is_wrong_is_refused_by_line_and_column(text: str, says: str) -> None:
    """Whatever is wrong in a flow is one error that names the file, the place, and what to write."""
    with pytest.raises(WorkflowDefinitionError, match=rf"^{says}"):
        parse_flow(text, source="f.yaml").read_inputs({})


def small_flow() -> Flow:
    """Return a flow with an input of each type."""
    return parse_flow(
        "name: small\ninputs:\n"
        "  text: {type: string}\n  whole: {type: integer, default: 3}\n"
        "  number: {type: number, default: 1}\n  yes: {type: boolean, default: false}\n"
        "steps:\n  - {id: a, prompt: 'hi', config: {max_tokens: '{{ whole }}'}}\n"
    )


def test_inputs_are_turned_into_their_types() -> None:
    """Texts of a command line become what the flow says; defaults fill in the rest."""
    flow = small_flow()

    assert flow.read_inputs({"text": "5"}) == {"text": "5", "whole": 3, "number": 1.0, "yes": False}
    assert flow.read_inputs({"text": "", "whole": "8", "number": "2.5", "yes": "yes"}) == {
        "text": "",
        "whole": 8,
        "number": 2.5,
        "yes": True,
    }


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({}, "needs the input 'text' .string.; its inputs are: text, whole, number, yes"),
        ({"text": "x", "more": "y"}, "has no input 'more'"),
        ({"text": 5}, "'text' must be a text"),
        ({"text": "x", "whole": "2.5"}, "'whole' must be a whole number .'2.5' given"),
        ({"text": "x", "whole": "many"}, "'whole' must be a whole number"),
        ({"text": "x", "number": "nan"}, "'number' must be a number"),
        ({"text": "x", "number": 10**400}, "'number' must be a number"),
        ({"text": "x", "yes": "maybe"}, "'yes' must be true or false"),
    ],
)
def test_inputs_of_another_type_are_refused(given: dict[str, object], says: str) -> None:
    """An input that is missing, unknown or not of its type is refused by its name, before there is a run."""
    with pytest.raises(InvalidInputError, match=says):
        small_flow().read_inputs(given)


def test_settings_that_inputs_make_wrong_are_refused_before_the_run() -> None:
    """A number that an input puts into the settings is checked when the inputs are read."""
    with pytest.raises(WorkflowDefinitionError, match="max_tokens must be an int of at least 1"):
        small_flow().read_inputs({"text": "x", "whole": "0"})


@pytest.mark.parametrize("text", ["nan", "-inf", "1e400", "9" * 400])
def test_a_parameter_that_reads_as_no_finite_number_stays_a_text(text: str) -> None:
    """What an input makes of a parameter in ``extra`` can always be sent as JSON."""
    flow = parse_flow(
        "name: x\ninputs: {s: {type: string}}\nsteps:\n  - {id: a, prompt: hi, config: {extra: {p: '{{ s }}'}}}\n"
    )
    inputs = flow.read_inputs({"s": text})

    assert flow._settings.config(0, inputs).extra["p"] == text


def test_documents_of_a_flow_are_read_or_refused_at_the_start(tmp_path: Path) -> None:
    """A path without documents is a DocumentError before there is a run; something else than a path is refused too."""
    flow = parse_flow(FLOW)

    with pytest.raises(DocumentError):
        flow.read_inputs({"documents": str(tmp_path)})
    with pytest.raises(InvalidInputError, match="path of a text file"):
        flow.read_inputs({"documents": []})


@pytest.mark.parametrize("path", ["", "  ", "\n", "a\0b", "~nobody-of-this-name/papers"])
def test_a_path_that_names_nothing_is_refused(path: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An empty path is not the current folder, and an unknown home is told with the input's name."""
    monkeypatch.chdir(folder)

    with pytest.raises(InvalidInputError, match="'documents'"):
        parse_flow(FLOW).read_inputs({"documents": path})


def test_a_flow_file_that_cannot_be_read_is_refused(tmp_path: Path) -> None:
    """A missing file, a folder and a file that is not UTF-8 are errors of the definition."""
    latin = tmp_path / "latin.yaml"
    latin.write_bytes(b"name: \xe9")

    for path in (tmp_path / "missing.yaml", tmp_path, latin):
        with pytest.raises(WorkflowDefinitionError, match=path.name):
            load_flow(path)
