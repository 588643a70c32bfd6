"""Checkpoints: the heads of the audit chains, signed by a key ring.

A checkpoint is a compact JWS of the type ``audit-checkpoint+jwt``. It stands in the audit log as a
record of the process that made it, and in the database, so that each can vouch for the other.
"""

import socket
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import msgspec
from sqlalchemy import select, update
from sqlalchemy.orm import Session

from authz_server.audit.blocks import seal_records
from authz_server.audit.chain import Head
from authz_server.audit.chain_events import AuditCheckpoint
from authz_server.audit.models import AuditBlock, AuditWriter
from authz_server.audit.notifier import Notify
from authz_server.audit.sink import AuditSink
from authz_server.database.orm import Database, insert_into
from authz_server.settings import STREAMS

CHECKPOINT_TYPE = "audit-checkpoint+jwt"
#: The largest number of other writers that a checkpoint names.
_OTHER_WRITERS = 50
_encode = msgspec.json.Encoder().encode


class Signature(Protocol):
    """A signed payload in compact form, with its key and the backend's id of the request."""

    @property
    def token(self) -> str:
        """The compact form."""

    @property
    def kid(self) -> str:
        """The key's id."""

    @property
    def request_id(self) -> str:
        """The id of the signing request in the remote key backend's audit log."""


class _Block(NamedTuple):
    number: int
    hash: str
    signature: str | None


class AuditCheckpoints:
    """Seals stored records, and signs the heads of the chains of this process and its node.

    Args:
        database: holds the stored records and the heads.
        sink: writes the audit log.
        destination: the destination of the sink in the settings.
        notify: records the checkpoint.
        sign: signs the payload of a checkpoint; raises KeysError.
        may_wait: returns whether signing may wait for a remote backend.
        issuer: the ``iss`` of checkpoints.
        keep_days: the days for which stored records are kept; 0: for ever.
        clock: returns the present time.
    """

    def __init__(  # noqa: PLR0913 - its parts, by name
        self,
        *,
        database: Database,
        sink: AuditSink,
        destination: str,
        notify: Notify,
        sign: Callable[[bytes], Signature],
        may_wait: Callable[[], bool],
        issuer: str,
        keep_days: int,
        clock: Callable[[], datetime],
    ) -> None:
        self._database = database
        self._sink = sink
        self._destination = destination
        self._notify = notify
        self._sign = sign
        self._may_wait = may_wait
        self._issuer = issuer
        self._keep_days = keep_days
        self._clock = clock
        self._covered = Head("", 0, "")

    def seal_audit_records(self) -> int:
        """Seal the stored records; return their number.

        Raises:
            sqlalchemy.exc.SQLAlchemyError: the database cannot answer.
        """
        return seal_records(self._database, self._clock())

    def write_audit_checkpoint(self) -> bool:
        """Sign and record the heads if one of them moved; return whether it did.

        Raises:
            KeysError: nothing can be signed now.
            AuditUnavailable: the checkpoint cannot be recorded.
            sqlalchemy.exc.SQLAlchemyError: the database cannot answer.
        """
        head = self._sink.head
        with self._database.reading() as session:
            block = _latest_block(session)
            others = self._find_others(session, head.writer)
        if not self._has_moved(head) and not others and (block is None or block.signature):
            return False
        signed = self._sign(self._payload(head, block, others))
        self._notify(
            AuditCheckpoint(
                kid=signed.kid, backend_request_id=signed.request_id, checkpoint=signed.token
            )
        )
        self._covered = head
        self._store(signed.token, block, others)
        return True

    def close_audit_chain(self) -> None:
        """Record the end of the chain of this process, signed unless that may take long.

        Raises:
            KeysError: nothing can be signed now.
            AuditUnavailable: the checkpoint cannot be recorded.
            sqlalchemy.exc.SQLAlchemyError: the database cannot answer.
        """
        if not self._sink.head.sequence:
            return
        if self._may_wait():
            # A process of this node signs the head later.
            if self._has_moved(self._sink.head):
                record_head(self._database, self._sink.head, self._destination, self._clock())
            return
        self.seal_audit_records()
        self.write_audit_checkpoint()

    def _has_moved(self, head: Head) -> bool:
        """Return whether there are records besides the latest checkpoint."""
        same = head.writer == self._covered.writer
        return head.sequence > (self._covered.sequence + 1 if same else 0)

    def _payload(self, head: Head, block: _Block | None, others: Sequence[Head]) -> bytes:
        now = self._clock()
        payload: dict[str, Any] = {
            "iss": self._issuer,
            "iat": int(now.timestamp()),
            "node": socket.gethostname(),
            "writer": head.writer,
            "sequence": head.sequence,
            "hash": head.hash,
            "writers": {each.writer: [each.sequence, each.hash] for each in others},
            "block": None if block is None else {"number": block.number, "hash": block.hash},
        }
        if self._keep_days:
            # Older records may be missing.
            payload["kept_since"] = int((now - timedelta(days=self._keep_days)).timestamp())
        return _encode(payload)

    def _find_others(self, session: Session, own: str) -> list[Head]:
        """Return the heads of writers of this node that no checkpoint names, such as commands."""
        query = (
            select(AuditWriter.writer, AuditWriter.sequence, AuditWriter.hash)
            .where(
                AuditWriter.node == socket.gethostname(),
                AuditWriter.destination == place_of(self._destination),
                AuditWriter.checkpoint.is_(None),
                AuditWriter.writer != own,
            )
            .order_by(AuditWriter.at)
            .limit(_OTHER_WRITERS)
        )
        return [Head(*each) for each in session.execute(query)]

    def _store(self, checkpoint: str, block: _Block | None, others: Sequence[Head]) -> None:
        record_head(
            self._database,
            self._sink.head,  # with the checkpoint's record
            self._destination,
            self._clock(),
            checkpoint=checkpoint,
        )
        with self._database.transaction() as session:
            for each in others:
                same = (AuditWriter.writer == each.writer, AuditWriter.sequence == each.sequence)
                session.execute(update(AuditWriter).where(*same).values(checkpoint=checkpoint))
            if block is not None and block.signature is None:
                session.execute(
                    update(AuditBlock)
                    .where(AuditBlock.number == block.number, AuditBlock.signature.is_(None))
                    .values(signature=checkpoint)
                )


def record_head(
    database: Database,
    head: Head,
    destination: str,
    now: datetime,
    *,
    checkpoint: str | None = None,
) -> None:
    """Store the head of this process's chain, so that the end of the audit log cannot be cut off.

    Args:
        database: holds the heads.
        head: the latest record of this process.
        destination: the destination of its sink in the settings.
        now: the present time.
        checkpoint: the checkpoint that names the writer; None: a later one is to name it.

    Raises:
        sqlalchemy.exc.SQLAlchemyError: the database cannot answer.
    """
    values: Mapping[str, Any] = {
        "node": socket.gethostname(),
        "destination": place_of(destination),
        "sequence": head.sequence,
        "hash": head.hash,
        "at": now,
        "checkpoint": checkpoint,
    }
    with database.transaction() as session:
        statement = insert_into(session, AuditWriter).values(writer=head.writer, **values)
        session.execute(
            statement.on_conflict_do_update(
                index_elements=[AuditWriter.writer],
                set_=values,
                where=AuditWriter.sequence <= head.sequence,
            )
        )


def place_of(destination: str) -> str:
    """Return the absolute path of a destination; a stream is returned unchanged."""
    return destination if destination in STREAMS else str(Path(destination).resolve())[:500]


def _latest_block(session: Session) -> _Block | None:
    query = select(AuditBlock.number, AuditBlock.hash, AuditBlock.signature)
    found = session.execute(query.order_by(AuditBlock.number.desc()).limit(1)).first()
    return None if found is None else _Block(*found)
