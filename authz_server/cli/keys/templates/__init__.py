"""The template of the status page; ``status_html.py`` prepares its values."""

from datetime import datetime
from functools import cache
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from authz_server.cli.keys.event_names import event_in_words
from authz_server.cli.plain_text import timestamp
from authz_server.operations.keys.calendar.svg import TEMPLATES, coordinate


@cache
def _environment() -> Environment:
    environment = Environment(
        loader=FileSystemLoader([Path(__file__).parent, TEMPLATES]),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters["coordinate"] = coordinate
    environment.filters["timestamp"] = timestamp
    environment.filters["event_in_words"] = event_in_words
    environment.tests["moment"] = lambda value: isinstance(value, datetime)
    return environment


def render(name: str, **values: object) -> str:
    """Return the text of a template.

    Args:
        name: the file name in this folder.
        values: the values that the template uses.
    """
    return _environment().get_template(name).render(values)
