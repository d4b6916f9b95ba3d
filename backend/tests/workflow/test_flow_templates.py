"""A template shows values, and can do nothing else."""

from __future__ import annotations

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


def test_the_sandbox_stands_behind_the_check() -> None:
    """A private attribute that is named by a value, which no check can see, is refused by the sandbox."""
    with pytest.raises(WorkflowDefinitionError, match="unsafe"):
        render("{{ anything[topic] }}", anything="text", topic="__class__")


def test_a_problem_says_its_line() -> None:
    """The line of a problem is counted within the template."""
    with pytest.raises(TemplateProblemError) as caught:
        compile_template("one\ntwo {{ topic }}\n{{ nothing }}\n", names=NAMES, where="here")

    assert caught.value.line == 3
