"""Every part of the server, made from the settings and wired to the others."""

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import partial

from sqlalchemy.orm import Session

from authz_server.audit.events import Event
from authz_server.audit.sink import STORED, AuditSink, AuditUnavailable, event_of
from authz_server.background_jobs import Maintenance
from authz_server.clients.authentication.authenticator import ClientAuthenticator
from authz_server.clients.authentication.throttle import FailureThrottle
from authz_server.clients.cache import ClientCache
from authz_server.clients.registrations import is_resource_server
from authz_server.clients.rules import ClientLimits
from authz_server.clients.secrets import SecretScheme
from authz_server.clients.service import ClientService
from authz_server.database.change_feed import ChangeFeed, ChangeSet
from authz_server.database.clock import ClockGuard
from authz_server.database.orm import Database
from authz_server.endpoints.refusals import Refusal, RefusalRecorder
from authz_server.key_rings.consumers import JwksReaders
from authz_server.key_rings.jobs import tick_interval_seconds
from authz_server.key_rings.parts import assemble_keys
from authz_server.key_rings.store import SqlKeyStore
from authz_server.metrics.observer import ServerObserver, SilentServerObserver
from authz_server.plugin_manager import PluginManager
from authz_server.scopes.catalogue import ScopeCatalogue
from authz_server.scopes.service import ScopeService, find_canonical_names
from authz_server.settings import LONGEST_LIFETIME_SECONDS, Settings
from authz_server.tokens.authorization import AuthorizationRules
from authz_server.tokens.introspection import IntrospectionService
from authz_server.tokens.issuer import TokenIssuer
from authz_server.tokens.revocations import RevocationService, RevocationState
from authz_server.tokens.tainted_keys import TaintedKeyWatch
from authz_server.tokens.verification import TokenVerifier
from keys.backend import KeyBackend
from keys.backends.vault.settings import VaultAccess
from keys.ring import KeyRings

logger = logging.getLogger(__name__)

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
    directory: ClientCache
    catalogue: ScopeCatalogue
    clients: ClientService
    scopes: ScopeService
    authenticator: ClientAuthenticator
    rules: AuthorizationRules
    key_store: SqlKeyStore
    key_backends: Mapping[str, KeyBackend]
    key_rings: KeyRings
    jwks_readers: JwksReaders
    plugins: PluginManager
    revocations: RevocationService
    revocation_state: RevocationState
    issuer: TokenIssuer
    verifier: TokenVerifier
    introspection: IntrospectionService
    maintenance: Maintenance
    observer: ServerObserver
    record: Callable[[Event], None]


def wire(  # noqa: PLR0913, PLR0917 - what differs between the programs
    database: Database,
    settings: Settings,
    clock: Clock,
    sink: AuditSink | None,
    observer: ServerObserver | None = None,
    vaults: Mapping[str, VaultAccess] | None = None,
) -> Services:
    """Return the parts over a database.

    Args:
        database: where everything is kept.
        settings: checked already.
        clock: returns the present time, timezone-aware.
        sink: takes the records, if they go anywhere.
        observer: counts what happens.
        vaults: how the Vaults are reached, and as whom; None: as the server.

    Raises:
        PluginError: a plugin cannot be used.
        KeysError: a key backend cannot be used.
    """
    secrets = SecretScheme(
        settings.clients.secret_pepper.reveal(), settings.clients.argon2_concurrency
    )
    feed = ChangeFeed(
        database.reading,
        refresh_interval_seconds=settings.database.refresh_interval_milliseconds / 1_000,
        staleness_limit_seconds=settings.database.staleness_limit_milliseconds / 1_000,
    )
    directory, catalogue = ClientCache(secrets), ScopeCatalogue()
    rules = AuthorizationRules(directory, catalogue, settings.tokens)
    plugins = PluginManager(settings.plugins.enabled, settings.plugins.settings)
    observer = observer or SilentServerObserver()
    refusals = RefusalRecorder(_recorder(sink, plugins))
    record = _counting(_recorder(sink, plugins), refusals)
    keys = assemble_keys(
        database=database,
        settings=settings,
        clock=clock,
        record=record,
        after_commit=partial(_tell_of_changes, record),
        counter=observer,
        accesses=vaults,
    )
    key_rings = keys.rings
    authenticator = ClientAuthenticator(
        directory,
        secrets,
        FailureThrottle(
            settings.clients.failures_per_window, settings.clients.failure_window_seconds
        ),
        _corrected(clock, key_rings),
    )
    # Not the present setting: tokens made under a longer one live on when it is lowered.
    longest = LONGEST_LIFETIME_SECONDS
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
        clients=ClientService(
            clock, secrets, _client_limits(settings), find_canonical_names, revocations
        ),
        scopes=ScopeService(clock, is_resource_server),
        authenticator=authenticator,
        rules=rules,
        key_store=keys.store,
        key_backends=keys.backends,
        key_rings=key_rings,
        jwks_readers=keys.readers,
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
            tainted=TaintedKeyWatch(key_rings, record),
            clock=clock,
            clock_skew_seconds=settings.tokens.clock_skew_seconds,
        ),
        maintenance=Maintenance(
            database=database,
            feed=feed,
            key_rings=key_rings,
            key_refresh_seconds=settings.keys.refresh_interval_seconds,
            duties=keys.duties,
            tick_seconds=tick_interval_seconds(settings.keys),
            revocations=revocations,
            authenticator=authenticator,
            refusals=refusals,
            settings=settings.revocation,
            clock=clock,
            # A clock that is not the system's own has no uptime beside it.
            clock_guard=ClockGuard(clock) if clock is utc_now else None,
        ),
        observer=observer,
        record=record,
    )


def _client_limits(settings: Settings) -> ClientLimits:
    return ClientLimits(
        maximum_token_lifetime_seconds=settings.tokens.maximum_lifetime_seconds,
        ring_names=frozenset(settings.keys.rings),
        issuer=settings.issuer,
    )


def _corrected(clock: Clock, key_rings: KeyRings) -> Clock:
    """Return a clock for expiry: this machine's, corrected by what the database's says."""

    def now() -> datetime:
        seconds = key_rings.clock_correction_seconds
        return clock() + timedelta(seconds=seconds) if seconds else clock()

    return now


def _recorder(sink: AuditSink | None, plugins: PluginManager) -> Callable[[Event], None]:
    def record(event: Event) -> None:
        if sink is not None:
            sink.write(event)
        plugins.emit(event)

    return record


def _counting(
    record: Callable[[Event], None], refusals: RefusalRecorder
) -> Callable[[Event], None]:
    def record_or_count(event: Event) -> None:
        if isinstance(event, Refusal):
            refusals.record(event)
        else:
            record(event)

    return record_or_count


def tell_of_changes(services: Services, session: Session) -> None:
    """Tell of what a transaction changed; the stored rows are its record whatever happens here."""
    _tell_of_changes(services.record, session)


def _tell_of_changes(record: Callable[[Event], None], session: Session) -> None:
    for stored in session.info.pop(STORED, ()):
        try:
            record(event_of(stored))
        except AuditUnavailable as error:
            logger.warning("a change is recorded in the database alone: %s", error.detail)


def _refresh_keys(key_rings: KeyRings, changes: ChangeSet) -> None:
    if changes.everything or "key" in changes.subjects:
        key_rings.refresh()
