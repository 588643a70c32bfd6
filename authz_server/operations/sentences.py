"""Sentences of operations in other languages, found by the pattern of the English one.

A source is TOML with an array ``sentence`` of tables, which have the sentence by language; names in
braces stand for values.
"""

import re
import tomllib
from collections.abc import Mapping

#: A value of an escaped sentence.
_VALUE = re.compile(r"\\\{(\w+)\\\}")

Sentences = tuple[tuple[re.Pattern[str], Mapping[str, str]], ...]


def read_sentences(source: str) -> Sentences:
    """Return a pattern of each English sentence of a source with the sentence in every language."""
    return tuple(
        (re.compile(_VALUE.sub(r"(?P<\1>.+?)", re.escape(each["en"])), re.DOTALL), each)
        for each in tomllib.loads(source)["sentence"]
    )


def translate(sentences: Sentences, english: str, language: str) -> str | None:
    """Return a sentence in a language; None if the sentences do not have it."""
    for pattern, translations in sentences:
        found = pattern.fullmatch(english)
        if found is not None:
            return translations[language].format_map(found.groupdict())
    return None
