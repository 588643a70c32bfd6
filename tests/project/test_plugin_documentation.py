"""Hooks, their document and their tests are counted against each other; bundled plugins too."""

import ast
import re
import tomllib

import pytest

from authz_server import events, plugin_api
from authz_server.hookspecs import Hooks
from support.settings_example import read_example
from support.source_tree import ROOT, syntax_tree

DOCUMENT = (ROOT / "docs" / "plugins.md").read_text()
TESTS = ROOT / "tests" / "authz_server" / "test_plugin_manager.py"
HOOKS = {name: function for name, function in vars(Hooks).items() if callable(function)}


def section(title):
    """Return the entries (### headings) of one ## section with their texts."""
    text = DOCUMENT.partition(f"\n## {title}\n")[2].partition("\n## ")[0]
    return dict(re.findall(r"^### `([^`]+)`\n(.*?)(?=^### |\Z)", text, re.MULTILINE | re.DOTALL))


def signature(name):
    arguments = HOOKS[name].__code__.co_varnames[1 : HOOKS[name].__code__.co_argcount]
    return f"{name}({', '.join(arguments)})"


def test_the_document_has_each_hook_with_its_arguments_and_no_other():
    assert list(section("Hooks")) == [signature(name) for name in HOOKS]


@pytest.mark.parametrize("name", HOOKS)
def test_document_and_specification_name_the_same_kind(name):
    kind = re.match(r"(Register|Decide|Tell):", HOOKS[name].__doc__)[1]
    assert section("Hooks")[signature(name)].strip().startswith(f"{kind}.")


@pytest.mark.parametrize("name", HOOKS)
def test_each_hook_has_a_test_that_names_it(name):
    functions = [node.name for node in syntax_tree(TESTS).body if isinstance(node, ast.FunctionDef)]
    assert any(function.startswith(f"test_hook_{name}_") for function in functions)


def test_each_test_that_names_a_hook_names_one_that_exists():
    functions = [node.name for node in syntax_tree(TESTS).body if isinstance(node, ast.FunctionDef)]
    named = [function for function in functions if function.startswith("test_hook_")]
    assert [
        one for one in named if not any(one.startswith(f"test_hook_{hook}_") for hook in HOOKS)
    ] == []


def test_each_bundled_plugin_is_documented_declared_and_tested():
    files = {path.stem for path in (ROOT / "plugins").glob("[a-z]*.py")}
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    declared = project["entry-points"]["authz_server.plugins"]

    assert set(section("Bundled plugins")) == set(declared) == files
    for name, place in declared.items():
        assert re.fullmatch(rf"plugins\.{name}:[A-Z]\w+", place)
        assert (ROOT / "tests" / "plugins" / f"test_{name}.py").is_file()


def test_each_setting_of_a_bundled_plugin_is_in_its_section_and_in_the_example():
    prefix = "plugins.settings."
    example = [entry.key.removeprefix(prefix) for entry in read_example() if prefix in entry.key]
    documented = [
        f"{name}.{key}"
        for name, text in section("Bundled plugins").items()
        for key in re.findall(r"^\| `(\w+)` \|", text, re.MULTILINE)
    ]
    assert documented == example


def test_the_published_interface_has_every_event_and_what_the_document_names():
    published = set(plugin_api.__all__)
    assert {event.__name__ for event in events.EVENTS} <= published
    code = re.findall(r"from authz_server\.plugin_api import (.*)", DOCUMENT)
    assert {name for line in code for name in line.split(", ")} <= published
    assert all(hasattr(plugin_api, name) for name in published)
