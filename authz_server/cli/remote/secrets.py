"""The requests for the secrets of clients and resource servers."""

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

from authz_server.cli.remote.api import AdminApi, convert
from authz_server.cli.remote.clients import PATHS
from authz_server.cli.remote.table import carries_out
from authz_server.clients.models import Kind
from authz_server.operations.client_secrets import (
    NewSecret,
    add_secret,
    end_secret,
    is_last_secret,
    list_secrets,
)
from authz_server.operations.client_views import SecretView
from authz_server.operations.due_secrets import DueSecret, list_due_secrets
from authz_server.operations.secret_rotation import RotatedSecret, rotate_secret

_WRITE = "secrets:write"


@carries_out(add_secret)
def _add_secret(  # noqa: PLR0913 - those of the operation
    api: AdminApi,
    client_id: str,
    *,
    kind: Kind,
    imported: bytes | None = None,
    description: str = "",
    expires_at: datetime | None = None,
    **others: Any,  # noqa: ANN401 - the actor, and what only the server has
) -> NewSecret:
    del others
    body = {
        "description": description,
        "expires_at": expires_at,
        "imported_secret": imported and imported.decode(),
    }
    answer = api.create(_WRITE, PATHS[kind], client_id, "secrets", body=body)
    return _new_secret(answer)


@carries_out(rotate_secret)
def _rotate_secret(  # noqa: PLR0913 - those of the operation
    api: AdminApi,
    client_id: str,
    *,
    kind: Kind,
    end_old_at: datetime | None = None,
    end_old_when_unused: timedelta | None = None,
    description: str = "",
    expires_at: datetime | None = None,
    imported: bytes | None = None,
    **others: Any,  # noqa: ANN401 - the actor, and what only the server has
) -> RotatedSecret:
    del others
    unused = end_old_when_unused
    body = {
        "end_old_at": end_old_at,
        "end_old_when_unused_seconds": None if unused is None else int(unused.total_seconds()),
        "description": description,
        "expires_at": expires_at,
        "imported_secret": imported and imported.decode(),
    }
    answer = api.create(_WRITE, PATHS[kind], client_id, "secrets", "rotate", body=body)
    old = tuple(convert(each, SecretView) for each in answer["old"])
    return RotatedSecret(new=_new_secret(answer), old=old)


@carries_out(list_secrets)
def _list_secrets(api: AdminApi, client_id: str, *, kind: Kind) -> tuple[SecretView, ...]:
    found = api.list(SecretView, f"{PATHS[kind]}:read", PATHS[kind], client_id, "secrets")
    return tuple(sorted(found, key=lambda secret: (secret.created_at, secret.id)))


@carries_out(list_due_secrets)
def _list_due_secrets(api: AdminApi, *, kind: Kind, within: timedelta) -> tuple[DueSecret, ...]:
    noun = PATHS[kind]
    seconds = str(int(within.total_seconds()))
    path = ("reports", f"{noun.removesuffix('s')}-secrets")
    return api.list(DueSecret, f"{noun}:read", *path, within_seconds=seconds)


@carries_out(is_last_secret)
def _is_last_secret(
    api: AdminApi, client_id: str, secret_id: str, *, kind: Kind, at: datetime | None = None
) -> bool:
    end = max(at or datetime.now(UTC), datetime.now(UTC))
    return not any(
        each.works and (each.ends_at is None or each.ends_at > end)
        for each in _list_secrets(api, client_id, kind=kind)
        if each.id != secret_id
    )


@carries_out(end_secret)
def _end_secret(  # noqa: PLR0913 - those of the operation
    api: AdminApi,
    client_id: str,
    secret_id: str,
    *,
    kind: Kind,
    actor: str,
    at: datetime | None = None,
) -> SecretView:
    del actor
    path = (PATHS[kind], client_id, "secrets", secret_id)
    return convert(api.change("DELETE", _WRITE, *path, at=at), SecretView)


def _new_secret(answer: Mapping[str, Any]) -> NewSecret:
    return NewSecret(
        id=answer["id"],
        expires_at=convert(answer, SecretView).ends_at,
        value=answer.get("value", ""),
    )
