"""Conditions on clients: a part of a text, the state, the last use."""

from collections.abc import Sequence
from datetime import datetime

from sqlalchemy import ColumnElement, and_, exists, func, or_

from authz_server.clients.models import Client, ClientSecret
from authz_server.scopes.uses import ScopeUse


def contains_text(text: ColumnElement[str], wanted: str, *, of_sqlite: bool) -> ColumnElement[bool]:
    """Return the condition that a text in lower case has a part, in any case of its letters.

    Args:
        text: the text.
        wanted: the part.
        of_sqlite: whether the database is SQLite.
    """
    if not of_sqlite:
        return func.strpos(text, func.lower(wanted)) > 0
    if wanted.isascii():
        return func.instr(text, wanted.lower()) > 0
    # SQLite's lower() leaves the letters beyond ASCII as they are.
    pattern = "".join(map(_either_case, wanted))
    return text.op("GLOB", is_comparison=True)(f"*{pattern}*")


def _either_case(letter: str) -> str:
    """Return the pattern of GLOB for a letter, lower case where it is of ASCII."""
    if letter.isascii():
        return f"[{letter}]" if letter in "*?[" else letter.lower()
    forms = {letter, letter.lower(), letter.upper()}
    return f"[{''.join(sorted(each for each in forms if len(each) == 1))}]"


def in_state(state: str, now: datetime) -> ColumnElement[bool]:
    """Return the condition of a state; the order of the tests is that of ``state_of``."""
    disabled = Client.enabled.is_(False)
    expired = and_(Client.expires_at.is_not(None), Client.expires_at <= now)
    future = and_(Client.starts_at.is_not(None), Client.starts_at > now)
    return {
        "disabled": disabled,
        "expired": and_(~disabled, expired),
        "not yet": and_(~disabled, ~expired, future),
        "enabled": and_(~disabled, ~expired, ~future),
    }[state]


def is_unused_since(at: datetime) -> Sequence[ColumnElement[bool]]:
    """Return the conditions that a client obtained no token since a time."""
    by_secret = exists().where(ClientSecret.client_id == Client.id, ClientSecret.last_used_at >= at)
    by_token = exists().where(
        ScopeUse.client_id == Client.id, ScopeUse.kind == "asked", ScopeUse.last_at >= at
    )
    # Apart, so that PostgreSQL joins either table.
    return ~by_secret, ~by_token


def is_active(now: datetime) -> ColumnElement[bool]:
    """Return the condition that a secret has not ended."""
    return or_(ClientSecret.ended_at.is_(None), ClientSecret.ended_at > now)
