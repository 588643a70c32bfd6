"""Docstrings and help texts are plain English: verb first, the field's words, no idioms."""

import ast
import re
from collections.abc import Iterator
from functools import cache

import click
import pytest

from authz_server.cli.root import main
from support.source_tree import PACKAGES, ROOT

#: Each expression with a text that it finds.
IDIOMS = {
    r"\b(whoever|whomever|whatever|nobody|somebody|anybody|everybody)\b": "whoever asks",
    r"\b(lest|anew|by now|so long)\b": "opened anew",
    r"\b(tell|tells|told|hear|hears|heard)\b": "hears of outages",
    # A person or a text that says; "as it says" for what a file holds.
    r"\b(say|says|said|speaks?)\b": "what the settings say",
    # Native: "there is no backend", "is no longer", "is no later than".
    r"(?<!\bthere )\b(is|are|was|were) no (?!longer\b|later than|more than|less than|\d)\w+": (
        "it is no backend"
    ),
    # Literal: "sign on the token", "signatures move on a schedule".
    r"\b(move|moves|moved|moving|sign|signs|live|lives|go|goes) on\b(?! (a|an|the|each|two)\b)": (
        "the key signs on"
    ),
    r"\bfrom \w+ on\b": "from now on",
    r"\b(have|has) (a|an|the|each|every|its|their) \w+ (make|know|begin|carry|wait|come|keep)\b": (
        "have the backend make a key"
    ),
    r"\bthe (mint|one door|door in|door)\b": "the one door",
    r"\b(for good|by hand)\b": "deleted for good",
}
#: A summary line begins with a verb or a noun.
OPENING = re.compile(r"(What|Whether|Who|Whose|How|Where|When)\b")
#: Attributes and properties may be questions: "Whether the limits apply."
NOUNS_ALLOWED = re.compile(r"Whether\b")
EXPRESSION = re.compile("|".join(f"(?:{each})" for each in IDIOMS), re.IGNORECASE)


def _is_property(node: ast.AST) -> bool:
    decorators = getattr(node, "decorator_list", [])
    return any("property" in ast.unparse(each) for each in decorators)


@cache
def _docstrings() -> tuple[tuple[str, str, bool], ...]:
    """Return place and text of each docstring, and whether it is a property's."""
    return tuple(_read_docstrings())


def _read_docstrings() -> Iterator[tuple[str, str, bool]]:
    for package in (*PACKAGES, "verifier/src"):
        for path in sorted((ROOT / package).rglob("*.py")):
            name = str(path.relative_to(ROOT))
            for node in ast.walk(ast.parse(path.read_text())):
                if isinstance(
                    node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef
                ):
                    text = ast.get_docstring(node)
                    if text:
                        place = f"{name}:{getattr(node, 'name', '')}"
                        yield place, " ".join(text.split()), _is_property(node)


def _commands(command: click.Command, words: str) -> Iterator[tuple[str, click.Command]]:
    yield words, command
    if isinstance(command, click.Group):
        context = click.Context(command)
        for name in command.list_commands(context):
            below = command.get_command(context, name)
            assert below is not None, name
            yield from _commands(below, f"{words} {name}")


def _help_texts() -> Iterator[tuple[str, str]]:
    """Yield the help of each command and of each of its options."""
    for words, command in _commands(main, "authz-server"):
        yield words, command.help or ""
        for parameter in command.params:
            if isinstance(parameter, click.Option):
                yield f"{words} {parameter.opts[0]}", parameter.help or ""


def test_docstrings_hold_no_idioms():
    """No docstring of a module, class or function holds an idiom of the list."""
    found = [
        f"{place}: {match[0]!r}"
        for place, text, _ in _docstrings()
        for match in EXPRESSION.finditer(text)
    ]
    assert found == []


def test_docstrings_begin_with_a_verb_or_a_noun():
    """No docstring begins with a question word; a property may begin with "Whether"."""
    found = [
        f"{place}: {text[:80]}"
        for place, text, is_property in _docstrings()
        if OPENING.match(text) and not (is_property and NOUNS_ALLOWED.match(text))
    ]
    assert found == []


def test_help_texts_hold_no_idioms():
    """No help text of a command or option holds an idiom of the list."""
    texts = list(_help_texts())
    assert len(texts) > 200
    found = [
        f"{place}: {match[0]!r}" for place, text in texts for match in EXPRESSION.finditer(text)
    ]
    assert found == []


def test_docstrings_are_found():
    """The walk meets many docstrings, so that the rules above are not empty."""
    assert len(_docstrings()) > 500


@pytest.mark.parametrize(("idiom", "example"), IDIOMS.items())
def test_each_idiom_is_found(idiom, example):
    """Each expression of the list finds its example."""
    assert re.search(idiom, example, re.IGNORECASE)


@pytest.mark.parametrize(
    "text", ["It is no longer valid.", "Sign on the token.", "There is no such key."]
)
def test_plain_english_is_not_found(text):
    """Plain sentences are no finding."""
    assert EXPRESSION.search(text) is None
