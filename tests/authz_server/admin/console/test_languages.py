"""The catalogues of the console: each language has every text, and no other."""

import re
import tomllib
from inspect import signature
from pathlib import Path
from typing import get_args, get_type_hints

import pytest

from authz_server.admin.console import languages
from authz_server.admin.console.acts import ACTS
from authz_server.admin.console.languages import LANGUAGES, choose_language, texts_in
from authz_server.admin.console.views import SCREENS
from authz_server.admin.people.texts import texts_in as texts_of_people_in
from authz_server.audit.events import EVENTS
from authz_server.clients.validation import (
    G2P_ANSWERS,
    INTROSPECTION_AUDIENCES,
    TOKEN_FORMATS,
    TOKEN_TYPES,
)
from authz_server.operations import explain, explain_token
from authz_server.operations.approved_acts import OPERATIONS, ORDERS
from authz_server.operations.client_views import ClientView, SecretView
from authz_server.operations.event_streams import Delivery
from authz_server.operations.explained_causes import REMEDIES, TOKEN_REMEDIES
from authz_server.operations.keys import status
from authz_server.operations.keys.calendar.words import SOURCE, Language, words_in
from authz_server.operations.operators import OperatorView
from authz_server.operations.programmes import ProgrammeView
from authz_server.operations.registration_tokens import RegistrationTokenView
from authz_server.operations.resource_servers import ResourceServerView
from authz_server.operations.scopes import ScopeView
from authz_server.settings.approvals import APPROVED_ACTS, ConfirmedAct
from authz_server.tokens.revocations import CutOffKind
from keys.lifecycle import calendar
from keys.signing_key import KeyState

_FOLDER = Path(languages.__file__).parent
_SERVER = _FOLDER.parent.parent
_NOUNS = (
    "client|resource_server|scope|operator|event_stream|registration|change|declaration|stop|key"
    "|ring|emergency|cut_off|token"
)
#: The last word of an action: a participle, or one of the irregular ones.
_PAST = r"(?!not_)(?:[a-z]+_)*(?:[a-z]+ed|set|made|held|frozen|unfrozen|cautious|exception)"
#: The values that are not the number of the word behind them.
_NO_COUNTS = "time|seconds|version|number|ready|add|change|remove"
#: Choices that are entered and shown as the API names them.
_WORDS_OF_THE_API = {
    *(*TOKEN_FORMATS, *TOKEN_TYPES, *INTROSPECTION_AUDIENCES, *G2P_ANSWERS),
    *get_args(Delivery),
    # The registered methods.
    *("client_secret", "client_secret_basic", "client_secret_post", "client_secret_jwt"),
    *("private_key_jwt", "tls_client_auth", "self_signed_tls_client_auth"),
}
_VALUES = re.compile(r"\{\w+\}")


@pytest.mark.parametrize("language", LANGUAGES)
def test_every_language_has_every_text(language):
    """With the same values in each."""
    english, texts = texts_in("en"), texts_in(language)
    assert texts.keys == english.keys
    for key in english.keys:
        assert sorted(_VALUES.findall(texts(key))) == sorted(_VALUES.findall(english(key))), key
        assert texts(key).strip(), key


@pytest.mark.parametrize("language", LANGUAGES)
def test_no_text_needs_the_plural_of_a_number(language):
    """A text has one form for every number: the number follows its noun."""
    texts = texts_in(language)
    counted = re.compile(rf"\{{(?!(?:{_NO_COUNTS})\}})\w+\}} \w")
    assert not [key for key in texts.keys if counted.search(texts(key))]
    named = "The number of tokens that the client has obtained in this day is below 1."
    assert not re.search(r"\b1 \w", texts.sentence(named).text)


def _find_reasons() -> list[str]:
    """Return the sentences of explanations, as the sources have them."""
    paths = [Path(each.__file__) for each in (explain, explain_token)]
    source = re.sub(r'"\n\s+f?"', "", "".join(path.read_text("utf-8") for path in paths))
    kinds = [f"tokens of the {kind} {{subject}}" for kind in get_args(CutOffKind) if kind != "all"]
    found = re.findall(r'_Finding\((?:cause|f?"[^"]+"), f?"([^"]+)"', source)
    found += re.findall(r'(?<!")"((?:The|A) [^"]+\.)"', source)
    assert len(found) > 20
    return [
        each.replace("{of_what}", of_what).replace("{of_scope}", of_scope)
        for each in found
        for of_what in ("all tokens", *kinds)
        for of_scope in ("", " with the scope {scope}")
    ]


@pytest.mark.parametrize("language", LANGUAGES)
def test_every_sentence_of_an_explanation_is_translated(language):
    """With its values; one without a translation stays as it is."""
    texts = texts_in(language)
    for english in (*REMEDIES.values(), *TOKEN_REMEDIES.values(), *_find_reasons()):
        number = iter(range(9))
        text = re.sub(r"\{[^{}]*\}", lambda _, number=number: f"<{next(number)}.{{x}}>", english)
        found = texts.sentence(text)
        assert found.language == language, text
        assert sorted(re.findall("<.*?>", found.text)) == re.findall("<.*?>", text)
        assert (found.text == text) == (language == "en")
    assert texts.sentence("Something else.") == ("Something else.", "en")


def test_every_member_of_a_plan_and_of_a_change_has_a_name():
    """Those of what is stored, and the arguments of what waits for a second person."""
    views = (ClientView, SecretView, ResourceServerView, ScopeView, OperatorView, ProgrammeView)
    members = {name for view in (*views, RegistrationTokenView) for name in get_type_hints(view)}
    for operation in (*OPERATIONS.values(), *ORDERS.values()):
        members |= signature(operation).parameters.keys()
    assert len(members) > 50
    assert members <= {
        key.removeprefix("member.") for key in texts_in("en").keys if key.startswith("member.")
    } | {
        # These are not stored with a change.
        *("services", "actor", "acting_operator", "fields", "changes"),
        *("prepared", "imported_secret", "require_roles"),
    }


@pytest.mark.parametrize("language", sorted(LANGUAGES.keys() - {"en"}))
def test_every_planned_change_of_a_ring_is_translated(language):
    """As the calendar and the state of a ring name them."""
    sources = (Path(calendar.__file__), Path(status.__file__))
    found = re.findall(
        r'(?:Milestone\([^,]+, |yield )f?"((?:\{name\}|version|\{ring|verifiers)[^"]+)"',
        "".join(path.read_text("utf-8") for path in sources),
    )
    assert len(found) == 7
    for each in found:
        english = each.replace("{counted(age.days, 'day')}", "3 days")
        english = re.sub(r"\{[^{}]*\}", "2", english.replace("{name}", "version 2"))
        sentence = texts_in(language).sentence(english)
        assert sentence.language == language, english


@pytest.mark.parametrize("language", LANGUAGES)
def test_a_passkey_has_one_name(language):
    """On the pages of people and in the console alike."""
    name = texts_in(language)("member.passkey").lower()
    assert name in texts_of_people_in(language)("create_passkey")


@pytest.mark.parametrize("language", LANGUAGES)
def test_a_ring_has_one_name(language):
    """On every screen."""
    texts = texts_in(language)
    assert texts("audit.ring") == texts("key.ring") == texts("member.ring")


def test_a_file_for_each_language():
    """A file that is not listed would never be shown."""
    assert {path.stem for path in (_FOLDER / "messages").glob("*.toml")} == set(LANGUAGES)


def test_every_text_of_the_templates_exists():
    """Those that a template names, and those that are made from the name of an act."""
    known = texts_in("en").keys
    named = {
        key
        for path in (_FOLDER / "templates").glob("*.html")
        for key in re.findall(r"\bt\(\"([^\"]+)\"(?! ~)", path.read_text("utf-8"))
    }
    assert len(named) > 150
    assert named <= known
    made = {f"screen.{name}" for name, *_ in SCREENS}
    for act in ACTS.values():
        made |= {f"act.{act.key}.{part}" for part in ("title", "lead", "confirm")}
        made |= {f"done.{act.key}"}
        for field in act.fields:
            assert not known.isdisjoint({f"field.{field.key}", f"member.{field.key}"})
            for each in set(field.choices) - _WORDS_OF_THE_API:
                assert not known.isdisjoint(
                    {f"choice.{field.name}-{each}", f"{field.name}.{each}"}
                ), each
    assert made <= known


def test_every_operation_record_and_act_has_a_title():
    """In every language, and no title is of something that does not exist."""
    titles = tomllib.loads((_FOLDER / "titles.toml").read_text("utf-8"))
    assert titles["operation"].keys() == _find_operations()
    assert titles["record"].keys() == _find_actions() | {
        event.__struct_config__.tag for event in EVENTS
    }
    assert titles["approval"].keys() == APPROVED_ACTS.union(get_args(ConfirmedAct))
    for named in titles.values():
        for name, each in named.items():
            assert each.keys() == LANGUAGES.keys(), name
            assert all(map(str.strip, each.values())), name


def _find_operations() -> set[str]:
    """Return the operations that changes have: those of approvals, and those of acts at once."""
    source = "".join(path.read_text("utf-8") for path in _SERVER.glob("operations/**/*.py"))
    noted = set(re.findall(r'operation="([\w.]+)"', source))
    return noted | OPERATIONS.keys() | ORDERS.keys() | {"keys.revoke"} | _chosen(source)


def _chosen(source: str) -> set[str]:
    """Return the operations that an expression chooses."""
    return {
        name
        for found in re.findall(r'operation="(\w+)" if \w+ else "(\w+)"', source)
        for name in found
    }


def _find_actions() -> set[str]:
    """Return the actions of records that the sources name."""
    found: set[str] = set()
    for path in (*_SERVER.rglob("*.py"), *(_SERVER.parent / "keys").rglob("*.py")):
        if not {"console", "demo", "testing.py"}.isdisjoint(path.parts):
            continue
        source = path.read_text("utf-8")
        found.update(re.findall(rf'"((?:{_NOUNS})\.{_PAST})"', source))
        for kind, action in re.findall(rf'f"\{{(client|row)\.kind\}}\.({_PAST})"', source):
            assert kind
            found.update(f"{each}.{action}" for each in ("client", "resource_server"))
    found.update(f"resource_server.{each}abled" for each in ("en", "dis"))
    # Causes and findings.
    return found - {"client.stopped", "key.deletion_allowed"}


@pytest.mark.parametrize(
    ("chosen", "header", "language"),
    [
        ("", "", "en"),
        ("", "fr-CA, en;q=0.5", "fr"),
        ("", "de, pt-BR;q=0.8, es;q=0.9", "es"),
        ("pt", "fr", "pt"),
        ("xx", "fr", "fr"),
        ("", "de", "en"),
        ("", "x" * 100_000, "en"),
    ],
)
def test_the_language_of_a_page(chosen, header, language):
    """The choice of the reader, or else the header (RFC 9110, 12.5.4)."""
    assert choose_language(chosen, header) == language


@pytest.mark.parametrize("language", LANGUAGES)
def test_a_calendar_has_the_words_of_the_screen(language):
    """A state has one name in the picture and beside it, and every word a translation."""
    words, texts = words_in(language), texts_in(language)
    for state in ("published", "tainted", "revoked", "removed", "destroyed"):
        assert words(state) == texts(f"keystate.{state}")
    assert words("signs") == texts("key.signs")
    table = tomllib.loads(SOURCE.read_text("utf-8"))
    for each in (*table["word"].values(), *table["sentence"]):
        assert each.keys() == set(LANGUAGES) == set(get_args(Language))
        assert sorted(_VALUES.findall(each[language])) == sorted(_VALUES.findall(each["en"]))


def test_every_state_of_a_key_has_a_word_in_a_calendar():
    """As well as every kind of a span."""
    words = words_in("en")
    for state in KeyState:
        assert words(state.value) == state.value
    for kind in calendar.SpanKind:
        assert words(kind.value) == kind.value
