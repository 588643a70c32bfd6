"""Find the tokens that the withdrawal of a key affects."""

import logging
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from authz_server.operations.issued_tokens import Origins, find_issued_tokens
from authz_server.settings import Settings
from keys.signing_key import RingSnapshot, SigningKey

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class AffectedTokens:
    """The tokens of withdrawn keys: the known ones, and bounds for the others.

    JWTs are not stored. They are counted in the audit records, if these go to a file.

    Attributes:
        tokens: the number in force by the audit records; None: there is no file of them here.
        clients: the clients that they were issued to, sorted.
        last_expires_at: the expiry of the last of them.
        records: the file of the audit records.
        records_since: the time of its first record.
        complete: True if the file covers the longest lifetime of a token.
        no_token_lives_after: the time at which all tokens of the keys have expired; None: they
            have signed none.
        introspection_refuses_within_seconds: the time until every node has read a revocation.
        jwks_maximum_age_seconds: the time for which verifiers may cache the JWKS.
    """

    tokens: int | None = None
    clients: tuple[str, ...] | None = None
    last_expires_at: datetime | None = None
    records: str | None = None
    records_since: datetime | None = None
    complete: bool = False
    no_token_lives_after: datetime | None
    introspection_refuses_within_seconds: int
    jwks_maximum_age_seconds: int


def find_affected_tokens(
    settings: Settings, ring: RingSnapshot, keys: Iterable[SigningKey], now: datetime
) -> AffectedTokens:
    """Return the tokens that ``keys`` of ``ring`` signed, and those exchanged from them.

    They are not known if the file of the audit records cannot be read: an order that asks for them
    has been carried out.
    """
    affected = tuple(keys)
    lifetime = timedelta(seconds=ring.maximum_lifetime_seconds)
    snapshot = timedelta(seconds=settings.keys.snapshot_lifetime_seconds)
    signed = [key for key in affected if key.activate_at is not None and key.activate_at <= now]
    known = _find_known(settings, [key.kid for key in affected], now, lifetime)
    return AffectedTokens(
        **known,
        no_token_lives_after=max(
            ((_last_signed_at(key, now, snapshot) + lifetime) for key in signed), default=None
        ),
        introspection_refuses_within_seconds=settings.keys.refresh_interval_seconds,
        jwks_maximum_age_seconds=settings.keys.jwks_maximum_age_seconds,
    )


def _last_signed_at(key: SigningKey, now: datetime, snapshot: timedelta) -> datetime:
    """Return the latest time at which ``key`` can have signed a token."""
    if key.stopped_at is None:
        return now
    if key.fenced_at is not None:
        return max(key.stopped_at, key.fenced_at)
    return min(key.stopped_at + snapshot, now)


def _find_known(
    settings: Settings, kids: list[str], now: datetime, lifetime: timedelta
) -> dict[str, Any]:
    signed: set[str] = set()

    def is_affected(record: Mapping[str, Any], origins: Origins) -> bool:
        if record.get("kid") not in kids:
            return not signed.isdisjoint(origins)
        signed.add(str(record.get("jti")))
        return True

    try:
        issued = find_issued_tokens(settings, is_affected, now)
    except OSError as error:
        logger.warning("the tokens of keys are not counted: %s", error)
        return {}
    if issued is None:
        return {}
    return {
        "tokens": issued.count,
        "clients": issued.clients,
        "last_expires_at": issued.last_expires_at,
        "records": settings.audit.destination,
        "records_since": issued.known_since,
        "complete": issued.known_since is not None and issued.known_since <= now - lifetime,
    }
