"""Docstrings are plain English: verb first, the field's words, no idioms."""

import ast
import re
from collections.abc import Iterator

import pytest

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
}
#: A summary line begins with a verb or a noun.
OPENING = re.compile(r"(What|Whether|Who|Whose|How|Where|When)\b")
#: Attributes and properties may be questions: "Whether the limits apply."
NOUNS_ALLOWED = re.compile(r"Whether\b")
EXPRESSION = re.compile("|".join(f"(?:{each})" for each in IDIOMS), re.IGNORECASE)
#: Rooms whose docstrings are held to the rules.
ROOMS = (
    "authz_server/audit",
    "authz_server/cli",
    "authz_server/clients",
    "authz_server/grants",
    "authz_server/hookspecs.py",
    "authz_server/plugin_api",
    "authz_server/plugin_manager.py",
    "authz_server/background_jobs.py",
    "authz_server/database",
    "authz_server/demo",
    "authz_server/endpoints",
    "authz_server/errors.py",
    "authz_server/key_rings",
    "authz_server/logs.py",
    "authz_server/metrics",
    "authz_server/operations",
    "authz_server/scopes",
    "authz_server/serving",
    "authz_server/settings",
    "authz_server/tokens",
    "authz_server/waiting.py",
    "authz_server/wsgi.py",
    "authz_server/authorization_server.py",
    "keys/backend.py",
    "keys/backends/in_process.py",
    "keys/backends/local",
    "keys/backends/pkcs11",
    "keys/backends/registry.py",
    "keys/backends/vault",
    "keys/errors.py",
    "keys/forks.py",
    "keys/jose",
    "keys/key_set.py",
    "keys/memory.py",
    "keys/node_clock.py",
    "keys/observer.py",
    "keys/private_files.py",
    "keys/ring.py",
    "keys/signer.py",
    "keys/signing_key.py",
    "keys/store.py",
    "keys/testing.py",
    "keys/verified_tokens.py",
    "plugins",
)


def _is_property(node: ast.AST) -> bool:
    decorators = getattr(node, "decorator_list", [])
    return any("property" in ast.unparse(each) for each in decorators)


def _docstrings() -> Iterator[tuple[str, str, bool]]:
    """Yield place and text of each docstring, and whether it is a property's."""
    for package in PACKAGES:
        for path in sorted((ROOT / package).rglob("*.py")):
            name = str(path.relative_to(ROOT))
            if not name.startswith(ROOMS):
                continue
            for node in ast.walk(ast.parse(path.read_text())):
                if isinstance(
                    node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef
                ):
                    text = ast.get_docstring(node)
                    if text:
                        place = f"{name}:{getattr(node, 'name', '')}"
                        yield place, " ".join(text.split()), _is_property(node)


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


def test_docstrings_are_found():
    """The walk meets many docstrings, so that the rules above are not empty."""
    assert len(list(_docstrings())) > 500


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
