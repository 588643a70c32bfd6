"""Tables of tokens: revoked tokens, cut-offs and reference tokens."""

import hashlib
from datetime import datetime

from sqlalchemy import BigInteger, Index, LargeBinary, String
from sqlalchemy.orm import Mapped, mapped_column

from authz_server.database.orm import Base, BigIntegerKey

_SUBJECT_CHARACTERS = 200


class RevokedToken(Base):
    """A revoked token by its ``jti``, kept until it would have expired."""

    __tablename__ = "revoked_token"
    __table_args__ = (Index(None, "expires_at"),)

    jti: Mapped[str] = mapped_column(String(64), primary_key=True)
    client_id: Mapped[str] = mapped_column(String(128))
    revoked_at: Mapped[datetime]
    expires_at: Mapped[datetime]


class RevocationCutOff(Base):
    """A cut-off: revokes every token of a subject, or all tokens, up to an instant."""

    __tablename__ = "revocation_cut_off"
    __table_args__ = (Index(None, "expires_at"),)

    id: Mapped[int] = mapped_column(BigIntegerKey, primary_key=True)
    kind: Mapped[str] = mapped_column(String(10))  # "client" | "key" | "scope" | "audience" | "all"
    subject: Mapped[str] = mapped_column(String(_SUBJECT_CHARACTERS))  # "" for "all"
    instant_microseconds: Mapped[int] = mapped_column(BigInteger)
    reason: Mapped[str] = mapped_column(String(500), default="")
    created_at: Mapped[datetime]
    expires_at: Mapped[datetime]


def audience_subject(identifier: str) -> str:
    """Return the subject of cut-offs of an audience: the identifier, or the SHA-256 of a long one.

    Tokens carry an identifier as it is registered, so that it is not normalised.
    """
    if len(identifier) <= _SUBJECT_CHARACTERS:
        return identifier
    return hashlib.sha256(identifier.encode()).hexdigest()


class ReferenceToken(Base):
    """An opaque token, by the SHA-256 of its handle."""

    __tablename__ = "reference_token"
    __table_args__ = (Index(None, "expires_at"),)

    token_hash: Mapped[bytes] = mapped_column(LargeBinary(32), primary_key=True)
    jti: Mapped[str] = mapped_column(String(64), unique=True)
    client_id: Mapped[str] = mapped_column(String(128))
    claims: Mapped[bytes] = mapped_column(LargeBinary)
    expires_at: Mapped[datetime]


class Stop(Base):
    """A stop in force: no token is issued for its subject, and its tokens are inactive."""

    __tablename__ = "stop"

    kind: Mapped[str] = mapped_column(String(20), primary_key=True)  # a kind of tokens.stops
    subject: Mapped[str] = mapped_column(String(200), primary_key=True)
    scopes: Mapped[list[str]]  # canonical names
    clients: Mapped[list[str]]
    reason: Mapped[str] = mapped_column(String(500))
    actor: Mapped[str] = mapped_column(String(200))
    created_at: Mapped[datetime]


class Programme(Base):
    """A named set of scopes and clients that are stopped together."""

    __tablename__ = "programme"

    name: Mapped[str] = mapped_column(String(200), primary_key=True)
    scopes: Mapped[list[str]]  # canonical names
    clients: Mapped[list[str]]
