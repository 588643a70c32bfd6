"""The parts that change clients, resource servers and scopes."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from typing import TYPE_CHECKING, Any

from authz_server.assembly.clients import ClientServices
from authz_server.settings import LONGEST_LIFETIME_SECONDS

if TYPE_CHECKING:
    from authz_server.clients.registration.initial_tokens import InitialAccessTokens
    from authz_server.clients.registration.service import RegistrationService
    from authz_server.clients.registration.software_statements import SoftwareStatements
    from authz_server.clients.service import ClientService
    from authz_server.clients.validation import ClientLimits
    from authz_server.scopes.service import ScopeService
    from authz_server.tokens.revocations import RevocationService


class RegistrationServices(ClientServices):
    """The parts that change clients, resource servers and scopes."""

    @cached_property
    def revocations(self) -> RevocationService:
        """Revokes tokens."""
        from authz_server.key_rings.nodes import find_lead_seconds
        from authz_server.tokens.issue_times import IssueTimes
        from authz_server.tokens.revocations import RevocationService

        tolerance_seconds = self.settings.keys.clock_tolerance_seconds
        issue_times = IssueTimes(self.clock, tolerance_seconds, find_lead_seconds)
        return RevocationService(self.clock, LONGEST_LIFETIME_SECONDS, issue_times)

    def client_limits(self) -> ClientLimits:
        """Return the values that a registration may have."""
        from authz_server.clients.validation import ClientLimits

        return ClientLimits(
            maximum_token_lifetime_seconds=self.settings.tokens.maximum_lifetime_seconds,
            ring_names=frozenset(self.settings.keys.rings),
            grant_types=tuple(self.grants),
            authentication_methods=self.method_names.registrations,
            issuer=self.settings.issuer,
            check_details_grant=self._check_details_grant,
        )

    def _check_details_grant(self, kind: str, grant: Mapping[str, Any]) -> None:
        self.detail_rules.check_grant(kind, grant)

    @cached_property
    def clients(self) -> ClientService:
        """Changes clients, resource servers and their secrets."""
        from authz_server.clients.service import ClientService
        from authz_server.scopes.service import find_canonical_names
        from authz_server.tokens.programmes import leave_programmes
        from authz_server.tokens.stops import require_no_stop

        return ClientService(
            self.corrected_clock,
            self.secrets,
            self.client_limits,
            find_canonical_names,
            lambda: self.revocations,
            require_no_stop=lambda session, server_id: require_no_stop(
                session, resource_server_id=server_id
            ),
            leave_programmes=leave_programmes,
            machine_clock=self.clock,
        )

    @cached_property
    def initial_tokens(self) -> InitialAccessTokens:
        """Permits dynamic registrations."""
        from authz_server.clients.registration.initial_tokens import InitialAccessTokens
        from authz_server.scopes.service import find_canonical_names

        return InitialAccessTokens(
            self.corrected_clock, self.secrets, lambda: tuple(self.grants), find_canonical_names
        )

    @cached_property
    def registrations(self) -> RegistrationService:
        """Registers clients dynamically."""
        from authz_server.clients.registration.limits import RegistrationLimits
        from authz_server.clients.registration.metadata import OPERATORS_METHODS
        from authz_server.clients.registration.service import RegistrationService
        from authz_server.scopes.service import find_canonical_names

        methods = self.method_names
        return RegistrationService(
            clients=self.clients,
            secrets=self.secrets,
            clock=self.corrected_clock,
            limits=RegistrationLimits(
                find_canonical_names,
                # The registered names alone: others are values of this server's command line.
                lambda: (set(methods.names) & set(methods.registrations)) - OPERATORS_METHODS,
                self.assertion_algorithms,
            ),
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
            clock=self.corrected_clock,
            find_canonical_names=find_canonical_names,
        )

    @cached_property
    def scopes(self) -> ScopeService:
        """Changes the catalogue of scopes."""
        from authz_server.clients.registrations import is_admin_api, is_resource_server
        from authz_server.scopes.service import ScopeService
        from authz_server.tokens.stops import require_no_stop

        return ScopeService(
            self.corrected_clock,
            is_resource_server,
            is_admin_api,
            require_no_stop,
            lambda: self.revocations,
        )
