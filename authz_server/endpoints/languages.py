"""Error messages of the G2P Connect profile in several languages.

A catalogue is a TOML file named after its language tag, with one sentence for each reason of
``authz_server.errors``. The shipped catalogues are in ``messages/``; a configured directory adds
to them or replaces their sentences.
"""

import tomllib
from collections.abc import Container, Iterable, Mapping
from functools import lru_cache
from importlib.resources import files
from pathlib import Path

from authz_server.endpoints.preferences import read_qualities
from authz_server.errors import REASONS

_MAXIMUM_HEADER_CHARACTERS = 200


class MessageCatalogue:
    """Selects a message's language by the ``accept-language`` header (RFC 9110, 12.5.4).

    Args:
        default_language: used if the request names no known language.
        directory: further catalogues; empty for none.

    Raises:
        ValueError: a catalogue has an unknown reason, or the default language has no catalogue.
        OSError: the directory cannot be read.
    """

    def __init__(self, default_language: str, directory: str) -> None:
        self._languages = {"en": {name: reason.description for name, reason in REASONS.items()}}
        for name, text in _catalogue_files(directory):
            self._languages.setdefault(name, {}).update(_parse(name, text))
        self._default = default_language.lower()
        if self._default not in self._languages:
            raise ValueError(f"g2p.default_language: there is no catalogue for {default_language}")
        self._pick = lru_cache(maxsize=512)(self._pick_language)

    @property
    def languages(self) -> tuple[str, ...]:
        """The tags of all languages, sorted."""
        return tuple(sorted(self._languages))

    def message(self, reason: str, accept_language: str | None) -> tuple[str, str]:
        """Return the selected language and the message for ``reason`` in it."""
        language = (
            self._pick(accept_language[:_MAXIMUM_HEADER_CHARACTERS])
            if accept_language
            else self._default
        )
        text = self._languages[language].get(reason)
        return (language, text) if text else ("en", self._languages["en"][reason])

    def _pick_language(self, accept_language: str) -> str:
        return pick_language(accept_language, self._languages, self._default)


def pick_language(accept_language: str, known: Container[str], default: str) -> str:
    """Return the known language that an ``accept-language`` header prefers.

    Args:
        accept_language: the value of the header (RFC 9110, 12.5.4).
        known: the tags of the languages, in lower case.
        default: returned if the header names none of them.
    """
    qualities = {tag: each for tag, each in read_qualities(accept_language).items() if each}
    for tag in sorted(qualities, key=lambda each: -qualities[each]):
        # RFC 4647, 3.4: lookup removes subtags from the end.
        while tag:
            if tag in known:
                return tag
            tag = tag.rpartition("-")[0]  # noqa: PLW2901 - shortened on purpose
    return default


def _catalogue_files(directory: str) -> Iterable[tuple[str, str]]:
    for resource in sorted(files(__package__).joinpath("messages").iterdir(), key=str):
        if resource.name.endswith(".toml"):
            yield resource.name.removesuffix(".toml"), resource.read_text("utf-8")
    if directory:
        for path in sorted(Path(directory).glob("*.toml")):
            # Some editors write a byte order mark.
            yield path.stem.lower(), path.read_text("utf-8-sig")


@lru_cache(maxsize=64)  # a reload, and each worker, makes the catalogue again
def _parse(language: str, text: str) -> Mapping[str, str]:
    try:
        messages = tomllib.loads(text)
    except (tomllib.TOMLDecodeError, RecursionError) as error:
        raise ValueError(f"g2p.catalogue_directory: catalogue {language}: {error}") from error
    unknown = messages.keys() - REASONS.keys()
    if unknown or not all(isinstance(message, str) for message in messages.values()):
        names = ", ".join(sorted(unknown))
        raise ValueError(
            f"g2p.catalogue_directory: catalogue {language}: unknown or malformed: {names}"
        )
    return messages
