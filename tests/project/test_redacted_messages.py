"""Messages of the program stay whole in the log: redaction takes no part of them for a secret."""

import ast
from collections.abc import Iterator

import pytest

from authz_server.logs import redact
from support.source_tree import PACKAGES, ROOT, python_files

#: Functions that raise, or return what is raised, and methods of loggers.
_OF_MESSAGES = frozenset(
    {"refuse", "refusal", "RuleError", "SettingsError", "OAuthError", "FetchError"}
    | {"debug", "info", "warning", "error", "exception", "critical"}
)
#: Stands for a value: a message ends with the reason, mostly.
_VALUE = "the reason"


def _is_message(node: ast.AST) -> bool:
    if isinstance(node, ast.Raise):
        return True
    function = getattr(node, "func", None)
    name = getattr(function, "id", getattr(function, "attr", ""))
    return isinstance(node, ast.Call) and name in _OF_MESSAGES


def _texts(node: ast.AST) -> Iterator[tuple[int, str]]:
    """Yield line and text of each string below a node; values in it are replaced."""
    match node:
        case ast.Constant(value=str() as text):
            yield node.lineno, text
        case ast.JoinedStr():
            parts = (
                each.value if isinstance(each, ast.Constant) else _VALUE for each in node.values
            )
            yield node.lineno, "".join(map(str, parts))
        case _:
            for child in ast.iter_child_nodes(node):
                yield from _texts(child)


def _changed(source: str) -> list[tuple[int, str]]:
    """Return line and text of the messages of a source that redaction changes."""
    messages = filter(_is_message, ast.walk(ast.parse(source)))
    found = {each for message in messages for each in _texts(message)}
    return sorted((line, text) for line, text in found if redact(text) != text)


@pytest.mark.parametrize("package", PACKAGES)
def test_no_message_is_taken_for_a_secret(package: str):
    """Reword such a message: no name of a secret with a colon, no "bearer" before a word."""
    read = python_files(package)
    assert read
    found = {str(path.relative_to(ROOT)): _changed(path.read_text()) for path in read}
    assert {path: texts for path, texts in found.items() if texts} == {}


@pytest.mark.parametrize(
    "source",
    [
        'raise FetchError("no bearer credential")',
        'raise ValueError(f"{where}.secret: longer by {count} bytes")',
        'logger.warning("the password: %s", problem)',
        'refuse("url", "it is refused", "Write password = x.")',
    ],
)
def test_the_search_finds_messages(source: str):
    """The test above finds each kind."""
    assert _changed(source)
    assert not _changed("x = f'token={token}'")
