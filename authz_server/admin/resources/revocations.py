"""Revocations of tokens: of one token, or of all of a client, a scope or a key, or up to a time."""

from datetime import datetime
from typing import Annotated

import msgspec
from msgspec import UNSET, Meta, UnsetType

from authz_server.admin.calls import Call, Reply
from authz_server.admin.problems import Problem
from authz_server.admin.resources.clients import Instant
from authz_server.operations.limited_services import require_own
from authz_server.operations.permissions import LimitedCallerError
from authz_server.operations.revocation import lies_ahead, plan_cut_off, revoke_tokens
from authz_server.operations.tokens import RevokedToken, revoke_token, revoke_token_by_id
from authz_server.tokens.revocations import CutOffKind

_MAXIMUM_REASON_CHARACTERS = 300
_SUBJECTS = ("token", "jti", "client", "scope", "key")
#: Members that select the tokens of a subject up to a time.
_KINDS: tuple[CutOffKind, ...] = ("client", "scope", "key")


class RevocationBody(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The tokens to revoke: one member names them, or ``before`` or ``all`` alone revokes all.

    Attributes:
        token: the token itself.
        jti: the ``jti`` of a token.
        client: the tokens of this client.
        scope: the tokens with this scope.
        key: the tokens that this key signed, by its id, the beginning of it, or ``RING:VERSION``.
        all: every token that was issued until now.
        before: revoke what was issued up to this time; without it, up to now.
        reason: the recorded reason.
    """

    token: Annotated[str, Meta(min_length=1, max_length=16_384)] | None = None
    jti: Annotated[str, Meta(min_length=1)] | None = None
    client: Annotated[str, Meta(min_length=1)] | None = None
    scope: Annotated[str, Meta(min_length=1)] | None = None
    key: Annotated[str, Meta(min_length=1)] | None = None
    all: bool = False
    before: Instant | None = None
    reason: Annotated[str, Meta(max_length=_MAXIMUM_REASON_CHARACTERS)] = ""

    def __post_init__(self) -> None:
        named = [name for name in _SUBJECTS if getattr(self, name) is not None]
        if self.all:
            named.append("all")
        if len(named) > 1 or not (named or self.before):
            raise ValueError("name one of token, jti, client, scope, key or all, or before alone")
        if {"token", "jti", "all"}.intersection(named) and self.before:
            raise ValueError("before goes neither with one token nor with all")
        if not self.reason.isprintable():
            raise ValueError("reason: use printable characters")


class Revoked(msgspec.Struct, frozen=True, kw_only=True):
    """The tokens that are revoked.

    Attributes:
        kind: ``token``, ``client``, ``scope``, ``key`` or ``all``.
        subject: a ``jti``, a client id, a scope, a ``kid``; empty for ``all``.
        issued_up_to: the time up to which they were issued; null for one token.
        changed: whether it was not revoked before; always true for several tokens.
        client_id: of one token, the client that it was issued to; empty if only the ``jti`` is
            known.
        expires_at: of one token, the latest time of its expiry.
    """

    kind: str
    subject: str
    issued_up_to: datetime | None = None
    changed: bool = True
    client_id: str | UnsetType = UNSET
    expires_at: datetime | UnsetType = UNSET


class _Kept(msgspec.Struct, frozen=True, array_like=True):
    """The answer that is kept with an idempotency key: a later revocation would end more."""

    kind: str
    subject: str
    issued_up_to: datetime | None
    changed: bool
    client_id: str | None
    expires_at: datetime | None


def revoke(call: Call) -> Reply:
    """Revoke tokens, effective at introspection on every node when this is answered."""
    body: RevocationBody = call.body
    actor = call.caller.actor
    if body.token is not None:
        return _of_token(revoke_token(call.services, body.token, actor=actor))
    if call.limits and body.client is None and body.scope is None:
        # Of a token's id or a key, the client is not known.
        raise LimitedCallerError
    if body.jti is not None:
        return _of_token(revoke_token_by_id(call.services, body.jti, actor=actor))
    before = body.before
    if before is not None and lies_ahead(call.services, before):
        raise Problem("invalid-value", "It lies in the future.", members={"field": "before"})
    kind: CutOffKind = "all"
    subject = ""
    for member in _KINDS:
        if named := getattr(body, member):
            kind, subject = member, named
    if call.limits:
        planned = plan_cut_off(call.services, kind, subject)
        require_own(call.services, planned.kind, planned.subject)
    done = revoke_tokens(
        call.services, kind, subject, actor=actor, before=before, reason=body.reason
    )
    return _reply(Revoked(kind=done.kind, subject=done.subject, issued_up_to=done.issued_up_to))


def repeat(call: Call, answer: str) -> Reply:
    """Answer what an earlier request with the same key revoked, and revoke nothing later."""
    del call
    kept = msgspec.json.decode(answer, type=_Kept)
    revoked = Revoked(
        kind=kept.kind,
        subject=kept.subject,
        issued_up_to=kept.issued_up_to,
        changed=kept.changed,
        client_id=UNSET if kept.client_id is None else kept.client_id,
        expires_at=UNSET if kept.expires_at is None else kept.expires_at,
    )
    return Reply(revoked)


def _of_token(done: RevokedToken) -> Reply:
    revoked = Revoked(
        kind="token",
        subject=done.jti,
        changed=done.changed,
        client_id=done.client_id,
        expires_at=done.expires_at,
    )
    return _reply(revoked)


def _reply(revoked: Revoked) -> Reply:
    kept = _Kept(
        revoked.kind,
        revoked.subject,
        revoked.issued_up_to,
        revoked.changed,
        None if revoked.client_id is UNSET else revoked.client_id,
        None if revoked.expires_at is UNSET else revoked.expires_at,
    )
    diff = {"revoked": {"before": None, "after": revoked.subject or revoked.kind}}
    return Reply(revoked, subject=msgspec.json.encode(kept).decode(), diff=diff)
