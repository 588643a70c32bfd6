"""The requests that revoke tokens, and that explain requests and tokens."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from authz_server.cli.remote.api import AdminApi, convert
from authz_server.cli.remote.table import carries_out
from authz_server.operations.explain import RequestExplanation, explain_request
from authz_server.operations.explain_token import TokenExplanation, explain_token
from authz_server.operations.revocation import CutOff, plan_cut_off, revoke_tokens
from authz_server.operations.tokens import RevokedToken, revoke_token, revoke_token_by_id
from authz_server.tokens.revocations import CutOffKind

_READ, _REVOKE = "clients:read", "tokens:revoke"


@carries_out(plan_cut_off)
def _plan_cut_off(
    api: AdminApi, kind: CutOffKind, subject: str = "", *, before: datetime | None = None
) -> CutOff:
    body = _cut_off(kind, subject, before)
    answer = api.post(_REVOKE, "revocations", body=body, dry_run=True)
    return convert({**answer, "issued_up_to": before}, CutOff)


@carries_out(revoke_tokens)
def _revoke_tokens(  # noqa: PLR0913 - those of the operation
    api: AdminApi,
    kind: CutOffKind,
    subject: str = "",
    *,
    actor: str,
    before: datetime | None = None,
    reason: str = "",
) -> CutOff:
    del actor
    body = {**_cut_off(kind, subject, before), "reason": reason}
    return convert(api.create(_REVOKE, "revocations", body=body), CutOff)


@carries_out(revoke_token)
def _revoke_token(api: AdminApi, presented: str, *, actor: str) -> RevokedToken:
    del actor
    return _revoked(api, {"token": presented})


@carries_out(revoke_token_by_id)
def _revoke_token_by_id(api: AdminApi, jti: str, *, actor: str) -> RevokedToken:
    del actor
    return _revoked(api, {"jti": jti})


@carries_out(explain_request)
def _explain_request(  # noqa: PLR0913 - those of the operation
    api: AdminApi,
    client_id: str,
    *,
    scope: str | None = None,
    resources: Sequence[str] = (),
    address: str | None = None,
    method: str | None = None,
) -> RequestExplanation:
    body = {
        "client_id": client_id,
        "scope": scope,
        "resources": resources,
        "address": address,
        "method": method,
    }
    answer = api.answer("POST", _READ, ("explanations", "requests"), body=body)
    return convert(answer, RequestExplanation)


@carries_out(explain_token)
def _explain_token(api: AdminApi, presented: str, caller_id: str) -> TokenExplanation:
    body = {"token": presented, "caller": caller_id}
    answer = api.answer("POST", _READ, ("explanations", "tokens"), body=body)
    return convert(answer, TokenExplanation)


def _cut_off(kind: CutOffKind, subject: str, before: datetime | None) -> dict[str, Any]:
    if kind != "all":
        return {kind: subject, "before": before}
    return {"all": True} if before is None else {"before": before}


def _revoked(api: AdminApi, body: Mapping[str, str]) -> RevokedToken:
    answer = api.create(_REVOKE, "revocations", body=body)
    return convert({**answer, "jti": answer["subject"]}, RevokedToken)
