"""Rules that hold for every module of operations."""

import ast
import importlib
import inspect
import pkgutil
from dataclasses import is_dataclass
from pathlib import Path

import authz_server.operations

MODULES = [
    importlib.import_module(each.name)
    for each in pkgutil.walk_packages(
        authz_server.operations.__path__, f"{authz_server.operations.__name__}."
    )
]
#: Names whose call prints, or reads from the person at the terminal.
_TERMINAL = {"print", "input"}


def _structs(module):
    return [
        each
        for _, each in inspect.getmembers(module, inspect.isclass)
        if each.__module__ == module.__name__ and is_dataclass(each)
    ]


def test_every_struct_is_frozen():
    """A caller can render a result and cannot change it."""
    structs = [struct for module in MODULES for struct in _structs(module)]
    assert len(structs) > 20
    changeable = [each for each in structs if not each.__dataclass_params__.frozen]
    assert changeable == []


def test_nothing_is_printed_and_nothing_asked():
    """The command line, the admin API and the console each do that in their own way."""
    for module in MODULES:
        tree = ast.parse(Path(module.__file__).read_text(encoding="utf-8"))
        called = {
            node.func.id
            for node in ast.walk(tree)
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name)
        }
        assert called.isdisjoint(_TERMINAL), module.__name__
        assert "stdin" not in {
            node.attr for node in ast.walk(tree) if isinstance(node, ast.Attribute)
        }
