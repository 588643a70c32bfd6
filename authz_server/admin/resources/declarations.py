"""Declarative files: export the stored registrations, and apply files."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Annotated, Any

import msgspec
from msgspec import UNSET, Meta, UnsetType

from authz_server.admin.authentication import require_permission
from authz_server.admin.calls import Call, Reply
from authz_server.clients.models import Client
from authz_server.clients.secret_changes import PreparedSecret
from authz_server.errors import InvalidChangeError
from authz_server.operations.caller_power import require_no_more_of_client, require_no_more_of_roles
from authz_server.operations.declarative.application import Application
from authz_server.operations.declarative.apply import apply_within
from authz_server.operations.declarative.document import (
    Declaration,
    SourceFile,
    parse_declaration,
)
from authz_server.operations.declarative.export import Format, export_within
from authz_server.operations.declarative.imported_secrets import find_imports, hash_imports
from authz_server.operations.declarative.initial_secrets import InitialSecrets
from authz_server.operations.declarative.limits import (
    READS,
    SectionLimits,
    find_limits,
    permissions_of,
)
from authz_server.operations.declarative.plan import Plan, diff_of
from authz_server.operations.permissions import Limits
from authz_server.operations.views import revision_of

#: 1,000 clients take about 300 kB; 20,000 of them fit.
MAXIMUM_BODY_BYTES = 8 * 1024 * 1024
_MAXIMUM_FILES = 100
#: Hashing one takes about a tenth of a second.
MAXIMUM_IMPORTS = 50


class ExportQuery(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The parameters of an export.

    Attributes:
        format: the format of the text.
        operators: whether the operators are included, which needs `operators:read`.
    """

    format: Format = "toml"
    operators: bool = False


class Export(msgspec.Struct, frozen=True, kw_only=True):
    """The declarative file of what is registered, without secrets."""

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

    def find_imported(self, client_id: str) -> bytes | None:
        """Return the secret to import for an id; None: there is none."""
        found = self.imported_secrets.get(client_id)
        return None if found is None else found.encode()


class AppliedMembers(msgspec.Struct, frozen=True, kw_only=True):
    """The members that the answer to an application has beside those of the plan.

    Attributes:
        revision: the revision of the plan, for ``expected``.
        secrets: the generated secrets by id, which cannot be read again.
        repeated: whether an earlier request with the same key applied the files: ``changes`` is
            empty then, and ``revision`` is that of its plan.
        secret_hint: how to add secrets; in the answer to a repeated request alone.
    """

    revision: str
    secrets: dict[str, str] | UnsetType = UNSET
    repeated: bool | UnsetType = UNSET
    secret_hint: str | UnsetType = UNSET


@dataclass(frozen=True, slots=True)
class Prepared:
    """The parts of an application that are made before its transaction.

    Attributes:
        declaration: the entries of the files.
        secrets: the hashed secrets that new registrations bring, by id.
        limits: the limits of the caller, by section.
    """

    declaration: Declaration
    secrets: Mapping[str, PreparedSecret]
    limits: SectionLimits


def export(call: Call) -> Reply:
    """Answer what is registered as a declarative file, with the operators on request.

    A caller with limits gets what lies within them alone.
    """
    query: ExportQuery = call.query
    limits = find_limits(READS, partial(_authorise, call))
    if query.operators:
        now = call.services.corrected_clock()
        require_permission(call.caller, "operators:read", now=now, whole_server=True)
    text = export_within(call.services, limits, form=query.format, operators=query.operators)
    return Reply(Export(format=query.format, text=text))


def prepare(call: Call) -> Prepared:
    """Read the files, check the permissions for them, and hash the imported secrets.

    Raises:
        PermissionMissingError: the caller may not apply them.
        InvalidChangeError: they are malformed, or bring too many secrets or a malformed one.
    """
    body: Declared = call.body
    declaration = parse_declaration(
        SourceFile(name=each.name, text=each.text) for each in body.files
    )
    limits = find_limits(permissions_of(declaration), partial(_authorise, call))
    imports = find_imports(call.services, declaration, body.find_imported)
    if len(imports) > MAXIMUM_IMPORTS:
        raise InvalidChangeError(
            f"imported_secrets: at most {MAXIMUM_IMPORTS} of new clients and resource servers in a"
            " request"
        )
    # A dry run stores none.
    hashed = {} if call.dry_run else hash_imports(call.services, declaration, imports)
    return Prepared(declaration, hashed, limits)


def _authorise(call: Call, permission: str) -> Limits:
    """Return the limits of a permission of the caller."""
    now = call.services.corrected_clock()
    return require_permission(call.caller, permission, now=now, whole_server=False)


def apply(call: Call) -> Reply:
    """Make what is stored agree with declarative files."""
    body: Declared = call.body
    prepared: Prepared = call.prepared
    if call.session is None:
        raise RuntimeError("files are applied in a transaction")
    generated: dict[str, str] = {}

    def require(row: Client) -> None:
        require_no_more_of_client(call.caller, row)

    application = Application(
        declaration=prepared.declaration,
        actor=call.caller.actor,
        prune=body.prune,
        undone=call.dry_run,
        expected=body.expected,
        secrets=InitialSecrets(
            keep=generated.__setitem__ if body.generate_secrets else None,
            find_imported=body.find_imported,
            prepared=prepared.secrets,
            writes=not call.dry_run,
        ),
        limits=prepared.limits,
        require=require,
        require_roles=partial(require_no_more_of_roles, call.services, call.caller),
        acting_operator=call.caller.operator_id,
    )
    plan: Plan = apply_within(call.services, call.session, application)
    revision = revision_of(plan)
    members = {"revision": revision, **({"secrets": generated} if generated else {})}
    subject = f"{plan.digest} {revision} {len(generated)}"
    return Reply(plan, members, subject, diff=diff_of(plan), has_recorded_diff=True)


def repeat(_call: Call, subject: str) -> Reply:
    """Answer the revision of the plan that an earlier request with the same key applied."""
    digest, revision, generated = subject.split(" ")
    members: dict[str, Any] = {"revision": revision, "repeated": True}
    if int(generated):
        members["secret_hint"] = (
            f"Generated secrets ({generated}) were shown once."
            " POST /admin/v1/clients/CLIENT/secrets adds another one to a client, and"
            " POST /admin/v1/resource-servers/RESOURCE_SERVER/secrets to a resource server."
        )
    return Reply(Plan(digest=digest, changes=()), members)
