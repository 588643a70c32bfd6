"""Find the spellings of the scopes that a filter names."""

from sqlalchemy import select
from sqlalchemy.orm import Session

from authz_server.scopes.models import ScopeAlias


def find_catalogued(session: Session, wanted: str) -> dict[str, frozenset[str]]:
    """Return the scopes of the catalogue that a filter names, each with its spellings.

    Args:
        session: for reading.
        wanted: a scope in any spelling, or the beginning of several: ``disburse`` and
            ``disburse/*`` stand for all scopes below ``disburse/``.
    """
    prefix = f"{wanted.removesuffix('*').removesuffix('/')}/"
    found: dict[str, set[str]] = {}
    for alias, name in session.execute(select(ScopeAlias.alias, ScopeAlias.scope_name)):
        found.setdefault(name, {name}).add(alias)
    return {
        name: frozenset(spellings)
        for name, spellings in found.items()
        if wanted in spellings or name.startswith(prefix)
    }


def find_spellings(session: Session, wanted: str) -> frozenset[str]:
    """Return every spelling of the scopes that a filter names; see :func:`find_catalogued`.

    A name that the catalogue does not have stands for itself, since records outlive scopes.
    """
    return frozenset[str]().union(*find_catalogued(session, wanted).values()) or frozenset({wanted})
