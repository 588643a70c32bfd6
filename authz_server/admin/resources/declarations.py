"""Declarative files: export the stored registrations, and apply files."""

from typing import Annotated

import msgspec
from msgspec import UNSET, Meta, UnsetType

from authz_server.admin.authentication import require_permission
from authz_server.admin.calls import Call, Reply
from authz_server.clients.models import Client
from authz_server.operations.caller_power import require_no_more_of_client
from authz_server.operations.declarative.applied_registrations import InitialSecrets
from authz_server.operations.declarative.apply import Application, apply_within
from authz_server.operations.declarative.approved import permissions_of
from authz_server.operations.declarative.document import SourceFile, parse_declaration
from authz_server.operations.declarative.export import Format, export_declaration
from authz_server.operations.declarative.plan import Plan, diff_of
from authz_server.operations.views import revision_of

#: 1,000 clients take about 300 kB; 20,000 of them fit.
MAXIMUM_BODY_BYTES = 8 * 1024 * 1024
_MAXIMUM_FILES = 100


class ExportQuery(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The parameters of an export.

    Attributes:
        format: the format of the text.
    """

    format: Format = "toml"


class Export(msgspec.Struct, frozen=True, kw_only=True):
    """The stored clients, resource servers and scopes as a declarative file, without secrets."""

    format: Format
    text: str


class DeclarativeFile(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A declarative file.

    Attributes:
        name: its name, for refusals and records; ``.json`` is JSON, every other name is TOML.
        text: its content.
    """

    name: Annotated[str, Meta(min_length=1, max_length=1_000)]
    text: str

    def __post_init__(self) -> None:
        if not self.name.isprintable():
            raise ValueError("name: use printable characters")


class Declared(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Files to apply.

    Attributes:
        files: the files, in their order.
        prune: remove what the files do not have, in the sections that they have.
        generate_secrets: generate a secret for each new client that needs one.
        imported_secrets: existing secrets of new clients, by id.
        expected: the ``revision`` of the plan that was agreed to; null: any.
    """

    files: Annotated[tuple[DeclarativeFile, ...], Meta(min_length=1, max_length=_MAXIMUM_FILES)]
    prune: bool = False
    generate_secrets: bool = False
    imported_secrets: dict[str, Annotated[str, Meta(max_length=1_000)]] = {}
    expected: Annotated[str, Meta(max_length=60)] | None = None


class AppliedMembers(msgspec.Struct, frozen=True, kw_only=True):
    """The members that the answer to an application has beside those of the plan.

    Attributes:
        revision: the revision of the plan, for ``expected``.
        secrets: the generated secrets by id, which cannot be read again.
    """

    revision: str
    secrets: dict[str, str] | UnsetType = UNSET


def export(call: Call) -> Reply:
    """Answer the stored clients, resource servers and scopes as a declarative file."""
    query: ExportQuery = call.query
    text = export_declaration(call.services, form=query.format)
    return Reply(Export(format=query.format, text=text))


def apply(call: Call) -> Reply:
    """Make clients, resource servers and scopes agree with declarative files."""
    body: Declared = call.body
    if call.session is None:
        raise RuntimeError("files are applied in a transaction")
    declaration = parse_declaration(
        SourceFile(name=each.name, text=each.text) for each in body.files
    )
    now = call.services.corrected_clock()
    for permission in permissions_of(declaration):
        require_permission(call.caller, permission, now=now, whole_server=True)
    generated: dict[str, str] = {}

    def find_imported(client_id: str) -> bytes | None:
        found = body.imported_secrets.get(client_id)
        return None if found is None else found.encode()

    def require(row: Client) -> None:
        require_no_more_of_client(call.caller, row)

    application = Application(
        declaration=declaration,
        actor=call.caller.actor,
        prune=body.prune,
        undone=call.dry_run,
        expected=body.expected,
        secrets=InitialSecrets(
            keep=generated.__setitem__ if body.generate_secrets else None,
            find_imported=find_imported,
            writes=not call.dry_run,
        ),
        require=require,
    )
    plan: Plan = apply_within(call.services, call.session, application)
    members = {"revision": revision_of(plan), **({"secrets": generated} if generated else {})}
    return Reply(plan, members, diff=diff_of(plan), has_recorded_diff=True)
