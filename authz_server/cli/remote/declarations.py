"""The requests for declarative files."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Any

from authz_server.cli.remote.api import AdminApi, convert
from authz_server.cli.remote.connection import LostConnectionError, RemoteError
from authz_server.cli.remote.table import carries_out
from authz_server.cli.remote.waiting import WaitsForApproval
from authz_server.errors import OperatorError
from authz_server.operations.declarative.apply import apply_declaration
from authz_server.operations.declarative.document import INSTANTS, Declaration
from authz_server.operations.declarative.export import Format, export_declaration
from authz_server.operations.declarative.limits import permissions_of
from authz_server.operations.declarative.plan import FieldChange, Plan
from authz_server.operations.declarative.secret_directory import SecretDirectory, read_imported
from authz_server.operations.views import revision_of

_READS = "clients:read resource-servers:read scopes:read"
_PATH = "declaration"


@carries_out(export_declaration)
def _export_declaration(api: AdminApi, *, form: Format = "toml", operators: bool = False) -> str:
    permissions, query = _READS, {"format": str(form)}
    if operators:
        permissions, query = f"{_READS} operators:read", {**query, "operators": "true"}
    return str(api.answer("GET", permissions, (_PATH,), query=query)["text"])


@carries_out(apply_declaration)
def _apply_declaration(  # noqa: PLR0913 - those of the operation
    api: AdminApi,
    declaration: Declaration,
    *,
    actor: str,
    prune: bool = False,
    dry_run: bool = False,
    expected: Plan | None = None,
    secret_directory: Path | None = None,
    imported_secrets: Path | None = None,
) -> Plan:
    del actor
    body = {
        "files": [{"name": file.name, "text": file.text} for file in declaration.files],
        "prune": prune,
        "generate_secrets": secret_directory is not None,
        "imported_secrets": _read_all(declaration, imported_secrets),
        "expected": None if expected is None else revision_of(expected),
    }
    # Each section has its own.
    permissions = " ".join(sorted(set(permissions_of(declaration).values())))

    def send(*, dry_run: bool) -> dict[str, Any]:
        return api.post(permissions, _PATH, body=body, dry_run=dry_run)

    if secret_directory is not None and not dry_run:
        # The server does not show them again, so that their files are tried before.
        planned = expected or convert(send(dry_run=True), Plan)
        SecretDirectory(secret_directory).rehearse(
            change.id
            for change in planned.changes
            if change.secret == "generated"  # noqa: S105 - a kind
        )
    with _naming_lost_secrets(makes_them=secret_directory is not None and not dry_run):
        try:
            answer = send(dry_run=dry_run)
        except WaitsForApproval as waiting:
            # They work once the change is approved.
            _write_all(secret_directory, waiting.answer.get("secrets", {}))
            raise
    _write_all(secret_directory, answer.get("secrets", {}))
    return _with_times(convert(answer, Plan))


def _read_all(declaration: Declaration, folder: Path | None) -> dict[str, str]:
    """Return the secrets in a folder of the clients and resource servers of the files."""
    found = {
        name: secret
        for name in (*declaration.clients, *declaration.resource_servers)
        if (secret := read_imported(folder, name)) is not None
    }
    try:
        return {name: secret.decode() for name, secret in found.items()}
    except UnicodeDecodeError as error:
        raise RemoteError("--imported-secrets: a secret is not UTF-8 text.") from error


def _write_all(folder: Path | None, secrets: Mapping[str, str]) -> None:
    """Write new secrets to a folder; those that cannot be written are lost.

    Raises:
        RemoteError: some cannot be written.
    """
    if folder is None:
        return
    directory = SecretDirectory(folder)
    lost = {}
    for name, secret in secrets.items():
        try:
            directory.write(name, secret)
        except (OSError, OperatorError) as error:
            lost[name] = error
    problems = []
    if lost:
        problems.append(
            f"these secrets are not in {folder}: {', '.join(sorted(lost))}. Add others by"
            f" `secret add`. ({next(iter(lost.values()))})"
        )
    try:
        directory.sync()
    except OSError as error:
        problems.append(
            f"the secrets in {folder} may be lost at a power failure: copy them. ({error})"
        )
    if problems:
        raise RemoteError(f"The plan is applied or waits, but {' Also, '.join(problems)}")


@contextmanager
def _naming_lost_secrets(*, makes_them: bool) -> Iterator[None]:
    try:
        yield
    except LostConnectionError as error:
        if not makes_them:
            raise
        raise RemoteError(
            f"{error} The plan may be applied or wait, and its secrets are lost then: add others by"
            " `secret add` to the new clients."
        ) from error


def _with_times(plan: Plan) -> Plan:
    """Return a plan with the times that JSON has as text."""
    changes = (
        replace(change, fields=tuple(map(_with_time, change.fields))) for change in plan.changes
    )
    return replace(plan, changes=tuple(changes))


def _with_time(field: FieldChange) -> FieldChange:
    if field.path not in INSTANTS:
        return field
    return replace(field, before=_time(field.before), after=_time(field.after))


def _time(value: Any) -> datetime | None:  # noqa: ANN401 - any JSON
    return None if value is None else convert(value, datetime)
