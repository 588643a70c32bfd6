"""Verify the audit trail: stored records, files and key events."""

import codecs
import socket
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from authz_server.assembly import Services
from authz_server.audit.block_check import BlockCheck, BlockResult
from authz_server.audit.chain import Head
from authz_server.audit.checkpoints import place_of
from authz_server.audit.findings import Checkpoint, CheckpointReader, Finding
from authz_server.audit.line_check import KnownHead, LineCheck, LineResult
from authz_server.audit.models import AuditWriter
from authz_server.errors import OperatorError
from authz_server.key_rings.event_log import verify_event_chain
from authz_server.key_rings.models import KeyRing, SigningKeyRow
from authz_server.operations.audit.files import find_audit_files, opened_lines, within_time
from keys.errors import KeysError, TokenRefusedError
from keys.jose.algorithms import get_algorithm
from keys.jose.compact import parse_json_object
from keys.jose.jwk import PUBLIC_MEMBERS, load_public_key
from keys.jose.signatures import make_verifier

_Verifier = Callable[[bytes, bytes], None]


class KeySetUnreadableError(OperatorError):
    """A file with a key set cannot be used."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditVerification:
    """The result of a verification of the audit trail.

    Attributes:
        intact: whether nothing was found.
        findings: the places that are not intact; the first of the files, of the stored records and
            of the key events come first.
        files: the files that were checked, in their order.
        lines: the result for the files; None: there are none.
        stored: the result for the stored records; None: they were not checked.
        checkpoints: the number of verified checkpoints.
        unknown_keys: the number of checkpoints whose key is not known.
    """

    intact: bool
    findings: tuple[Finding, ...]
    files: tuple[str, ...]
    lines: LineResult | None
    stored: BlockResult | None
    checkpoints: int
    unknown_keys: int


def verify_audit(
    services: Services, files: Sequence[Path] = (), jwks: Sequence[Path] = ()
) -> AuditVerification:
    """Verify the stored records and the files of audit records.

    Args:
        services: the parts of the server.
        files: the files, the oldest first; empty: those of the settings, with the rotated ones.
        jwks: key sets to verify checkpoints with in addition to the keys in the database.

    Raises:
        KeySetUnreadableError: a key set cannot be used.
        OSError: a file cannot be read.
        ReadingTooLongError: the time limit has passed.
        sqlalchemy.exc.SQLAlchemyError: the database cannot answer.
    """
    settings = services.settings
    now = services.clock()
    own = find_audit_files(settings.audit.destination)
    paths = tuple(files) or own
    with services.database.reading() as session:
        reader = _reader([*_stored_keys(session), *_keys_in(jwks)])
        keep_days = settings.audit.keep_days
        kept_since = now - timedelta(days=keep_days) if keep_days else None
        blocks = BlockCheck(session, reader, kept_since=kept_since, now=now)
        # The heads first: the files are written before their heads are stored.
        known = _known_heads(session, settings.audit.destination, is_own=paths == own)
        signed = [*_stored_checkpoints(session, reader), *blocks.read_checkpoints()]
        check = _check_files(paths, reader, [*known, *_latest_heads(signed)])
        stored = blocks.run([*signed, *check.checkpoints])
        events = _check_key_events(session)
    return _result(paths, reader, check, stored, events)


def verify_files(files: Sequence[Path], jwks: Sequence[Path]) -> AuditVerification:
    """Verify files of audit records without a database, with the keys of key sets.

    Args:
        files: the files, the oldest first.
        jwks: the key sets.

    Raises:
        KeySetUnreadableError: a key set cannot be used.
        OSError: a file cannot be read.
    """
    reader = _reader(_keys_in(jwks))
    return _result(files, reader, _check_files(files, reader, ()), None, ())


def _result(
    paths: Sequence[Path],
    reader: CheckpointReader,
    check: LineCheck,
    stored: BlockResult | None,
    events: Sequence[Finding],
) -> AuditVerification:
    lines = check.finish() if paths else None
    findings = (
        *(lines.findings if lines is not None else ()),
        *(stored.findings if stored is not None else ()),
        *events,
    )
    return AuditVerification(
        intact=not findings,
        findings=findings,
        files=tuple(map(str, paths)),
        lines=lines,
        stored=stored,
        checkpoints=reader.verified,
        unknown_keys=reader.unknown,
    )


def _check_files(
    paths: Sequence[Path], reader: CheckpointReader, known: Sequence[KnownHead]
) -> LineCheck:
    check = LineCheck(reader, known)
    for path in paths:
        with opened_lines(path) as file:
            check.add(str(path), within_time(file))
    return check


def _known_heads(session: Session, destination: str, *, is_own: bool) -> list[KnownHead]:
    here = (socket.gethostname(), place_of(destination))
    return [
        KnownHead(
            head=Head(row.writer, row.sequence, row.hash),
            source="the database",
            at=row.at if is_own and (row.node, row.destination) == here else None,
        )
        for row in session.scalars(select(AuditWriter))
    ]


def _latest_heads(checkpoints: Iterable[tuple[str, Checkpoint]]) -> Iterable[KnownHead]:
    """Return the latest signed record of each writer, which no one without a key can alter."""
    latest: dict[str, KnownHead] = {}
    for place, checkpoint in checkpoints:
        for head in checkpoint.heads:
            known = latest.get(head.writer)
            if known is None or known.head.sequence < head.sequence:
                latest[head.writer] = KnownHead(head=head, source=place)
    return latest.values()


def _stored_checkpoints(session: Session, reader: CheckpointReader) -> list[tuple[str, Checkpoint]]:
    found = []
    query = select(AuditWriter.writer, AuditWriter.checkpoint)
    for writer, token in session.execute(query.where(AuditWriter.checkpoint.is_not(None))):
        try:
            checkpoint = reader.read(token or "")
        except KeysError:
            continue  # the files and the blocks have their own
        if checkpoint is not None:
            found.append((f"the checkpoint of the writer {writer}", checkpoint))
    return found


def _check_key_events(session: Session) -> list[Finding]:
    found = []
    for ring in session.scalars(select(KeyRing.name).order_by(KeyRing.name)):
        event_id = verify_event_chain(session, ring)
        if event_id is not None:
            found.append(
                Finding(
                    fault="changed",
                    place=f"key event {event_id}",
                    detail=f"the chain of the ring {ring} is not intact there",
                )
            )
    return found


def _reader(keys: Sequence[tuple[str, Mapping[str, Any], str]]) -> CheckpointReader:
    known = {kid: (jwk, alg) for kid, jwk, alg in keys}
    verifiers: dict[str, _Verifier] = {}

    def find(kid: str) -> _Verifier | None:
        if kid not in verifiers and kid in known:
            jwk, alg = known[kid]
            members = {name: jwk.get(name, "") for name in PUBLIC_MEMBERS[jwk["kty"]]}
            with suppress(KeysError):  # the key of a file that cannot be used
                verifiers[kid] = make_verifier(load_public_key(members, alg), get_algorithm(alg))
        return verifiers.get(kid)

    return CheckpointReader(find)


def _stored_keys(session: Session) -> list[tuple[str, Mapping[str, Any], str]]:
    query = select(SigningKeyRow.kid, SigningKeyRow.public_jwk, SigningKeyRow.alg)
    return [(kid, jwk, alg) for kid, jwk, alg in session.execute(query)]


def _keys_in(paths: Sequence[Path]) -> list[tuple[str, Mapping[str, Any], str]]:
    found: list[tuple[str, Mapping[str, Any], str]] = []
    for path in paths:
        try:
            content = path.read_bytes().removeprefix(codecs.BOM_UTF8)
            found.extend(
                (str(jwk["kid"]), jwk, str(jwk["alg"]))
                for jwk in parse_json_object(content)["keys"]
                if jwk["kty"] in PUBLIC_MEMBERS and "alg" in jwk
            )
        except (TokenRefusedError, TypeError, KeyError) as error:
            raise KeySetUnreadableError(f"{path} is not a JWK set (RFC 7517).") from error
    return found
