"""The parts of a process, each made on first use.

A part's module is imported when the part is made. A command so loads and opens only the parts that
it uses: ``client list`` opens no key backend, no Vault login, no plugin and no audit file.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from functools import cached_property, partial
from typing import TYPE_CHECKING

from sqlalchemy.orm import Session

from authz_server.audit.events import Event
from authz_server.audit.notifier import Notifier, Notify, Receiver
from authz_server.audit.sink import STORED, AuditSink, report_changes
from authz_server.database.change_feed import ChangeFeed, ChangeSet
from authz_server.database.orm import Database
from authz_server.settings import LONGEST_LIFETIME_SECONDS, Settings, SettingsError
from authz_server.settings.profiles import permits_method, permitted_algorithms

if TYPE_CHECKING:
    from authz_server.clients.authentication.method import ClientAuthenticationMethod
    from authz_server.clients.authentication.registry import AuthenticationMethods
    from authz_server.clients.cache import ClientCache
    from authz_server.clients.certificate_chains import ChainVerifier
    from authz_server.clients.client_documents import ClientDocuments
    from authz_server.clients.fetching import Fetcher
    from authz_server.clients.issuers import RegisteredIssuers
    from authz_server.clients.key_sets import KeySets
    from authz_server.clients.registration.initial_tokens import InitialAccessTokens
    from authz_server.clients.registration.service import RegistrationService
    from authz_server.clients.registration.software_statements import SoftwareStatements
    from authz_server.clients.secrets import SecretScheme
    from authz_server.clients.service import ClientService
    from authz_server.clients.validation import ClientLimits
    from authz_server.database.single_use import SingleUse
    from authz_server.grants.base import TokenGrant
    from authz_server.key_rings.alarms import KeyAlarms
    from authz_server.key_rings.store import SqlKeyStore
    from authz_server.plugin_manager import PluginManager
    from authz_server.scopes.catalogue import ScopeCatalogue
    from authz_server.scopes.service import ScopeService
    from authz_server.tokens.authorization import AuthorizationRules
    from authz_server.tokens.authorization_details import DetailRules
    from authz_server.tokens.authorization_details_type import AuthorizationDetailsType
    from authz_server.tokens.introspection import IntrospectionService
    from authz_server.tokens.purging import Purge
    from authz_server.tokens.revocations import RevocationService, RevocationState
    from authz_server.tokens.standing import TokenStanding
    from authz_server.tokens.verification import TokenVerifier
    from keys.backend import KeyBackend
    from keys.backends.registry import BackendRegistry
    from keys.backends.vault.settings import VaultAccess
    from keys.ring import KeyRings
    from keys.signer import OnProof

Clock = Callable[[], datetime]


def utc_now() -> datetime:
    """Return the present time."""
    return datetime.now(UTC)


class Services:
    """The parts of a process that records nothing and signs nothing.

    Args:
        settings: the checked settings.
        database: the open database.
        clock: returns the present time, timezone-aware.
        vaults: the access to each Vault, by name; None: the access of the server.

    Raises:
        PluginError: a part that uses the plugins was made, and a plugin cannot be used.
        KeysError: a part that uses the key backends was made, and a backend cannot be used.
        SettingsError: the key backends were opened, and a file of a Vault's login is missing or
            readable by others.
    """

    def __init__(
        self,
        settings: Settings,
        database: Database,
        clock: Clock = utc_now,
        *,
        vaults: Mapping[str, VaultAccess] | None = None,
    ) -> None:
        self.settings = settings
        self.database = database
        self.clock = clock
        self._vaults = vaults

    # -------------------------------------------------------------------------------- events

    @cached_property
    def sink(self) -> AuditSink | None:
        """Writes the audit log; None: events go to the plugins only."""
        return None

    @cached_property
    def plugins(self) -> PluginManager:
        """The enabled plugins."""
        from authz_server.plugin_manager import PluginManager

        return PluginManager(self.settings.plugins.enabled, self.settings.plugins.settings)

    @cached_property
    def notify(self) -> Notify:
        """Passes an event to its receivers; raises if it must be recorded and cannot be."""
        return Notifier(self.find_receivers).notify

    def find_receivers(self, kind: type) -> Iterator[Receiver]:
        """Yield the receivers of a kind of events; the audit log comes first and may refuse."""
        if issubclass(kind, Event):
            if self.sink is not None:
                yield self.sink.write
            if self.plugins.receives_events:
                yield self.plugins.emit
        elif kind in self.key_alarms.kinds:
            yield self.key_alarms.receive

    def open_recorders(self) -> None:
        """Open the audit log and the plugins now rather than at the first event.

        Raises:
            AuditUnavailable: nothing can be recorded.
            PluginError: a plugin cannot be used.
        """
        _ = self.sink, self.plugins

    @contextmanager
    def transaction(self) -> Iterator[Session]:
        """Yield a session that is committed when the block ends; its changes are then reported.

        Raises:
            AuditUnavailable: a change could not be recorded; it is not made.
            PluginError: a change could not be reported to a plugin; it is not made.
        """
        with self.database.transaction() as session:
            yield session
            changed = STORED in session.info
            if changed:
                self.open_recorders()
        if changed:
            report_changes(self.notify, session)

    @cached_property
    def key_alarms(self) -> KeyAlarms:
        """Records alarms of the key rings."""
        from authz_server.key_rings.alarms import KeyAlarms

        return KeyAlarms(self.notify)

    # -------------------------------------------------------------------- clients and scopes

    @cached_property
    def feed(self) -> ChangeFeed:
        """Updates the state in memory with the changes in the database."""
        settings = self.settings.database
        feed = ChangeFeed(
            self.database.reading,
            refresh_interval_seconds=settings.refresh_interval_milliseconds / 1_000,
            staleness_limit_seconds=settings.staleness_limit_milliseconds / 1_000,
        )
        feed.subscribe(self._apply)
        return feed

    def _apply(self, session: Session, changes: ChangeSet) -> None:
        """Update the state in memory; ``rules`` comes after the parts that it reads."""
        self.directory.apply(session, changes)
        self.catalogue.apply(session, changes)
        self.revocation_state.apply(session, changes)
        if self.client_documents is not None:
            self.client_documents.forget()
        self.rules.forget(session, changes)
        self._refresh_keys(changes)

    def _refresh_keys(self, changes: ChangeSet) -> None:
        if changes.everything or "key" in changes.subjects:
            self.key_rings.refresh()

    @cached_property
    def secrets(self) -> SecretScheme:
        """Hashes and verifies client secrets."""
        from authz_server.clients.secrets import SecretScheme

        settings = self.settings.clients
        return SecretScheme(settings.secret_pepper.reveal(), settings.argon2_concurrency)

    @cached_property
    def grants(self) -> Mapping[str, type[TokenGrant]]:
        """The grants, by grant type."""
        from authz_server.grants.registry import BUILT_IN, collect_grants

        return collect_grants(self.plugins, [*BUILT_IN, *self._assertion_grants()])

    def _assertion_grants(self) -> Iterator[type[TokenGrant]]:
        """Yield the grants that need a registered issuer, if there is one."""
        if len(self.issuers):
            from authz_server.grants.jwt_bearer import AssertionGrants, JwtBearerGrant

            assertions = AssertionGrants(
                self.issuers, self.single_use, self.directory, self.corrected_clock
            )
            yield JwtBearerGrant.with_attributes(assertions=assertions)

    @cached_property
    def corrected_clock(self) -> Clock:
        """Returns the present time; of a server, by the database's clock."""
        return self.clock

    @cached_property
    def authentication_methods(self) -> AuthenticationMethods:
        """The client authentication methods."""
        from authz_server.clients.authentication.registry import collect_methods
        from authz_server.clients.authentication.shared_secret import SharedSecret

        built_in = [
            SharedSecret(self.directory, self.secrets),
            *self._assertion_methods(),
            *self._certificate_methods(),
        ]
        permits = partial(permits_method, self.settings.profiles)
        return collect_methods(built_in, self.plugins, permits)

    def _assertion_methods(self) -> Iterator[ClientAuthenticationMethod]:
        """Yield the methods that use a signed JWT, as far as the settings permit an algorithm."""
        from authz_server.clients.authentication.assertions import HMAC_ALGORITHMS, AssertionRules
        from authz_server.clients.authentication.client_secret_jwt import ClientSecretJwt
        from authz_server.clients.authentication.private_key_jwt import PrivateKeyJwt

        settings = self.settings
        algorithms = permitted_algorithms(settings.profiles, settings.assertions.algorithms)
        rules = AssertionRules(settings.issuer, algorithms, settings.tokens.clock_skew_seconds)
        is_foreign = self.issuers.is_registered
        if HMAC_ALGORITHMS.keys() & set(algorithms):
            yield ClientSecretJwt(rules, self.single_use, self.secrets, is_foreign)
        if set(algorithms) - HMAC_ALGORITHMS.keys():
            yield PrivateKeyJwt(rules, self.single_use, self.key_sets, is_foreign)
        if len(self.issuers):
            from authz_server.clients.authentication.workload_identity import (
                WorkloadIdentityMethod,
            )

            yield WorkloadIdentityMethod(self.directory, self.issuers)

    def _certificate_methods(self) -> Iterator[ClientAuthenticationMethod]:
        """Yield the methods that use a TLS certificate, as far as the settings give them one."""
        settings = self.settings.client_certificates
        if settings.source == "off":
            return
        from authz_server.clients.authentication.self_signed_tls_client_auth import (
            SelfSignedTlsClientAuth,
        )
        from authz_server.clients.authentication.tls_client_auth import TlsClientAuth

        skew = self.settings.tokens.clock_skew_seconds
        if settings.can_be_verified:
            # A listener has verified the chain in its handshake, against the same file.
            chains = self.chain_verifier if settings.are_from_proxy else None
            yield TlsClientAuth(self.directory, chains, skew)
        yield SelfSignedTlsClientAuth(self.directory, self.key_sets, skew)

    @cached_property
    def chain_verifier(self) -> ChainVerifier | None:
        """Verifies the chains of client certificates; None: the proxy alone verifies them.

        Raises:
            SettingsError: the file of the authorities cannot be used.
        """
        ca_file = self.settings.client_certificates.ca_file
        if not ca_file:
            return None
        from authz_server.clients.certificate_chains import read_authorities

        try:
            return read_authorities(ca_file, self.clock)
        except (OSError, ValueError) as error:
            raise SettingsError(
                f"{ca_file} has no certificate that can be read",
                key="client_certificates.ca_file",
            ) from error

    def client_limits(self) -> ClientLimits:
        """Return the values that a registration may have."""
        from authz_server.clients.validation import ClientLimits

        return ClientLimits(
            maximum_token_lifetime_seconds=self.settings.tokens.maximum_lifetime_seconds,
            ring_names=frozenset(self.settings.keys.rings),
            grant_types=tuple(self.grants),
            authentication_methods=self.authentication_methods.registrations,
            issuer=self.settings.issuer,
            check_details_grant=self.detail_rules.check_grant,
        )

    @cached_property
    def clients(self) -> ClientService:
        """Changes clients, resource servers and their secrets."""
        from authz_server.clients.service import ClientService
        from authz_server.scopes.service import find_canonical_names

        return ClientService(
            self.clock,
            self.secrets,
            self.client_limits,
            find_canonical_names,
            lambda: self.revocations,
        )

    @cached_property
    def initial_tokens(self) -> InitialAccessTokens:
        """Permits dynamic registrations."""
        from authz_server.clients.registration.initial_tokens import InitialAccessTokens
        from authz_server.scopes.service import find_canonical_names

        return InitialAccessTokens(
            self.clock, self.secrets, lambda: tuple(self.grants), find_canonical_names
        )

    @cached_property
    def registrations(self) -> RegistrationService:
        """Registers clients dynamically."""
        from authz_server.clients.registration.metadata import OPERATORS_METHODS
        from authz_server.clients.registration.service import RegistrationService
        from authz_server.scopes.service import find_canonical_names

        methods = self.authentication_methods
        return RegistrationService(
            clients=self.clients,
            secrets=self.secrets,
            clock=self.clock,
            find_canonical_names=find_canonical_names,
            # The registered names alone: others are values of this server's command line.
            methods=lambda: (set(methods.names) & set(methods.registrations)) - OPERATORS_METHODS,
            settings=self.settings.registration,
        )

    @cached_property
    def software_statements(self) -> SoftwareStatements:
        """Verifies software statements."""
        from authz_server.clients.registration.software_statements import SoftwareStatements
        from authz_server.scopes.service import find_canonical_names

        return SoftwareStatements(
            self.issuers,
            self.settings.registration.software_statement_issuers,
            audience=self.settings.issuer,
            clock=self.clock,
            find_canonical_names=find_canonical_names,
        )

    @cached_property
    def scopes(self) -> ScopeService:
        """Changes the catalogue of scopes."""
        from authz_server.clients.registrations import is_resource_server
        from authz_server.scopes.service import ScopeService

        return ScopeService(self.clock, is_resource_server)

    @cached_property
    def directory(self) -> ClientCache:
        """The clients and resource servers in memory."""
        from authz_server.clients.cache import ClientCache

        directory = ClientCache(self.secrets)
        if self.client_documents is not None:
            directory.find_further = self.client_documents.find
        return directory

    @cached_property
    def client_documents(self) -> ClientDocuments | None:
        """The clients that publish their metadata; None: no origin is permitted."""
        settings = self.settings.client_id_documents
        if not settings.allowed_origins:
            return None
        from authz_server.clients.client_documents import ClientDocuments, document_limits
        from authz_server.clients.fetching import Fetcher

        outbound = self.settings.outbound
        return ClientDocuments(
            settings,
            # A cache of its own, so that no document displaces the keys of another client.
            Fetcher(document_limits(settings, outbound)),
            self.catalogue.expand,
            plain_http=outbound.plain_http,
        )

    @cached_property
    def single_use(self) -> SingleUse:
        """Accepts values once over all processes and nodes."""
        from authz_server.database.single_use import SingleUse

        return SingleUse(self.database)

    @cached_property
    def fetcher(self) -> Fetcher:
        """Fetches documents that clients and issuers publish."""
        from authz_server.clients.fetching import Fetcher

        return Fetcher(self.settings.outbound)

    @cached_property
    def key_sets(self) -> KeySets:
        """Reads the public keys of clients and issuers."""
        from authz_server.clients.key_sets import KeySets

        return KeySets(self.fetcher)

    @cached_property
    def issuers(self) -> RegisteredIssuers:
        """The registered issuers of workload and user tokens."""
        from authz_server.clients.issuers import Issuer, RegisteredIssuers

        settings = self.settings
        return RegisteredIssuers(
            [
                Issuer(
                    name,
                    each,
                    audience=settings.issuer,
                    clock_skew_seconds=settings.tokens.clock_skew_seconds,
                    fetcher=self.fetcher,
                )
                for name, each in settings.issuers.items()
            ]
        )

    @cached_property
    def catalogue(self) -> ScopeCatalogue:
        """The scopes in memory."""
        from authz_server.scopes.catalogue import ScopeCatalogue

        return ScopeCatalogue()

    # --------------------------------------------------------------------------- signing keys

    @cached_property
    def key_store(self) -> SqlKeyStore:
        """Reads and writes the tables of the key rings."""
        from authz_server.key_rings.store import SqlKeyStore

        return SqlKeyStore(self.transaction, self.database.reading)

    @cached_property
    def backend_registry(self) -> BackendRegistry:
        """The key backends that can be opened, built in or from a plugin."""
        from authz_server.key_rings.backends import collect_backends

        return collect_backends(self.plugins)

    @cached_property
    def key_backends(self) -> Mapping[str, KeyBackend]:
        """The open backends of the settings' rings, by URI."""
        from authz_server.key_rings.backends import open_backends
        from authz_server.key_rings.vaults import vault_accesses

        vaults = vault_accesses(self.settings, "server") if self._vaults is None else self._vaults
        return open_backends(
            self.settings,
            self.backend_registry,
            self.database,
            self.clock,
            vaults,
            self.notify,
        )

    @cached_property
    def key_rings(self) -> KeyRings:
        """The key rings, for verifying only; no backend is opened."""
        return self._make_key_rings({})

    def _make_key_rings(
        self,
        backends: Mapping[str, KeyBackend],
        on_proof: OnProof = lambda _kid, _request_id: None,
    ) -> KeyRings:
        from keys.ring import KeyRings

        return KeyRings(
            self.key_store,
            backends,
            self.clock,
            self.settings.keys.default_ring,
            timing=self.settings.keys.timing(),
            notify=self.notify,
            on_proof=on_proof,
        )

    # --------------------------------------------------------------------------------- tokens

    @cached_property
    def rules(self) -> AuthorizationRules:
        """Decides which scopes, audience and lifetime a client gets."""
        from authz_server.tokens.authorization import AuthorizationRules

        rules = AuthorizationRules(
            self.directory, self.catalogue, self.settings.tokens, self.detail_rules
        )
        if self.client_documents is not None:
            self.client_documents.on_change(rules.forget)
        return rules

    @cached_property
    def authorization_details_types(self) -> Mapping[str, AuthorizationDetailsType]:
        """The types of authorization details, by name."""
        from authz_server.tokens.authorization_details import collect_types

        return collect_types(self.plugins)

    @cached_property
    def detail_rules(self) -> DetailRules:
        """Limits authorization details to what clients are granted."""
        from authz_server.tokens.authorization_details import DetailRules

        return DetailRules(
            self.authorization_details_types, self.directory, self.catalogue, self.clock
        )

    @cached_property
    def verifier(self) -> TokenVerifier:
        """Verifies tokens of this server."""
        from authz_server.tokens.verification import TokenVerifier

        return TokenVerifier(
            issuer=self.settings.issuer,
            key_rings=self.key_rings,
            database=self.database,
            clock=self.clock,
            clock_skew_seconds=self.settings.tokens.clock_skew_seconds,
            # Not the present setting: it may have been lowered since a token was made.
            maximum_lifetime_seconds=LONGEST_LIFETIME_SECONDS,
        )

    @cached_property
    def revocations(self) -> RevocationService:
        """Revokes tokens."""
        from authz_server.tokens.revocations import RevocationService

        return RevocationService(self.clock, LONGEST_LIFETIME_SECONDS)

    @cached_property
    def revocation_state(self) -> RevocationState:
        """Checks whether a token is revoked."""
        from authz_server.tokens.revocations import RevocationState

        return RevocationState(self.database, self.feed, self.catalogue)

    @cached_property
    def introspection(self) -> IntrospectionService:
        """Describes active tokens."""
        from authz_server.tokens.introspection import IntrospectionService
        from authz_server.tokens.tainted_keys import TaintedKeyWatch

        return IntrospectionService(
            verifier=self.verifier,
            revocations=self.revocation_state,
            standing=self.standing,
            details=self.detail_rules,
            plugins=self.plugins,
            tainted=TaintedKeyWatch(self.key_rings, self.notify),
        )

    @cached_property
    def standing(self) -> TokenStanding:
        """Checks the state of verified tokens."""
        from authz_server.tokens.standing import TokenStanding

        return TokenStanding(
            revocations=self.revocation_state,
            directory=self.directory,
            catalogue=self.catalogue,
            details=self.detail_rules,
            now=lambda: self.clock().timestamp() + self.verifier.clock_correction_seconds,
            clock_skew_seconds=self.settings.tokens.clock_skew_seconds,
        )

    @cached_property
    def purge(self) -> Purge:
        """Deletes expired rows."""
        from authz_server.database.clock import ClockGuard
        from authz_server.key_rings.jobs import purge_key_rows
        from authz_server.tokens.purging import Purge

        return Purge(
            database=self.database,
            revocations=self.revocations,
            purge_others=purge_key_rows,
            notify=self.notify,
            batch_rows=self.settings.revocation.sweep_batch_rows,
            clock=self.clock,
            # Only the system's clock can be compared with the system's uptime.
            guard=ClockGuard(self.clock) if self.clock is utc_now else None,
            audit_days=self.settings.audit.keep_days,
        )
