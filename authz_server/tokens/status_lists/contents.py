"""The statuses in a list, by the present standing of its tokens."""

from base64 import urlsafe_b64encode
from collections.abc import Iterable, Sequence
from typing import Any
from zlib import compress

import msgspec
from sqlalchemy import select
from sqlalchemy.orm import Session

from authz_server.tokens.claims import Origin
from authz_server.tokens.models import RevokedToken
from authz_server.tokens.standing import Standing, TokenStanding
from authz_server.tokens.status_lists.entries import INVALID, LIST_SIZE, STATUS_BITS, SUSPENDED
from authz_server.tokens.status_lists.models import StatusBlock, StatusRevocation

_IN_BYTE = 8 // STATUS_BITS
#: A byte whose four statuses are all the same.
_FILLED = {INVALID: b"\x55", SUSPENDED: b"\xaa"}
_decode_origins = msgspec.json.Decoder(tuple[Origin, ...]).decode
_decode_details = msgspec.json.Decoder(tuple[dict[str, Any], ...]).decode
_ROWS = 20_000
_CHUNK = 500


def fill_statuses(
    standing: TokenStanding, session: Session, list_id: int, server_id: str
) -> bytearray:
    """Return the statuses of a list, packed (draft-ietf-oauth-status-list, 4.1).

    A token cannot lose one of its scopes here, as it does at introspection, so that it is suspended
    as a whole. So it is while another resource server, or none, has all of its scopes.

    Args:
        standing: judges tokens by the caches of this process.
        session: reads the blocks.
        list_id: the list.
        server_id: the resource server of the list.
    """
    statuses = bytearray(LIST_SIZE // _IN_BYTE)
    known: dict[tuple[str, str, Sequence[str]], Standing] = {}

    def find(client_id: str, kid: str, spellings: Sequence[str]) -> Standing:
        facts = client_id, kid, spellings
        if facts not in known:
            known[facts] = standing.find(*facts)
        return known[facts]

    rows = session.execute(
        select(
            StatusBlock.start,
            StatusBlock.size,
            StatusBlock.client_id,
            StatusBlock.scopes,
            StatusBlock.kid,
            StatusBlock.origins,
            StatusBlock.details,
            StatusBlock.audience,
            StatusBlock.created_microseconds,
        ).where(StatusBlock.list_id == list_id)
    )
    for part in rows.yield_per(_ROWS).partitions():
        revoked = _find_revoked_origins(session, [row.origins for row in part if row.origins])
        for start, size, client_id, scopes, kid, origins, details, audience, created in part:
            names = tuple(scopes.split(" ")) if scopes else ()
            earlier = _decode_origins(origins) if origins else ()
            parts = _decode_details(details) if details else ()
            found = standing.judge(client_id, kid, names, earlier, parts, find)
            ended_until = max(found.ended_until, standing.find_end_of_audience(audience.split(" ")))
            if created <= ended_until or any(each.jti in revoked for each in earlier):
                status = INVALID
            elif found.is_whole and _is_owned(found, server_id):
                continue
            else:
                status = SUSPENDED
            first, count = start // _IN_BYTE, size // _IN_BYTE
            statuses[first : first + count] = _FILLED[status] * count
    return statuses


def _is_owned(found: Standing, server_id: str) -> bool:
    """Return whether a resource server still has one of the scopes, if there are any."""
    owners = [scope.resource_server_id for _, scope in found.granted]
    return not owners or server_id in owners


def _find_revoked_origins(session: Session, origins: Iterable[str]) -> set[str]:
    """Return the ids of the revoked tokens among those that others were exchanged from."""
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
        statuses: packed, as :func:`fill_statuses` returns them.
        revoked: the indexes of further invalid tokens.
    """
    packed = bytearray(statuses)
    for index in revoked:
        shift = index % _IN_BYTE * STATUS_BITS
        byte = index // _IN_BYTE
        packed[byte] = packed[byte] & ~(3 << shift) & 0xFF | INVALID << shift
    return urlsafe_b64encode(compress(packed, 9)).rstrip(b"=").decode()
