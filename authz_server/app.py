"""The composition root: builds the application from the parts."""

import os
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from types import MappingProxyType
from typing import Any, TypeVar
from wsgiref.types import StartResponse, WSGIEnvironment

from flask import Flask, Response

from authz_server import __version__
from authz_server.assembly import Clock, Services, utc_now
from authz_server.assembly.features import features_of
from authz_server.assembly.server import ManagementServices, ServerServices
from authz_server.audit.events import ServerStarted, ServerStopped, SettingsLoaded
from authz_server.audit.restored_database import RestoreReadiness
from authz_server.audit.seen_changes import SeenChanges
from authz_server.authorization_server import AuthorizationServer
from authz_server.clients.counters.opening import open_counters
from authz_server.clients.encryption_keys import EncryptionKeys
from authz_server.clients.peppers import PepperReadiness
from authz_server.database.orm import open_database
from authz_server.database.sqlite import WriteCheck
from authz_server.endpoints.access_log import AccessLog
from authz_server.endpoints.client_address import ClientAddressReader
from authz_server.endpoints.client_certificates import certificate_reader
from authz_server.endpoints.discovery import (
    AUTHORIZATION,
    DiscoveryEndpoints,
    MetadataDocument,
    allowed_hosts,
    no_log_in,
)
from authz_server.endpoints.errors import ErrorResponses, handle_everything_else, refuse_faulty
from authz_server.endpoints.event_polling import SECURITY_EVENTS, EventPollEndpoint
from authz_server.endpoints.forms import FormReader
from authz_server.endpoints.g2p_connect import G2PConnectProfile
from authz_server.endpoints.health import Check, health_blueprint
from authz_server.endpoints.introspection import IntrospectionEndpoint
from authz_server.endpoints.introspection_batch import BATCH, IntrospectionBatchEndpoint
from authz_server.endpoints.openapi import describe_interface
from authz_server.endpoints.protocol import EndpointParts, ProtocolEndpoint
from authz_server.endpoints.readiness import KeyReadiness
from authz_server.endpoints.registration import (
    REGISTER,
    ClientConfigurationEndpoint,
    RegistrationEndpoint,
    RegistrationParts,
)
from authz_server.endpoints.revocation import RevocationEndpoint
from authz_server.endpoints.routes import (
    NO_RESOURCES,
    Resources,
    add_discovery_routes,
    add_protocol_routes,
    add_resource_routes,
)
from authz_server.endpoints.status_lists import StatusListEndpoint, add_status_list_routes
from authz_server.endpoints.token import TokenEndpoint
from authz_server.endpoints.wsgi import CLIENT_ID, prepare, read_path, read_request
from authz_server.key_rings.vaults import vault_accesses
from authz_server.metrics.files import open_recorder
from authz_server.metrics.source import KnownBackends, MetricsSource
from authz_server.settings import Settings, SettingsError
from authz_server.tokens.introspection_jwt import IntrospectionSigner
from authz_server.tokens.target_uris import normalise_target
from authz_server.waiting import run
from keys.forks import at_exit

EXTENSION = "authz_server"


class Application(Flask):
    """Flask without sessions and async views, which no view here uses.

    Attributes:
        direct: the endpoints by path, which answer a POST without Flask's contexts. Entering
            these would take as long as all checks of a token request.
        resources: answers the resources that have other methods, likewise.
        maximum_body_bytes: the largest body of such a request.
        larger_bodies: the size in bytes of the largest body of other requests, by path, where it
            exceeds that of the settings.
        slow_paths: the paths whose requests wait for a database or another server; a worker of
            ``serve`` answers them on threads of their own. One that ends in a slash is a prefix.
        access_log: writes a line for each request of a WSGI server; None: no access log. A worker
            of ``serve`` calls ``wsgi_app`` and writes its own lines.
        errors: renders the refusals of messages that reach no endpoint; None: as OAuth errors.
    """

    direct: Mapping[str, ProtocolEndpoint] = MappingProxyType({})
    resources: Resources = NO_RESOURCES
    maximum_body_bytes: int = 0
    larger_bodies: Mapping[str, int] = MappingProxyType({})
    slow_paths: frozenset[str] = frozenset()
    access_log: AccessLog | None = None
    errors: ErrorResponses | None = None

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        """Answer a request of a WSGI server, with a line in the access log if there is one."""
        prepare(environ)
        if self.access_log is not None:
            start_response = self.access_log.follow(environ, start_response)
        return self.wsgi_app(environ, start_response)

    def wsgi_app(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        """Answer a WSGI request."""
        sent, method, path = environ, environ["REQUEST_METHOD"], read_path(environ)
        if environ.get("PATH_INFO") != path:
            environ = environ | {"PATH_INFO": path}
        by_path = method == "POST"
        endpoint = self.direct.get(path) if by_path else self.resources.find(method, path)
        if endpoint is None:
            return super().wsgi_app(environ, start_response)
        limit = max(self.maximum_body_bytes, endpoint.maximum_body_bytes)
        request = read_request(environ, limit)
        answer = run(endpoint.respond(request))
        sent[CLIENT_ID] = request.client_id
        return answer(environ, start_response)

    def ensure_sync(self, func: Callable[..., Any]) -> Callable[..., Any]:
        """Return the view unchanged; no view is a coroutine, so that none is inspected."""
        return func

    def process_response(self, response: Response) -> Response:
        """Return the response unchanged; there is no session to save and no hook to run."""
        return response


AnyApplication = TypeVar("AnyApplication", bound=Application)


def create_app(settings: Settings, *, clock: Clock = utc_now) -> Application:
    """Return the public application, a WSGI callable.

    The database is first read for the first request. While it cannot be reached, requests are
    answered with 503; the connection is made again without a restart.

    Args:
        settings: the checked settings.
        clock: returns the present time, timezone-aware.

    Raises:
        PluginError: a plugin cannot be used.
        KeysError: a key backend cannot be used.
        SettingsError: a message catalogue cannot be used.
    """
    app = bare_application("authz_server")
    services = ServerServices(settings, open_database(settings.database), clock, open_recorder())
    services.make_all()
    app.extensions[EXTENSION] = services
    errors = ErrorResponses(settings.server.retry_after_seconds)
    parts = EndpointParts(
        begin=services.maintenance.start,
        forms=FormReader(settings.server),
        addresses=ClientAddressReader(
            settings.server.trusted_proxies, settings.server.forwarded_header
        ),
        feed=services.feed,
        authenticator=services.authenticator,
        errors=errors,
        notify=services.notify,
        certificates=certificate_reader(
            settings.client_certificates, settings.server.trusted_proxies
        ),
        follow=services.plugins.follow_request if services.plugins.follows_requests else None,
    )
    prefix = settings.server.mount_prefix
    endpoints = _protocol_endpoints(services, parts)
    add_protocol_routes(app, prefix, endpoints)
    app.direct = {f"{prefix}{path}": endpoint for path, endpoint in endpoints.items()}
    app.resources = _resources(services, parts)
    add_resource_routes(app, app.resources)
    app.maximum_body_bytes = settings.server.maximum_body_bytes
    if settings.logging.access:
        app.access_log = AccessLog(parts.addresses)
    renderers = {
        f"{prefix}{path}": endpoint.error_renderer() for path, endpoint in endpoints.items()
    }
    handle_everything_else(app, errors, renderers)
    document = MetadataDocument(
        features_of(services), services.directory, services.catalogue, services.key_rings
    )
    discovery = DiscoveryEndpoints(
        document,
        services.key_rings,
        services.feed,
        readers=services.jwks_readers,
        addresses=parts.addresses,
        hosts=allowed_hosts(settings.issuer, settings.server.hosts),
        clock=services.clock,
        notify=services.notify,
    )
    add_discovery_routes(app, settings.issuer, prefix, discovery)
    hosts = allowed_hosts(settings.issuer, settings.server.hosts)
    lists = StatusListEndpoint(services.status_lists, hosts)
    app.slow_paths = add_status_list_routes(app, prefix, lists)
    if settings.server.authorization_endpoint:
        app.add_url_rule(f"{prefix}{AUTHORIZATION}", view_func=no_log_in, methods=["GET", "POST"])
    app.before_request(refuse_faulty)
    app.before_request(services.maintenance.start)
    at_exit(services.maintenance.stop)
    return app


def require_usable(settings: Settings) -> None:
    """Load what the settings refer to: plugins, message catalogues and files of Vault logins.

    Raises:
        PluginError: a plugin cannot be used, or two register one name.
        KeysError: two register a key backend for one scheme.
        SettingsError: a message catalogue, a file of the server's login, or Redis cannot be used.
    """
    services = Services(settings, open_database(settings.database))
    _ = services.grants, services.authentication_methods, services.backend_registry
    _ = services.authorization_details_types
    open_counters(settings.clients, services.database, settings.issuer)
    services.database.close()
    vault_accesses(settings, "server")
    if settings.g2p.enabled:
        _g2p_connect_profile(settings, utc_now)


def record_start(app: Flask, settings_file: str) -> None:
    """Record the start of this process and start its background work; record its end at exit.

    Raises:
        AuditUnavailable: the start cannot be recorded, so that nothing may be served.
    """
    services: ServerServices = app.extensions[EXTENSION]
    settings = services.settings
    services.notify(
        SettingsLoaded(
            file=settings_file,
            environment=settings.environment,
            issuer=settings.issuer,
            plugins=services.plugins.names,
        )
    )
    services.notify(
        ServerStarted(version=__version__, issuer=settings.issuer, process_id=os.getpid())
    )
    at_exit(partial(services.notify, ServerStopped(process_id=os.getpid())))
    services.maintenance.start(keys_at_once=True)


def hold_background_work(app: Flask) -> None:
    """Stop the threads of background work until the next request."""
    services: ServerServices = app.extensions[EXTENSION]
    services.maintenance.hold()


def create_health_application(
    settings: Settings,
    checks: Mapping[str, Check] | None = None,
    *,
    degradations: Callable[[], list[str]] = list,
    open_metrics: Callable[[Services], MetricsSource] | None = None,
    seen: SeenChanges | None = None,
) -> Flask:
    """Return the application of the health listener, a WSGI callable.

    Args:
        settings: the checked settings.
        checks: further conditions of readiness, by name; each raises if it does not hold.
        degradations: returns the degradations of the workers.
        open_metrics: opens the source of the metrics; None: no metrics are served.
        seen: the changes that this process has seen in its database; None: none yet.
    """
    app = bare_application("authz_server.health")
    database = open_database(settings.database)
    services = ManagementServices(settings, database)
    app.extensions[EXTENSION] = services
    features = features_of(services)
    metrics = open_metrics(services) if open_metrics else None
    keys = KeyReadiness(
        {name: ring.backend for name, ring in settings.keys.rings.items()},
        services.key_rings,
        metrics.known_backends if metrics else KnownBackends,
    )
    pepper = PepperReadiness(database, services.secrets.fingerprint, services.clock)
    older = RestoreReadiness(database, settings.audit, seen=seen)
    own = {"database": services.feed.poll, "restored_database": older.require, "keys": keys.require}
    if database.connector is not None:
        # Imported for PostgreSQL alone, because its driver is slow to import.
        from authz_server.database.session_check import SessionReadiness  # noqa: PLC0415

        own["database_session"] = SessionReadiness(database.connector.open).require
    else:
        own["database_writes"] = WriteCheck(database.engine)
    app.register_blueprint(
        health_blueprint(
            {**own, **(checks or {})},
            lambda: describe_interface(features, settings.g2p),
            degradations=lambda: keys.degradations([*pepper.degradations(), *degradations()]),
            metrics=metrics,
        )
    )
    handle_everything_else(app, ErrorResponses(settings.server.retry_after_seconds))
    return app


def bare_application(name: str) -> Application:
    """Return an application without routes, whose paths match exactly."""
    return match_exactly(Application(name, static_folder=None, template_folder=None))


def match_exactly(app: AnyApplication) -> AnyApplication:
    """Return an application after making its paths match exactly."""
    app.config["PROVIDE_AUTOMATIC_OPTIONS"] = False
    app.url_map.merge_slashes = False
    app.url_map.strict_slashes = True
    return app


def _protocol_endpoints(
    services: ServerServices, parts: EndpointParts
) -> dict[str, ProtocolEndpoint]:
    settings = services.settings
    server = AuthorizationServer(
        services.grants.values(),
        services.authenticator,
        services.rules,
        services.issuer,
        services.binder,
        limits=services.token_limits,
        plugins=services.plugins,
    )
    endpoints: dict[str, ProtocolEndpoint] = {
        "/oauth2/token": TokenEndpoint(
            parts, server, services.binder, _targets(settings, "/oauth2/token")
        )
    }
    if settings.g2p.enabled:
        profile = _g2p_connect_profile(settings, services.clock)
        endpoints["/oauth2/client/token"] = TokenEndpoint(
            parts, server, services.binder, _targets(settings, "/oauth2/client/token"), profile
        )
    if settings.introspection.enabled:
        signer = IntrospectionSigner(
            settings.issuer,
            services.key_rings,
            settings.introspection.signing_ring or settings.keys.default_ring,
            services.clock,
        )
        endpoints["/oauth2/introspect"] = IntrospectionEndpoint(
            parts,
            services.introspection,
            signer if settings.introspection.signed_responses else None,
            EncryptionKeys(services.fetcher),
        )
        if settings.introspection.batch:
            endpoints[BATCH] = IntrospectionBatchEndpoint(parts, services.introspection)
    if settings.revocation.enabled:
        endpoints["/oauth2/revoke"] = RevocationEndpoint(
            parts, services.verifier, services.revocations, services.database, services.clock_guard
        )
    endpoints[SECURITY_EVENTS] = EventPollEndpoint(
        parts, services.event_polls, settings.event_streams.poll_wait_seconds
    )
    if settings.registration.enabled:
        endpoints[REGISTER] = RegistrationEndpoint(parts, _registration_parts(services))
    return endpoints


def _resources(services: ServerServices, parts: EndpointParts) -> Resources:
    settings = services.settings
    if not settings.registration.enabled:
        return NO_RESOURCES
    return Resources(
        path=f"{settings.server.mount_prefix}{REGISTER}/",
        methods=ClientConfigurationEndpoint.METHODS,
        endpoint=ClientConfigurationEndpoint(parts, _registration_parts(services)),
    )


def _registration_parts(services: ServerServices) -> RegistrationParts:
    return RegistrationParts(
        issuer=services.settings.issuer,
        database=services.database,
        registrations=services.registrations,
        initial_tokens=services.initial_tokens,
        statements=services.software_statements,
        limit=services.registration_limit,
        token_limit=services.registration_token_limit,
        clock=services.clock,
    )


def _targets(settings: Settings, path: str) -> frozenset[str]:
    """Return the public URIs of an endpoint, which do not depend on the request's host."""
    bases = (settings.issuer, settings.client_certificates.mtls_base_url)
    return frozenset(normalise_target(f"{base}{path}") for base in bases if base)


def _g2p_connect_profile(settings: Settings, clock: Clock) -> G2PConnectProfile:
    try:
        return G2PConnectProfile(settings.g2p, clock)
    except ValueError as error:
        raise SettingsError(str(error)) from error
