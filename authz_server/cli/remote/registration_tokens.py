"""The requests for initial access tokens."""

from typing import Any

from authz_server.cli.remote.api import AdminApi, convert
from authz_server.cli.remote.table import carries_out
from authz_server.operations.registration_tokens import (
    NewRegistrationToken,
    RegistrationTokenView,
    create_registration_token,
    end_registration_token,
    list_registration_tokens,
)

_READ, _WRITE = "clients:read", "clients:write"
_PATH = "registration-tokens"


@carries_out(create_registration_token)
def _create_registration_token(
    api: AdminApi,
    *,
    actor: str,
    **fields: Any,  # noqa: ANN401 - those of the operation
) -> NewRegistrationToken:
    del actor
    answer = api.create(_WRITE, _PATH, body=fields)
    return NewRegistrationToken(
        view=convert(answer, RegistrationTokenView), value=str(answer["value"])
    )


@carries_out(list_registration_tokens)
def _list_registration_tokens(api: AdminApi) -> tuple[RegistrationTokenView, ...]:
    found = api.list(RegistrationTokenView, _READ, _PATH)
    return tuple(sorted(found, key=lambda token: token.created_at, reverse=True))


@carries_out(end_registration_token)
def _end_registration_token(api: AdminApi, token_id: str, *, actor: str) -> RegistrationTokenView:
    del actor
    return convert(api.change("DELETE", _WRITE, _PATH, token_id), RegistrationTokenView)
