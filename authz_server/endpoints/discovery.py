"""Public documents: metadata (RFC 8414, OpenID Connect Discovery) and the JWKS."""

import hashlib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from http import HTTPStatus
from typing import Any
from urllib.parse import urlsplit
from wsgiref.types import WSGIEnvironment

import msgspec
from flask import Response, request

from authz_server.audit.notifier import Notify
from authz_server.clients.cache import ClientCache
from authz_server.database.change_feed import ChangeFeed
from authz_server.endpoints.client_address import ClientAddressReader
from authz_server.endpoints.introspection_batch import BATCH, MAXIMUM_TOKENS
from authz_server.endpoints.responses import new_request_id
from authz_server.endpoints.wsgi import read_head, read_host
from authz_server.errors import OAuthError
from authz_server.key_rings.consumers import JwksReaders
from authz_server.key_rings.standby import find_next_key
from authz_server.metrics.events import JwksFetched
from authz_server.scopes.catalogue import ScopeCatalogue, ScopeEntry
from keys.jose.encryption import CONTENT_ENCRYPTION, KEY_MANAGEMENT
from keys.lifecycle.rules import succeeded_since
from keys.ring import KeyRings

_METADATA_MAXIMUM_AGE_SECONDS = 300
AUTHORIZATION = "/oauth2/authorize"
#: The endpoints at which clients authenticate, and so may use a TLS certificate.
_TAKES_CERTIFICATES = (
    "token_endpoint",
    "g2p_connect_token_endpoint",
    "introspection_endpoint",
    "introspection_batch_endpoint",
    "revocation_endpoint",
    "security_event_endpoint",
)


@dataclass(frozen=True, slots=True)
class Features:
    """Enabled features, for the metadata."""

    issuer: str
    grant_types: tuple[str, ...]
    authentication_methods: tuple[str, ...]
    assertion_algorithms: tuple[str, ...]
    g2p: bool
    introspection: bool
    batch_introspection: bool
    signed_introspection: bool
    revocation: bool
    dpop_algorithms: tuple[str, ...]
    authorization_details_types: tuple[str, ...]
    client_certificates: bool = False
    mtls_base_url: str = ""
    authorization_endpoint: bool = False
    registration: bool = False
    client_documents: bool = False


class MetadataDocument:
    """The metadata document, built from the enabled features and the scopes that can be issued.

    Args:
        features: the enabled features.
        directory: the resource servers that own the scopes.
        catalogue: the scopes.
        key_rings: the algorithms in use.
    """

    def __init__(
        self,
        features: Features,
        directory: ClientCache,
        catalogue: ScopeCatalogue,
        key_rings: KeyRings,
    ) -> None:
        self._features = features
        self._directory = directory
        self._catalogue = catalogue
        self._key_rings = key_rings

    def members(self) -> dict[str, Any]:
        """Return the members of RFC 8414, 2, for the enabled features only."""
        features = self._features
        issuer = features.issuer
        members: dict[str, Any] = {
            "issuer": issuer,
            "token_endpoint": f"{issuer}/oauth2/token",
            **self._authentication("token_endpoint"),
            "jwks_uri": f"{issuer}/.well-known/jwks.json",
            "grant_types_supported": list(features.grant_types),
            # RFC 9396, 10
            "authorization_details_types_supported": list(features.authorization_details_types),
            # No grant uses an authorization endpoint, so there is no response type.
            "response_types_supported": [],
        }
        scopes = [scope.name for scope in self._catalogue.entries() if self._is_issued(scope)]
        if scopes:
            # RFC 8414, 3.2: a member without elements is left out.
            members["scopes_supported"] = scopes
        for name, path, is_enabled in (
            ("registration_endpoint", "/oauth2/register", features.registration),
            ("authorization_endpoint", AUTHORIZATION, features.authorization_endpoint),
            ("g2p_connect_token_endpoint", "/oauth2/client/token", features.g2p),
        ):
            if is_enabled:
                members[name] = f"{issuer}{path}"
        if features.client_documents:
            members["client_id_metadata_document_supported"] = True
        if self._has_status_lists():
            # draft-ietf-oauth-status-list, 9.1
            members["status_list_aggregation_endpoint"] = f"{issuer}/status-lists"
        members["security_event_endpoint"] = f"{issuer}/security-events"
        if features.introspection:
            members["introspection_endpoint"] = f"{issuer}/oauth2/introspect"
            members |= self._authentication("introspection_endpoint") | self._introspection()
        if features.revocation:
            members["revocation_endpoint"] = f"{issuer}/oauth2/revoke"
            members |= self._authentication("revocation_endpoint")
        return members | self._bindings(members)

    def _introspection(self) -> dict[str, Any]:
        """Return the members about the forms of introspection."""
        features = self._features
        added: dict[str, Any] = {}
        if features.signed_introspection and (algorithms := self._key_rings.algorithms()):
            # RFC 9701, 7
            added["introspection_signing_alg_values_supported"] = list(algorithms)
            added["introspection_encryption_alg_values_supported"] = list(KEY_MANAGEMENT)
            added["introspection_encryption_enc_values_supported"] = list(CONTENT_ENCRYPTION)
        if features.batch_introspection:
            added["introspection_batch_endpoint"] = f"{features.issuer}{BATCH}"
            added["introspection_batch_maximum_tokens"] = MAXIMUM_TOKENS
        return added

    def _bindings(self, members: Mapping[str, Any]) -> dict[str, Any]:
        """Return the members about tokens that are bound to a key, and about certificates."""
        features = self._features
        added: dict[str, Any] = {}
        if features.dpop_algorithms:
            added["dpop_signing_alg_values_supported"] = list(features.dpop_algorithms)
        if features.client_certificates:
            # RFC 8705, 3.3
            added["tls_client_certificate_bound_access_tokens"] = True
        if features.mtls_base_url:
            # RFC 8705, 5
            added["mtls_endpoint_aliases"] = {
                name: features.mtls_base_url + members[name].removeprefix(features.issuer)
                for name in _TAKES_CERTIFICATES
                if name in members
            }
        return added

    def _authentication(self, endpoint: str) -> dict[str, list[str]]:
        """Return the members about client authentication at an endpoint."""
        features = self._features
        members = {f"{endpoint}_auth_methods_supported": list(features.authentication_methods)}
        if features.assertion_algorithms:
            algorithms = list(features.assertion_algorithms)
            members[f"{endpoint}_auth_signing_alg_values_supported"] = algorithms
        return members

    def _has_status_lists(self) -> bool:
        owner_ids = {scope.resource_server_id or "" for scope in self._catalogue.entries()}
        owners = map(self._directory.find, owner_ids)
        return any(owner is not None and owner.properties.status_list for owner in owners)

    def _is_issued(self, scope: ScopeEntry) -> bool:
        owner = self._directory.find(scope.resource_server_id or "")
        return owner is not None and owner.enabled

    def openid_members(self) -> dict[str, Any]:
        """Return the members with those that OpenID Connect Discovery 1.0, 3 requires.

        The server issues no ID tokens. Verifiers read the algorithms of access tokens from the
        ID token member all the same, and reject every token if it is empty.
        """
        return self.members() | {
            "subject_types_supported": ["public"],
            "id_token_signing_alg_values_supported": list(self._key_rings.algorithms()),
        }


def no_log_in() -> Response:
    """Return the page of the authorization endpoint, which no grant uses.

    RFC 8414, 2 makes the endpoint optional. Some clients refuse metadata without it.
    """
    body = b"This server issues tokens to machines. It has no log-in.\n"
    answer = Response(body, HTTPStatus.BAD_REQUEST, content_type="text/plain; charset=utf-8")
    answer.headers["Cache-Control"] = "no-store"
    answer.headers["X-Content-Type-Options"] = "nosniff"
    answer.headers["X-Request-Id"] = new_request_id()
    return answer


class DiscoveryEndpoints:
    """Serves public documents from memory, with validators for caches.

    Args:
        document: the metadata.
        key_rings: the public keys.
        feed: keeps the caches fresh; these endpoints keep answering without the database.
        readers: records which consumers fetched the JWKS.
        addresses: finds the addresses of consumers.
        hosts: the host names under which the documents may be cached.
        clock: returns the present time.
        notify: receives each fetch of the JWKS.
    """

    def __init__(  # noqa: PLR0913 - its parts, by name
        self,
        document: MetadataDocument,
        key_rings: KeyRings,
        feed: ChangeFeed,
        *,
        readers: JwksReaders,
        addresses: ClientAddressReader,
        hosts: frozenset[str],
        clock: Callable[[], datetime],
        notify: Notify,
    ) -> None:
        self._document = document
        self._key_rings = key_rings
        self._feed = feed
        self._readers = readers
        self._addresses = addresses
        self._hosts = hosts
        self._clock = clock
        self._notify = notify

    def metadata(self) -> Response:
        """Return the metadata of RFC 8414."""
        return self._metadata(self._document.members)

    def openid_configuration(self) -> Response:
        """Return the metadata of OpenID Connect Discovery."""
        return self._metadata(self._document.openid_members)

    def jwks(self) -> Response:
        """Return the JWKS; 503 while it would be empty, so that no verifier caches an empty set."""
        if not self._key_rings.algorithms():
            self._feed.require_fresh()
        if not self._key_rings.algorithms():
            raise OAuthError("temporarily_unavailable", "there is no key yet")
        answer = self._cacheable(
            self._key_rings.jwks(),
            self._key_rings.jwks_etag(),
            "application/jwk-set+json",
            self._key_rings.jwks_maximum_age_seconds(),
        )
        if request.method == "GET":
            self._note_fetch(request.environ)
        return answer

    def _note_fetch(self, environ: WSGIEnvironment) -> None:
        reader = read_head(environ)
        self._readers.note(reader.headers.get("user-agent", ""), self._addresses.read(reader))
        now = self._clock()
        rings = self._key_rings.snapshots()
        has_next = all(
            succeeded_since(ring, rings, now) or find_next_key(ring, now) is not None
            for ring in rings
        )
        self._notify(JwksFetched(has_next))

    def _metadata(self, members: Callable[[], dict[str, Any]]) -> Response:
        if self._feed.seen < 0:
            self._feed.require_fresh()
        body = msgspec.json.encode(members())
        etag = f'"{hashlib.sha256(body).hexdigest()[:32]}"'
        return self._cacheable(body, etag, "application/json", _METADATA_MAXIMUM_AGE_SECONDS)

    def _cacheable(
        self, body: bytes, etag: str, content_type: str, maximum_age_seconds: int
    ) -> Response:
        return cacheable(body, etag, content_type, maximum_age_seconds, self._hosts)


def cacheable(
    body: bytes, etag: str, content_type: str, maximum_age_seconds: int, hosts: frozenset[str]
) -> Response:
    """Return a public document for the present request, or that it has not changed.

    Args:
        body: the document.
        etag: its entity tag, with quotes.
        content_type: its media type.
        maximum_age_seconds: how long it may be cached.
        hosts: the host names under which it may be cached.

    Raises:
        OAuthError: ``precondition_failed``.
    """
    if read_host(request.environ) not in hosts:
        # A cache keyed by host would serve this document for a foreign name.
        return _public_answer(body, content_type, "no-store")
    response = _public_answer(body, content_type, f"public, max-age={maximum_age_seconds}")
    response.headers["ETag"] = etag
    response.make_conditional(request.environ)
    if response.status_code == HTTPStatus.PRECONDITION_FAILED:
        # Without the document's headers, or a shared cache would store the refusal.
        raise OAuthError("precondition_failed")
    return response


def allowed_hosts(issuer: str, further: Iterable[str]) -> frozenset[str]:
    """Return the accepted values of ``Host``, in lower case: the issuer's and further ones.

    The default port of the issuer's scheme may be sent or left out.
    """
    parts = urlsplit(issuer)
    default = {"https": ":443", "http": ":80"}[parts.scheme]
    sent = (parts.netloc, *further)
    names = {name.lower().removesuffix(default) for name in sent}
    with_port = {f"{name}{default}" for name in names if urlsplit(f"//{name}").port is None}
    return frozenset(names | with_port)


def _public_answer(body: bytes, content_type: str, cache_control: str) -> Response:
    return Response(
        body,
        200,
        {
            "Content-Type": content_type,
            "Cache-Control": cache_control,
            "Access-Control-Allow-Origin": "*",
            "X-Content-Type-Options": "nosniff",
            "X-Request-Id": new_request_id(),
        },
    )
