"""A template shows values, and can do nothing else."""

from __future__ import annotations

import time

import pytest

from app.errors import WorkflowDefinitionError
from app.workflow.documents import Document
from app.workflow.flow_templates import Known, TemplateProblemError, compile_template

ITEM = Known(attributes=frozenset({"name", "text"}))
NAMES = {
    "document": ITEM,
    "documents": Known(items=frozenset({"name", "text"})),
    "topic": Known(),
    "anything": Known(attributes=None),
}


def render(source: str, **values: object) -> str:
    """Compile and fill in."""
    return compile_template(source, names=NAMES, where="here").render({"topic": "t", **values})


@pytest.mark.parametrize(
    "source",
    [
        "{{ ''.__class__.__mro__ }}",
        "{{ document.__init__ }}",
        "{{ document['__class__'] }}",
        "{{ document|attr('__class__') }}",
        "{{ document['_' ~ '_class_' ~ '_'] }}",
        "{{ documents|map(attribute='__class__')|first }}",
        "{{ topic.format(document) }}",
        "{{ '%s'|format(document) }}",
        "{{ self._TemplateReference__context }}",
        "{{ lipsum.__globals__ }}",
        "{{ cycler }}",
        "{{ range(10**9) }}",
        "{{ 'a' * 1000000000 }}",
        "{{ 9 ** 9 ** 9 }}",
        "{{ topic ~ topic }}",
        "{{ topic + topic }}",
        "{{ 'x'|center(1000000000) }}",
        "{{ topic|replace('', 'xxxxxxxx') }}",
        "{% include '/etc/passwd' %}",
        "{% import 'os' as os %}",
        "{% extends 'base' %}",
        "{% macro m() %}{% endmacro %}",
        "{% set x = topic %}",
        "{% block b %}{% endblock %}",
        "{% call f() %}{% endcall %}",
        "{% filter upper %}x{% endfilter %}",
        "{% for a, b in documents %}{% endfor %}",
        "{% for topic in documents %}{% endfor %}",
        "{% for a in documents %}{% for b in documents %}{% for c in documents %}{% endfor %}{% endfor %}{% endfor %}",
        "{% for a in documents recursive %}{{ loop(documents) }}{% endfor %}",
        "{% for a in documents %}{{ a.__class__ }}{% endfor %}",
        "{% for a in documents %}{{ a.txet }}{% endfor %}",
        "{{ document.txet }}",
        "{{ topic.upper }}",
        "{{ unknown }}",
        "{% if unknown is defined %}{% endif %}",
        "{{ topic|unknown }}",
        "{{ topic is unknown }}",
        "{{ topic is callable }}",
        "{% for loop in documents %}{% endfor %}",
        "{% for letter in topic %}{% endfor %}",
        "{% for part in document %}{% endfor %}",
        "{{ documents|map('nope') }}",
        "{{ documents|map('_items', 1) }}",
        "{{ documents|map(topic) }}",
        "{{ documents|map(*['upper']) }}",
        "{{ topic|cut(**{}) }}",
        "{{ topic|cut(max_chars=1, max_chars=2) }}",
        "{{ 1e400 }}",
        "{{ " + "9" * 5000 + " }}",
        "{{ " + "(" * 3000 + "1" + ")" * 3000 + " }}",
        "{{ " + "not " * 3000 + "1 }}",
        "{{ " + "not " * 60 + "1 }}",
        "{% if topic %}" * 60 + "{% endif %}" * 60,
        "{{ _work }}",
        "{{ topic|_weigh(1) }}",
    ],
)
def test_what_is_more_than_showing_values_is_refused_before_it_runs(source: str) -> None:
    """Calls, assignments, arithmetic, imports, private attributes and unknown names do not pass the check."""
    with pytest.raises(TemplateProblemError):
        compile_template(source, names=NAMES, where="here")


@pytest.mark.parametrize(
    ("source", "text"),
    [
        ("{{ topic }}", "t"),
        ("{{ document.name }}: {{ document.text | cut(3) }}", "n: a b"),
        (
            "{% for d in documents %}{{ loop.index }}{{ d.name }}{% if not loop.last %}, {% endif %}{% endfor %}",
            "1x, 2y",
        ),
        ("{{ documents | map(attribute='name') | join('+') }}", "x+y"),
        ("{{ documents | length }}", "2"),
        ("{% if topic == 't' and documents %}yes{% else %}no{% endif %}", "yes"),
        ("{{ anything.key | default('none') }}", "none"),
        ("{{ (documents | first).name | upper }}", "X"),
        ("{{ documents[1].name }}", "y"),
        ("{% for d in documents if d.name != 'x' %}{{ d.text }}{% endfor %}", "2"),
        ("{{ 'a' if topic in ['t', 'u'] else 'b' }}", "a"),
        ("{{ topic is in ['t'] }} {{ 'ab' is eq 'ab' }} {{ 3 is odd }} {{ 3 is even }}", "True True True False"),
        ("{{ document }}", "a b c"),
        ("{{ documents | join(' ', attribute='name') }} {{ [1, 'b'] | join }}", "x y 1b"),
        ("{{ documents | map('upper') | last }} {{ documents | reverse | map(attribute='name') | first }}", "2 y"),
        ("{{ ['b', 'A', 'c'] | sort | join }} {{ ['b', 'A', 'B'] | sort(true, true) | join }}", "Abc bBA"),
        ("{{ ['b', 'B', 'a'] | unique | join }} {{ documents | sort(attribute='text') | length }}", "ba 2"),
        ("{{ 42.55 | round }} {{ 42.55 | round(1, 'floor') }} {{ 1234 | round('-2'|int) }}", "43.0 42.5 1200"),
        ("{{ '42.2' | int }} {{ 'ff' | int(base=16) }} {{ '1e400' | float | int }} {{ 'x' | int(7) }}", "42 255 0 7"),
        ("{{ '2.5' | float }} {{ 'x' | float(1.5) }} {{ 3.9 | int }}", "2.5 1.5 3"),
        (
            "{{ 'foo bar baz qux' | truncate(11, false, '...', 0) }} {{ 'foo bar baz' | truncate(6) }}",
            "foo bar... foo bar baz",
        ),
        ("{{ 'foo bar baz qux' | truncate(9) }} {{ 'foo bar baz qux' | truncate(9, true) }}", "foo... foo ba..."),
        (
            "{{ ' a ' | trim }}{{ 'xax' | trim('x') }} {{ 'two words' | title }} {{ 'two words' | wordcount }}",
            "aa Two Words 2",
        ),
        ("{{ 'aB' | capitalize }} {{ 'aB' | lower }} {{ 'aB' | reverse }} {{ 'abc'[1:] }}", "Ab ab Ba bc"),
        ("{{ " + "not " * 40 + "1 }}", "True"),
        ("{% if topic %}" * 45 + "x" + "{% endif %}" * 45, "x"),
    ],
)
def test_values_are_shown(source: str, text: str) -> None:
    """Variables, attributes, loops, conditions and bounded filters work."""
    documents = [Document("x", "1"), Document("y", "2")]

    assert render(source, document=Document("n", "a b c"), documents=documents, anything={}) == text


def test_a_text_without_end_is_cut_off_by_an_error() -> None:
    """A template whose text grows beyond the limit is an error, long before it fills the memory."""
    source = "{% for a in documents %}{% for b in documents %}{{ b.text }}{% endfor %}{% endfor %}"

    with pytest.raises(WorkflowDefinitionError, match=r"here: the text is longer than 4,000,000"):
        render(source, documents=[Document("d", "x" * 100_000)] * 1000)


@pytest.mark.parametrize("source", ["{{ anything.missing }}", "{{ anything.missing.more }}", "{{ anything | round }}"])
def test_a_value_that_is_not_there_is_an_error_with_its_place(source: str) -> None:
    """What is missing when a template is filled in is never shown as nothing."""
    with pytest.raises(WorkflowDefinitionError, match=r"^here: the template cannot be filled in"):
        render(source, anything={"a": "b"})


BIG = "x" * 2_000_000
COSTLY = {
    "a join in a join": "{{ a|join(a|join(a|join)) }}",
    "a join as long as the text it separates": "{{ ['x', 'y', 'z']|join(text) }}",
    "joins of a map": "{{ [a, a, a]|map('join', text)|join }}",
    "a loop over a text": "{% for x in text|lower %}{% endfor %}",
    "a loop over a constant": "{% for x in 'abc' %}{% endfor %}",
    "loops in loops": "{% for x in many %}{% for y in many %}{% endfor %}{% endfor %}",
    "a long body in a loop": "{% for x in many %}" + "{% if text %}{% endif %}" * 2000 + "{% endfor %}",
    "filters in a loop": "{% for x in many %}{% if text|upper %}{% endif %}{% endfor %}",
    "comparisons in a loop": "{% for x in many %}{% if text == text|lower %}{% endif %}{% endfor %}",
    "tests in a loop": "{% for x in many %}{% if text is eq text %}{% endif %}{% endfor %}",
    "searches in a loop": "{% for x in many if 'yx' in text %}{% endfor %}",
    "slices in a loop": "{% for x in many %}{% if text[1:] %}{% endif %}{% endfor %}",
    "a sort of long texts": "{{ [" + "text," * 200 + "]|sort|length }}",
    "a list as a text": "{{ [text, text, text] }}",
    "a list of lists, compared": "{{ [[" + "many," * 300 + "]] == [[" + "many," * 300 + "]] }}",
    "a list of filtered texts": "{{ [" + "text|upper," * 200 + "]|length }}",
    "a trim of every character": "{{ text|trim(text) }}",
    "a huge power": "{{ 5|round('-1000000000'|int) }}",
    "a huge power of ten": "{{ 3.5|round(1000000000, 'ceil') }}",
    "a format by a remainder": "{{ '%1000000000d' is odd }}",
    "a number of many digits": "{{ text|int|round(400) }}",
}


@pytest.mark.parametrize("source", COSTLY.values(), ids=COSTLY)
def test_what_would_take_much_work_or_memory_is_refused(source: str) -> None:
    """No template computes for long or fills the memory, whatever it does with large inputs."""
    names = {"text": Known(), "a": Known(attributes=None), "many": Known(items=frozenset())}
    template = compile_template(source, names=names, where="here")

    began = time.process_time()
    with pytest.raises(WorkflowDefinitionError, match=r"^here: "):
        template.render({"text": BIG, "a": ["y" * 100] * 100, "many": ["z"] * 20_000})

    assert time.process_time() - began < 5


def test_a_join_is_refused_before_it_is_made() -> None:
    """The length of a join is known before it takes memory."""
    names = {"a": Known(attributes=None)}
    template = compile_template("{{ a|join(a|join(a|join))|length }}", names=names, where="here")

    with pytest.raises(WorkflowDefinitionError, match=r"join gives 99,\d+,\d+ characters"):
        template.render({"a": ["y" * 100] * 100})


@pytest.mark.parametrize(
    "source",
    [
        "{{ topic|truncate(1) }}",
        "{{ 3.5|round(400, 'ceil') }}",
        "{{ topic|cut('inf'|float) }}",
        "{{ topic|cut('-1'|int) }}",
        "{{ topic|int(base=1) }}",
        "{{ topic|cut }}",
        "{{ documents|map(attribute='name') }}",
        "{{ documents|map(attribute='upper') }}",
        "{{ documents|map }}",
        "{{ documents|round }}",
        "{{ topic is even }}",
        "{{ ['a', 1]|sort|length }}",
        "{{ documents|first|upper|first|first }}{{ 0|length }}",
    ],
)
def test_a_filter_that_cannot_do_what_it_is_asked_for_is_an_error_with_its_place(source: str) -> None:
    """Arguments that a filter cannot take are errors of the flow, never a fault."""
    with pytest.raises(WorkflowDefinitionError, match=r"^here: the template cannot be filled in"):
        render(source, documents=[Document("x", "1")])


def test_the_sandbox_stands_behind_the_check() -> None:
    """A private attribute that is named by a value, which no check can see, is refused by the sandbox."""
    with pytest.raises(WorkflowDefinitionError, match="unsafe"):
        render("{{ anything[topic] }}", anything="text", topic="__class__")


def test_a_problem_says_its_line() -> None:
    """The line of a problem is counted within the template."""
    with pytest.raises(TemplateProblemError) as caught:
        compile_template("one\ntwo {{ topic }}\n{{ nothing }}\n", names=NAMES, where="here")

    assert caught.value.line == 3
