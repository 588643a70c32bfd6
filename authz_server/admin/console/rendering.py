"""Templates of the console, and the filters that they use."""

import re
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime, timedelta
from functools import cache
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import msgspec
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

_FOLDER = Path(__file__).parent
#: Characters that change the direction or the look of the text around them, and invisible ones.
_TRICKS = re.compile(
    "[\u0000-\u001f\u007f-\u009f\u061c\u200b-\u200f\u2028-\u202e\u2060-\u2069\ufeff]"
)
#: The risks of scopes, the lowest first.
RISKS = ("read", "write", "money")
_DAY_SECONDS, _HOUR_SECONDS, _MINUTE_SECONDS = 86_400, 3_600, 60
_HOURS_SHOWN = 2 * _DAY_SECONDS


@cache
def environment() -> Environment:
    """Return the environment of the templates, which escapes every value."""
    made = Environment(
        loader=FileSystemLoader(_FOLDER / "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.filters |= {
        "age": age,
        "as_json": lambda value: msgspec.json.encode(value).decode(),
        "own": own,
        "shorten": shorten,
        "moment": moment,
        "period": lambda value: duration(msgspec.convert(value, timedelta).total_seconds()),
        "link": link,
        "highest_risk": highest_risk,
        "duration": duration,
        "visible": visible,
    }
    return made


def visible(text: object) -> str:
    """Return a text that others wrote, with control characters shown by their code."""
    return _TRICKS.sub(lambda found: f"[U+{ord(found[0]):04X}]", str(text))


def own(text: object) -> Markup:
    """Return a text that others wrote, isolated from the direction of the text around it."""
    return Markup("<bdi>{}</bdi>").format(visible(text))


def moment(value: str | float | datetime | None) -> Markup | str:
    """Return a time in UTC to the second; a dash for None."""
    if value is None:
        return "–"  # noqa: RUF001 - an en dash stands for no value
    at = as_time(value).astimezone(UTC)
    stamp = f"{at:%Y-%m-%dT%H:%M:%SZ}"
    return Markup('<time datetime="{}">{}</time>').format(stamp, f"{at:%Y-%m-%d %H:%M:%S}")


def as_time(value: str | float | datetime) -> datetime:
    """Return a time of the API: RFC 3339, or seconds since 1970-01-01 UTC."""
    match value:
        case datetime():
            return value
        case str():
            return datetime.fromisoformat(value)
    return datetime.fromtimestamp(value, UTC)


def duration(seconds: float) -> str:
    """Return a duration in its largest whole unit, such as ``3 d``."""
    whole = int(max(seconds, 0))
    if whole >= _HOURS_SHOWN:
        return f"{whole // _DAY_SECONDS} d"
    if whole >= _HOUR_SECONDS:
        return f"{whole // _HOUR_SECONDS} h"
    if whole >= _MINUTE_SECONDS:
        return f"{whole // _MINUTE_SECONDS} min"
    return f"{whole} s"


def shorten(text: str, characters: int) -> str:
    """Return a text of at most so many characters."""
    return text if len(text) <= characters else f"{text[: characters - 1]}…"


def as_utc(text: str) -> str:
    """Return a time as entered for the API, which judges it; one without a zone is in UTC."""
    try:
        entered = datetime.fromisoformat(text)
    except ValueError:
        return text
    return (entered if entered.tzinfo else entered.replace(tzinfo=UTC)).isoformat()


def age(value: str | datetime, now: datetime) -> float:
    """Return the seconds that have passed since."""
    return (now - as_time(value)).total_seconds()


def link(path: str, /, **parameters: object) -> str:
    """Return a link of the console; parameters without a value are left out."""
    given = {name: each for name, each in parameters.items() if each not in {None, ""}}
    return f"{path}?{urlencode(given)}" if given else path


def highest_risk(scopes: Iterable[str], risks: Mapping[str, str]) -> str:
    """Return the highest risk of some scopes; empty without a known one."""
    found = {risks[name] for name in scopes if name in risks}
    return max(found, key=RISKS.index, default="")


def render(name: str, **values: Any) -> str:  # noqa: ANN401 - values of templates
    """Return the text of a template.

    Args:
        name: the file name in ``templates/``.
        values: the values that the template uses.
    """
    return environment().get_template(name).render(values)
