"""The templates of the pages of people."""

from functools import cache
from pathlib import Path
from typing import Any

from flask import Response, jsonify
from jinja2 import Environment, FileSystemLoader, StrictUndefined

from authz_server.admin.console.languages import LANGUAGES, Texts
from authz_server.admin.console.rendering import moment, own
from authz_server.admin.console.views import SECURITY_HEADERS, html

_FOLDER = Path(__file__).parent
SCRIPT = (_FOLDER / "static" / "passkeys.js").read_bytes()


@cache
def _environment() -> Environment:
    made = Environment(
        loader=FileSystemLoader(_FOLDER / "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.filters |= {"own": own, "moment": moment}
    return made


def page(
    template: str,
    texts: Texts,
    *,
    status: int = 200,
    **values: Any,  # noqa: ANN401 - values of templates
) -> Response:
    """Return a page.

    Args:
        template: the file name in ``templates/``.
        texts: the texts in its language.
        status: the HTTP status.
        values: the values that the template uses.
    """
    found = _environment().get_template(template)
    return html(found.render(t=texts, languages=LANGUAGES, **values), status, texts.language)


def answer_json(status: int = 200, **members: object) -> Response:
    """Return the answer to a request of our script."""
    answer = jsonify(members)
    answer.status_code = status
    answer.headers.update(SECURITY_HEADERS)
    return answer
