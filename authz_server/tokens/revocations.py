"""Revocations: single tokens, and cut-offs by client, key, scope, audience or instant."""

import os
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Literal

from sqlalchemy import insert, select
from sqlalchemy.exc import NoResultFound
from sqlalchemy.orm import Session

from authz_server.audit.records import store_audit_record
from authz_server.database.change_feed import ChangeFeed, ChangeSet, Revision, record_change
from authz_server.database.deletions import delete_due
from authz_server.database.orm import Database, insert_into
from authz_server.scopes.catalogue import ScopeCatalogue
from authz_server.tokens.issue_times import IssueTimes
from authz_server.tokens.models import (
    ReferenceToken,
    RevocationCutOff,
    RevokedToken,
    audience_subject,
)
from authz_server.tokens.status_lists.entries import find_entry
from authz_server.tokens.status_lists.revoking import set_invalid
from authz_server.waiting import Lane, Step

#: The kinds of cut-offs that an operator may order.
CutOffKind = Literal["client", "key", "scope", "all"]

#: A revocation is kept this much longer than the token can live, for clocks that differ.
_MARGIN = timedelta(seconds=60)

_QUERY = (
    "SELECT value, EXISTS (SELECT 1 FROM revoked_token WHERE jti = ?) FROM revision WHERE id = 1"
)


class RevocationService:
    """Records revocations in the caller's session; they take effect at its commit.

    Args:
        clock: returns the present time.
        maximum_lifetime_seconds: the longest life of a token, during which a cut-off is kept.
        issue_times: finds the instants of cut-offs; None: by the clock alone.
    """

    def __init__(
        self,
        clock: Callable[[], datetime],
        maximum_lifetime_seconds: int,
        issue_times: IssueTimes | None = None,
    ) -> None:
        self._clock = clock
        #: Finds the instants of cut-offs.
        self.issue_times = issue_times or IssueTimes(clock, 0, lambda _session, _tolerance: 0)
        self._maximum_lifetime = timedelta(seconds=maximum_lifetime_seconds)

    def revoke_token(
        self, session: Session, *, jti: str, client_id: str, expires_at: datetime, actor: str
    ) -> bool:
        """Revoke one token; return False if it was already revoked.

        Args:
            session: the transaction.
            jti: the token's id.
            client_id: the client that it was issued to.
            expires_at: the token's expiry.
            actor: the actor for the audit record.
        """
        now = self._clock()
        added = session.execute(
            insert_into(session, RevokedToken)
            .values(jti=jti, client_id=client_id, revoked_at=now, expires_at=expires_at + _MARGIN)
            .on_conflict_do_nothing()
            .returning(RevokedToken.jti)
        ).first()
        if added is not None:
            entry = find_entry(jti)
            if entry is not None:
                set_invalid(session, entry)
            store_audit_record(
                session,
                at=now,
                actor=actor,
                action="token.revoked",
                subject=jti,
                client_id=client_id,
            )
        return added is not None

    def cut_off(  # noqa: PLR0913 - the facts of one cut-off, by name
        self,
        session: Session,
        *,
        kind: CutOffKind | Literal["audience"],
        subject: str,
        instant_microseconds: int,
        actor: str,
        reason: str = "",
        **detail: object,
    ) -> None:
        """Revoke every token of the subject issued up to an instant (microseconds since 1970).

        ``subject`` is a client id, a ``kid``, a canonical scope name, or empty for ``all``; also
        a spelling that a scope has lost, or :func:`audience_subject`. ``detail`` goes into the
        audit record.
        """
        instant = datetime.fromtimestamp(instant_microseconds / 1_000_000, UTC)
        now = self._clock()
        session.execute(
            insert(RevocationCutOff).values(
                kind=kind,
                subject=subject,
                instant_microseconds=instant_microseconds,
                reason=reason,
                created_at=now,
                expires_at=instant + self._maximum_lifetime + _MARGIN,
            )
        )
        store_audit_record(
            session,
            at=now,
            actor=actor,
            action="cut_off.recorded",
            subject=f"{kind}:{subject}",
            instant_microseconds=instant_microseconds,
            reason=reason,
            **detail,
        )
        record_change(session, "cut_off", f"{kind}:{subject}"[:200])

    def cut_off_client(
        self,
        session: Session,
        client_id: str,
        *,
        actor: str,
        reason: str,
        before: datetime | None = None,
    ) -> None:
        """Revoke every token issued to a client until now.

        Args:
            session: the transaction.
            client_id: the client.
            actor: the actor for the audit record.
            reason: the reason for the audit record.
            before: revoke only the tokens issued before this time.
        """
        self.cut_off(
            session,
            kind="client",
            subject=client_id,
            instant_microseconds=self.issue_times.find_instant(session, before),
            actor=actor,
            reason=reason,
        )

    def cut_off_scopes(
        self,
        session: Session,
        spellings: Iterable[str],
        *,
        actor: str,
        reason: str,
        scope: str = "",
    ) -> None:
        """Revoke every token issued until now that carries one of these spellings.

        A token with another spelling of the scope is revoked if this is the canonical name.

        Args:
            session: the transaction.
            spellings: canonical names or aliases.
            actor: the actor for the audit record.
            reason: the reason for the audit record.
            scope: the canonical name that they belong to; empty: to several, or to none.
        """
        instant = self.issue_times.find_instant(session)
        for spelling in spellings:
            self.cut_off(
                session,
                kind="scope",
                subject=spelling,
                instant_microseconds=instant,
                actor=actor,
                reason=reason,
                **({"scope": scope} if scope else {}),
            )

    def cut_off_audience(
        self,
        session: Session,
        identifier: str,
        *,
        actor: str,
        reason: str,
        before: datetime | None = None,
    ) -> None:
        """Revoke every token issued until now with this audience and any scopes.

        Args:
            session: the transaction.
            identifier: the identifier of a resource server.
            actor: the actor for the audit record.
            reason: the reason for the audit record.
            before: revoke only the tokens issued before this time.
        """
        self.cut_off(
            session,
            kind="audience",
            subject=audience_subject(identifier),
            instant_microseconds=self.issue_times.find_instant(session, before),
            actor=actor,
            reason=reason,
        )

    def has_cut_off_audience(self, session: Session, identifier: str) -> bool:
        """Return whether a cut-off of that audience is still stored."""
        return self._has_cut_off(session, "audience", audience_subject(identifier))

    def find_cut_off_scopes(self, session: Session, spellings: Collection[str]) -> Sequence[str]:
        """Return those of some spellings of scopes whose cut-off is still stored."""
        held = select(RevocationCutOff.subject).where(
            RevocationCutOff.kind == "scope", RevocationCutOff.subject.in_(spellings)
        )
        return session.scalars(held.distinct()).all()

    def has_cut_off_client(self, session: Session, client_id: str) -> bool:
        """Return whether a cut-off of that client is still stored."""
        return self._has_cut_off(session, "client", client_id)

    def _has_cut_off(self, session: Session, kind: str, subject: str) -> bool:
        cut_off = select(RevocationCutOff.id).where(
            RevocationCutOff.kind == kind, RevocationCutOff.subject == subject
        )
        return session.scalar(cut_off.limit(1)) is not None

    def purge(self, session: Session, now: datetime, batch_rows: int) -> int:
        """Delete up to ``batch_rows`` expired rows of one kind; return the number of rows.

        Args:
            session: the transaction.
            now: a time that has certainly passed.
            batch_rows: the largest number of rows.
        """
        for model, key in (
            (RevokedToken, RevokedToken.jti),
            (ReferenceToken, ReferenceToken.token_hash),
            (RevocationCutOff, RevocationCutOff.id),
        ):
            deleted = delete_due(session, key, model.expires_at < now - _MARGIN, batch_rows)
            if deleted:
                return deleted
        return 0


class RevocationState:
    """Checks revocation with one uncached query per token, and keeps the cut-offs.

    Args:
        database: stores revoked tokens.
        feed: brings the cut-offs up to the revision that the query returned.
        catalogue: maps scope spellings to the canonical names of cut-offs.
    """

    def __init__(self, database: Database, feed: ChangeFeed, catalogue: ScopeCatalogue) -> None:
        self._database = database
        self._feed = feed
        self._catalogue = catalogue
        self._cut_offs: dict[tuple[str, str], int] = {}
        # Those of audiences, which are rare: most often no token need be compared.
        self._audiences: dict[str, int] = {}

    def apply(self, session: Session, changes: ChangeSet) -> None:
        """Reload the cut-offs if there are new ones; the latest of each subject counts."""
        if not (changes.everything or "cut_off" in changes.subjects):
            return
        cut_offs: dict[tuple[str, str], int] = {}
        audiences: dict[str, int] = {}
        for kind, subject, instant in session.execute(
            select(
                RevocationCutOff.kind,
                RevocationCutOff.subject,
                RevocationCutOff.instant_microseconds,
            )
        ):
            if kind == "audience":
                audiences[subject] = max(instant, audiences.get(subject, instant))
            else:
                cut_offs[kind, subject] = max(instant, cut_offs.get((kind, subject), instant))
        self._cut_offs, self._audiences = cut_offs, audiences

    @property
    def seen(self) -> int:
        """The latest change that this process has read."""
        return self._feed.seen

    async def catch_up(self) -> None:
        """Read what was committed before this call, by the query of :meth:`is_revoked`.

        Raises:
            OAuthError, sqlalchemy.exc.SQLAlchemyError: as there.
        """
        await self.is_revoked(os.urandom(16).hex())

    async def is_revoked(self, jti: str) -> bool:
        """Return whether a token was revoked by itself, by a commit before this call.

        Afterwards this process's caches, of clients, keys and cut-offs, are as new as the database.

        Raises:
            OAuthError: the caches are older, and the database does not answer.
            sqlalchemy.exc.SQLAlchemyError: the database cannot answer.
        """
        found = await self._database.fetch_one(_QUERY, jti)
        if found is None:
            raise NoResultFound("the change feed has lost its counter")
        revision, revoked = found
        if revision > self._feed.seen:
            await Step(Lane.DATABASE, partial(self._feed.require_seen, revision))
        return bool(revoked)

    def find_revoked(self, session: Session, jtis: Collection[str]) -> set[str]:
        """Return the revoked ones of some tokens, by one query; afterwards the caches are as new.

        Raises:
            sqlalchemy.exc.SQLAlchemyError: the database cannot answer.
        """
        revoked = set(session.scalars(select(RevokedToken.jti).where(RevokedToken.jti.in_(jtis))))
        revision = session.scalar(select(Revision.value).where(Revision.id == 1))
        if revision is None:
            raise NoResultFound("the change feed has lost its counter")
        if revision > self._feed.seen:
            self._feed.require_seen(revision)
        return revoked

    def latest_cut_off(self, client_id: str, kid: str, spellings: Iterable[str]) -> int:
        """Return the time of issue up to which such tokens are revoked; -1 if they are not.

        Args:
            client_id: their client.
            kid: the key that signed them; empty for reference tokens.
            spellings: their scopes.
        """
        if not self._cut_offs:
            return -1
        subjects = self._subjects(client_id, kid, spellings)
        return max(self._cut_offs.get(subject, -1) for subject in subjects)

    def latest_of_audience(self, audience: str | Iterable[str]) -> int:
        """Return the time of issue up to which tokens for an audience are revoked; -1: none is.

        Args:
            audience: the ``aud``: one identifier or several, of which each counts.
        """
        if not self._audiences:
            return -1
        named = (audience,) if isinstance(audience, str) else audience
        return max((self._audiences.get(audience_subject(each), -1) for each in named), default=-1)

    def find_cut_off(
        self,
        client_id: str,
        kid: str,
        spellings: Iterable[str],
        instant: int,
        audience: Iterable[str] = (),
    ) -> tuple[str, str] | None:
        """Return kind and subject of a cut-off that revokes a token; None if there is none.

        Args:
            client_id: its client.
            kid: the key that signed it; empty for a reference token.
            spellings: its scopes.
            instant: its time of issue, in microseconds since 1970.
            audience: its audience.
        """
        for identifier in audience:
            if instant <= self.latest_of_audience(identifier):
                return "audience", identifier
        for subject in self._subjects(client_id, kid, spellings):
            if instant <= self._cut_offs.get(subject, -1):
                return subject
        return None

    def _subjects(
        self, client_id: str, kid: str, spellings: Iterable[str]
    ) -> Iterator[tuple[str, str]]:
        """Yield the kind and the subject of each cut-off that a token may have."""
        yield from (("all", ""), ("client", client_id), ("key", kid))
        for spelling in spellings:
            # A scope that has this spelling now need not be the one that the token was issued for.
            yield "scope", spelling
            entry = self._catalogue.find(spelling)
            if entry is not None and entry.name != spelling:
                yield "scope", entry.name
