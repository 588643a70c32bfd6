"""The parts of a server's processes. A worker makes all of them before its first request."""

from collections.abc import Iterator, Mapping
from datetime import datetime, timedelta
from functools import cached_property, partial
from typing import TYPE_CHECKING, get_args

from sqlalchemy.orm import Session

from authz_server.assembly.base import Clock
from authz_server.assembly.services import Services
from authz_server.audit.checkpoints import CHECKPOINT_TYPE, AuditCheckpoints
from authz_server.audit.events import TokenIssued
from authz_server.audit.notifier import Notifier, Receiver
from authz_server.audit.pending_changes import ChangeDuties
from authz_server.audit.sink import AuditSink
from authz_server.background_jobs import Maintenance
from authz_server.clients.authentication.authenticator import ClientAuthenticator
from authz_server.clients.authentication.throttle import (
    FailureThrottle,
    RequestLimit,
    SharedFailures,
)
from authz_server.clients.counters.opening import open_counters
from authz_server.clients.counters.shared import SharedCounters
from authz_server.clients.fetching import ANYBODY
from authz_server.clients.outbound import Reply
from authz_server.clients.secret_duties import SecretDuties
from authz_server.database.change_feed import ChangeSet
from authz_server.database.orm import Database
from authz_server.endpoints.refusals import Refusal, RefusalRecorder
from authz_server.grants.base import TokenGrant
from authz_server.grants.registry import BUILT_IN, collect_grants
from authz_server.grants.token_exchange import TokenExchangeGrant
from authz_server.key_rings.backends import ring_rules
from authz_server.key_rings.consumers import JwksReaders
from authz_server.key_rings.jobs import KeyJobs, record_proof, tick_interval_seconds
from authz_server.key_rings.standby import StandbyReadiness
from authz_server.plugin_notifications import PATIENCE_SECONDS
from authz_server.settings import Settings
from authz_server.settings.profiles import permitted_algorithms, requires_bound_tokens
from authz_server.tokens.binding import TokenBinder
from authz_server.tokens.dpop import DPoPProofs
from authz_server.tokens.dpop_nonces import DPoPNonces
from authz_server.tokens.event_streams.contents import EventContents
from authz_server.tokens.event_streams.polling import EventPolls
from authz_server.tokens.event_streams.pushing import EventPusher
from authz_server.tokens.event_streams.reading import StreamReader
from authz_server.tokens.event_streams.tokens import EventSigner, make_ring_finder
from authz_server.tokens.issuer import TokenIssuer
from authz_server.tokens.limits import TokenLimits
from authz_server.tokens.presented import PresentedTokens
from keys.lifecycle.rotator import Rotator
from keys.ring import KeyRings

if TYPE_CHECKING:
    from authz_server.metrics.recorder import MetricsRecorder

#: Beyond the limit of its network, a right token may make as many times its requests.
_REQUESTS_OF_A_TOKEN = 10


class ManagementServices(Services):
    """The parts of the health listener, which keeps only the key rings in memory."""

    def _apply(self, session: Session, changes: ChangeSet) -> None:
        del session
        self._refresh_keys(changes)


class ServerServices(Services):
    """The parts of a process that answers requests, which records and signs.

    Args:
        settings: the checked settings.
        database: the open database.
        clock: returns the present time, timezone-aware.
        metrics: counts events; None: nothing is counted.
    """

    patience_seconds = PATIENCE_SECONDS

    def __init__(
        self,
        settings: Settings,
        database: Database,
        clock: Clock,
        metrics: "MetricsRecorder | None" = None,
    ) -> None:
        super().__init__(settings, database, clock)
        self.metrics = metrics

    def make_all(self) -> None:
        """Make every part now, so that no request waits for one.

        Raises:
            AuditUnavailable: nothing can be recorded.
            PluginError: a plugin cannot be used.
            KeysError: a key backend cannot be used.
            SettingsError: a file of a Vault's login is missing or open to others.
        """
        for name in dir(type(self)):
            if isinstance(getattr(type(self), name), cached_property):
                getattr(self, name)
        _ = self.database.prepared_queries

    @cached_property
    def sink(self) -> AuditSink:
        """Writes the audit log."""
        return AuditSink(self.settings.audit.destination, self.clock)

    @cached_property
    def refusals(self) -> RefusalRecorder:
        """Records refusals up to a limit and counts the rest."""
        return RefusalRecorder(Notifier(super().find_receivers).notify)

    def find_receivers(self, kind: type) -> Iterator[Receiver]:
        """Yield the receivers of a kind of events; refusals above a limit are only counted."""
        if kind in get_args(Refusal):
            yield self.refusals.record
        else:
            yield from super().find_receivers(kind)
        if kind is TokenIssued:
            yield self.scope_uses.note_asked
        if self.metrics is not None and kind in self.metrics.receivers:
            yield self.metrics.receivers[kind]

    @cached_property
    def authenticator(self) -> ClientAuthenticator:
        """Authenticates clients and resource servers."""
        settings = self.settings.clients
        return ClientAuthenticator(
            self.directory,
            self.authentication_methods,
            FailureThrottle(settings.failures_per_window, settings.failure_window_seconds),
            self.corrected_clock,
            shared_failures=self._shared_failures,
            documents=self.client_documents,
        )

    @cached_property
    def corrected_clock(self) -> Clock:
        """Returns the present time by the database's clock, for checking expiry."""
        return _corrected(self.clock, self.key_rings)

    @cached_property
    def shared_counters(self) -> SharedCounters | None:
        """Counts over all processes and nodes; None: each process counts for itself."""
        settings = self.settings
        return open_counters(settings.clients, self.database, settings.issuer, self.notify)

    @property
    def _shared_failures(self) -> SharedFailures | None:
        settings, counters = self.settings.clients, self.shared_counters
        if counters is None:
            return None
        return SharedFailures(
            counters, settings.failures_per_window, settings.failure_window_seconds
        )

    @cached_property
    def token_limits(self) -> TokenLimits:
        """Applies the restrictions of clients to their tokens."""
        return TokenLimits(self.catalogue, self.corrected_clock, self.shared_counters)

    @cached_property
    def secret_duties(self) -> SecretDuties:
        """Ends unused secrets, and announces those that end soon."""
        return SecretDuties(
            reading=self.database.reading,
            transaction=self.transaction,
            secrets=self.clients,
            report=self.notify,
            clock=self.corrected_clock,
            warning_days=self.settings.clients.secret_warning_days,
            clock_is_trusted=self.purge.clock_is_trusted,
        )

    @cached_property
    def change_duties(self) -> ChangeDuties:
        """Expires changes that wait for an approval, and warns of acts without one."""
        return ChangeDuties(
            reading=self.database.reading,
            transaction=self.transaction,
            clock=self.corrected_clock,
            clock_is_trusted=self.purge.clock_is_trusted,
        )

    @cached_property
    def registration_limit(self) -> RequestLimit:
        """Limits the requests for registration of each network."""
        settings = self.settings.registration
        return RequestLimit(
            settings.requests_per_window,
            settings.window_seconds,
            self.shared_counters,
            "registration",
        )

    @cached_property
    def registration_token_limit(self) -> RequestLimit:
        """Limits the requests with one right token beyond the limit of their network."""
        settings = self.settings.registration
        return RequestLimit(
            _REQUESTS_OF_A_TOKEN * settings.requests_per_window,
            settings.window_seconds,
            self.shared_counters,
            "registration_token",
        )

    @cached_property
    def key_rings(self) -> KeyRings:
        """The key rings, for verifying and signing."""
        return self._make_key_rings(self.key_backends, partial(record_proof, self.notify))

    @cached_property
    def jwks_readers(self) -> JwksReaders:
        """Counts the readers of the JWKS."""
        return JwksReaders(self.clock)

    @cached_property
    def key_jobs(self) -> KeyJobs:
        """Does the background work for the key rings."""
        keys = self.settings.keys
        rotator = Rotator(
            store=self.key_store,
            backends=self.key_backends,
            rules=ring_rules(self.settings, "server"),
            clock=self.clock,
            timing=keys.timing(),
            notify=self.notify,
            readiness=StandbyReadiness(self.database, keys, self.clock),
            limit=self.purge.limit,
        )
        return KeyJobs(
            database=self.database,
            store=self.key_store,
            key_rings=self.key_rings,
            rotator=rotator,
            readers=self.jwks_readers,
            notify=self.notify,
            clock=self.clock,
            snapshot_lifetime_seconds=keys.snapshot_lifetime_seconds,
        )

    @cached_property
    def grants(self) -> Mapping[str, type[TokenGrant]]:
        """The grants, by grant type, with what they need to answer requests."""
        exchange = TokenExchangeGrant.with_attributes(
            tokens=self.presented_tokens,
            directory=self.directory,
            catalogue=self.catalogue,
            details=self.detail_rules,
            issuer=self.settings.issuer,
        )
        built_in = [*BUILT_IN, *self._assertion_grants()]
        return {**collect_grants(self.plugins, built_in), exchange.GRANT_TYPE: exchange}

    @cached_property
    def presented_tokens(self) -> PresentedTokens:
        """Verifies the tokens that clients present as an authorization."""
        return PresentedTokens(
            verifier=self.verifier,
            revocations=self.revocation_state,
            standing=self.standing,
            issuers=self.issuers,
            directory=self.directory,
            catalogue=self.catalogue,
            now=lambda: self.corrected_clock().timestamp(),
        )

    @cached_property
    def issuer(self) -> TokenIssuer:
        """Issues tokens."""
        return TokenIssuer(
            issuer=self.settings.issuer,
            key_rings=self.key_rings,
            default_ring=self.settings.keys.default_ring,
            plugins=self.plugins,
            database=self.database,
            clock=self.clock,
            status_indexes=self.status_indexes,
        )

    @cached_property
    def dpop_proofs(self) -> DPoPProofs | None:
        """Checks DPoP proofs; None: DPoP is off."""
        settings = self.settings.dpop
        if not settings.enabled:
            return None
        nonces = None
        if settings.nonce == "required":
            # Every node has the pepper.
            pepper = self.settings.clients.secret_pepper.reveal()
            nonces = DPoPNonces(pepper, settings.nonce_lifetime_seconds)
        return DPoPProofs(
            algorithms=permitted_algorithms(self.settings.profiles, settings.algorithms),
            maximum_age_seconds=settings.maximum_proof_age_seconds,
            clock_skew_seconds=self.settings.tokens.clock_skew_seconds,
            nonces=nonces,
            single_use=self.single_use,
            clock=_corrected(self.clock, self.key_rings),
        )

    @cached_property
    def binder(self) -> TokenBinder:
        """Finds the keys that tokens are bound to."""
        required = requires_bound_tokens(self.settings.profiles)
        return TokenBinder(self.dpop_proofs, required=required)

    @cached_property
    def maintenance(self) -> Maintenance:
        """Runs the background work of the process."""
        return Maintenance(
            database=self.database,
            feed=self.feed,
            key_rings=self.key_rings,
            key_refresh_seconds=self.settings.keys.refresh_interval_seconds,
            key_jobs=self.key_jobs,
            tick_seconds=tick_interval_seconds(self.settings.keys),
            authenticator=self.authenticator,
            refusals=self.refusals,
            purge=self.purge,
            purge_seconds=self.settings.revocation.sweep_interval_seconds,
            pepper_fingerprint=self.secrets.fingerprint,
            secret_duties=self.secret_duties,
            change_duties=self.change_duties,
            event_pusher=self.event_pusher,
            checkpoints=self.audit_checkpoints,
            scope_uses=self.scope_uses,
            latest_change=self.latest_change,
        )

    @cached_property
    def audit_checkpoints(self) -> AuditCheckpoints:
        """Seals stored audit records, and signs the heads of the audit chains."""
        ring, audit = self.settings.keys.default_ring, self.settings.audit
        return AuditCheckpoints(
            database=self.database,
            sink=self.sink,
            destination=audit.destination,
            notify=self.notify,
            sign=partial(self.key_rings.sign, ring, typ=CHECKPOINT_TYPE, lifetime_seconds=1),
            may_wait=partial(self.key_rings.waits_to_sign, ring),
            issuer=self.settings.issuer,
            keep_days=audit.keep_days,
            clock=self.clock,
        )

    def _apply(self, session: Session, changes: ChangeSet) -> None:
        super()._apply(session, changes)
        self.event_pusher.apply(session, changes)

    @cached_property
    def event_pusher(self) -> EventPusher:
        """Pushes security events."""
        return EventPusher(
            database=self.database,
            reader=self.event_reader,
            signer=self.event_signer,
            post=self._post_event,
            notify=self.notify,
            clock=self.corrected_clock,
            keep=timedelta(hours=self.settings.event_streams.keep_hours),
        )

    def _post_event(self, url: str, body: bytes, content_type: str) -> Reply:
        headers = [f"Content-Type: {content_type}"]
        return self.fetcher.post(url, body, headers, access=ANYBODY)

    @cached_property
    def event_polls(self) -> EventPolls:
        """Answers polls for security events."""
        return EventPolls(self.database, self.event_reader, self.event_signer, self.notify)

    @cached_property
    def event_reader(self) -> StreamReader:
        """Reads the security events of resource servers."""
        return StreamReader(self._event_contents, self.corrected_clock)

    @cached_property
    def event_signer(self) -> EventSigner:
        """Signs security events."""
        find_ring = make_ring_finder(self.directory, self.settings.keys.default_ring)
        return EventSigner(self._event_contents, self.key_rings, find_ring)

    @cached_property
    def _event_contents(self) -> EventContents:
        return EventContents(self.settings.issuer, self.directory, self.catalogue)


def _corrected(clock: Clock, key_rings: KeyRings) -> Clock:
    """Return this machine's clock, corrected by the database's, for checking expiry."""

    def now() -> datetime:
        seconds = key_rings.clock_correction_seconds
        return clock() + timedelta(seconds=seconds) if seconds else clock()

    return now
