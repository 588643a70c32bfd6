"""The composition root: the only place where parts meet."""

import atexit
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from flask import Flask, Response
from sqlalchemy.exc import SQLAlchemyError

from authz_server.audit import AuditSink
from authz_server.authorization_server import AuthorizationServer
from authz_server.changes import ChangeFeed, ChangeSet
from authz_server.clients.authentication import ClientAuthenticator
from authz_server.clients.directory import ClientDirectory
from authz_server.clients.registry import is_resource_server
from authz_server.clients.rules import ClientLimits
from authz_server.clients.secrets import SecretScheme
from authz_server.clients.service import ClientService
from authz_server.clients.throttle import FailureThrottle
from authz_server.db import Database, attach_database
from authz_server.endpoints.discovery import (
    DiscoveryEndpoints,
    Features,
    MetadataDocument,
)
from authz_server.endpoints.errors import ErrorAnswers, handle_everything_else
from authz_server.endpoints.forms import FormReader
from authz_server.endpoints.g2p_connect import G2PConnectProfile
from authz_server.endpoints.health import Check, health_blueprint
from authz_server.endpoints.introspection import IntrospectionEndpoint
from authz_server.endpoints.openapi import describe_interface
from authz_server.endpoints.protocol import EndpointParts, ProtocolEndpoint
from authz_server.endpoints.revocation import RevocationEndpoint
from authz_server.endpoints.routes import add_discovery_routes, add_protocol_routes
from authz_server.endpoints.source import SourceReader
from authz_server.endpoints.token import TokenEndpoint
from authz_server.events import Event
from authz_server.grants.client_credentials import ClientCredentialsGrant
from authz_server.key_store import SqlEncryptedKeyStorage, SqlKeyStore
from authz_server.maintenance import Maintenance
from authz_server.plugin_manager import PluginManager
from authz_server.scopes.catalogue import ScopeCatalogue
from authz_server.scopes.service import ScopeService, find_canonical_names
from authz_server.settings import Settings
from authz_server.tokens.authorization import AuthorizationRules
from authz_server.tokens.introspection import IntrospectionService
from authz_server.tokens.introspection_jwt import IntrospectionSigner
from authz_server.tokens.issuer import TokenIssuer
from authz_server.tokens.revocations import RevocationService, RevocationState
from authz_server.tokens.verification import TokenVerifier
from keys.backend import KeyBackend
from keys.backends.registry import BackendContext, open_backend
from keys.first_key import create_first_key
from keys.ring import KeyRings
from keys.signing_key import RingDefinition

EXTENSION = "authz_server"
GRANTS = (ClientCredentialsGrant,)

Clock = Callable[[], datetime]


def utc_now() -> datetime:
    """Return the present time."""
    return datetime.now(UTC)


@dataclass(frozen=True, slots=True)
class Services:
    """Every part of one application, wired."""

    settings: Settings
    clock: Clock
    database: Database
    feed: ChangeFeed
    secrets: SecretScheme
    directory: ClientDirectory
    catalogue: ScopeCatalogue
    clients: ClientService
    scopes: ScopeService
    authenticator: ClientAuthenticator
    rules: AuthorizationRules
    key_store: SqlKeyStore
    key_backends: Mapping[str, KeyBackend]
    key_rings: KeyRings
    plugins: PluginManager
    revocations: RevocationService
    revocation_state: RevocationState
    issuer: TokenIssuer
    verifier: TokenVerifier
    introspection: IntrospectionService
    maintenance: Maintenance


class Application(Flask):
    """Flask without what no view of ours uses on the way of a request: sessions and async views."""

    def ensure_sync(self, func: Callable[..., Any]) -> Callable[..., Any]:
        """Return the view as it is: none of ours is a coroutine, and looking each time costs."""
        return func

    def process_response(self, response: Response) -> Response:
        """Return the response as it is: there is no session to save and no hook to run."""
        return response


def create_app(settings: Settings, *, clock: Clock = utc_now) -> Flask:
    """Return the public application, a WSGI callable.

    Nothing is read from the database until the first request; a database that is away then answers
    503 and is found again without help.

    Args:
        settings: checked already.
        clock: returns the present time, timezone-aware.

    Raises:
        PluginError: a plugin cannot be used.
        KeysError: a key backend cannot be used.
        ValueError: a message catalogue cannot be used.
    """
    app = _bare_application("authz_server")
    services = _wire(app, settings, clock)
    app.extensions[EXTENSION] = services
    sink = AuditSink(settings.audit.destination, clock)
    errors = ErrorAnswers(settings.server.retry_after_seconds)
    handle_everything_else(app, errors)
    parts = EndpointParts(
        forms=FormReader(settings.server),
        sources=SourceReader(settings.server.trusted_proxies),
        feed=services.feed,
        authenticator=services.authenticator,
        errors=errors,
        record=_recorder(sink, services.plugins),
    )
    prefix = settings.server.mount_prefix
    add_protocol_routes(app, prefix, _protocol_endpoints(services, parts))
    document = MetadataDocument(features_of(settings), services.catalogue, services.key_rings)
    discovery = DiscoveryEndpoints(
        document, services.key_rings, services.feed, settings.keys.jwks_maximum_age_seconds
    )
    add_discovery_routes(app, settings.issuer, prefix, discovery)
    app.before_request(services.maintenance.start)
    atexit.register(services.maintenance.stop)
    return app


def create_health_application(
    settings: Settings, checks: Mapping[str, Check] | None = None
) -> Flask:
    """Return the application of the health listener, a WSGI callable.

    Args:
        settings: checked already.
        checks: further conditions of readiness, by name; each raises when it does not hold.
    """
    app = _bare_application("authz_server.health")
    services = _wire(app, settings, utc_now)
    features = features_of(settings)
    own = {"database": services.feed.poll, "keys": lambda: _require_keys(services)}
    app.register_blueprint(
        health_blueprint(
            {**own, **(checks or {})},
            lambda: describe_interface(features, settings.server.mount_prefix),
        )
    )
    handle_everything_else(app, ErrorAnswers(settings.server.retry_after_seconds))
    return app


@contextmanager
def operator_services(settings: Settings) -> Iterator[Services]:
    """Yield the services for a command, in an application context, without background work."""
    app = _bare_application("authz_server.operator")
    services = _wire(app, settings, utc_now)
    with app.app_context():
        try:
            yield services
        finally:
            services.database.close()


def create_first_keys(services: Services, *, actor: str) -> dict[str, bool]:
    """Make the first keys of every ring of the settings; tell for each whether it was made now.

    Raises:
        KeysError: a ring exists with another algorithm or backend, or its backend fails.
    """
    settings = services.settings
    made = {}
    for name, ring in settings.keys.rings.items():
        definition = RingDefinition(
            name=name,
            alg=ring.algorithm,
            backend_uri=ring.backend,
            maximum_lifetime_seconds=settings.tokens.maximum_lifetime_seconds,
        )
        made[name] = create_first_key(
            services.key_store,
            services.key_backends[ring.backend],
            definition,
            clock=services.clock,
            actor=actor,
        )
    return made


def features_of(settings: Settings) -> Features:
    """Return what the settings switch on."""
    return Features(
        issuer=settings.issuer,
        grant_types=tuple(grant.GRANT_TYPE for grant in GRANTS),
        g2p=settings.g2p.enabled,
        introspection=settings.introspection.enabled,
        signed_introspection=settings.introspection.signed_responses,
        revocation=settings.revocation.enabled,
    )


def _bare_application(name: str) -> Flask:
    app = Application(name, static_folder=None, template_folder=None)
    app.config["PROVIDE_AUTOMATIC_OPTIONS"] = False
    app.url_map.merge_slashes = False
    app.url_map.strict_slashes = True
    return app


def _wire(app: Flask, settings: Settings, clock: Clock) -> Services:
    database = attach_database(app, settings.database)
    secrets = SecretScheme(
        settings.clients.secret_pepper.reveal(), settings.clients.argon2_concurrency
    )
    feed = ChangeFeed(
        database.reading,
        refresh_interval_seconds=settings.database.refresh_interval_milliseconds / 1_000,
        staleness_limit_seconds=settings.database.staleness_limit_milliseconds / 1_000,
    )
    directory, catalogue = ClientDirectory(secrets), ScopeCatalogue()
    rules = AuthorizationRules(directory, catalogue, settings.tokens)
    plugins = PluginManager(settings.plugins.enabled, settings.plugins.settings)
    key_store = SqlKeyStore(database.transaction, database.reading)
    backends = _open_backends(settings, database, clock)
    key_rings = KeyRings(key_store, backends, clock, settings.keys.default_ring)
    authenticator = ClientAuthenticator(
        directory,
        secrets,
        FailureThrottle(
            settings.clients.failures_per_window, settings.clients.failure_window_seconds
        ),
        clock,
    )
    longest = settings.tokens.maximum_lifetime_seconds
    verifier = TokenVerifier(
        issuer=settings.issuer,
        key_rings=key_rings,
        database=database,
        clock=clock,
        clock_skew_seconds=settings.tokens.clock_skew_seconds,
        maximum_lifetime_seconds=longest,
    )
    revocations = RevocationService(clock, longest)
    revocation_state = RevocationState(database, feed, catalogue)
    for subscriber in (directory.apply, catalogue.apply, revocation_state.apply, rules.forget):
        feed.subscribe(subscriber)
    feed.subscribe(lambda _, changes: _refresh_keys(key_rings, changes))
    return Services(
        settings=settings,
        clock=clock,
        database=database,
        feed=feed,
        secrets=secrets,
        directory=directory,
        catalogue=catalogue,
        clients=ClientService(clock, secrets, _client_limits(settings), find_canonical_names),
        scopes=ScopeService(clock, is_resource_server),
        authenticator=authenticator,
        rules=rules,
        key_store=key_store,
        key_backends=backends,
        key_rings=key_rings,
        plugins=plugins,
        revocations=revocations,
        revocation_state=revocation_state,
        issuer=TokenIssuer(
            issuer=settings.issuer,
            key_rings=key_rings,
            default_ring=settings.keys.default_ring,
            plugins=plugins,
            database=database,
            clock=clock,
        ),
        verifier=verifier,
        introspection=IntrospectionService(
            verifier=verifier,
            revocations=revocation_state,
            directory=directory,
            catalogue=catalogue,
            plugins=plugins,
            clock=clock,
        ),
        maintenance=Maintenance(
            database=database,
            feed=feed,
            key_rings=key_rings,
            key_refresh_seconds=settings.keys.refresh_interval_seconds,
            revocations=revocations,
            authenticator=authenticator,
            settings=settings.revocation,
            clock=clock,
        ),
    )


def _protocol_endpoints(services: Services, parts: EndpointParts) -> dict[str, ProtocolEndpoint]:
    settings = services.settings
    server = AuthorizationServer(GRANTS, services.authenticator, services.rules, services.issuer)
    endpoints: dict[str, ProtocolEndpoint] = {"/oauth2/token": TokenEndpoint(parts, server)}
    if settings.g2p.enabled:
        profile = G2PConnectProfile(settings.g2p, services.clock)
        endpoints["/oauth2/client/token"] = TokenEndpoint(parts, server, profile)
    if settings.introspection.enabled:
        signer = IntrospectionSigner(
            settings.issuer, services.key_rings, settings.keys.default_ring, services.clock
        )
        endpoints["/oauth2/introspect"] = IntrospectionEndpoint(
            parts,
            services.introspection,
            signer if settings.introspection.signed_responses else None,
        )
    if settings.revocation.enabled:
        endpoints["/oauth2/revoke"] = RevocationEndpoint(
            parts, services.verifier, services.revocations, services.database
        )
    return endpoints


def _open_backends(settings: Settings, database: Database, clock: Clock) -> dict[str, KeyBackend]:
    context = BackendContext(
        clock=clock,
        encrypted_keys=SqlEncryptedKeyStorage(database.transaction, database.reading),
        key_encryption_key=settings.keys.key_encryption_key.reveal(),
    )
    uris = {ring.backend for ring in settings.keys.rings.values()}
    return {uri: open_backend(uri, context) for uri in sorted(uris)}


def _client_limits(settings: Settings) -> ClientLimits:
    return ClientLimits(
        maximum_token_lifetime_seconds=settings.tokens.maximum_lifetime_seconds,
        ring_names=frozenset(settings.keys.rings),
    )


def _recorder(sink: AuditSink, plugins: PluginManager) -> Callable[[Event], None]:
    def record(event: Event) -> None:
        sink.write(event)
        plugins.tell(event)

    return record


def _refresh_keys(key_rings: KeyRings, changes: ChangeSet) -> None:
    if changes.everything or "key" in changes.subjects:
        key_rings.refresh()


def _require_keys(services: Services) -> None:
    with suppress(SQLAlchemyError):
        services.feed.poll()
    for name in services.settings.keys.rings:
        if not services.key_rings.has_active_key(name):
            raise LookupError(name)
