"""Rules for the fields of scopes; each raises InvalidChangeError for a value that breaks it."""

from collections.abc import Callable, Mapping
from typing import Any

from authz_server.errors import InvalidChangeError
from authz_server.scopes.definition import RISKS

MAXIMUM_DESCRIPTION_CHARACTERS = 500


def require_risk(risk: str) -> None:
    """Require one of the risks."""
    if risk not in RISKS:
        raise InvalidChangeError(f"risk: use {' or '.join(RISKS)}")


def require_description(description: str) -> None:
    """Require one line of at most 500 printable characters."""
    if len(description) > MAXIMUM_DESCRIPTION_CHARACTERS or not description.isprintable():
        raise InvalidChangeError(
            f"description: use at most {MAXIMUM_DESCRIPTION_CHARACTERS} printable characters"
        )


def require_cap(seconds: int | None) -> None:
    """Require whole seconds from 1, or None for no cap."""
    if seconds is not None and (isinstance(seconds, bool) or seconds < 1):
        raise InvalidChangeError("lifetime_cap_seconds: use whole seconds from 1")


def _accept(_value: object) -> None:
    """Accept a value that is checked where it is used."""


#: The fields of a scope that can be changed, each with its rule.
FIELD_RULES: Mapping[str, Callable[[Any], None]] = {
    "description": require_description,
    "risk": require_risk,
    "lifetime_cap_seconds": require_cap,
    "aliases": _accept,
    "callback_partner": _accept,
}
