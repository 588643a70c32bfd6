"""Docstrings agree with the code beside them."""

import ast
import re
from collections.abc import Iterator

from support.source_tree import PACKAGES, ROOT, python_files, syntax_tree

_SECTION = r"^{}:\n((?: .*\n|\n)*)"
_NAME = re.compile(r"^ {4}\*{0,2}(\w+):", re.MULTILINE)
Function = ast.FunctionDef | ast.AsyncFunctionDef


def _names(docstring: str, heading: str) -> set[str]:
    """Return the names in a section of a docstring."""
    section = re.search(_SECTION.format(heading), f"{docstring}\n", re.MULTILINE)
    return set(_NAME.findall(section[1])) if section else set()


def _parameters(node: Function) -> set[str]:
    arguments = node.args
    every = [*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs]
    every += [each for each in (arguments.vararg, arguments.kwarg) if each is not None]
    return {each.arg for each in every} - {"self", "cls"}


def _find_difference(node: Function | ast.ClassDef) -> set[str]:
    """Return the names that a docstring or the code alone has; without arguments, none."""
    docstring = ast.get_docstring(node) or ""
    named = _names(docstring, "Args")
    if not named or not isinstance(node, ast.ClassDef):
        return named and named ^ _parameters(node)
    for each in node.body:
        if isinstance(each, ast.FunctionDef) and each.name == "__init__":
            return named ^ _parameters(each)
    # A dataclass, some of whose fields may not be for its makers; another class inherits.
    fields = {each.target.id for each in node.body if isinstance(each, ast.AnnAssign)}
    public = {each for each in fields if not each.startswith("_")}
    return public and (named | _names(docstring, "Attributes")) ^ public


def _documented() -> Iterator[tuple[str, Function | ast.ClassDef]]:
    for path in python_files(*PACKAGES, "verifier"):
        for node in ast.walk(syntax_tree(path)):
            if isinstance(node, Function | ast.ClassDef) and ast.get_docstring(node):
                yield f"{path.relative_to(ROOT)}:{node.name}", node


def test_docstrings_name_the_arguments():
    """Each docstring with arguments has those of the code, and no others."""
    found = list(_documented())
    assert len(found) > 3_000
    differences = {place: _find_difference(node) for place, node in found}
    assert {place: names for place, names in differences.items() if names} == {}
