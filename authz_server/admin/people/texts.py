"""The texts of the pages of people: a TOML file of ``messages/`` for each language."""

import tomllib
from functools import cache
from importlib.resources import files

from authz_server.admin.console.languages import Texts


@cache
def texts_in(language: str) -> Texts:
    """Return the texts in a language of the console."""
    source = files(__package__).joinpath("messages", f"{language}.toml")
    return Texts(language, tomllib.loads(source.read_text("utf-8")))
