"""OAuth errors: the public text for clients, and the details for the audit record.

A broken rule raises :class:`OAuthError` with a *reason* from the table below, which
``endpoints.errors`` renders. The reason is also the key of the translated message in the
G2P Connect profile.
"""

from dataclasses import dataclass

from authlib.oauth2 import OAuth2Error


@dataclass(frozen=True, slots=True)
class Reason:
    """A reason's error code (RFC 6749, 5.2), HTTP status and public description.

    The description uses only characters that RFC 6749, 5.2 allows for ``error_description``.
    """

    error: str
    status: int
    description: str


REASONS: dict[str, Reason] = {
    # RFC 6749, 5.2
    "parameter_missing": Reason(
        "invalid_request",
        400,
        "A required parameter is missing: grant_type at a token endpoint, and assertion for the "
        "JWT bearer grant; token at the others.",
    ),
    "parameter_repeated": Reason("invalid_request", 400, "A parameter was sent more than once."),
    "parameter_malformed": Reason(
        "invalid_request", 400, "The form or one of its values is malformed."
    ),
    "parameter_too_long": Reason("invalid_request", 400, "A value in the form is too long."),
    "parameters_too_many": Reason("invalid_request", 400, "The form has too many parameters."),
    "query_string_refused": Reason(
        "invalid_request", 400, "Parameters belong in the request body, not in the query string."
    ),
    "several_authentication_methods": Reason(
        "invalid_request", 400, "Use one client authentication method per request."
    ),
    "timestamp_missing": Reason("invalid_request", 400, "The timestamp header is required."),
    "timestamp_malformed": Reason(
        "invalid_request", 400, "The timestamp header is not an HTTP date."
    ),
    "timestamp_outside_window": Reason(
        "invalid_request", 400, "The timestamp header is too far from the server's clock."
    ),
    "message_id_malformed": Reason(
        "invalid_request", 400, "The message_id header is too long or has characters not allowed."
    ),
    "client_authentication_failed": Reason("invalid_client", 401, "Client authentication failed."),
    # RFC 9449, 5 and 8
    "dpop_proof_missing": Reason(
        "invalid_dpop_proof", 400, "This client must send a DPoP proof with each token request."
    ),
    "dpop_proof_invalid": Reason(
        "invalid_dpop_proof", 400, "The DPoP proof is malformed, or not for this request."
    ),
    "dpop_proof_outside_window": Reason(
        "invalid_dpop_proof", 400, "The DPoP proof is too old, or from the future: check the clock."
    ),
    "dpop_proof_used": Reason(
        "invalid_dpop_proof", 400, "The DPoP proof was used before: make one for each request."
    ),
    "dpop_nonce_required": Reason(
        "use_dpop_nonce", 400, "The DPoP proof must contain the nonce of the DPoP-Nonce header."
    ),
    "grant_type_unsupported": Reason(
        "unsupported_grant_type", 400, "This grant type is not supported."
    ),
    "grant_type_not_allowed": Reason(
        "unauthorized_client", 400, "This client may not use this grant type."
    ),
    "grant_invalid": Reason(
        "invalid_grant", 400, "The grant is invalid or expired, or not for this client."
    ),
    "outside_payment_window": Reason(
        "unauthorized_client", 400, "This client may not obtain tokens at this time."
    ),
    "client_stopped": Reason(
        "unauthorized_client", 400, "No tokens are issued to this client at present."
    ),
    "scope_stopped": Reason(
        "invalid_scope", 400, "No tokens with a requested scope are issued at present."
    ),
    "scope_not_granted": Reason(
        "invalid_scope",
        400,
        "A requested scope is unknown or not granted to this client. Spaces separate scopes.",
    ),
    "scope_missing": Reason(
        "invalid_scope", 400, "No scope was requested and this client has no default scope."
    ),
    "scope_too_long": Reason("invalid_scope", 400, "The scope parameter is too long."),
    "scope_several_resource_servers": Reason(
        "invalid_scope",
        400,
        "The scopes belong to several resource servers: request one token for each.",
    ),
    "resource_invalid": Reason(
        "invalid_target", 400, "The requested resource is unknown or not allowed for this client."
    ),
    "authorization_details_invalid": Reason(
        "invalid_authorization_details",
        400,
        "The authorization_details are malformed, or have an unknown type or member.",
    ),
    "authorization_details_not_granted": Reason(
        "invalid_authorization_details",
        400,
        "The authorization_details exceed what this client is granted.",
    ),
    "authorization_details_missing": Reason(
        "invalid_authorization_details",
        400,
        "This client may use a requested scope only with authorization_details.",
    ),
    "exchange_malformed": Reason(
        "invalid_request",
        400,
        "A parameter of the token exchange is missing, superfluous or not supported.",
    ),
    "exchanged_token_refused": Reason(
        "invalid_request",
        400,
        "The subject token or the actor token is invalid, or this client may not exchange it.",
    ),
    "lifetime_over": Reason(
        "invalid_request", 400, "The presented token or the permitted time has ended."
    ),
    "refused_by_policy": Reason("access_denied", 403, "The request was refused by policy."),
    # RFC 7591, 3.2.2
    "client_metadata_invalid": Reason(
        "invalid_client_metadata", 400, "The client metadata is malformed or not permitted."
    ),
    "redirect_uri_refused": Reason(
        "invalid_redirect_uri", 400, "This server redirects to no client: leave redirect_uris out."
    ),
    "software_statement_invalid": Reason(
        "invalid_software_statement", 400, "The software statement is invalid."
    ),
    "software_statement_unapproved": Reason(
        "unapproved_software_statement",
        400,
        "The issuer of the software statement is not approved by this server.",
    ),
    "registration_token_invalid": Reason(
        "invalid_token",
        401,
        "The access token for registration is missing, unknown, used up or expired.",
    ),
    "registration_denied": Reason(
        "access_denied", 403, "The registration is not permitted at present."
    ),
    "registrations_throttled": Reason(
        "slow_down", 429, "Too many requests for registration: wait before trying again."
    ),
    # FAPI 2.0, 5.3.2.1
    "binding_missing": Reason(
        "invalid_request", 400, "A token request needs a DPoP proof or a client certificate."
    ),
    # RFC 8705
    "client_certificate_missing": Reason(
        "invalid_request", 400, "The tokens of this client are bound to a certificate: use mTLS."
    ),
    "client_certificate_malformed": Reason(
        "invalid_request", 400, "The client certificate cannot be read."
    ),
    # The HTTP edge
    "forwarded_address_malformed": Reason(
        "invalid_request", 400, "The proxy's header with the client's address is malformed."
    ),
    "method_not_allowed": Reason("invalid_request", 405, "This method is not allowed here."),
    "content_type_unsupported": Reason(
        "invalid_request", 415, "Send application/x-www-form-urlencoded in UTF-8."
    ),
    "json_expected": Reason("invalid_request", 415, "Send a JSON object as application/json."),
    "body_too_large": Reason("invalid_request", 413, "The request body is too large."),
    "message_malformed": Reason("invalid_request", 400, "The HTTP message is malformed."),
    "host_malformed": Reason("invalid_request", 400, "The request must name exactly one host."),
    "target_too_long": Reason("invalid_request", 414, "The address of the request is too long."),
    "header_too_large": Reason(
        "invalid_request", 431, "The request line and the headers are too large."
    ),
    "request_timeout": Reason("invalid_request", 408, "The request took too long to arrive."),
    "expectation_unknown": Reason(
        "invalid_request", 417, "The server meets no expectation but 100-continue."
    ),
    "not_found": Reason("invalid_request", 404, "There is nothing at this address."),
    "precondition_failed": Reason("invalid_request", 412, "The document has changed."),
    "throttled": Reason(
        "slow_down", 429, "Too many failed authentications: wait before trying again."
    ),
    "token_budget_spent": Reason(
        "slow_down", 429, "This client has obtained its number of tokens: wait for the next period."
    ),
    # Faults of the server
    "temporarily_unavailable": Reason(
        "temporarily_unavailable", 503, "The server cannot answer right now: try again."
    ),
    "server_error": Reason("server_error", 503, "The server met a fault: try again."),
}


#: Causes that share a reason in the response. The audit record names them (``docs/events.md``).
CAUSES: frozenset[str] = frozenset(
    {
        "assertion_algorithm",
        "assertion_audience",
        "assertion_confirmation",
        "assertion_expired",
        "assertion_issuer",
        "assertion_key_unknown",
        "assertion_keys_unavailable",
        "assertion_lifetime",
        "assertion_malformed",
        "assertion_not_yet_valid",
        "assertion_replayed",
        "assertion_signature",
        "assertion_subject",
        "assertion_type",
        "certificate_expired",
        "certificate_keys_unavailable",
        "certificate_not_verified",
        "certificate_wrong",
        "client_disabled",
        "client_document_unusable",
        "client_expired",
        "client_not_yet_valid",
        "client_unknown",
        "credentials_missing",
        "credentials_wrong",
        "method_not_registered",
        "network_not_allowed",
        "programme_stopped",
        "resource_server_stopped",
        "scope_without_resource_server",
        "secret_expired",
        "secret_wrong",
    }
)


class OAuthError(OAuth2Error):  # type: ignore[misc]
    """A refused request.

    Args:
        reason: a key of :data:`REASONS`.
        detail: for the audit record only; may name ids, never secrets or tokens.
        cause: one of :data:`CAUSES` if more precise than the reason; for the audit record only.
        retry_after_seconds: the value of ``Retry-After``, if any.
        client_id: the client concerned, if known; for the audit record only.
    """

    def __init__(
        self,
        reason: str,
        detail: str = "",
        *,
        cause: str = "",
        retry_after_seconds: int | None = None,
        client_id: str = "",
    ) -> None:
        """Look up the reason; an unknown one is a programming error (KeyError)."""
        entry = REASONS[reason]
        super().__init__(description=entry.description, status_code=entry.status, error=entry.error)
        self.reason = reason
        self.detail = detail
        self.cause = cause or reason
        self.retry_after_seconds = retry_after_seconds
        self.client_id = client_id


class OperatorError(Exception):
    """An error whose message is for an operator: what is wrong, and what to do about it."""


class NotFoundError(OperatorError):
    """A named object does not exist; the message names it and the command that lists its kind."""


class ConflictError(OperatorError):
    """A change conflicts with stored data, for example a taken name."""


class InvalidChangeError(OperatorError):
    """A change has an invalid value; the message names the field."""
