"""Hooks, their document and their tests are counted against each other; bundled plugins too."""

import ast
import re
import tomllib
from functools import cache

import pytest

from authz_server import plugin_api
from authz_server.audit import events
from authz_server.hookspecs import Hooks
from authz_server.plugin_api import testing
from support.settings_example import read_example
from support.source_tree import ROOT, syntax_tree

DOCUMENT = (ROOT / "docs" / "plugins.md").read_text()
TESTS = sorted((ROOT / "tests" / "authz_server").glob("**/test_plugin_*.py"))
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
    kind = re.match(r"(Register|Decide|Notify):", HOOKS[name].__doc__)[1]
    assert section("Hooks")[signature(name)].strip().startswith(f"{kind}.")


@cache
def hook_tests():
    """Return the names of the functions in the tests of plugins."""
    nodes = (node for path in TESTS for node in syntax_tree(path).body)
    return [node.name for node in nodes if isinstance(node, ast.FunctionDef)]


@pytest.mark.parametrize("name", HOOKS)
def test_each_hook_has_a_test_that_names_it(name):
    functions = hook_tests()
    assert any(function.startswith(f"test_hook_{name}_") for function in functions)


def test_each_test_that_names_a_hook_names_one_that_exists():
    functions = hook_tests()
    named = [function for function in functions if function.startswith("test_hook_")]
    assert [
        one for one in named if not any(one.startswith(f"test_hook_{hook}_") for hook in HOOKS)
    ] == []


def test_each_bundled_plugin_is_documented_declared_and_tested():
    files = {
        path.stem
        for path in (ROOT / "plugins").glob("[a-z]*")
        if path.suffix == ".py" or (path / "__init__.py").exists()
    }
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
        for key in re.findall(r"^\| `([\w.]+)` \|", text, re.MULTILINE)
    ]
    assert documented == example


def test_the_published_interface_has_every_event_and_what_the_document_names():
    published = set(plugin_api.__all__)
    assert {event.__name__ for event in events.EVENTS} <= published
    assert {name for module, name in imported() if module == "authz_server.plugin_api"} <= published
    assert all(hasattr(plugin_api, name) for name in published)


def imported():
    """Yield module and name of each import from this project in the document's code."""
    for block in re.findall(r"^```python\n(.*?)^```$", DOCUMENT, re.MULTILINE | re.DOTALL):
        for node in ast.walk(ast.parse(block)):
            if isinstance(node, ast.ImportFrom) and node.module.startswith("authz_server"):
                yield from ((node.module, name.name) for name in node.names)


def test_the_document_imports_from_the_published_interface_alone():
    """A plugin imports plugin_api and nothing else of ours; its tests also the contract suites."""
    modules = {module for module, _ in imported()}
    assert modules == {"authz_server.plugin_api", "authz_server.plugin_api.testing"}
    suites = {name for module, name in imported() if module.endswith(".testing")}
    assert suites | {"PluginServer"} == set(testing.__all__)


def test_the_published_interface_has_what_each_kind_of_part_needs():
    for names in (
        ("TokenGrant", "TokenRequest", "Authorization", "OAuthError", "Step", "Lane"),
        (
            "ClientAuthenticationMethod",
            "AuthenticationRequest",
            "Credentials",
            "Reading",
            "Verdict",
        ),
        ("KeyBackend", "Creates", "Fences", "Destroys", "BackendContext", "public_jwk"),
        ("BackendView", "Capabilities", "Version", "Health", "TracedSignature"),
        ("BackendUnavailable", "BackendDenied", "BackendBroken", "VersionUnusable", "KeysError"),
    ):
        assert set(names) <= set(plugin_api.__all__)


@pytest.mark.parametrize("hook", [name for name in HOOKS if name.startswith("register_")])
def test_the_table_of_kinds_names_each_hook_that_registers(hook):
    table = DOCUMENT.partition("| to add |")[2].partition("\n\n")[0]
    assert f"`{hook}`" in table
