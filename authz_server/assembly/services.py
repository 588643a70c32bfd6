"""The parts of a process that records nothing and signs nothing: tokens, and their upkeep."""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING

import msgspec
from sqlalchemy.orm import Session

from authz_server.assembly.base import utc_now
from authz_server.assembly.registration import RegistrationServices
from authz_server.database.change_feed import ChangeFeed, ChangeSet
from authz_server.settings import LONGEST_LIFETIME_SECONDS

if TYPE_CHECKING:
    from authz_server.database.clock import ClockGuard
    from authz_server.scopes.uses import ScopeUses
    from authz_server.tokens.authorization import AuthorizationRules
    from authz_server.tokens.introspection import IntrospectionService
    from authz_server.tokens.introspection_source import IntrospectionSources
    from authz_server.tokens.purging import Purge
    from authz_server.tokens.revocations import RevocationState
    from authz_server.tokens.standing import TokenStanding
    from authz_server.tokens.status_lists.indexes import StatusIndexes
    from authz_server.tokens.status_lists.publication import StatusLists
    from authz_server.tokens.stops import StopState
    from authz_server.tokens.verification import TokenVerifier


class Services(RegistrationServices):
    """The parts of a process that records nothing and signs nothing."""

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
        # First, because this may fail until the server is restarted: the rest is read in vain then.
        self._refresh_keys(changes)
        self.directory.apply(session, changes)
        self.catalogue.apply(session, changes)
        self.revocation_state.apply(session, changes)
        self.stops.apply(session, changes)
        self.status_indexes.apply(session, changes)
        if self.client_documents is not None:
            self.client_documents.forget()
        self.rules.forget(session, changes)

    @cached_property
    def rules(self) -> AuthorizationRules:
        """Decides which scopes, audience and lifetime a client gets."""
        from authz_server.tokens.authorization import AuthorizationRules

        rules = AuthorizationRules(
            self.directory, self.catalogue, self.settings.tokens, self.detail_rules, self.stops
        )
        if self.client_documents is not None:
            self.client_documents.on_change(rules.forget)
        return rules

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
            catch_up=self.revocation_state.catch_up,
        )

    @cached_property
    def revocation_state(self) -> RevocationState:
        """Checks whether a token is revoked."""
        from authz_server.tokens.revocations import RevocationState

        return RevocationState(self.database, self.feed, self.catalogue)

    @cached_property
    def stops(self) -> StopState:
        """The stops in force."""
        from authz_server.tokens.stops import StopState

        return StopState()

    @cached_property
    def introspection(self) -> IntrospectionService:
        """Describes active tokens."""
        from authz_server.tokens.introspection import IntrospectionService
        from authz_server.tokens.tainted_keys import TaintedKeyWatch

        settings = self.settings.introspection
        ages = msgspec.structs.asdict(settings.maximum_age_seconds)
        return IntrospectionService(
            verifier=self.verifier,
            revocations=self.revocation_state,
            standing=self.standing,
            details=self.detail_rules,
            plugins=self.plugins,
            tainted=TaintedKeyWatch(self.key_rings, self.notify),
            database=self.database,
            sources=self.introspection_sources,
            maximum_ages=ages if any(ages.values()) else {},
            find_client=self.directory.find if settings.client_names else None,
            note_seen=self.scope_uses.note_seen,
        )

    @cached_property
    def scope_uses(self) -> ScopeUses:
        """Remembers which clients use which scopes, until a background job stores it."""
        from authz_server.scopes.uses import ScopeUses

        return ScopeUses()

    @cached_property
    def introspection_sources(self) -> IntrospectionSources:
        """The sources of introspection that plugins add."""
        from authz_server.tokens.introspection_source import IntrospectionSources, collect_sources

        return IntrospectionSources(
            collect_sources(self.plugins),
            issuer=self.settings.issuer,
            directory=self.directory,
            catalogue=self.catalogue,
            now=lambda: self.corrected_clock().timestamp(),
            report=self.notify,
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
            stops=self.stops,
            is_key_ended=self.key_rings.has_ended,
            now=lambda: self.clock().timestamp() + self.verifier.clock_correction_seconds,
            clock_skew_seconds=self.settings.tokens.clock_skew_seconds,
        )

    @cached_property
    def status_indexes(self) -> StatusIndexes:
        """Gives new tokens their entries in status lists."""
        from authz_server.tokens.status_lists.indexes import StatusIndexes

        return StatusIndexes(self.database, self.settings.status_lists.period_seconds)

    @cached_property
    def status_lists(self) -> StatusLists:
        """Makes the status lists."""
        from authz_server.tokens.status_lists.publication import StatusLists

        waiting = self.settings.database
        return StatusLists(
            issuer=self.settings.issuer,
            database=self.database,
            feed=self.feed,
            standing=self.standing,
            directory=self.directory,
            key_rings=self.key_rings,
            default_ring=self.settings.keys.default_ring,
            settings=self.settings.status_lists,
            clock=self.corrected_clock,
            # As long as a call may wait for its own connection and answer.
            wait_seconds=(
                waiting.pool_timeout_milliseconds + waiting.statement_timeout_milliseconds
            )
            / 1_000,
        )

    @cached_property
    def clock_guard(self) -> ClockGuard | None:
        """Returns the time that has certainly passed; None for a clock that is not the system's."""
        from authz_server.database.clock import ClockGuard

        # Only the system's clock can be compared with the system's uptime.
        return ClockGuard(self.clock) if self.clock is utc_now else None

    @cached_property
    def purge(self) -> Purge:
        """Deletes expired rows."""
        from authz_server.key_rings.jobs import purge_key_rows
        from authz_server.tokens.purging import Purge

        return Purge(
            database=self.database,
            revocations=self.revocations,
            purge_others=purge_key_rows,
            notify=self.notify,
            batch_rows=self.settings.revocation.sweep_batch_rows,
            clock=self.clock,
            guard=self.clock_guard,
            audit_days=self.settings.audit.keep_days,
            change_days=self.settings.approvals.keep_days,
        )
