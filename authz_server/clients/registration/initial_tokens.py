"""Initial access tokens: create, list, end and spend; and what a registration may be given."""

import secrets as system_random
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import ColumnElement, and_, select, update
from sqlalchemy.orm import Session

from authz_server.audit.records import store_audit_record
from authz_server.clients import validation
from authz_server.clients.registration.models import InitialAccessToken
from authz_server.clients.secret_changes import PreparedSecret
from authz_server.clients.secrets import SecretScheme, generate_secret
from authz_server.database.change_feed import record_change
from authz_server.errors import InvalidChangeError, NotFoundError

MAXIMUM_USES = 10_000

#: Maps spellings of scopes to the canonical names of those in the catalogue.
CanonicalNames = Callable[[Session, Iterable[str]], Mapping[str, str]]


@dataclass(frozen=True, slots=True)
class Grantor:
    """The authority of a registration, and what it may give to a client.

    Attributes:
        actor: the actor in audit records: ``registration:ID`` or ``issuer:NAME``.
        organisation: the organisation of the client.
        scopes: canonical names of the scopes that the client may have.
        grant_types: the grant types that the client may have.
    """

    actor: str
    organisation: str
    scopes: tuple[str, ...]
    grant_types: tuple[str, ...]

    def joined(self, other: "Grantor") -> "Grantor":
        """Return this authority with what another one permits besides."""
        return Grantor(
            actor=self.actor,
            organisation=self.organisation or other.organisation,
            scopes=tuple(dict.fromkeys(self.scopes + other.scopes)),
            grant_types=tuple(dict.fromkeys(self.grant_types + other.grant_types)),
        )


class InitialAccessTokens:
    """Creates, ends and spends initial access tokens in the caller's session.

    Args:
        clock: returns the present time, timezone-aware.
        secrets: makes the digests of tokens.
        grant_types: returns the grant types that a client may have.
        find_canonical_names: finds scopes in the catalogue.
    """

    def __init__(
        self,
        clock: Callable[[], datetime],
        secrets: SecretScheme,
        grant_types: Callable[[], tuple[str, ...]],
        find_canonical_names: CanonicalNames,
    ) -> None:
        self._clock = clock
        self._secrets = secrets
        self._grant_types = grant_types
        self._find_canonical_names = find_canonical_names

    def create(  # noqa: PLR0913 - the fields themselves, by name
        self,
        session: Session,
        *,
        actor: str,
        expires_at: datetime,
        uses: int = 1,
        scopes: Iterable[str] = (),
        grant_types: Iterable[str] = validation.DEFAULT_GRANT_TYPES,
        organisation: str = "",
        description: str = "",
        prepared: PreparedSecret | None = None,
    ) -> tuple[InitialAccessToken, str]:
        """Create a token.

        A prepared token is stored as it is, and not returned.

        Args:
            session: the transaction.
            actor: the recorded actor.
            expires_at: the time after which it is refused.
            uses: the number of registrations that it permits, 1 to 10,000.
            scopes: the scopes that a client may register, in any known spelling.
            grant_types: the grant types that a client may register.
            organisation: the organisation of the clients.
            description: the purpose of the token.
            prepared: the id and the digest of a token that was made before.

        Returns:
            the stored row and the token, which cannot be read again.

        Raises:
            InvalidChangeError: a value breaks a rule.
        """
        now = self._clock()
        end = validation.require_instant("expires_at", expires_at)
        if end is None or end <= now:
            raise InvalidChangeError("expires_at: use a time in the future")
        if isinstance(uses, bool) or not 1 <= uses <= MAXIMUM_USES:
            raise InvalidChangeError(f"uses: use 1 to {MAXIMUM_USES}")
        token = "" if prepared else generate_secret()
        if prepared is None:
            digest = self._secrets.digest(token.encode()).hex()
            fingerprint = self._secrets.fingerprint
            prepared = PreparedSecret(system_random.token_hex(8), digest, fingerprint)
        row = InitialAccessToken(
            id=prepared.id,
            digest=prepared.record,
            pepper_fingerprint=prepared.pepper_fingerprint,
            description=validation.require_text("description", description, may_be_empty=True),
            organisation=validation.require_text("organisation", organisation, may_be_empty=True),
            scopes=self._canonical(session, validation.require_list("scopes", scopes)),
            grant_types=validation.require_subset("grant_types", grant_types, self._grant_types()),
            uses_left=uses,
            created_at=now,
            expires_at=end,
        )
        session.add(row)
        self._audit(session, actor, "registration.token_created", row)
        # Every node reads again what lies within the limits of administrators.
        record_change(session, "token", row.id)
        return row, token

    def list_all(self, session: Session) -> Sequence[InitialAccessToken]:
        """Return every token, also those that have ended, the newest first."""
        newest = InitialAccessToken.created_at.desc(), InitialAccessToken.id
        return session.scalars(select(InitialAccessToken).order_by(*newest)).all()

    def end(self, session: Session, token_id: str, *, actor: str) -> InitialAccessToken:
        """End a token permanently; one that has ended does not change.

        Raises:
            NotFoundError: there is no such token.
        """
        row = session.get(InitialAccessToken, token_id, with_for_update=True)
        if row is None:
            raise NotFoundError(
                f"There is no initial access token {token_id!r}. "
                "`authz-server registration-token list` shows them."
            )
        if row.ended_at is None:
            row.ended_at = self._clock()
            self._audit(session, actor, "registration.token_ended", row)
        return row

    def spend(self, session: Session, token: str) -> Grantor | None:
        """Use a token once; return what it permits, or None if it permits nothing any more.

        The use counts if the transaction is committed.
        """
        now = self._clock()
        table = InitialAccessToken
        row = session.scalars(
            update(table)
            .where(self._is_usable(token, now))
            .values(
                uses_left=table.uses_left - 1,
                last_used_at=now,
                pepper_fingerprint=self._secrets.fingerprint,
            )
            .returning(table)
        ).one_or_none()
        if row is None:
            return None
        return Grantor(
            actor=f"registration:{row.id}",
            organisation=row.organisation,
            scopes=tuple(row.scopes),
            grant_types=tuple(row.grant_types),
        )

    def is_usable(self, session: Session, token: str) -> bool:
        """Return whether a token could be spent now."""
        found = select(InitialAccessToken.id).where(self._is_usable(token, self._clock()))
        return session.scalar(found) is not None

    def _is_usable(self, token: str, now: datetime) -> ColumnElement[bool]:
        table = InitialAccessToken
        return and_(
            table.digest == self._secrets.digest(token.encode()).hex(),
            table.uses_left > 0,
            table.ended_at.is_(None),
            table.expires_at > now,
        )

    def _canonical(self, session: Session, scopes: Sequence[str]) -> list[str]:
        names = self._find_canonical_names(session, scopes)
        for scope in scopes:
            if scope not in names:
                raise InvalidChangeError(
                    f"scopes: the catalogue has no scope {scope!r}; "
                    "`authz-server scope list` shows it"
                )
        return list(dict.fromkeys(names[scope] for scope in scopes))

    def _audit(self, session: Session, actor: str, action: str, row: InitialAccessToken) -> None:
        store_audit_record(
            session,
            at=self._clock(),
            actor=actor,
            action=action,
            subject=row.id,
            scopes=row.scopes,
            grant_types=row.grant_types,
            organisation=row.organisation,
            uses_left=row.uses_left,
            expires_at=row.expires_at.isoformat(),
        )
