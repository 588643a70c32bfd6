"""The catalogues of the console: each language has every text, and no other."""

import re
from pathlib import Path

import pytest

from authz_server.admin.console import languages
from authz_server.admin.console.acts import ACTS
from authz_server.admin.console.languages import LANGUAGES, choose_language, texts_in
from authz_server.admin.console.views import SCREENS

_FOLDER = Path(languages.__file__).parent
_VALUES = re.compile(r"\{\w+\}")


@pytest.mark.parametrize("language", LANGUAGES)
def test_every_language_has_every_text(language):
    """With the same values in each."""
    english, texts = texts_in("en"), texts_in(language)
    assert texts.keys == english.keys
    for key in english.keys:
        assert sorted(_VALUES.findall(texts(key))) == sorted(_VALUES.findall(english(key))), key
        assert texts(key).strip(), key


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
        made |= {f"act.{act.name}.{part}" for part in ("title", "lead", "confirm")}
        made |= {f"done.{act.name}"} | {f"field.{field.name}" for field in act.fields}
        made |= {f"choice.{field.name}-{each}" for field in act.fields for each in field.choices}
    assert made <= known


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
