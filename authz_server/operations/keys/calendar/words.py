"""The words of a picture of a calendar in each language."""

import tomllib
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Literal

from authz_server.operations.sentences import read_sentences, translate

Language = Literal["en", "fr", "es", "pt"]
#: The words, and the planned changes that a calendar names.
SOURCE = Path(__file__).parent / "words.toml"


class Words:
    """The words in one language.

    Args:
        language: its tag.
        words: the words by key; ``{name}`` stands for a value.
    """

    def __init__(self, language: str, words: Mapping[str, str]) -> None:
        self.language = language
        self._words = words
        self._sentences = read_sentences(SOURCE.read_text("utf-8"))

    def __call__(self, key: str, **values: object) -> str:
        """Return words with their values."""
        return self._words[key].format_map(values)

    def plan(self, english: str) -> str:
        """Return a planned change as the calendar names it; in English if it has no translation."""
        return translate(self._sentences, english, self.language) or english


@cache
def words_in(language: str) -> Words:
    """Return the words in one of the languages."""
    table = tomllib.loads(SOURCE.read_text("utf-8"))["word"]
    return Words(language, {key: each[language] for key, each in table.items()})
