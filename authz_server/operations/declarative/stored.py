"""The stored clients, resource servers and scopes in the form of declarative entries.

A default value and an absent member are the same. Lists whose order has no meaning are sorted.
"""

from collections.abc import Iterable, Mapping
from typing import Any

import msgspec
from sqlalchemy import select
from sqlalchemy.orm import Session

from authz_server.assembly import Services
from authz_server.clients.models import Client, Kind
from authz_server.clients.registration.models import Registration
from authz_server.clients.registrations import ADMIN_IDENTIFIER
from authz_server.operations.admin_api import ADMIN_SCOPES
from authz_server.operations.clients import all_of_kind
from authz_server.operations.declarative.document import (
    Catalogue,
    DeclaredClient,
    DeclaredResourceServer,
    DeclaredScope,
)
from authz_server.scopes.models import Scope
from authz_server.scopes.service import spellings_of

_NOT_FIELDS = frozenset({"enabled", "scopes", "event_stream"})
#: The fields of entries that their rows have, apart from the state and owned scopes.
SCOPE_FIELDS = DeclaredScope.__struct_fields__
SERVER_FIELDS = tuple(
    each for each in DeclaredResourceServer.__struct_fields__ if each not in _NOT_FIELDS
)
CLIENT_FIELDS = tuple(each for each in DeclaredClient.__struct_fields__ if each not in _NOT_FIELDS)


def normal(value: Any) -> Any:  # noqa: ANN401 - any field
    """Return a value to compare and write: a list of strings sorted, each once."""
    if isinstance(value, list | tuple) and all(isinstance(each, str) for each in value):
        return sorted(set(value))
    return value


def client_values(row: Client) -> dict[str, Any]:
    """Return the declared fields of a client's row."""
    return {name: normal(getattr(row, name)) for name in CLIENT_FIELDS}


def server_values(row: Client) -> dict[str, Any]:
    """Return the declared fields of a resource server's row, without its scopes."""
    return {
        name: normal(getattr(row if hasattr(row, name) else row.resource_server, name))
        for name in SERVER_FIELDS
    }


def scope_values(row: Scope) -> dict[str, Any]:
    """Return the declared fields of a scope's row."""
    return {
        "description": row.description,
        "risk": row.risk,
        "lifetime_cap_seconds": row.lifetime_cap_seconds,
        "aliases": sorted(spellings_of(row)),
        "callback_partner": row.callback_partner,
    }


def catalogue_values(names: Iterable[Catalogue]) -> dict[str, dict[str, Any]]:
    """Return the declared fields of the scopes of shipped catalogues, by name."""
    if "g2p-connect" not in set(names):
        return {}
    # Few commands need the catalogue.
    from authz_server.scopes.g2p_connect import CATALOGUE  # noqa: PLC0415

    return {
        each.name: {
            "description": each.description,
            "risk": each.risk,
            "lifetime_cap_seconds": each.lifetime_cap_seconds,
            "aliases": sorted(set(each.aliases) - {each.name}),
            "callback_partner": each.callback_partner,
        }
        for each in CATALOGUE
    }


def registered_by_themselves(session: Session) -> frozenset[str]:
    """Return the ids of dynamically registered clients, which are in no declarative file."""
    return frozenset(session.scalars(select(Registration.client_id)))


def read_rows(services: Services, session: Session, kind: Kind) -> dict[str, Client]:
    """Return the rows that a declarative file is about, by id.

    Dynamically registered clients and the admin API are left out: they have owners of their own.
    """
    others = registered_by_themselves(session)
    return {
        row.id: row
        for row in all_of_kind(services, session, kind)
        if row.id not in others and not is_admin_api(row)
    }


def is_admin_api(row: Client) -> bool:
    """Return whether a row is the admin API of this server."""
    server = row.resource_server
    return server is not None and server.identifier == ADMIN_IDENTIFIER


def read_scopes(services: Services, session: Session) -> dict[str, Scope]:
    """Return every scope but those of the admin API, by name."""
    admin = {name for name, _, _ in ADMIN_SCOPES}
    owners = set(
        session.scalars(
            select(Client.id).where(Client.resource_server.has(identifier=ADMIN_IDENTIFIER))
        )
    )
    return {
        row.name: row
        for row in services.scopes.list_scopes(session)
        if not (row.name in admin and row.resource_server_id in owners)
    }


def without_defaults(struct: type[msgspec.Struct], values: Mapping[str, Any]) -> dict[str, Any]:
    """Return the values that differ from the struct's defaults, in the struct's order."""
    defaults = {
        each.name: normal(each.default_factory())
        if each.default_factory is not msgspec.NODEFAULT
        else normal(each.default)
        for each in msgspec.structs.fields(struct)
    }
    return {
        name: values[name]
        for name in struct.__struct_fields__
        if name in values and values[name] != defaults[name]
    }
