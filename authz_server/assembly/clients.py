"""The parts that know clients and scopes: caches, grants and authentication methods."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from functools import cached_property
from typing import TYPE_CHECKING, TypeAlias

from msgspec.structs import replace

from authz_server.assembly.keys import KeyServices
from authz_server.settings import SettingsError
from authz_server.settings.profiles import (
    permits_method,
    permitted_algorithms,
    requires_text_audience,
)

if TYPE_CHECKING:
    from authz_server.clients.authentication.assertions import AssertionRules
    from authz_server.clients.authentication.method import ClientAuthenticationMethod
    from authz_server.clients.authentication.registry import AuthenticationMethods, MethodNames
    from authz_server.clients.cache import ClientCache
    from authz_server.clients.certificate_chains import ChainVerifier
    from authz_server.clients.client_documents import ClientDocuments
    from authz_server.clients.fetching import Fetcher
    from authz_server.clients.issuers import RegisteredIssuers
    from authz_server.clients.key_sets import KeySets
    from authz_server.clients.secrets import SecretScheme
    from authz_server.database.single_use import SingleUse
    from authz_server.grants.base import TokenGrant
    from authz_server.scopes.catalogue import ScopeCatalogue
    from authz_server.tokens.authorization_details import DetailRules
    from authz_server.tokens.authorization_details_type import AuthorizationDetailsType

    Makers: TypeAlias = dict[
        type[ClientAuthenticationMethod], Callable[[], ClientAuthenticationMethod]
    ]


class ClientServices(KeyServices):
    """The parts that know clients and scopes: caches, grants and authentication methods."""

    @cached_property
    def secrets(self) -> SecretScheme:
        """Hashes and verifies client secrets."""
        from authz_server.clients.secrets import SecretScheme

        settings = self.settings.clients
        return SecretScheme(settings.secret_pepper.reveal(), settings.argon2_concurrency)

    @cached_property
    def catalogue(self) -> ScopeCatalogue:
        """The scopes in memory."""
        from authz_server.scopes.catalogue import ScopeCatalogue

        return ScopeCatalogue()

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
            Fetcher(document_limits(settings, outbound), self.notify),
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

        return Fetcher(self.settings.outbound, self.notify)

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
                    # Every signature that the server accepts follows the profiles.
                    replace(
                        each, algorithms=permitted_algorithms(settings.profiles, each.algorithms)
                    ),
                    audience=settings.issuer,
                    clock_skew_seconds=settings.tokens.clock_skew_seconds,
                    fetcher=self.fetcher,
                )
                for name, each in settings.issuers.items()
            ]
        )

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
            return read_authorities(ca_file, self.corrected_clock)
        except (OSError, ValueError) as error:
            raise SettingsError(
                f"{ca_file} has no certificate that can be read",
                key="client_certificates.ca_file",
            ) from error

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
            self.authorization_details_types,
            self.directory,
            self.catalogue,
            self.corrected_clock,
        )

    @cached_property
    def grants(self) -> Mapping[str, type[TokenGrant]]:
        """The grants, by grant type."""
        from authz_server.grants.registry import BUILT_IN, collect_grants

        return collect_grants(self.plugins, [*BUILT_IN, *self._assertion_grants()])

    def _assertion_grants(self) -> Iterator[type[TokenGrant]]:
        """Yield the grants that need a registered issuer, if there is one."""
        if self.settings.issuers:
            from authz_server.grants.jwt_bearer import AssertionGrants, JwtBearerGrant

            assertions = AssertionGrants(
                self.issuers, self.single_use, self.directory, self.corrected_clock
            )
            yield JwtBearerGrant.with_attributes(assertions=assertions)

    @cached_property
    def authentication_methods(self) -> AuthenticationMethods:
        """The client authentication methods."""
        from authz_server.clients.authentication.registry import collect_methods

        built_in = [make() for make in self._built_in_methods.values()]
        return collect_methods(built_in, self.plugins, self._permits_method)

    @cached_property
    def method_names(self) -> MethodNames:
        """The names of the client authentication methods; none is made."""
        from authz_server.clients.authentication.registry import collect_names

        return collect_names([*self._built_in_methods], self.plugins, self._permits_method)

    def _permits_method(self, name: str) -> bool:
        return permits_method(self.settings.profiles, name)

    @cached_property
    def _built_in_methods(self) -> Makers:
        """The methods that the settings enable, each with a function that makes it."""
        from authz_server.clients.authentication.shared_secret import SharedSecret

        return {
            SharedSecret: lambda: SharedSecret(self.directory, self.secrets),
            **self._assertion_methods(),
            **self._certificate_methods(),
        }

    @cached_property
    def assertion_rules(self) -> AssertionRules:
        """The rules of client assertions."""
        from authz_server.clients.authentication.assertions import AssertionRules

        settings = self.settings
        skew = settings.tokens.clock_skew_seconds
        return AssertionRules(
            settings.issuer,
            self.assertion_algorithms,
            skew,
            audience_is_text=requires_text_audience(settings.profiles),
        )

    @property
    def assertion_algorithms(self) -> tuple[str, ...]:
        """The algorithms by which clients may sign assertions."""
        settings = self.settings
        return permitted_algorithms(settings.profiles, settings.assertions.algorithms)

    def _assertion_methods(self) -> Makers:
        """Return the methods that use a signed JWT, as far as the settings permit an algorithm."""
        from authz_server.clients.authentication.assertions import HMAC_ALGORITHMS
        from authz_server.clients.authentication.client_secret_jwt import ClientSecretJwt
        from authz_server.clients.authentication.private_key_jwt import PrivateKeyJwt
        from authz_server.clients.authentication.workload_identity import WorkloadIdentityMethod

        algorithms = set(self.assertion_algorithms)
        methods: Makers = {}
        if HMAC_ALGORITHMS.keys() & algorithms:
            methods[ClientSecretJwt] = lambda: ClientSecretJwt(
                self.assertion_rules, self.single_use, self.secrets, self.issuers.is_registered
            )
        if algorithms - HMAC_ALGORITHMS.keys():
            documents = self.client_documents
            methods[PrivateKeyJwt] = lambda: PrivateKeyJwt(
                self.assertion_rules,
                self.single_use,
                self.key_sets,
                self.issuers.is_registered,
                None if documents is None else documents.renew,
            )
        if self.settings.issuers:
            methods[WorkloadIdentityMethod] = lambda: WorkloadIdentityMethod(
                self.directory, self.issuers
            )
        return methods

    def _certificate_methods(self) -> Makers:
        """Return the methods that use a TLS certificate, as far as the settings give them one."""
        settings = self.settings.client_certificates
        if settings.source == "off":
            return {}
        from authz_server.clients.authentication.self_signed_tls_client_auth import (
            SelfSignedTlsClientAuth,
        )
        from authz_server.clients.authentication.tls_client_auth import TlsClientAuth

        skew = self.settings.tokens.clock_skew_seconds
        methods: Makers = {}
        if settings.can_be_verified:
            methods[TlsClientAuth] = lambda: TlsClientAuth(
                self.directory,
                # A listener has verified the chain in its handshake, against the same file.
                self.chain_verifier if settings.are_from_proxy else None,
                skew,
            )
        if settings.are_from_proxy:
            # A listener ends the handshake of a certificate that leads to no authority.
            methods[SelfSignedTlsClientAuth] = lambda: SelfSignedTlsClientAuth(
                self.directory, self.key_sets, skew
            )
        return methods
