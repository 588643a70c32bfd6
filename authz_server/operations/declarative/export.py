"""Write what is registered as a declarative file, without secrets."""

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Literal

import msgspec
from sqlalchemy.orm import Session

from authz_server.assembly import Services
from authz_server.operations.declarative.applied_operators import read_operators
from authz_server.operations.declarative.applied_programmes import read_programmes
from authz_server.operations.declarative.applied_streams import read_streams
from authz_server.operations.declarative.document import (
    Catalogue,
    DeclaredClient,
    DeclaredResourceServer,
    DeclaredScope,
    Section,
)
from authz_server.operations.declarative.limits import SectionLimits
from authz_server.operations.declarative.stored import (
    catalogue_values,
    client_values,
    normal,
    read_rows,
    read_scopes,
    scope_values,
    server_values,
    without_defaults,
)
from authz_server.operations.declarative.toml_writer import toml_key, toml_member
from authz_server.operations.limited_services import narrow
from authz_server.operations.permissions import UNLIMITED
from authz_server.operations.reach import Reach

Format = Literal["toml", "json"]
Entries = Mapping[str, Mapping[str, Any]]

_CATALOGUES: tuple[Catalogue, ...] = ("g2p-connect",)
_HEADING = """\
# What is registered at an authorization server, for `authz-server apply`.
# A member that is missing has its default. Secrets are not part of this file.
"""
_SECTIONS: Mapping[Section, str] = {
    "scopes": "Scopes of one's own, and scopes of a catalogue that differ from it.",
    "resource_servers": "Resource servers, with the scopes that they own.",
    "clients": "Clients, with the scopes that they may ask for.",
    "programmes": "Programmes: scopes and clients that are stopped together.",
    "operators": "Operators, with their roles and limits.",
}


@dataclass(frozen=True, slots=True)
class _Found:
    """The parts of an export, section by section.

    Attributes:
        catalogues: the shipped catalogues whose scopes are all there.
        sections: the entries by section and name.
        risks: the risks of scopes.
    """

    catalogues: list[Catalogue] = field(default_factory=list)
    sections: dict[Section, Entries] = field(default_factory=dict)
    risks: dict[str, str] = field(default_factory=dict)


def export_declaration(
    services: Services, *, form: Format = "toml", operators: bool = False
) -> str:
    """Return the stored registrations as text, ordered by id.

    Dynamically registered clients, the admin API and its scopes are left out.

    Args:
        services: the parts of the server.
        form: ``toml``, with comments, or ``json``.
        operators: whether the operators are included.

    Raises:
        InvalidChangeError: TOML has no form for a value of a property.
    """
    return export_within(services, {}, form=form, operators=operators)


def export_within(
    services: Services, limits: SectionLimits, *, form: Format = "toml", operators: bool = False
) -> str:
    """Return the stored registrations that lie within limits alone, as the other function does.

    Args:
        services: the parts of the server.
        limits: the limits of the caller for each section; programmes need scopes without limits.
        form: ``toml`` or ``json``.
        operators: whether the operators are included.

    Raises:
        InvalidChangeError: TOML has no form for a value of a property.
    """
    found = _Found()
    with services.transaction() as session:
        for section, read in _READERS.items():
            with narrow(session, limits.get(section, UNLIMITED)) as reach:
                found.sections[section] = read(services, session, reach, found)
        if not limits.get("scopes"):
            found.sections["programmes"] = read_programmes(session)
        if operators:
            found.sections["operators"] = read_operators(session)
    return write_document(tuple(found.catalogues), found.sections, form=form, risks=found.risks)


def write_document(
    catalogues: tuple[Catalogue, ...],
    sections: Mapping[Section, Entries],
    *,
    form: Format = "toml",
    risks: Mapping[str, str] | None = None,
) -> str:
    """Return entries as text.

    Args:
        catalogues: the shipped catalogues whose scopes have to be there.
        sections: the entries by section and name.
        form: ``toml`` or ``json``.
        risks: the risks of scopes, for comments.

    Raises:
        InvalidChangeError: TOML has no form for a value.
    """
    if form == "json":
        whole: dict[str, Any] = {
            "format": 1,
            "catalogues": list(catalogues),
            **{str(name): sections[name] for name in sections},
        }
        return json.dumps(whole, indent=2, ensure_ascii=False, default=_plain) + "\n"
    money = {name: "money" for name, risk in (risks or {}).items() if risk == "money"}
    lines = [_HEADING, "format = 1", *toml_member("catalogues", list(catalogues))]
    for section, comment in _SECTIONS.items():
        if section not in sections:
            continue
        lines += ["", f"# {comment}"]
        if not sections[section]:
            # An empty section is one that `apply --prune` makes empty.
            lines += ["", f"[{section}]"]
        for name, members in sections[section].items():
            lines += ["", *_table(section, name, members, money)]
    return "\n".join(lines) + "\n"


def _read_scopes(
    services: Services, session: Session, reach: Reach | None, found: _Found
) -> Entries:
    rows = read_scopes(services, session)
    shipped = catalogue_values(_CATALOGUES)
    # A catalogue is of the whole server; a caller with limits does not delete its scopes.
    if reach is None and shipped.keys() <= rows.keys():
        found.catalogues.extend(_CATALOGUES)
    elif reach is None:
        shipped = {}
    return {
        name: without_defaults(DeclaredScope, scope_values(row))
        for name, row in rows.items()
        if reach is None or name in reach.own_scopes
        if scope_values(row) != shipped.get(name)
    }


def _read_servers(
    services: Services, session: Session, reach: Reach | None, found: _Found
) -> Entries:
    owned: dict[str, list[str]] = {}
    for name, row in read_scopes(services, session).items():
        found.risks[name] = row.risk
        if row.resource_server_id is not None:
            owned.setdefault(row.resource_server_id, []).append(name)
    streams = read_streams(session)
    return {
        server_id: _entry(
            DeclaredResourceServer,
            {**server_values(row), "event_stream": streams.get(server_id)},
            row.enabled,
            owned.get(server_id, []),
        )
        for server_id, row in read_rows(services, session, "resource_server").items()
        if reach is None or reach.owns_row(row)
    }


def _read_clients(
    services: Services, session: Session, reach: Reach | None, found: _Found
) -> Entries:
    if reach is not None:
        scopes = services.scopes.list_scopes(session)
        found.risks.update({row.name: row.risk for row in scopes})
    return {
        client_id: _entry(DeclaredClient, client_values(row), row.enabled, [])
        for client_id, row in read_rows(services, session, "client").items()
        if reach is None or reach.owns_row(row)
    }


_READERS: Mapping[Section, Callable[[Services, Session, Reach | None, _Found], Entries]] = {
    "scopes": _read_scopes,
    "resource_servers": _read_servers,
    "clients": _read_clients,
}


def _entry(
    struct: type[msgspec.Struct],
    values: dict[str, Any],
    enabled: bool,  # noqa: FBT001 - the field
    scopes: list[str],
) -> dict[str, Any]:
    """Return the members of an entry; one that is enabled does not have its state."""
    further = {"scopes": scopes} if "scopes" in struct.__struct_fields__ else {}
    members = without_defaults(struct, {**values, **further})
    if not enabled:
        members["enabled"] = False
    return {name: members[name] for name in struct.__struct_fields__ if name in members}


def _table(
    section: Section, name: str, members: Mapping[str, Any], money: Mapping[str, str]
) -> Iterator[str]:
    path = f"{section}.{toml_key(name)}"
    yield f"[{path}]"
    for member, value in members.items():
        if member != "properties":
            yield from toml_member(member, normal(value), money if "scopes" in member else None)
    if properties := members.get("properties"):
        yield ""
        yield f"[{path}.properties]"
        for member, value in properties.items():
            yield from toml_member(member, value)


def _plain(value: object) -> str:
    if isinstance(value, datetime):
        return value.astimezone(UTC).isoformat().replace("+00:00", "Z")
    raise TypeError(f"{type(value).__name__} has no form in JSON")
