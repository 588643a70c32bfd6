"""The statuses in a list, by the present state of clients, scopes, stops and revocations."""

from base64 import urlsafe_b64encode
from collections.abc import Callable, Container, Iterable
from typing import Any, NamedTuple
from zlib import compress

import msgspec
from sqlalchemy import select
from sqlalchemy.orm import Session

from authz_server.clients.cache import ClientCache
from authz_server.scopes.catalogue import ScopeCatalogue
from authz_server.tokens.authorization_details import DetailRules
from authz_server.tokens.claims import Origin, read_instant
from authz_server.tokens.models import RevokedToken
from authz_server.tokens.revocations import RevocationState
from authz_server.tokens.status_lists.entries import (
    INVALID,
    LIST_SIZE,
    STATUS_BITS,
    SUSPENDED,
    VALID,
)
from authz_server.tokens.status_lists.models import StatusBlock, StatusRevocation
from authz_server.tokens.stops import StopState

_IN_BYTE = 8 // STATUS_BITS
#: A byte whose four statuses are all the same.
_FILLED = {INVALID: b"\x55", SUSPENDED: b"\xaa"}
_decode_origins = msgspec.json.Decoder(tuple[Origin, ...]).decode
_decode_details = msgspec.json.Decoder(tuple[dict[str, Any], ...]).decode
_ROWS = 20_000
_CHUNK = 500


class Holder(NamedTuple):
    """Facts that the tokens of a block share."""

    client_id: str
    scopes: str
    kid: str


class StatusRules:
    """Decides the status of tokens by the caches of this process.

    Args:
        directory: clients.
        catalogue: scopes.
        revocations: the cut-offs.
        stops: the stopped clients and scopes.
        details: checks authorization details.
        now: returns the present time by the database's clock, in seconds since 1970.
        clock_skew_seconds: the largest difference between the clocks of nodes.
    """

    def __init__(  # noqa: PLR0913 - its parts, by name
        self,
        *,
        directory: ClientCache,
        catalogue: ScopeCatalogue,
        revocations: RevocationState,
        stops: StopState,
        details: DetailRules,
        now: Callable[[], float],
        clock_skew_seconds: int,
    ) -> None:
        self._directory = directory
        self._catalogue = catalogue
        self._revocations = revocations
        self._stops = stops
        self._details = details
        self._now = now
        self._skew_microseconds = clock_skew_seconds * 1_000_000

    def fill(self, session: Session, list_id: int) -> bytearray:
        """Return the statuses of a list, packed (draft-ietf-oauth-status-list, 4.1).

        Args:
            session: reads the blocks.
            list_id: the list.
        """
        statuses = bytearray(LIST_SIZE // _IN_BYTE)
        known: dict[Holder, tuple[int, int]] = {}
        rows = session.execute(
            select(
                StatusBlock.start,
                StatusBlock.size,
                StatusBlock.client_id,
                StatusBlock.scopes,
                StatusBlock.kid,
                StatusBlock.origins,
                StatusBlock.details,
                StatusBlock.created_microseconds,
            ).where(StatusBlock.list_id == list_id)
        )
        for part in rows.yield_per(_ROWS).partitions():
            revoked = _find_revoked_origins(session, [row.origins for row in part if row.origins])
            for start, size, client_id, scopes, kid, origins, details, created in part:
                invalid_until, status = self._judge(Holder(client_id, scopes, kid), known)
                if created <= invalid_until:
                    status = INVALID
                if origins and status != INVALID:
                    status = self._judge_origins(origins, scopes, status, revoked, known)
                if details and status == VALID:
                    status = self._judge_details(client_id, origins, details)
                if status != VALID:
                    first, count = start // _IN_BYTE, size // _IN_BYTE
                    statuses[first : first + count] = _FILLED[status] * count
        return statuses

    def _judge(self, holder: Holder, known: dict[Holder, tuple[int, int]]) -> tuple[int, int]:
        if holder not in known:
            known[holder] = self._judge_new(holder)
        return known[holder]

    def _judge_new(self, holder: Holder) -> tuple[int, int]:
        """Return the time of issue (microseconds) up to which tokens are invalid, and the status.

        A token cannot lose one of its scopes here, as it does at introspection, so that it is
        suspended as a whole.
        """
        names = holder.scopes.split(" ") if holder.scopes else []
        cut_off = self._revocations.latest_cut_off(holder.client_id, holder.kid, names)
        client = self._directory.find(holder.client_id)
        if client is None:
            return cut_off, INVALID
        begun = int(client.created_at * 1_000_000) - self._skew_microseconds - 1
        status = VALID
        if not client.is_usable(self._now()) or self._stops.find_of_client(client.id):
            status = SUSPENDED
        for name in names:
            entry = self._catalogue.find(name)
            granted = entry is not None and entry.name in client.allowed_scopes
            if entry is None or not granted or self._stops.find_of_scope(entry):
                status = SUSPENDED
        return max(cut_off, begun), status

    def _judge_origins(
        self,
        origins: str,
        scopes: str,
        status: int,
        revoked: Container[str],
        known: dict[Holder, tuple[int, int]],
    ) -> int:
        """Return the status of a token that was exchanged from others (RFC 8693)."""
        for each in _decode_origins(origins):
            # An actor token need not have the scopes.
            holder = Holder(each.client_id, "" if each.acts else scopes, each.kid)
            invalid_until, found = self._judge(holder, known)
            ended = each.jti in revoked or read_instant(each.jti, each.iat) <= invalid_until
            if ended or found == INVALID:
                return INVALID
            if found == SUSPENDED:
                status = SUSPENDED
        return status

    def _judge_details(self, client_id: str, origins: str, details: str) -> int:
        """Return the status of a token by the grants of the client that got the details."""
        earlier = _decode_origins(origins) if origins else ()
        first = next((each.client_id for each in earlier if not each.acts), client_id)
        client = self._directory.find(first)
        granted = client is not None and self._details.is_covered(client, _decode_details(details))
        return VALID if granted else SUSPENDED


def _find_revoked_origins(session: Session, origins: Iterable[str]) -> set[str]:
    """Return the ids of the revoked ones among tokens that others were exchanged from."""
    ids = list({token.jti for each in origins for token in _decode_origins(each)})
    revoked: set[str] = set()
    for start in range(0, len(ids), _CHUNK):
        chunk = ids[start : start + _CHUNK]
        revoked.update(session.scalars(select(RevokedToken.jti).where(RevokedToken.jti.in_(chunk))))
    return revoked


def find_revoked(session: Session, list_id: int) -> list[int]:
    """Return the indexes of the tokens that were revoked by themselves."""
    query = select(StatusRevocation.position).where(StatusRevocation.list_id == list_id)
    return list(session.scalars(query))


def encode_list(statuses: bytes, revoked: Iterable[int]) -> str:
    """Return ``lst``: the statuses, compressed, in base64url.

    Args:
        statuses: packed, as :meth:`StatusRules.fill` returns them.
        revoked: the indexes of further invalid tokens.
    """
    packed = bytearray(statuses)
    for index in revoked:
        shift = index % _IN_BYTE * STATUS_BITS
        byte = index // _IN_BYTE
        packed[byte] = packed[byte] & ~(3 << shift) & 0xFF | INVALID << shift
    return urlsafe_b64encode(compress(packed, 9)).rstrip(b"=").decode()
