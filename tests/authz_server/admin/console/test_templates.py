"""The templates: none takes a member of a list that may be empty."""

import pytest
from jinja2 import Environment, nodes

from authz_server.admin.console.rendering import environment

_OF_A_MEMBER = {"first", "last", "max", "min", "random"}


def _unguarded(parsed: nodes.Template) -> list[int]:
    """Return the lines that take a member of a list, and do not say what an empty one gives."""
    guarded = {
        id(found.node) for found in parsed.find_all(nodes.Filter) if found.name in {"d", "default"}
    }
    filters = [
        found
        for found in parsed.find_all(nodes.Filter)
        if found.name in _OF_A_MEMBER and id(found) not in guarded and not _is_split(found.node)
    ]
    places = [
        found
        for found in parsed.find_all(nodes.Getitem)
        if isinstance(found.arg, nodes.Const | nodes.Neg)
        and not isinstance(getattr(found.arg, "value", 0), str)
    ]
    return [found.lineno for found in (*filters, *places)]


def _is_split(node: nodes.Expr | None) -> bool:
    """Return whether an expression splits a text, of which at least one part is left."""
    return (
        isinstance(node, nodes.Call)
        and isinstance(node.node, nodes.Getattr)
        and node.node.attr == "split"
    )


@pytest.mark.parametrize("name", environment().list_templates(["html"]))
def test_a_template_takes_no_member_of_an_empty_list(name):
    """An undefined value fails the whole page: it is taken with a default, or in a loop."""
    loader = environment().loader
    assert loader is not None
    source, _, _ = loader.get_source(environment(), name)
    assert _unguarded(environment().parse(source)) == []


@pytest.mark.parametrize(
    ("source", "lines"),
    [
        ("{% set one = listed|first %}", [1]),
        ("\n{{ listed|sort|last }}", [2]),
        ("{{ listed[0] }}{{ listed[-1] }}", [1, 1]),
        ("{{ listed|first|default(none) }}{{ listed[:1] }}{{ item['keys'] }}", []),
        ("{{ text.split(':')|last }}", []),
    ],
)
def test_what_takes_a_member_is_found(source, lines):
    assert _unguarded(Environment(autoescape=True).parse(source)) == lines
