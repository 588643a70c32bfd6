"""Explain a token request to an operator: the outcome, the rule, and the change that helps.

Nothing is issued, counted, stored or recorded. The rules are those of the server.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from authz_server.assembly import Services
from authz_server.clients.authentication.shared_secret import SharedSecret
from authz_server.clients.cache import ClientEntry
from authz_server.errors import InvalidChangeError, OAuthError
from authz_server.operations.explained_causes import REMEDIES, is_stop_seen
from authz_server.settings.profiles import requires_bound_tokens
from authz_server.tokens.authorization import Authorization
from authz_server.tokens.binding import TokenBinder
from authz_server.tokens.decisions import decision_of, narrow
from authz_server.tokens.limits import find_latest_expiry

CLIENT_CREDENTIALS = "client_credentials"
#: What a token that must be bound requires of the request, by the reason of the refusal.
_BINDINGS = {
    "dpop_proof_missing": "The request has a DPoP proof.",
    "client_certificate_missing": "The request comes over TLS with the client's certificate.",
    "binding_missing": "The request has a DPoP proof or a client certificate.",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class RequestExplanation:
    """The outcome that a token request would have.

    Attributes:
        granted: True if a token would be issued.
        client_id: the client.
        cause: the reason that an audit record of the refusal would have; empty if granted.
        detail: the detail of that record.
        error: the OAuth error code of the response; empty if granted.
        status: the HTTP status of the response.
        remedy: the change that would help; empty if granted.
        scope: the ``scope`` of the token.
        audience: the identifiers of its resource servers.
        token_format: ``jwt`` or ``reference``; empty if refused.
        lifetime_seconds: its lifetime.
        conditions: what else the request must fulfil, which is not judged here.
    """

    granted: bool
    client_id: str
    cause: str = ""
    detail: str = ""
    error: str = ""
    status: int = 200
    remedy: str = ""
    scope: str = ""
    audience: tuple[str, ...] = ()
    token_format: str = ""
    lifetime_seconds: int = 0
    conditions: tuple[str, ...] = ()


def explain_request(  # noqa: PLR0913 - the parts of a request, by name
    services: Services,
    client_id: str,
    *,
    scope: str | None = None,
    resources: Sequence[str] = (),
    address: str | None = None,
    method: str | None = None,
) -> RequestExplanation:
    """Return the outcome of a request by ``client_credentials``, by the present state.

    Args:
        services: the parts of the server.
        client_id: the client.
        scope: the ``scope`` parameter; None: absent.
        resources: the ``resource`` parameters.
        address: the IP address of the sender; None: its network is not judged.
        method: the client authentication method that it would use; None: it is not judged.

    Raises:
        InvalidChangeError: there is no such method.
    """
    if method is not None and method not in services.method_names.names:
        known = ", ".join(services.method_names.names)
        raise InvalidChangeError(f"--method: use one of {known}.")
    services.feed.poll()
    # RFC 6749, 3.2: a parameter without a value is treated as if it were omitted.
    resources = tuple(filter(None, resources))
    try:
        client = _authenticate(services, client_id, address, method)
        if not client.check_grant_type(CLIENT_CREDENTIALS):
            raise OAuthError("grant_type_not_allowed", client_id=client_id)  # noqa: TRY301
        decided = services.rules.decide(client, CLIENT_CREDENTIALS, scope, resources)
        decided = _limit(services, client, decided)
        if services.plugins.decides:
            decision = decision_of(decided, None, address or "", method or "")
            decided = narrow(decided, services.plugins.decide_token(decision))
    except OAuthError as refusal:
        return _explain_refusal(services, client_id, refusal)
    return RequestExplanation(
        granted=True,
        client_id=client_id,
        scope=decided.scope,
        audience=decided.audience,
        token_format=decided.token_format,
        lifetime_seconds=decided.lifetime_seconds,
        conditions=tuple(_find_conditions(services, client)),
    )


def _explain_refusal(services: Services, client_id: str, refusal: OAuthError) -> RequestExplanation:
    detail = refusal.detail
    is_stop = refusal.reason in {"client_stopped", "scope_stopped"}
    if is_stop and not is_stop_seen(services, detail.partition(": ")[0]):
        # That of a programme, for example, whose name is not told to a caller with limits.
        detail = ""
    return RequestExplanation(
        granted=False,
        client_id=client_id,
        cause=refusal.cause,
        detail=detail,
        error=refusal.error,
        status=refusal.status_code,
        remedy=REMEDIES.get(refusal.cause, "").format(client=client_id, detail=detail),
    )


def _authenticate(
    services: Services, client_id: str, address: str | None, method: str | None
) -> ClientEntry:
    """Return the client; raise the error of its state, as far as no credential decides."""
    client = services.directory.find(client_id)
    now = services.corrected_clock().timestamp()
    if client is None:
        cause = "client_unknown"
    else:
        cause = client.find_refusal(now, address)
        if not cause and not _has_credential(client, now):
            cause = "secret_expired"
        permitted = services.method_names.permitted.get(client.authentication_method, ())
        if not cause and (method or next(iter(permitted), "")) not in permitted:
            cause = "method_not_registered"
    if client is None or cause:
        raise OAuthError("client_authentication_failed", cause=cause, client_id=client_id)
    return client


def _has_credential(client: ClientEntry, now: float) -> bool:
    """Return whether the client has a secret in force, if it authenticates with one."""
    if client.authentication_method not in SharedSecret.REGISTRATIONS:
        return True
    return any(secret.expires_at > now for secret in client.secrets)


def _limit(services: Services, client: ClientEntry, decided: Authorization) -> Authorization:
    """Return the authorization with the lifetime that the client's limits leave."""
    if client.restrictions is None:
        return decided
    now = services.corrected_clock().timestamp()
    latest = find_latest_expiry(client, client.restrictions, now)
    lifetime = int(min(decided.lifetime_seconds, latest - now))
    return replace(decided, lifetime_seconds=lifetime)


def _find_conditions(services: Services, client: ClientEntry) -> list[str]:
    conditions = []
    binder = TokenBinder(None, required=requires_bound_tokens(services.settings.profiles))
    try:
        binder.confirm(client, None, None)
    except OAuthError as missing:
        conditions.append(_BINDINGS[missing.reason])
    budgets = client.restrictions.budgets if client.restrictions is not None else ()
    for budget in budgets:
        of_scope = f" with the scope {budget.scope}" if budget.scope else ""
        conditions.append(
            f"The number of tokens{of_scope} that the client has obtained in this {budget.per} is"
            f" below {budget.tokens}."
        )
    if services.settings.plugins.enabled:
        conditions.append("The plugins do not refuse the request.")
    return conditions
