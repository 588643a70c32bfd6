"""The texts of the console in each language: a TOML file of ``messages/`` each."""

import tomllib
from collections.abc import Iterator, Mapping
from functools import cache
from importlib.resources import files
from typing import Any, NamedTuple

from authz_server.endpoints.languages import pick_language
from authz_server.operations.keys.calendar.words import SOURCE as CALENDAR
from authz_server.operations.sentences import Sentences, read_sentences, translate

_TITLES = "titles.toml"
_SENTENCES = "sentences.toml"
#: The languages by tag, each by its own name.
LANGUAGES = {"en": "English", "fr": "Français", "es": "Español", "pt": "Português"}
DEFAULT_LANGUAGE = "en"
#: The cookie with the language that the reader has chosen.
LANGUAGE_COOKIE = "authz_console_language"
_MAXIMUM_HEADER_CHARACTERS = 200


class Sentence(NamedTuple):
    """A sentence of an operation, and the language that it is in."""

    text: str
    language: str


class Texts:
    """The texts in one language.

    Args:
        language: its tag.
        texts: the texts by dotted key; ``{name}`` stands for a value.
    """

    def __init__(self, language: str, texts: Mapping[str, str]) -> None:
        self.language = language
        self._texts = texts

    def __call__(self, key: str, **values: object) -> str:
        """Return a text with its values; KeyError if there is none."""
        text = self._texts[key]
        return text.format_map(values) if values else text

    def sentence(self, english: str) -> "Sentence":
        """Return a sentence of an operation in this language; in English if there is none."""
        translated = translate(_sentences(), english, self.language)
        if translated is None:
            return Sentence(english, DEFAULT_LANGUAGE)
        return Sentence(translated, self.language)

    def find(self, key: str, default: str) -> str:
        """Return a text, or the default if there is none for a name of the API."""
        return self._texts.get(key, default)

    @property
    def keys(self) -> frozenset[str]:
        """The keys of all texts."""
        return frozenset(self._texts)


@cache
def texts_in(language: str) -> Texts:
    """Return the texts in a language of :data:`LANGUAGES`."""
    folder = files(__package__)
    source = folder.joinpath("messages", f"{language}.toml")
    texts = dict(_flatten(tomllib.loads(source.read_text("utf-8"))))
    return Texts(language, texts | _titles_in(language))


@cache
def _sentences() -> Sentences:
    """Return the sentences of the operations, and those of a calendar."""
    source = files(__package__).joinpath(_SENTENCES).read_text("utf-8")
    return read_sentences(source) + read_sentences(CALENDAR.read_text("utf-8"))


def _titles_in(language: str) -> dict[str, str]:
    """Return the titles of operations, records and acts, from the table of all languages."""
    titles = tomllib.loads(files(__package__).joinpath(_TITLES).read_text("utf-8"))
    return {
        f"{kind}.{name}": each[language]
        for kind, named in titles.items()
        for name, each in named.items()
    }


def choose_language(chosen: str, accept_language: str) -> str:
    """Return the language of a page.

    Args:
        chosen: the language that the reader has chosen; empty for none.
        accept_language: the header of the request.
    """
    if chosen in LANGUAGES:
        return chosen
    header = accept_language[:_MAXIMUM_HEADER_CHARACTERS]
    return pick_language(header, LANGUAGES, DEFAULT_LANGUAGE)


def _flatten(table: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    for name, value in table.items():
        if isinstance(value, dict):
            yield from _flatten(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value
